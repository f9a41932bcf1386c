"""Label volumes cut into sub-volumes with ids of their own, as inference leaves them; and assembling them again."""

import tempfile
from pathlib import Path

import h5py
import numpy as np

from ffn.assembly.evidence import global_ids
from ffn.assembly.labelled import OpenLabels, Segmented
from ffn.assembly.reconcile import equivalences_of
from ffn.assembly.spec import AssemblySpec
from ffn.assembly.tasks import GlobalIds, labelling_tasks
from ffn.blockwise import BlockwiseStage, Step
from ffn.blockwise.ledger import LedgerWriter
from ffn.config import Assembly, parse_config
from ffn.geometry import Box, overlapping_tiles
from ffn.inference.kept import Keeper, copy_files, ledger_of
from ffn.stages import Stage
from ffn.volumes import create_hdf5, open_volume

SHAPE = (30, 36, 42)


def voronoi(seed=0, objects=12, shape=SHAPE):
    """uint64 labels: convex objects, so that every object is one piece in every tile; 0 between them."""
    rng = np.random.default_rng(seed)
    centres = rng.uniform(0, shape, (objects, 3))
    grid = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    distance = np.linalg.norm(grid[..., None, :] - centres, axis=-1)
    near = np.sort(distance, axis=-1)
    labels = distance.argmin(axis=-1) + 1
    labels[near[..., 1] - near[..., 0] < 1] = 0
    return labels.astype(np.uint64)


def local_ids(piece, rng):
    """The same objects with ids 1..n in random order."""
    ids = np.unique(piece[piece != 0])
    table = np.zeros(int(piece.max()) + 1, np.uint64)
    table[ids] = rng.permutation(len(ids)) + 1
    return table[piece]


VOXELS = (10.0, 10.0, 10.0)


def store(folder, index, labels, box, voxel_size=VOXELS):
    path = folder / f"tile-{index:04d}" / "segmentation.h5"
    with create_hdf5(path, "labels", labels.shape, np.uint64, voxel_size, offset=box.start) as volume:
        volume.write(Box.of_shape(labels.shape), labels)
    return f"{path}:labels"


def same_partition(truth, labels):
    """Whether two label volumes are equal up to the names of the labels (and in where they are 0)."""
    names = np.zeros(int(labels.max()) + 1, truth.dtype)
    names[labels] = truth
    present = names[np.bincount(labels.ravel().astype(np.int64)) > 0]
    return (names[labels] == truth).all() and len(np.unique(present)) == len(present) and not names[0]


def tables_of(segments, same):
    """Global ids as one table for each tile."""
    ids = np.split(global_ids(segments, [same]), np.cumsum(segments)[:-1])
    return [np.concatenate([np.zeros(1, np.uint64), part]) for part in ids]


def written(folder, tiles, tables, box, **rule):
    """The volume that assembly makes of tiles whose global ids are known."""
    made = Path(tempfile.mkdtemp(prefix="assemble-", dir=folder))
    return labelled(AssemblySpec(tiles, box, Assembly(**rule), made, "unused", None), tables)


def labelled(spec, tables):
    """The same of an assembly."""
    spec.folder.mkdir(parents=True, exist_ok=True)
    with h5py.File(spec.evidence, "w") as file:
        file["ids"] = np.concatenate([table[1:] for table in tables])
    stage = Stage(spec.folder, {})
    ids = BlockwiseStage.step_of(stage, GlobalIds(spec, Step(spec.folder, "", 0)))
    facts = {"equivalences": 0, "largest_id": max(int(table.max()) for table in tables), "pairs": []}
    with LedgerWriter(ids.folder / "1-of-1", ids.fingerprint, ids.units) as writer:
        writer.add(0, {}, facts)
    tasks = labelling_tasks(spec, sum(spec.tiles.largest_ids), stage, ids)
    BlockwiseStage(stage, tasks, "ffn assemble", spec.clean).run(1)
    with open_volume(spec.segmentation.uri) as volume:
        assert volume.dtype == spec.rule.dtype
        return volume[...]


def stored_tiles(folder, boxes, pieces):
    uris = [store(folder, i, piece, box) for i, (piece, box) in enumerate(zip(pieces, boxes, strict=True))]
    return Segmented(boxes, uris, [int(piece.max()) for piece in pieces])


def found_pairs(tiles, min_voxels=100, block=(16, 16, 16)):
    labels = OpenLabels(tiles, [])
    return equivalences_of(labels, range(len(tiles.boxes)), min_voxels, 0.5, block)


def reassembled(folder, tiles, box, **rule):
    same = found_pairs(tiles, min_voxels=1)
    return written(folder, tiles, tables_of(tiles.largest_ids, same), box, **{"block": (16, 16, 16), **rule})


def run_with_tiles(tmp_path, overlap=8, how=None, **rule):
    """A run whose sub-volumes are finished, with known labels; `how` is what `finished_tiles` takes."""
    with create_hdf5(tmp_path / "image.h5", "image", SHAPE, np.uint8, (10.0, 10.0, 10.0)):
        pass
    config = parse_config(
        {
            "run": "joined",
            "results": str(tmp_path / "results"),
            "data": {"test": {"image": f"{tmp_path / 'image.h5'}:image", "box": "2:30,0:36,0:42"}},
            "network": {"fov": [9, 9, 9], "deltas": [2, 2, 2]},
            "inference": {
                "checkpoint": "unused",
                "subvolume_size": [28, 24, 24],
                "subvolume_overlap": [overlap] * 3,
            },
            "assembly": {"min_overlap_voxels": 5, "block": [16, 16, 16], "shard": [16, 16, 16], "workers": 1, **rule},
        }
    )
    truth, rng = voronoi()[2:], np.random.default_rng(1)
    infer = tmp_path / "results" / "joined" / "infer"
    boxes = overlapping_tiles(Box((2, 0, 0), SHAPE), (28, 24, 24), (overlap,) * 3)
    pieces = (local_ids(truth[box.relative_to((2, 0, 0)).slices], rng) for box in boxes)
    finished_tiles(infer, boxes, pieces, **(how or {}))
    return config, truth, infer


def cells(box):
    """Labels, uint64 zyx, of any box of an endless volume of cuboid cells with gaps of 2 voxels between them."""
    z, y, x = np.ix_(*(np.arange(a, b, dtype=np.uint64) for a, b in zip(box.start, box.stop, strict=True)))
    inside = (z % 37 > 1) & (y % 37 > 1) & (x % 37 > 1)
    return np.where(inside, 1 + (z // 37 * 1000 + y // 37) * 1000 + x // 37, 0)


def finished_tiles(
    infer, boxes, pieces, before=lambda index, folder: None, leaves_out=(), number=0, voxel_size=VOXELS, **settings
):
    """Finished sub-volumes below the folder `infer`, as one pass of a run; `pieces` are taken one at a time.

    Args:
        before: Called with each finished folder, before its files go into an archive.
        leaves_out: Sub-volumes that are not finished.
        number: Of the pass.
        voxel_size: Nanometres, zyx.
        settings: Of the pass, besides its region.
    """
    low = tuple(min(box.start[axis] for box in boxes) for axis in range(3))
    region = Box(low, tuple(max(box.stop[axis] for box in boxes) for axis in range(3)))
    with Keeper(
        Stage(infer / f"pass-{number}", {"box": str(region), **settings}), len(boxes), range(len(boxes))
    ) as keeper:
        for index, (box, labels) in enumerate(zip(boxes, pieces, strict=True)):
            if index in leaves_out:
                continue
            store(infer, index, labels.astype(np.uint64), box, voxel_size)
            folder = infer / f"tile-{index:04d}"
            Stage(folder, {"box": str(box), **settings}).finish(segments=int(labels.max()))
            before(index, folder)
            keeper.keep(index, folder)


def kept_files(infer):
    """The files of all finished sub-volumes, by pass (or `consensus`), sub-volume and name; without the times, the one
    file that may differ between two runs."""
    found = {}
    for stage in sorted(infer.glob("pass-*")) + sorted(infer.glob("consensus")):
        for entry in ledger_of(stage).entries():
            with tempfile.TemporaryDirectory() as copy:
                copy_files(entry, Path(copy))
                for path in Path(copy).iterdir():
                    if path.name != "timing.json":
                        found[f"{stage.name}/tile-{entry.unit:04d}/{path.name}"] = path.read_bytes()
    return found
