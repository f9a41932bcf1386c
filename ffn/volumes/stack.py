"""Stacks of slices: a folder or glob of PNG or TIFF files in natural order, or one TIFF of many pages."""

import glob
import re
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from PIL import Image, UnidentifiedImageError

from ffn.errors import VolumeError
from ffn.geometry import Box
from ffn.volumes.base import Volume
from ffn.volumes.slices import SliceCache

TIFF = (".tif", ".tiff")
SUFFIXES = (".png", *TIFF)
# The type of a decoded PNG by Pillow's mode; modes that are not here are colour or have transparency.
_PNG_TYPES = {"1": np.bool_, "L": np.uint8, "I;16": np.uint16, "I": np.int32}


def natural_key(name: str) -> list[tuple[int, int, str]]:
    """Sort key that puts `slice_10` after `slice_9`."""
    parts = re.findall(r"\d+|\D+", name)
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in parts]


def open_stack(uri: str) -> Volume:
    """Open a folder of images, a glob such as `folder/*.png`, or a single PNG or TIFF."""
    path = Path(uri)
    if path.is_file() and path.suffix.lower() in TIFF:
        return PagedTiff(uri, path)
    files = _image_files(uri, path)
    suffixes = {"TIFF" if file.suffix.lower() in TIFF else "PNG" for file in files}
    if len(suffixes) > 1:
        raise VolumeError(f"{uri} holds PNG and TIFF files: name one kind, such as {path / '*.png'}.")
    return SliceStack(uri, files)


def _image_files(uri: str, path: Path) -> list[Path]:
    if path.is_dir():
        found = [p for p in path.iterdir() if p.suffix.lower() in SUFFIXES and not p.name.startswith(".")]
        if not found:
            raise VolumeError(f"{uri} is a folder without images; expected PNG or TIFF slices, or a precomputed layer.")
    else:
        found = [Path(name) for name in glob.glob(uri)]  # noqa: PTH207 - a pattern may be absolute
        if not found and not glob.has_magic(uri):
            raise VolumeError(f"There is no file {uri}.")
        if not found:
            raise VolumeError(f"No file matches {uri}.")
        others = [p for p in found if p.suffix.lower() not in SUFFIXES or not p.is_file()]
        if others:
            raise VolumeError(f"{uri} matches {others[0]}, which is not a PNG or TIFF file; make the pattern narrower.")
    return sorted(found, key=lambda p: natural_key(str(p)))


class _Slices(Volume):
    """Common to stacks: slices are decoded whole and the last ones are kept."""

    def __init__(self, uri: str, shape: tuple[int, ...], dtype: Any) -> None:
        super().__init__(uri, shape, dtype, None, (1, *shape[1:]) if len(shape) == 3 else None)
        self._slices = SliceCache(self._checked)

    @abstractmethod
    def _decode(self, index: int) -> np.ndarray:
        """The slice as stored, [y, x]."""

    def _checked(self, index: int) -> np.ndarray:
        with _damage_reported(f"slice {index} of {self.uri}"):
            return self._decode(index)

    def _read(self, box: Box) -> np.ndarray:
        rows, columns = box.slices[1:]
        out = np.empty(box.shape, self.dtype)
        for at, index in enumerate(range(box.start[0], box.stop[0])):
            out[at] = self._slices[index][rows, columns]
        return out


class SliceStack(_Slices):
    """One file a slice, all of one size and type. The headers of all files are read on opening."""

    def __init__(self, uri: str, files: Sequence[Path]) -> None:
        self._files = list(files)
        first = _header(self._files[0])
        for file in self._files[1:]:
            other = _header(file)
            if other != first:
                raise VolumeError(
                    f"{uri}: {file.name} is {_described(other)}, but {self._files[0].name} is {_described(first)}; "
                    "all slices of a stack must be alike."
                )
        shape, dtype = first
        super().__init__(uri, (len(self._files), *shape), dtype)

    def _decode(self, index: int) -> np.ndarray:
        file = self._files[index]
        if file.suffix.lower() in TIFF:
            return tifffile.imread(file)
        with Image.open(file) as image:
            return np.asarray(image)


def _header(file: Path) -> tuple[tuple[int, ...], np.dtype]:
    with _damage_reported(str(file)):
        if file.suffix.lower() in TIFF:
            with tifffile.TiffFile(file) as tiff:
                page = tiff.pages.first
                if len(tiff.pages) > 1:
                    raise VolumeError(f"{file} has {len(tiff.pages)} pages; in a stack of files each has one slice.")
                shape, dtype = page.shape, page.dtype
        else:
            with Image.open(file) as image:
                if image.mode not in _PNG_TYPES:
                    raise VolumeError(f"{file} is a colour image ({image.mode}); convert the stack to grey values.")
                shape, dtype = (image.height, image.width), _PNG_TYPES[image.mode]
    if len(shape) != 2 or dtype is None:
        raise VolumeError(f"{file} is a colour image (shape {shape}); convert the stack to grey values.")
    return tuple(shape), np.dtype(dtype)


def _described(header: tuple[tuple[int, ...], np.dtype]) -> str:
    (height, width), dtype = header
    return f"{height} x {width} {dtype}"


class PagedTiff(_Slices):
    """A TIFF whose pages are the slices; uncompressed files are mapped into memory."""

    def __init__(self, uri: str, path: Path) -> None:
        with _damage_reported(uri):
            self._tiff = tifffile.TiffFile(path)
            series = self._tiff.series[0]
        if series.axes.endswith("S"):
            raise VolumeError(f"{uri} is a colour image (shape {series.shape}); convert it to grey values.")
        shape = (1, *series.shape) if series.ndim == 2 else series.shape
        # ImageJ writes large stacks as one long run of voxels behind a single page.
        self._mapped = (
            tifffile.memmap(path, mode="r").reshape(shape) if series.dataoffset is not None and series.size else None
        )
        self._pages = series.pages
        super().__init__(uri, shape, series.dtype)
        if self._mapped is None and len(self._pages) != self.shape[0]:
            pages = len(self._pages)
            raise VolumeError(f"{uri} has {pages} pages for {self.shape[0]} slices; save it with one page a slice.")

    def _decode(self, index: int) -> np.ndarray:
        if self._mapped is not None:
            return np.asarray(self._mapped[index])
        return np.asarray(self._pages[index].asarray())

    def close(self) -> None:
        self._tiff.close()


@contextmanager
def _damage_reported(what: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise VolumeError(f"{what} is no longer there ({error.filename}).") from error
    except (UnidentifiedImageError, tifffile.TiffFileError, OSError, SyntaxError, ValueError) as error:
        raise VolumeError(f"{what} is damaged or not an image ({error}); copy or download it again.") from error
