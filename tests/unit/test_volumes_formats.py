"""One array in every format: `open_volume` reads the same voxels from all of them."""

import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile
import zarr
from cloudvolume import CloudVolume
from PIL import Image

from ffn.cli import main
from ffn.errors import GeometryError, VolumeError
from ffn.geometry import Box
from ffn.volumes import create_hdf5, open_volume

SHAPE = (11, 20, 30)
VALUES = np.random.default_rng(5).integers(0, 256, SHAPE, dtype=np.uint8)


def hdf5(folder: Path) -> str:
    with h5py.File(folder / "a.h5", "w") as file:
        file.create_dataset("volumes/raw", data=VALUES, chunks=(4, 8, 8))
    return f"{folder}/a.h5:volumes/raw"


def own_hdf5(folder: Path) -> str:
    with create_hdf5(folder / "own.h5", "image", SHAPE, np.uint8, (8, 8, 8)) as volume:
        volume.write(Box.of_shape(SHAPE), VALUES)
    return f"{folder}/own.h5"


def png_folder(folder: Path) -> str:
    for z, values in enumerate(VALUES):
        Image.fromarray(values).save(folder / f"slice_{z}.png")
    (folder / "notes.txt").write_text("not a slice")
    return str(folder)


def png_glob(folder: Path) -> str:
    return f"{png_folder(folder)}/slice_*.png"


def tiff_folder(folder: Path) -> str:
    for z, values in enumerate(VALUES):
        tifffile.imwrite(folder / f"slice_{z}.tif", values, compression="zlib")
    return str(folder)


def tiff_pages(folder: Path, **options: object) -> str:
    tifffile.imwrite(folder / "a.tif", VALUES, **options)
    return f"{folder}/a.tif"


def zarr_array(folder: Path, version: int) -> str:
    group = zarr.open_group(folder / "a.zarr", mode="w", zarr_format=version)
    group.create_array("raw", data=VALUES, chunks=(4, 8, 8))
    return f"{folder}/a.zarr/raw"


def precomputed(folder: Path) -> str:
    info = CloudVolume.create_new_info(
        1, "image", "uint8", "raw", (10, 9, 8), voxel_offset=(7, 5, 3), volume_size=SHAPE[::-1], chunk_size=(16, 8, 4)
    )
    layer = CloudVolume(f"file://{folder}", info=info, compress=False, progress=False)
    layer.commit_info()
    layer[:, :, :] = VALUES.T
    return f"precomputed://file://{folder}"


def precomputed_folder(folder: Path) -> str:
    return precomputed(folder).removeprefix("precomputed://file://")


FORMATS: dict[str, Callable[[Path], str]] = {
    "hdf5": hdf5,
    "own hdf5, dataset not named": own_hdf5,
    "png folder": png_folder,
    "png glob": png_glob,
    "tiff folder": tiff_folder,
    "tiff pages": tiff_pages,
    "tiff pages compressed": partial(tiff_pages, compression="zlib"),
    "tiff of ImageJ": partial(tiff_pages, imagej=True),
    "tiff with one header": partial(tiff_pages, truncate=True),
    "zarr 2": partial(zarr_array, version=2),
    "zarr 3": partial(zarr_array, version=3),
    "precomputed": precomputed,
    "precomputed folder": precomputed_folder,
}


@pytest.fixture(params=list(FORMATS))
def uri(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return FORMATS[request.param](tmp_path)


def test_every_format_reads_the_same_voxels(uri: str) -> None:
    with open_volume(uri) as volume:
        assert volume.shape == SHAPE
        assert volume.dtype == np.uint8
        np.testing.assert_array_equal(volume[...], VALUES)
        np.testing.assert_array_equal(volume[3:9:2, 7, ::-4], VALUES[3:9:2, 7, ::-4])
        np.testing.assert_array_equal(volume.read(Box((10, 0, 3), (11, 20, 5))), VALUES[10:11, :, 3:5])


def test_every_format_can_be_opened_with_a_box(uri: str) -> None:
    box = Box((2, 5, 7), (10, 20, 29))
    with open_volume(uri, box=box, voxel_size=(30.0, 6.0, 5.0)) as volume:
        assert volume.voxel_size == (30.0, 6.0, 5.0)
        assert volume.bounds == box
        np.testing.assert_array_equal(volume[...], VALUES[box.slices])
    with pytest.raises(GeometryError, match="11 x 20 x 30"):
        open_volume(uri, box=Box((0, 0, 0), (12, 20, 30)))


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(tmp_path))) as service:
        thread = threading.Thread(target=service.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{service.server_port}"
        service.shutdown()
        thread.join()


def test_precomputed_by_url(server: str, tmp_path: Path) -> None:
    folder = tmp_path / "layer"
    precomputed(folder)
    volume = open_volume(f"precomputed://{server}/layer")
    assert volume.shape == SHAPE
    assert volume.voxel_size == (8.0, 9.0, 10.0)
    assert volume.chunk == (4, 8, 16)
    np.testing.assert_array_equal(volume[2:9, 3:17, 20:], VALUES[2:9, 3:17, 20:])


def test_missing_chunks_are_background(tmp_path: Path) -> None:
    precomputed(tmp_path)
    next((tmp_path / "10_9_8").glob("7-*_5-*_3-*")).unlink()
    volume = open_volume(str(tmp_path))
    assert not volume[:4, :8, :16].any()
    np.testing.assert_array_equal(volume[4:], VALUES[4:])


def test_unreachable_and_wrong_urls_are_told_at_once(server: str, tmp_path: Path) -> None:
    (tmp_path / "info").write_text("<html>")
    with pytest.raises(VolumeError, match="answers 404"):
        open_volume(f"precomputed://{server}/nothing")
    with pytest.raises(VolumeError, match="not a precomputed layer"):
        open_volume(f"precomputed://{server}")
    with pytest.raises(VolumeError, match="cannot be reached"):
        open_volume("precomputed://http://127.0.0.1:9/layer")
    with pytest.raises(VolumeError, match="no file /nowhere/info"):
        open_volume("precomputed://file:///nowhere")
    (tmp_path / "info").write_text("{}")
    with pytest.raises(VolumeError, match="cannot be opened"):
        open_volume(str(tmp_path))


@pytest.mark.parametrize("uri", ["raw", "volume.mat:raw", "ftp://host/x.png", "volume.n5", "raw:"])
def test_unreadable_forms_show_the_forms_expected(uri: str) -> None:
    with pytest.raises(VolumeError, match=r"(?s)expected one of.*file\.h5:dataset.*\.zarr.*precomputed://"):
        open_volume(uri)


def test_a_file_of_unknown_format_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.raw").write_bytes(b"12345")
    with pytest.raises(VolumeError, match="no format this workflow can read"):
        open_volume(f"{tmp_path}/a.raw")


def test_info_tells_what_is_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", own_hdf5(tmp_path), "--box", "0:4,0:20,0:30"]) == 0
    told = capsys.readouterr().out
    for fact in ("4 x 20 x 30 voxels", "uint8", "8 x 8 x 8 nm", f"{VALUES[:4].min()} to {VALUES[:4].max()}"):
        assert fact in told
    assert f"{VALUES[:4].mean():.2f}" in told


def test_info_on_nothing_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", f"{tmp_path}/none.h5:raw"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == f"ffn: error: There is no file {tmp_path}/none.h5.\n"


def test_one_channel_of_several(tmp_path: Path) -> None:
    both = np.stack([VALUES, 255 - VALUES])
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("shift", data=both, chunks=(1, 4, 8, 8))
        file["other"] = VALUES
    zarr.save_array(tmp_path / "a.zarr", both)
    for uri in (f"{tmp_path}/a.h5:shift", f"{tmp_path}/a.h5", f"{tmp_path}/a.zarr"):
        for channel in (0, 1):
            with open_volume(uri, channel=channel) as volume:
                assert volume.shape == SHAPE
                np.testing.assert_array_equal(volume[2:5, ::3, 7], both[channel][2:5, ::3, 7])
        with pytest.raises(
            VolumeError, match=r"has shape \(2, 11, 20, 30\); expected four axes c,z,y,x with a channel 2"
        ):
            open_volume(uri, channel=2)
    assert open_volume(f"{tmp_path}/a.h5:shift", channel=0).chunk == (4, 8, 8)
    with pytest.raises(VolumeError, match=r"has shape \(11, 20, 30\); expected four axes"):
        open_volume(f"{tmp_path}/a.h5:other", channel=0)


def test_other_formats_have_no_channels(tmp_path: Path) -> None:
    with pytest.raises(VolumeError, match=r"channels can be read from HDF5 datasets and zarr arrays"):
        open_volume(png_folder(tmp_path), channel=0)
