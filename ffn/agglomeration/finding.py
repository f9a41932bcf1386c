"""Finding the pairs that meet, in steps: `sizes`, `segments`, `contacts`, `pairs`, `places`, `rank`."""

import math
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

import fastremap
import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ffn.agglomeration.decision_points import (
    Touching,
    first_of_each,
    merged,
    nearest_to_middle,
    shallowest,
    touching,
    with_rim,
)
from ffn.agglomeration.pairs import RANKED_BY, arrow_of, largest_fill, morton, ranked, schema_of
from ffn.agglomeration.spec import CONTACTS, PLANNED, SIZES, Joined, OverBlocks, Spec
from ffn.blockwise import Ledger, Result, Task
from ffn.blockwise.tables import (
    Sorter,
    StoredTable,
    Table,
    TableWriter,
    concatenated,
    find_rows,
    group_starts,
    sorted_by,
)
from ffn.files import atomic_path
from ffn.geometry import Box
from ffn.progress import log

PAIRS = "pairs.parquet"
GROUP = 64
"""Pairs that are filled again together, and lost by a kill ..."""
_MOST_GROUPS = 1 << 15
"""... unless there would be more groups than these."""
_READ_AT_ONCE = 1 << 17
"""Rows of a Parquet file that are read together by whoever looks for a few."""


def group_size(tried: int) -> int:
    """How many of `tried` pairs are filled again together."""
    return max(GROUP, -(-tried // _MOST_GROUPS))


def finding_tasks(spec: Spec) -> list[Task]:
    """The steps up to `rank`, which writes `pairs.parquet`."""
    return [Sizes(spec), Segments(spec), Contacts(spec), Pairs(spec), Places(spec), Rank(spec)]


class Sizes(OverBlocks):
    """Ids and voxels of the segments in each block."""

    name = "sizes"

    def run(self, unit: int) -> Result:
        found = []
        for part in self.spec.parts(self.write_box(unit)):
            ids, voxels = fastremap.unique(self.labels.read(part), return_counts=True)
            found.append({"ids": ids.astype(np.uint64), "voxels": voxels.astype(np.int64)})
        return Result(_summed(sorted_by(concatenated(found), ["ids"])))


class Segments(Joined):
    """The segments that are large enough to be joined."""

    name = "segments"

    def table(self) -> StoredTable:
        return self.spec.segments

    def run(self, unit: int) -> Result:
        config = self.spec.config
        smallest = config.agglomeration.min_segment_size * math.prod(config.network.downsample)
        count = 0
        with Sorter(self.folder, ["ids"]) as sorter, TableWriter(self.spec.segments.path, SIZES) as writer:
            for columns in self.spec.over_blocks(Sizes.name).complete().columns():
                sorter.add(columns)
            for piece in sorter.pieces():
                found = _summed(piece)
                count += int(np.count_nonzero(found["ids"]))
                large = (found["voxels"] >= smallest) & (found["ids"] != 0)
                writer.append({name: values[large] for name, values in found.items()})
        return self.noted(segments=count)


class _Meeting(OverBlocks):
    """A step that looks at where segments meet."""

    def touching(self, part: Box) -> Touching:
        """Where those that are large enough meet in a part of a block."""
        spec = self.spec
        whole, distance = Box.of_shape(spec.shape), spec.config.agglomeration.max_distance_nm
        box = with_rim(part, whole, distance, spec.voxel_size)
        labels = self.labels.read(box).astype(np.uint64)
        # Of those that are here: all segments of a large volume would be looked up anew for each block.
        here = fastremap.unique(labels)
        _, large = find_rows([spec.segments["ids"]], [here])
        labels = fastremap.mask_except(labels, here[large].tolist())
        return touching(labels, part.relative_to(box.start), part.start, distance, spec.voxel_size)


class Contacts(_Meeting):
    """The shallowest places of each pair that meets in a part of a block; the column `part` says in which one."""

    name = "contacts"

    def run(self, unit: int) -> Result:
        found = []
        for number, part in enumerate(self.spec.parts(self.write_box(unit))):
            here = shallowest(self.touching(part))
            found.append({**here, "part": np.full(len(here["a"]), number, np.int32)})
        return Result(concatenated(found))


class Pairs(Joined):
    """All pairs, with the shallowest places of each in the whole volume."""

    name = "pairs"

    def table(self) -> StoredTable:
        return self.spec.contacts

    def run(self, unit: int) -> Result:
        count = 0
        with (
            Sorter(self.folder, ["a", "b"]) as sorter,
            TableWriter(self.spec.contacts.path, CONTACTS) as writer,
        ):
            for columns in self.spec.over_blocks(Contacts.name).complete().columns():
                sorter.add({name: columns[name] for name in CONTACTS})
            for piece in sorter.pieces():
                found = merged(piece)
                count += len(found["a"])
                writer.append(found)
        return self.noted(pairs=count)


class Places(_Meeting):
    """For each pair that has its shallowest places in a block, the one nearest to the middle of all of them.

    Leaves `row` of the pair among all pairs, and what `nearest_to_middle` says.
    """

    name = "places"

    def run(self, unit: int) -> Result:
        seen, pairs = self._seen[unit].columns(), self.spec.contacts
        rows, _ = find_rows([pairs["a"], pairs["b"]], [seen["a"], seen["b"]])
        merged_here = {name: pairs[name][rows] for name in ("depth", "places", "total")}
        pairs.unmap()
        found = [_nothing_found()]
        for number, part in enumerate(self.spec.parts(self.write_box(unit))):
            of_part = np.flatnonzero(seen["part"] == number)
            here = {name: seen[name][of_part] for name in ("a", "b", "depth")}
            there = {name: values[of_part] for name, values in merged_here.items()}
            if (here["depth"] == there["depth"]).any():
                nearest = nearest_to_middle(self.touching(part), here, there, self.spec.shape)
                found.append({"row": rows[of_part[nearest["pair"]]], **{n: nearest[n] for n in ("distance", "place")}})
        return Result(concatenated(found))

    @cached_property
    def _seen(self) -> Ledger:
        return self.spec.over_blocks(Contacts.name).complete()


class Rank(Joined):
    """All pairs in the order in which they are tried, `pairs.parquet`; and, for those that are, groups to work on.

    A group's pairs lie near each other, so that what is around them is read by one process, and once.
    """

    name = "rank"

    def written(self) -> list[Path]:
        return [self.spec.stage.folder / PAIRS]

    def table(self) -> StoredTable:
        return self.spec.planned

    def run(self, unit: int) -> Result:
        config, count, tried = self.spec.config, 0, 0
        most = config.agglomeration.max_pairs
        with Sorter(self.folder, ["code", "a", "b"]) as near:
            for piece in self._written():
                chosen = {name: piece[name][: None if most is None else most - tried] for name in PLANNED}
                count, tried = count + len(piece["a"]), tried + len(chosen["a"])
                near.add({**chosen, "code": morton(chosen["zyx"])})
            with TableWriter(self.spec.planned.path, PLANNED) as writer:
                for piece in near.pieces():
                    writer.append(piece)
        log(
            f"{count} pairs of segments meet, {tried} of them are tried. A pair takes 2 fills of at most "
            f"{largest_fill(config)} fields of view, and up to {config.agglomeration.max_retry_iters} times that where "
            "seeds fail."
        )
        group = group_size(tried)
        return self.noted(pairs=count, tried=tried, group=group, groups=-(-tried // group))

    def _written(self) -> Iterator[Table]:
        """The pairs, piece by piece, in the order in which they are tried, each after it was written."""
        (path,) = self.written()
        with (
            Sorter(self.folder, RANKED_BY) as sorter,
            atomic_path(path) as partial,
            pq.ParquetWriter(partial, schema_of(self.spec.pairs_made_from), compression="zstd") as writer,
        ):
            for piece in self._found():
                sorter.add(ranked(piece))
            for piece in sorter.pieces():
                writer.write_table(arrow_of(piece), row_group_size=_READ_AT_ONCE)
                yield piece

    def _found(self) -> Iterator[Table]:
        """All pairs with their decision points and sizes, piece by piece."""
        contacts, segments = self.spec.contacts, self.spec.segments
        with Sorter(self.folder, ["row", "distance", "place"], together=1) as sorter:
            for columns in self.spec.over_blocks(Places.name).complete().columns():
                sorter.add(columns)
            for piece in sorter.pieces():
                nearest = first_of_each(piece, ["row"])
                rows = nearest["row"]
                pairs = contacts.rows(int(rows[0]), int(rows[-1]) + 1)
                sizes = [segments["voxels"][find_rows([segments["ids"]], [pairs[name]])[0]] for name in ("a", "b")]
                zyx = np.stack(np.unravel_index(nearest["place"], self.spec.shape), axis=1)
                found = {name: pairs[name] for name in ("a", "b", "depth")}
                yield {**found, "zyx": zyx, "voxels_a": sizes[0], "voxels_b": sizes[1]}


def _summed(sizes: Table) -> Table:
    """Sorted ids, each once, with the sum of their voxels."""
    starts = group_starts([sizes["ids"]])
    voxels: NDArray[np.int64] = np.add.reduceat(sizes["voxels"], starts)
    return {"ids": sizes["ids"][starts], "voxels": voxels}


def _nothing_found() -> Table:
    return {"row": np.empty(0, np.int64), "distance": np.empty(0, np.float64), "place": np.empty(0, np.int64)}
