"""The files of a filled sub-volume.

segmentation.h5   dataset `labels`, uint64 zyx, ids from 1 in order of creation, 0 = not segmented
probability.h5    with `inference.save_probability`: dataset `qprob`, uint8 zyx, see `ffn.inference.probability`
origins.json      [{id, seed_zyx, fovs, voxels}], seeds relative to the sub-volume's corner, in image voxels;
                  `voxels` as in segmentation.h5. Segments of `inference.init_segmentation` come first, as
                  [{id, given, voxels}] with their id there. What `inference.join_share` made a part of an
                  earlier segment also has `joined`, the id of that, which holds its voxels: its own are 0
overlaps.json     {id: [[earlier id, voxels], ...]}: whose voxels an object reached into, before any were joined
counters.json     what was done and refused (`ffn.inference.canvas.COUNTERS`)
timing.json       seconds and fields of view per second of the process that finished it; the one file that
                  differs between two runs of the same settings
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ffn.files import write_json
from ffn.geometry import Box
from ffn.inference.canvas import Canvas
from ffn.inference.joining import joined_ids
from ffn.runs import ORIGINS, SEGMENTATION
from ffn.volumes import VoxelSize, create_hdf5

if TYPE_CHECKING:
    from ffn.inference.scene import Scene

LABELS = "labels"
SEGMENTATION_FILE = SEGMENTATION
PROBABILITY = "qprob"
PROBABILITY_FILE = "probability.h5"
ORIGINS_FILE = ORIGINS
STATE_FILE = "state.npz"
"""Only while it is unfinished: where to continue."""


def write_results(output: Path, scene: "Scene", timing: dict[str, float]) -> int:
    """Write all files of a sub-volume whose flood fill is finished; returns how many of its voxels have a segment."""
    canvas, framing, box = scene.canvas, scene.framing, scene.box
    ids = kept_ids(canvas)
    labels = ids[framing.labels(canvas.finished_labels())]
    write_labels(output / SEGMENTATION_FILE, labels, box, scene.voxel_size)
    if canvas.probability is not None:
        path = output / PROBABILITY_FILE
        with create_hdf5(path, PROBABILITY, box.shape, np.uint8, scene.voxel_size, offset=box.start) as volume:
            volume.write(Box.of_shape(box.shape), framing.in_image_voxels(canvas.probability))
    voxels = np.bincount(labels.ravel(), minlength=canvas.given + len(canvas.segments) + 1)
    seeds = framing.seeds_before(np.array([s.seed for s in canvas.segments], np.int64).reshape(-1, 3))
    given = [
        {"id": number, "given": int(original), "voxels": int(voxels[number])}
        for number, original in enumerate(scene.given_ids, 1)
    ]
    origins = [
        {
            "id": s.id,
            "seed_zyx": framing.in_image(seed),
            "fovs": s.fovs,
            "voxels": int(voxels[s.id]),
            **({"joined": int(ids[s.id])} if ids[s.id] != s.id else {}),
        }
        for s, seed in zip(canvas.segments, seeds.tolist(), strict=True)
    ]
    write_json(output / ORIGINS_FILE, given + origins)
    write_json(output / "overlaps.json", {s.id: s.overlaps for s in canvas.segments if s.overlaps})
    write_json(output / "counters.json", dict(sorted(canvas.counters.items())))
    write_json(output / "timing.json", timing)
    return int(voxels[1:].sum())


def kept_ids(canvas: Canvas) -> NDArray[np.uint64]:
    """The id under which segmentation.h5 holds each segment of a finished canvas; see `joined_ids`."""
    objects = ((segment.overlaps, segment.voxels) for segment in canvas.segments)
    return joined_ids(objects, canvas.options.join_share, canvas.given)


def write_labels(path: Path, labels: NDArray[np.unsignedinteger[Any]], box: Box, voxel_size: VoxelSize | None) -> None:
    """Write a sub-volume's labels (zyx, as large as its `box`) as the dataset `labels` of a new HDF5 file."""
    with create_hdf5(path, LABELS, box.shape, np.uint64, voxel_size, offset=box.start) as volume:
        volume.write(Box.of_shape(box.shape), labels.astype(np.uint64, copy=False))
