"""Joining pairs, in steps: `resegment`, `join`, `relabel`, `summary`."""

import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from typing import Any

import fastremap
import numpy as np
from numpy.typing import NDArray

from ffn.agglomeration.candidates import DOUBT, candidate_files, doubted, write_candidates
from ffn.agglomeration.objects import joined_segments, object_files, objects_of, write_objects
from ffn.agglomeration.pairs import pairs_of
from ffn.agglomeration.records import Record, columns_of
from ffn.agglomeration.refill import Refill, refill_pairs
from ffn.agglomeration.spec import MOVED, Joined, OverBlocks, Spec
from ffn.assembly.fill import Filling, open_filling
from ffn.blockwise import Entry, Reduce, Result, Task
from ffn.blockwise.tables import Sorter, StoredTable, Table, TableWriter, find_rows
from ffn.config import Config
from ffn.geometry import Box
from ffn.inference.drive import BatchedNetwork, side_by_side
from ffn.runs import checkpoint_prefix
from ffn.volumes import Store, open_image, open_labels, shard_bytes


def joining_tasks(spec: Spec) -> list[Task]:
    """The steps from `resegment` on."""
    return [Resegment(spec), Join(spec), Relabel(spec), Summary(spec)]


def open_refill(spec: Spec, files: ExitStack) -> Refill:
    """What fills pairs of the region again."""
    image = files.enter_context(open_image(spec.image, box=spec.box, voxel_size=spec.config.data.voxel_size))
    return Refill(spec.config, image, files.enter_context(open_labels(spec.labels)), spec.voxel_size)


def load_network(config: Config) -> BatchedNetwork:
    """The network of a run. Raises CheckpointError where there are no weights, or of another network."""
    # Imported here so that the other steps do not wait for TensorFlow.
    from ffn.inference.executor import load_executor

    inference = config.inference
    return load_executor(
        config.network,
        checkpoint_prefix(config),
        threads=inference.intra_op_threads,
        batch_size=inference.batch_size,
        precision=inference.precision,
    )


class Resegment(Task):
    """Both segments of each pair of a group filled again, and compared. Leaves the records, as columns."""

    name = "resegment"
    unit = "pairs"
    takes_machine = True
    remedy = "Use a smaller inference.concurrent or agglomeration.radius."

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self._joined = self._fovs = 0

    def __len__(self) -> int:
        return int(self._plan["groups"])

    def size(self, unit: int) -> int:
        begin, end = self._rows(unit)
        return end - begin

    def run(self, unit: int) -> Result:
        _ = self._began
        pairs = pairs_of(self.spec.planned.rows(*self._rows(unit)))
        network = self.load()
        concurrent = side_by_side(self.spec.config.inference.concurrent, network.batch_size)
        records: list[Record] = []
        refill_pairs(self._refill, pairs, network, concurrent, records.append)
        return Result(columns_of(records))

    def note(self, result: Result) -> str:
        """What this process has joined, and how fast it fills."""
        self._joined += int(np.count_nonzero(result.columns["joined"]))
        self._fovs += int(result.columns["fovs"].sum())
        return f"{self._joined} joined, {self._fovs / max(time.monotonic() - self._began, 1e-9):.1f} FOVs/s"

    def close(self) -> None:
        self._files.close()
        self.__dict__.pop("_refill", None)

    def load(self) -> BatchedNetwork:
        """The network; it is kept when files are closed, as loading it takes long. Raises as `load_network`."""
        return self._network

    @cached_property
    def _network(self) -> BatchedNetwork:
        return load_network(self.spec.config)

    @cached_property
    def _began(self) -> float:
        return time.monotonic()

    @cached_property
    def _files(self) -> ExitStack:
        return ExitStack()

    @cached_property
    def _refill(self) -> Refill:
        return open_refill(self.spec, self._files)

    @cached_property
    def _plan(self) -> Any:
        return self.spec.plan

    def _rows(self, unit: int) -> tuple[int, int]:
        group = self._plan["group"]
        return unit * group, min((unit + 1) * group, self._plan["tried"])


class Join(Joined):
    """Which segments are one, and the lists for a proofreader. Also makes the empty store that is filled next."""

    name = "join"

    def written(self) -> list[Path]:
        folder = self.spec.stage.folder
        return [*object_files(folder), *candidate_files(folder)]

    def table(self) -> StoredTable:
        return self.spec.moved

    def run(self, unit: int) -> Result:
        spec, plan = self.spec, self.spec.plan
        ledger = spec.step(Resegment.name, int(plan["groups"])).complete()
        counts = {"joined": 0, "fovs": 0}
        with Sorter(self.folder, DOUBT, rows=_CANDIDATES) as sorter:
            joined = joined_segments(spec.segments["ids"], _joined_pairs(ledger.columns(), sorter, counts))
            write_candidates(spec.stage.folder, _with_objects(sorter.pieces(), joined), plan["tried"], spec.box.start)
        moved = joined["segment"] != joined["object"]
        with TableWriter(spec.moved.path, MOVED) as writer:
            writer.append({name: values[moved] for name, values in joined.items()})
        write_objects(spec.stage.folder, joined)
        spec.store.created()
        # Each object that has voxels is one of the segments, and each segment has voxels.
        objects = int(spec.reduce("segments").facts()["segments"]) - int(np.count_nonzero(moved))
        return self.noted(joined=counts["joined"], objects=objects, fovs=counts["fovs"])


_CANDIDATES = 1 << 20
"""Candidates that are held in memory: a row has some 250 bytes."""


def _joined_pairs(
    groups: Iterable[Table], candidates: Sorter, counts: dict[str, int]
) -> Iterator[tuple[NDArray[np.uint64], NDArray[np.uint64]]]:
    """Pairs that are one, group by group; all are added to the candidates, and what there is of them to `counts`."""
    for columns in groups:
        candidates.add(doubted(columns))
        joined = columns["joined"]
        counts["joined"] += int(np.count_nonzero(joined))
        counts["fovs"] += int(columns["fovs"].sum())
        yield columns["a"][joined], columns["b"][joined]


def _with_objects(candidates: Iterable[Table], joined: Table) -> Iterator[Table]:
    for piece in candidates:
        ends = {f"object_{end}": objects_of(piece[end], joined["segment"], joined["object"]) for end in ("a", "b")}
        yield {**piece, **ends}


class Relabel(OverBlocks):
    """A shard of the segmentation in which joined segments have one id, filled as `assembly.fill_nm` says."""

    name = "relabel"

    def run(self, unit: int) -> Result:
        box = self.write_box(unit)
        values = np.empty(box.shape, self._store.layout.dtype)
        for part in self.spec.parts(box):
            values[part.relative_to(box.start).slices] = self._relabelled(part)
        return Result(facts={"bytes": self._store.write_shard(box, values)})

    def is_intact(self, entry: Entry) -> bool:
        path = self._store.shard_path(self.write_box(entry.unit))
        return bool(shard_bytes(path) == entry.facts.get("bytes"))

    def _relabelled(self, part: Box) -> NDArray[np.uint64]:
        """Voxels without an object are filled from what is around this part, which is why parts are as they are."""
        region, filling = self.spec.box, self._filling
        place = part.shifted(region.start)
        wide = place if filling is None else filling.surroundings(place, region)
        values = self._joined(self.labels.read(wide.relative_to(region.start)))
        values = values if filling is None else filling.filled(values, wide)
        return values[place.relative_to(wide.start).slices]

    def _joined(self, labels: NDArray[np.uint64]) -> NDArray[np.uint64]:
        here = fastremap.unique(labels)
        rows, there = find_rows([self._moved["segment"]], [here])
        if not there.any():
            return labels
        ids = dict(zip(here[there].tolist(), self._moved["object"][rows[there]].tolist(), strict=True))
        return fastremap.remap(labels, ids, preserve_missing_labels=True)

    @cached_property
    def _store(self) -> Store:
        return self.spec.store

    @cached_property
    def _moved(self) -> StoredTable:
        return self.spec.moved

    @cached_property
    def _filling(self) -> Filling | None:
        spec = self.spec
        return self.files.enter_context(open_filling(spec.config, spec.config.assembly.fill_nm, spec.voxel_size))


class Summary(Reduce):
    """What there is to say about the result."""

    name = "summary"

    def __init__(self, spec: Spec) -> None:
        self.spec = spec

    def run(self, unit: int) -> Result:
        plan, joined = self.spec.plan, self.spec.reduce(Join.name).facts()
        facts = {name: plan[name] for name in ("pairs", "tried")}
        return Result(facts={**facts, **{name: joined[name] for name in ("joined", "objects", "fovs")}})
