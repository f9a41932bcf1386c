"""Stacks of slices: order, laziness, bounded memory, and every folder that is no volume."""

from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from ffn.errors import VolumeError
from ffn.volumes import open_volume
from ffn.volumes.slices import SliceCache
from ffn.volumes.stack import natural_key


def flat(value: int, shape: tuple[int, int] = (3, 4), dtype: type = np.uint8) -> np.ndarray:
    return np.full(shape, value, dtype)


def save(path: Path, values: np.ndarray) -> None:
    Image.fromarray(values).save(path)


def test_natural_order() -> None:
    names = ["s10.png", "s9.png", "s009b.png", "s1.png", "a/s2.png", "3.png"]
    assert sorted(names, key=natural_key) == ["3.png", "a/s2.png", "s1.png", "s9.png", "s009b.png", "s10.png"]


@pytest.mark.parametrize("suffix", ["png", "tif", "TIFF"])
def test_slices_follow_their_numbers(tmp_path: Path, suffix: str) -> None:
    for number in (8, 9, 10, 11, 100):
        path = tmp_path / f"iso.{number}.{suffix}"
        (save if suffix == "png" else tifffile.imwrite)(path, flat(number))
    (tmp_path / f"._iso.8.{suffix}").write_bytes(b"left by a Mac")
    for uri in (str(tmp_path), f"{tmp_path}/iso.*"):
        assert open_volume(uri)[:, 0, 0].tolist() == [8, 9, 10, 11, 100]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.bool_])
def test_grey_png_types(tmp_path: Path, dtype: type) -> None:
    values = flat(1, dtype=dtype)
    save(tmp_path / "0.png", values)
    volume = open_volume(f"{tmp_path}/0.png")
    assert volume.dtype == dtype
    assert volume.shape == (1, 3, 4)
    np.testing.assert_array_equal(volume[0], values)


def test_only_slices_that_are_needed_are_decoded(tmp_path: Path) -> None:
    for z in range(4):
        save(tmp_path / f"{z}.png", flat(z))
    volume = open_volume(str(tmp_path))
    (tmp_path / "3.png").unlink()
    (tmp_path / "0.png").write_bytes((tmp_path / "0.png").read_bytes()[:-30])
    assert volume[1:3, 0, 0].tolist() == [1, 2]
    with pytest.raises(VolumeError, match=r"slice 3 of .* is no longer there"):
        volume[3]
    with pytest.raises(VolumeError, match=r"slice 0 of .* is damaged"):
        volume[0]


def test_decoded_slices_are_kept_within_bounds() -> None:
    decoded = []

    def decode(index: int) -> np.ndarray:
        decoded.append(index)
        return np.full(100, index, np.uint8)

    cache = SliceCache(decode, budget=250)
    for index in (0, 1, 0, 2, 0, 1):
        assert cache[index][0] == index
        assert cache.nbytes <= 250
    assert decoded == [0, 1, 2, 1]
    tiny = SliceCache(decode, budget=10)
    assert tiny[5][0] == 5
    assert tiny.nbytes == 100


def test_views_share_decoded_slices(tmp_path: Path) -> None:
    save(tmp_path / "0.png", flat(7))
    volume = open_volume(str(tmp_path))
    assert volume[0, 0, 0] == 7
    (tmp_path / "0.png").unlink()
    assert (volume[0] == 7).all()


def refusal(uri: Path | str) -> str:
    with pytest.raises(VolumeError) as caught:
        open_volume(str(uri))
    return str(caught.value)


def test_folders_that_are_no_stack(tmp_path: Path) -> None:
    assert "folder without images" in refusal(tmp_path)
    assert "No file matches" in refusal(f"{tmp_path}/*.png")
    assert "There is no file" in refusal(f"{tmp_path}/a.png")
    save(tmp_path / "0.png", flat(0))
    tifffile.imwrite(tmp_path / "1.tif", flat(1))
    assert "PNG and TIFF" in refusal(tmp_path)
    (tmp_path / "notes.txt").touch()
    assert "notes.txt, which is not a PNG or TIFF" in refusal(f"{tmp_path}/*")


def test_slices_must_be_alike(tmp_path: Path) -> None:
    save(tmp_path / "0.png", flat(0))
    save(tmp_path / "1.png", flat(0, (3, 5)))
    assert "1.png is 3 x 5 uint8, but 0.png is 3 x 4 uint8" in refusal(tmp_path)
    save(tmp_path / "1.png", flat(0, dtype=np.uint16))
    assert "1.png is 3 x 4 uint16, but 0.png" in refusal(tmp_path)


def test_colour_is_refused(tmp_path: Path) -> None:
    save(tmp_path / "rgb.png", np.zeros((3, 4, 3), np.uint8))
    Image.fromarray(flat(0)).convert("P").save(tmp_path / "palette.png")
    tifffile.imwrite(tmp_path / "rgb.tif", np.zeros((30, 40, 3), np.uint8), photometric="rgb")
    (tmp_path / "tiffs").mkdir()
    tifffile.imwrite(tmp_path / "tiffs/0.tif", np.zeros((30, 40, 3), np.uint8), photometric="rgb")
    for name in ("rgb.png", "palette.png", "rgb.tif", "tiffs"):
        assert "colour image" in refusal(tmp_path / name)


def test_files_that_are_no_images(tmp_path: Path) -> None:
    (tmp_path / "0.png").write_text("no image")
    (tmp_path / "0.tif").write_text("no image")
    for name in ("*.png", "0.tif", "*.tif"):
        assert "damaged or not an image" in refusal(tmp_path / name)


def test_pages_in_a_stack_of_files_are_refused(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "0.tif", np.zeros((5, 30, 40), np.uint8), photometric="minisblack")
    assert "0.tif has 5 pages" in refusal(f"{tmp_path}/*.tif")
    tifffile.imwrite(tmp_path / "4d.tif", np.zeros((2, 5, 30, 40), np.uint8))
    assert "has 4 dimensions" in refusal(tmp_path / "4d.tif")
    tifffile.imwrite(tmp_path / "deep.tif", np.zeros((8, 32, 32), np.uint8), volumetric=True, tile=(4, 16, 16))
    assert "one page a slice" in refusal(tmp_path / "deep.tif")
