"""What a person sees after `ffn view`: Neuroglancer with the image and the segmentation over it, without internet."""

import io
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from exported import make_run
from PIL import Image
from selenium.webdriver import Chrome
from selenium.webdriver.support.ui import WebDriverWait

from ffn.export import export_run
from ffn.geometry import Box
from ffn.runs import RunPaths

pytestmark = pytest.mark.slow

READY = "return window.viewer?.layerManager.managedLayers.length === 3 && viewer.isReady();"
DRAW = "viewer.display.draw();"
RESOURCES = "return performance.getEntriesByType('resource').map(entry => entry.name);"
SHOW = "viewer.layerManager.getLayerByName(arguments[0]).setVisible(arguments[1]);"
MESSAGES = """return Array.from(document.querySelectorAll('#neuroglancer-status-container li'))
    .filter(element => element.style.display !== 'none').map(element => element.textContent);"""


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    shape = (96, 128, 128)
    config = make_run(tmp_path_factory.mktemp("browser"), shape, Box((7, 4, 5), (95, 124, 125)))
    export_run(config)
    command = [sys.executable, "-m", "ffn", "view", str(RunPaths.of(config).root), "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    first = process.stdout.readline()
    yield first.removeprefix("Open ").split(" ")[0]
    process.send_signal(signal.SIGINT)
    rest, _ = process.communicate(timeout=30)
    assert rest.endswith("Stopped.\n")
    assert process.returncode == 0


def picture(browser: Chrome) -> np.ndarray:
    """What the window shows once everything in sight is loaded and drawn, uint8 [height, width, 3]."""
    WebDriverWait(browser, 120).until(lambda driver: driver.execute_script(READY))
    browser.execute_script(DRAW)
    return np.asarray(Image.open(io.BytesIO(browser.get_screenshot_as_png())).convert("RGB"))


def panel(shown: np.ndarray) -> np.ndarray:
    """A square in the middle of the xy panel, upper left, inside the yellow frame around the data."""
    y, x = int(0.3 * shown.shape[0]), shown.shape[1] // 4
    half = shown.shape[0] // 9
    return shown[y - half : y + half, x - half : x + half].astype(int)


def saturation(pixels: np.ndarray) -> np.ndarray:
    return pixels.max(-1) - pixels.min(-1)


def test_image_and_segmentation_are_visible(browser: Chrome, address: str, tmp_path: Path) -> None:
    browser.get(address)
    both = picture(browser)
    Image.fromarray(both).save(tmp_path / "both.png")
    assert browser.title.startswith("small")
    colours = panel(both)
    assert np.mean(saturation(colours) > 30) > 0.3, "no segmentation colours"
    hues = np.unique(colours[saturation(colours) > 30] // 64, axis=0)
    assert len(hues) >= 5, "the segments have one colour"

    browser.execute_script(SHOW, "segmentation", False)
    image = panel(picture(browser))
    assert saturation(image).max() < 10, "the image is not grey"
    assert image.std() > 25, "the image is blank"
    assert np.ptp(image) > 150, "the image has no contrast"

    browser.execute_script(SHOW, "truth", True)
    truth = panel(picture(browser))
    assert np.mean(saturation(truth) > 30) > 0.3, "no ground truth colours"

    outside = [name for name in browser.execute_script(RESOURCES) if not name.startswith((address, "blob:", "data:"))]
    assert outside == []
    WebDriverWait(browser, 60).until(lambda driver: driver.execute_script(MESSAGES) == [], "a message stays on screen")
    assert [entry["message"] for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []
