"""A headless Chromium that draws WebGL in software and can reach nothing but this machine."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service

WINDOW = (1400, 900)


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Chrome]:
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("no headless browser: install Debian's chromium and chromium-driver (docs/guides/testing.md)")
    options = ChromeOptions()
    options.binary_location = chromium
    for argument in (
        "headless=new",
        "no-sandbox",
        "disable-dev-shm-usage",
        "use-angle=swiftshader",
        "enable-unsafe-swiftshader",
        "disable-background-networking",
        "disable-component-update",
        "no-first-run",
        "hide-scrollbars",
        f"user-data-dir={tmp_path / 'profile'}",
        f"window-size={WINDOW[0]},{WINDOW[1]}",
        "host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
    ):
        options.add_argument(f"--{argument}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    chrome = Chrome(options=options, service=Service(driver))
    chrome.set_script_timeout(120)
    yield chrome
    chrome.quit()
