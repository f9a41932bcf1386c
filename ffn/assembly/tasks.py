"""The steps of an assembly.

    overlaps   -> ids -> labels -> summary                          where nothing is split or dropped
    overlaps   -> ids -> pieces -> touching -> objects -> labels -> summary          else

`overlaps` counts, for a group of sub-volumes, what they share with later ones; `ids` makes global ids of it. A block of
the result is merged from the sub-volumes in `labels`. Where objects are split or dropped, `pieces` keeps what hangs
together in each block, `touching` which pieces of neighbouring blocks touch, `objects` finds what all of them make up.
"""

from collections.abc import Iterator
from functools import cached_property

import fastremap
import numpy as np
from numpy.typing import NDArray

from ffn.assembly.evidence import groups, read_evidence, write_evidence
from ffn.assembly.fill import Filling
from ffn.assembly.labelled import OpenLabels, StoredIds
from ffn.assembly.merge import merged_labels
from ffn.assembly.objects import joined_pieces, piece_offsets, renumbered_labels
from ffn.assembly.pieces import DenseNumbers, Ids, find_pieces, touching
from ffn.assembly.reconcile import Equivalences, equivalences_of
from ffn.assembly.spec import AssemblySpec
from ffn.blockwise import BlockTask, BlockwiseStage, Entry, Ledger, Reduce, Result, Step, Task
from ffn.errors import DataError
from ffn.files import atomic_path, write_json
from ffn.geometry import ZYX, Box, blocks
from ffn.stages import Stage
from ffn.volumes import Store, Volume, open_image, open_volume, shard_bytes

LISTED_PAIRS = 1000
_REMEDY = "Use fewer assembly.workers or a smaller assembly.block."


class Overlaps(Task):
    """The equivalences of a group of sub-volumes with later ones."""

    name, unit, remedy = "overlaps", "groups of sub-volumes", _REMEDY

    def __init__(self, spec: AssemblySpec) -> None:
        self._spec = spec

    def __len__(self) -> int:
        return len(groups(len(self._spec.tiles.boxes)))

    def run(self, unit: int) -> Result:
        rule, numbers = self._spec.rule, groups(len(self._spec.tiles.boxes))[unit]
        found = equivalences_of(self._labels, numbers, rule.min_overlap_voxels, rule.min_overlap_fraction, rule.block)
        return Result({name: getattr(found, name) for name in found.columns()})

    @cached_property
    def _labels(self) -> OpenLabels:
        return OpenLabels(self._spec.tiles, [])

    def close(self) -> None:
        _forget(self, "_labels")


class GlobalIds(Reduce):
    """All equivalences and the global ids that follow from them, in one file."""

    name = "ids"

    def __init__(self, spec: AssemblySpec, overlaps: Step) -> None:
        self._spec, self._overlaps = spec, overlaps

    def run(self, unit: int) -> Result:
        ledger = self._overlaps.complete()
        write_evidence(
            self._spec.evidence,
            self._spec.tiles.largest_ids,
            lambda: (Equivalences(**columns) for columns in ledger.columns()),
        )
        pairs, count, largest_id = read_evidence(self._spec.evidence, LISTED_PAIRS)
        if not self._spec.looks_twice:
            require_room(largest_id, self._spec.rule.dtype)
        facts = {"equivalences": count, "largest_id": largest_id, "pairs": pairs.listed(LISTED_PAIRS)}
        return Result(facts=facts)

    def is_intact(self, entry: Entry) -> bool:
        return self._spec.evidence.exists()


class _Merging(BlockTask):
    """A task that needs the merged labels of its blocks."""

    remedy = _REMEDY

    def __init__(self, spec: AssemblySpec) -> None:
        self._spec, self.grid, self.unit_bytes = spec, spec.grid, spec.worker_bytes

    def read_box(self, unit: int) -> Box:
        part = self.write_box(unit)
        filling = self._filling
        return part if filling is None else filling.surroundings(part, Box.of_shape(self._spec.shape))

    @property
    def _block(self) -> ZYX:
        return self._spec.rule.block

    def _assembled(self, unit: int, dtype: str) -> NDArray[np.unsignedinteger]:
        """Global labels of a unit, made block by block: what is filled depends on the block."""
        place = self.write_box(unit)
        labels = np.empty(place.shape, dtype)
        for part in blocks(place, self._block):
            labels[part.relative_to(place.start).slices] = self._of_block(part.shifted(self._spec.box.start))
        return labels

    def _of_block(self, part: Box) -> Ids:
        """Global labels, uint64 zyx, of a block in the common volume."""
        filling = self._filling
        if filling is None:
            return merged_labels(self._labels, part)
        wide = filling.surroundings(part, self._spec.box)
        return filling.filled(merged_labels(self._labels, wide), wide)[part.relative_to(wide.start).slices]

    @cached_property
    def _labels(self) -> OpenLabels:
        return OpenLabels(self._spec.tiles, StoredIds(self._spec.evidence, self._spec.tiles.largest_ids))

    @cached_property
    def _filling(self) -> Filling | None:
        spec = self._spec
        if spec.rule.fill_nm == 0 or spec.voxel_size is None:
            return None
        return Filling(spec.rule.fill_nm, open_image(spec.image), spec.voxel_size)

    def close(self) -> None:
        _forget(self, "_labels", "_filling")


class MergedLabels(_Merging):
    """Shards of the result, where nothing is split or dropped."""

    name = "labels"

    def run(self, unit: int) -> Result:
        place, labels = self.write_box(unit), self._assembled(unit, self._spec.rule.dtype)
        # Block by block, since each look takes a copy.
        found = [fastremap.unique(labels[part.slices]) for part in blocks(Box.of_shape(place.shape), self._block)]
        ids = np.unique(np.concatenate(found)).astype(np.uint64)
        return Result({"ids": ids[ids != 0]}, {"bytes": self._result.write_shard(place, labels)})

    @cached_property
    def _result(self) -> Store:
        return self._spec.segmentation.created()

    def is_intact(self, entry: Entry) -> bool:
        return _is_whole(self, self._spec, entry)


class FoundPieces(_Merging):
    """The pieces of each unit: what hangs together where objects are split, else all voxels of a label."""

    name = "pieces"

    def run(self, unit: int) -> Result:
        place, labels = self.write_box(unit), self._assembled(unit, "uint64")
        if self._spec.splits:
            numbers, pieces = find_pieces(labels, place.start, self._spec.shape, self._spec.rule.connectivity)
            columns = {"names": pieces.names, "labels": pieces.labels, "voxels": pieces.voxels}
        else:
            ids, voxels = fastremap.unique(labels, return_counts=True)
            ids, voxels = ids[ids != 0], voxels[ids != 0].astype(np.int64)
            table = dict(zip(ids.tolist(), range(1, len(ids) + 1), strict=True)) | {0: 0}
            numbers = fastremap.remap(labels, table, in_place=True).astype(np.uint32)
            columns = {"labels": ids, "voxels": voxels}
        return Result(columns, {"pieces": len(columns["labels"]), "bytes": self._result.write_shard(place, numbers)})

    @cached_property
    def _result(self) -> Store:
        return self._spec.pieces.created()

    def is_intact(self, entry: Entry) -> bool:
        return shard_bytes(self._spec.pieces.shard_path(self.write_box(entry.unit))) == entry.facts["bytes"]


class Touching(BlockTask):
    """Which pieces of a unit touch pieces of the same label in the units before it, in dense numbers."""

    name, remedy = "touching", _REMEDY

    def __init__(self, spec: AssemblySpec, pieces: Step) -> None:
        self._spec, self._pieces, self.grid, self.unit_bytes = spec, pieces, spec.grid, spec.worker_bytes

    def read_box(self, unit: int) -> Box:
        return self.write_box(unit).widened((1, 1, 1), Box.of_shape(self._spec.shape))

    def run(self, unit: int) -> Result:
        a, b = touching(self._numbers, self.grid, unit, self._spec.rule.connectivity)
        same = self._labels_of(a) == self._labels_of(b)
        return Result({"a": a[same], "b": b[same]})

    def _labels_of(self, numbers: NDArray[np.int64]) -> Ids:
        """The labels of pieces, by their dense numbers."""
        labels = np.empty(len(numbers), np.uint64)
        units = self._numbers.units_of(numbers)
        for unit in np.unique(units).tolist():
            there = units == unit
            labels[there] = self._ledger[unit].columns()["labels"][numbers[there] - self._numbers.offsets[unit]]
        return labels

    @cached_property
    def _ledger(self) -> Ledger:
        return self._pieces.complete()

    @cached_property
    def _numbers(self) -> DenseNumbers:
        return DenseNumbers(open_volume(self._spec.pieces.uri), self.grid, _offsets(self._ledger))

    def close(self) -> None:
        _forget(self, "_ledger", "_numbers")


class FoundObjects(Reduce):
    """The id of each piece, one unit after the other, in one file."""

    name = "objects"

    def __init__(self, spec: AssemblySpec, pieces: Step, touching: Step | None) -> None:
        self._spec, self._pieces, self._touching = spec, pieces, touching

    def run(self, unit: int) -> Result:
        pieces = self._pieces.complete()
        ids = self._ids_of_labels(pieces) if self._touching is None else self._ids_of_pieces(pieces, self._touching)
        largest = 0
        with atomic_path(self._spec.objects) as partial:
            shape = (int(_offsets(pieces)[-1]),)
            with partial.open("wb") as file:
                header = {"descr": "<u8", "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_2_0(file, header)
                for part in ids:
                    part.astype("<u8", copy=False).tofile(file)
                    largest = max(largest, int(part.max(initial=0)))
        require_room(largest, self._spec.rule.dtype)
        return Result(facts={"objects": largest})

    def _ids_of_labels(self, pieces: Ledger) -> Iterator[Ids]:
        def blocks_of() -> Iterator[tuple[Ids, NDArray[np.int64]]]:
            return ((columns["labels"], columns["voxels"]) for columns in pieces.columns())

        largest = max((int(labels.max(initial=0)) for labels, _ in blocks_of()), default=0)
        table = renumbered_labels(blocks_of, largest, self._spec.rule.min_size)
        return (table[labels].astype(np.uint64) for labels, _ in blocks_of())

    def _ids_of_pieces(self, pieces: Ledger, touching: Step) -> Iterator[Ids]:
        def blocks_of() -> Iterator[tuple[Ids, NDArray[np.int64]]]:
            return ((columns["names"], columns["voxels"]) for columns in pieces.columns())

        pairs = ((columns["a"], columns["b"]) for columns in touching.complete().columns())
        return iter(joined_pieces(blocks_of, pairs, self._spec.rule.min_size))

    def is_intact(self, entry: Entry) -> bool:
        return self._spec.objects.exists()


class RenumberedLabels(BlockTask):
    """Shards of the result: each piece with the id of its object."""

    name, remedy = "labels", _REMEDY

    def __init__(self, spec: AssemblySpec, pieces: Step) -> None:
        self._spec, self._pieces, self.grid, self.unit_bytes = spec, pieces, spec.grid, spec.worker_bytes

    def run(self, unit: int) -> Result:
        place = self.write_box(unit)
        ids = self._ids[self._offsets[unit] : self._offsets[unit + 1]]
        table = np.concatenate([np.zeros(1, np.uint64), ids]).astype(self._spec.rule.dtype)
        return Result(facts={"bytes": self._result.write_shard(place, table[self._numbers.read(place)])})

    @cached_property
    def _result(self) -> Store:
        return self._spec.segmentation.created()

    @cached_property
    def _offsets(self) -> NDArray[np.int64]:
        return _offsets(self._pieces.complete())

    @cached_property
    def _ids(self) -> NDArray[np.uint64]:
        return np.load(self._spec.objects, mmap_mode="r", allow_pickle=False)

    @cached_property
    def _numbers(self) -> Volume:
        return open_volume(self._spec.pieces.uri)

    def is_intact(self, entry: Entry) -> bool:
        return _is_whole(self, self._spec, entry)

    def close(self) -> None:
        _forget(self, "_offsets", "_ids", "_numbers")


class Summary(Reduce):
    """Counts for people and for `done.json`."""

    name = "summary"

    def __init__(self, spec: AssemblySpec, segments: int, ids: Step, objects: Step) -> None:
        self._spec, self._segments, self._ids, self._objects = spec, segments, ids, objects

    def run(self, unit: int) -> Result:
        spec, found = self._spec, self._ids.facts()
        unused = sum(spec.tiles.largest_ids) - self._segments
        facts = {
            "tiles": len(spec.tiles.boxes),
            "segments_in_tiles": self._segments,
            "equivalences": found["equivalences"],
            "objects_in_tiles": found["largest_id"] - unused,
            "objects": self._count(found["largest_id"]),
        }
        thresholds = ("min_overlap_voxels", "min_overlap_fraction", "disconnected", "connectivity", "min_size")
        rule = {name: getattr(spec.rule, name) for name in thresholds}
        write_json(spec.folder / "equivalences.json", {**rule, **facts, "pairs": found["pairs"]})
        spec.segmentation.created()  # also where there is nothing in it
        return Result(facts=facts)

    def _count(self, largest_id: int) -> int:
        """Objects that have voxels in the result."""
        objects = self._objects.complete()
        if self._spec.looks_twice:
            return int(objects[0].facts["objects"])
        present = np.zeros(largest_id + 1, np.bool_)
        for columns in objects.columns():
            present[columns["ids"]] = True
        return int(np.count_nonzero(present))


def tasks_of(spec: AssemblySpec, segments: int, stage: Stage) -> list[Task]:
    """The steps of an assembly of `segments` segments, in their order."""
    overlaps = Overlaps(spec)
    ids = GlobalIds(spec, BlockwiseStage.step_of(stage, overlaps))
    return [overlaps, ids, *labelling_tasks(spec, segments, stage, BlockwiseStage.step_of(stage, ids))]


def labelling_tasks(spec: AssemblySpec, segments: int, stage: Stage, ids: Step) -> list[Task]:
    """The steps behind `ids`."""
    if not spec.looks_twice:
        merged = MergedLabels(spec)
        return [merged, Summary(spec, segments, ids, BlockwiseStage.step_of(stage, merged))]
    found = FoundPieces(spec)
    pieces = BlockwiseStage.step_of(stage, found)
    meeting = [Touching(spec, pieces)] if spec.splits else []
    objects = FoundObjects(spec, pieces, BlockwiseStage.step_of(stage, meeting[0]) if meeting else None)
    last = [RenumberedLabels(spec, pieces), Summary(spec, segments, ids, BlockwiseStage.step_of(stage, objects))]
    return [found, *meeting, objects, *last]


def require_room(objects: int, dtype: str) -> None:
    """Raise DataError if ids up to `objects` do not fit into the type."""
    if objects > (largest := int(np.iinfo(dtype).max)):
        raise DataError(
            f"There are {objects} objects, but assembly.dtype {dtype} holds ids up to {largest}: use uint64."
        )


def _is_whole(task: BlockTask, spec: AssemblySpec, entry: Entry) -> bool:
    return shard_bytes(spec.segmentation.shard_path(task.write_box(entry.unit))) == entry.facts["bytes"]


def _offsets(pieces: Ledger) -> NDArray[np.int64]:
    """Dense number of each unit's first piece, and that of all pieces, int64 [units + 1]."""
    return piece_offsets(entry.facts["pieces"] for entry in pieces.entries())


def _forget(task: Task, *names: str) -> None:
    """Close what a task has open and forget it."""
    for name in names:
        held = task.__dict__.pop(name, None)
        if hasattr(held, "close"):
            held.close()
