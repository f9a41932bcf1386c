"""What all tests share."""

import os
import signal
from pathlib import Path

import pytest

# In a background job of a shell SIGINT is ignored, and children inherit that; tests that interrupt them need it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Folder with real EM data; tests that need it are skipped where it is absent."""
    folder = Path(os.environ.get("FFN_TEST_DATA", ROOT / "../shared/data")).resolve()
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}: set FFN_TEST_DATA to a folder with it (docs/guides/testing.md)")
    return folder
