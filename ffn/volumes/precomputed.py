"""Neuroglancer precomputed layers, local or by URL, read through cloud-volume. Its axes are xyz, turned here."""

import json
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np

from ffn.errors import VolumeError
from ffn.geometry import Box
from ffn.volumes.base import Volume

SCHEME = "precomputed://"
TIMEOUT_S = 30.0


def open_precomputed(uri: str) -> Volume:
    """Open `precomputed://https://...`, `precomputed://file:///...`, gs:// or s3://, or a folder that holds `info`.

    Index 0,0,0 is the layer's first voxel whatever its voxel offset. Chunks that do not exist read as 0, as in
    Neuroglancer.
    """
    address = uri.removeprefix(SCHEME)
    if "://" not in address:
        address = f"file://{Path(address).resolve()}"
    _require_info(uri, address)
    # Takes a second to import, and only this format needs it.
    from cloudvolume import CloudVolume

    try:
        layer = CloudVolume(SCHEME + address, progress=False, fill_missing=True, bounded=True)
    except Exception as error:  # cloud-volume and its storage backends have no common base of errors
        raise VolumeError(f"{uri} cannot be opened as a precomputed layer: {_first_line(error)}.") from error
    return PrecomputedVolume(uri, layer)


def _require_info(uri: str, address: str) -> None:
    """Fail at once where `info` is missing or out of reach: cloud-volume would try again for many seconds."""
    if address.startswith("file://"):
        info = Path(address.removeprefix("file://")) / "info"
        if not info.is_file():
            raise VolumeError(f"{uri} is not a precomputed layer: there is no file {info}.")
        return
    if not address.startswith(("http://", "https://")):
        return
    try:
        with urllib.request.urlopen(f"{address.rstrip('/')}/info", timeout=TIMEOUT_S) as answer:
            json.load(answer)
    except urllib.error.HTTPError as error:
        raise VolumeError(f"{uri}: the server answers {error.code} {error.reason} for its info file.") from error
    except (urllib.error.URLError, OSError) as error:
        raise VolumeError(f"{uri} cannot be reached: {getattr(error, 'reason', error)}.") from error
    except ValueError as error:
        raise VolumeError(f"{uri}: what the server sends as info is not a precomputed layer.") from error


def _first_line(error: Exception) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0].rstrip(".")


class PrecomputedVolume(Volume):
    """The finest level of a one-channel layer."""

    def __init__(self, uri: str, layer: Any) -> None:
        if layer.num_channels != 1:
            raise VolumeError(f"{uri} has {layer.num_channels} channels; expected one.")
        self._layer = layer
        self._offset_xyz = [int(n) for n in layer.voxel_offset]
        shape = tuple(int(n) for n in reversed(layer.volume_size))
        z, y, x = (float(n) for n in reversed(layer.resolution))
        chunk = tuple(int(n) for n in reversed(layer.chunk_size))
        super().__init__(uri, shape, layer.dtype, (z, y, x), chunk)  # type: ignore[arg-type]

    def _read(self, box: Box) -> np.ndarray:
        xyz = tuple(
            slice(part.start + offset, part.stop + offset)
            for part, offset in zip(reversed(box.slices), self._offset_xyz, strict=True)
        )
        try:
            cutout = np.asarray(self._layer[xyz])
        except Exception as error:  # as above
            raise VolumeError(f"{self.uri} cannot be read at {box}: {_first_line(error)}.") from error
        return np.ascontiguousarray(cutout[..., 0].T)
