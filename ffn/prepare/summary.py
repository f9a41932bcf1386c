"""The last steps of `ffn prepare`: seeds of all tiles in one list, and what was found."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ffn.blockwise import Result, Step
from ffn.errors import DataError
from ffn.files import atomic_path
from ffn.prepare.coordinates import CoordinateStream
from ffn.prepare.merge import Counted, merged
from ffn.prepare.seeds import peak_seeds
from ffn.prepare.units import VolumesReduce, VolumesTask
from ffn.prepare.volume import LabelledVolume
from ffn.progress import log

_SEED_BYTES = 24


class SeedTiles(VolumesTask):
    """The seeds of a tile: C-order indices of image voxels, ascending."""

    name = "seeds"
    unit = "voxels"

    def __init__(self, volumes: Sequence[LabelledVolume]) -> None:
        self._tiles = [volume.tiles for volume in volumes]
        super().__init__(volumes)
        self.unit_bytes = _SEED_BYTES * max((tile.voxels for tiles in self._tiles for tile in tiles), default=0)

    def units_of(self, volume: LabelledVolume) -> int:
        return len(volume.tiles)

    def size(self, unit: int) -> int:
        index, number = self.place(unit)
        return self._tiles[index][number].voxels

    def run(self, unit: int) -> Result:
        index, number = self.place(unit)
        volume, tile = self.volumes[index], self._tiles[index][number]
        network, image = volume.config.network, volume.fine_image
        grey = image.read(tile).astype(np.float32)
        grey = (grey - np.float32(network.image_mean)) / np.float32(network.image_stddev)
        seeds = peak_seeds(grey, network.fov_in_image_voxels, image.voxel_size or (1.0, 1.0, 1.0))
        z, y, x = (seeds + np.array(tile.start)).astype(np.uint64).T
        _, rows, columns = (np.uint64(size) for size in volume.image_shape)
        return Result({"seeds": (z * rows + y) * columns + x})


class Summary(VolumesReduce):
    """The file of each volume's seeds; its facts are those of the stage."""

    name = "summary"

    def __init__(self, volumes: Sequence[LabelledVolume], seeds: SeedTiles, before: Step, folder: Path) -> None:
        super().__init__(volumes)
        self.seeds, self.before, self.folder = seeds, before, folder

    def run(self, unit: int) -> Result:
        for volume in self.volumes:
            if volume.is_sampled:
                volume.store.remove_leftovers()
        return Result(facts={volume.key: self._facts(index, volume) for index, volume in enumerate(self.volumes)})

    def _facts(self, index: int, volume: LabelledVolume) -> dict[str, Any]:
        facts: dict[str, Any] = {"seeds": self._write_seeds(index, volume)} if volume.with_seeds else {}
        with CoordinateStream(volume.files.coordinates, volume.seed) as stream:
            facts["coordinates"] = {str(value): count for value, count in stream.counts.items()}
            if volume.is_sampled:
                facts["drawn_from"] = {str(value): count for value, count in stream.drawn_from.items()}
            facts["left_out"] = stream.left_out
            log(f"{volume.key}: {_told(stream.drawn_from, stream.counts, stream.left_out)}")
        return facts

    def _write_seeds(self, index: int, volume: LabelledVolume) -> int:
        ledger, written = self.before.complete(), 0

        def found() -> Iterator[Counted]:
            for unit in self.seeds.units_in(index):
                seeds = ledger[unit].columns()["seeds"]
                yield seeds, np.ones(len(seeds), np.int64)

        self.folder.mkdir(parents=True, exist_ok=True)
        with atomic_path(volume.files.seeds) as partial, partial.open("w", encoding="utf-8") as file:
            for seeds, _ in merged(found(), self.folder):
                rows = np.stack(np.unravel_index(seeds.astype(np.int64), volume.image_shape), axis=1)
                file.writelines(f"{z},{y},{x}\n" for z, y, x in rows.tolist())
                written += len(rows)
            if written == 0:
                raise DataError(
                    f"No seed was found in {volume.fine_image.uri}: no place inside the box is both away from edges "
                    "and far enough from the faces for the field of view. Check that the image is not constant and "
                    "that the box is right."
                )
        return written


def _told(centres: Mapping[int, int], listed: Mapping[int, int], left_out: Mapping[str, int]) -> str:
    """How many centres there are, and which part of the voxels is left out at each filter, of those that reach it."""
    reasons = {
        "outside": "too near the faces",
        "ignored": "without a class",
        "unlabelled": "unlabelled",
        "near_boundary": "within prepare.min_boundary_nm of another object",
    }
    kept = sum(centres.values())
    remaining, parts = kept + sum(left_out.values()), []
    for reason, words in reasons.items():
        if left_out[reason]:
            parts.append(f"{left_out[reason] / remaining:.1%} {words}")
            remaining -= left_out[reason]
    chosen = f", of which {sum(listed.values())} are drawn" if dict(listed) != dict(centres) else ""
    dropped = f" (left out, of the voxels that remain each time: {', '.join(parts)})" if parts else ""
    return f"{kept} centres of examples in {len(centres)} classes{chosen}{dropped}"
