"""A run whose assembled segmentation has a rod in two pieces and, beside it, another rod: what agglomeration is for."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from ffn.agglomeration.finding import PAIRS, finding_tasks
from ffn.agglomeration.pairs import Pair, PairsFile
from ffn.agglomeration.run import spec_of
from ffn.agglomeration.spec import Spec
from ffn.blockwise import BlockwiseStage
from ffn.config import Config
from ffn.files import write_json
from ffn.geometry import Box
from ffn.volumes import create_hdf5

OFFSET = (2, 3, 0)
SHAPE = (23, 40, 60)
VOXELS = (10.0, 10.0, 10.0)


def rods():
    """uint8 grey values and uint64 labels: 1 and 5 are halves of a rod, 3 is another one behind a membrane of two
    voxels, 4 a crumb."""
    labels = np.zeros(SHAPE, np.uint64)
    labels[8:15, 6:13, :30], labels[8:15, 6:13, 30:] = 1, 5
    labels[8:15, 15:22] = 3
    labels[8:10, 24:26, 20:22] = 4
    return np.where(labels > 0, 200, 50).astype(np.uint8), labels


def field():
    """Image and labels of three such places far apart, over several shards of a result: nine pairs, three joined."""
    grey, labels = np.full((23, 140, 270), 50, np.uint8), np.zeros((23, 140, 270), np.uint64)
    image, pieces = rods()
    for number, (y, x) in enumerate(((0, 0), (50, 100), (100, 210))):
        there = np.s_[:, y : y + SHAPE[1], x : x + SHAPE[2]]
        grey[there] = image
        labels[there] = np.where(pieces > 0, pieces + np.uint64(10 * number), 0)
    return grey, labels


def values(folder: Path, **sections: object) -> dict:
    """The configuration of the run; what is given is merged into its sections."""
    base = {
        "run": "rods",
        "results": str(folder / "results"),
        "data": {
            "test": {
                "image": f"{folder / 'image.h5'}:image",
                "labels": f"{folder / 'truth.h5'}:labels",
                "box": str(Box.of_shape(SHAPE).shifted(OFFSET)),
            }
        },
        "network": {"depth": 2, "features": 2, "fov": [9, 9, 9], "deltas": [2, 2, 2]},
        "inference": {"checkpoint": str(folder / "model.ckpt")},
        "agglomeration": {
            "enabled": True,
            "min_segment_size": 100,
            "radius": [10, 12, 16],
            "analysis_radius": [8, 8, 12],
            "exclusion_radius": [2, 2, 2],
        },
        "export": {"chunk": [32, 32, 32], "mips": 0},
    }
    return {**base, **{key: {**base.get(key, {}), **value} for key, value in sections.items()}}  # type: ignore[dict-item]


def make_inputs(folder: Path, image=None, labels=None, voxel_size=VOXELS) -> None:
    """The image, the truth, the files of a checkpoint (which only the real executor would read), and the assembly."""
    grey, pieces = rods()
    image, labels = grey if image is None else image, pieces if labels is None else labels
    whole = tuple(n + o for n, o in zip(image.shape, OFFSET, strict=True))
    box = Box.of_shape(image.shape).shifted(OFFSET)
    truth = np.where(labels == 5, 1, labels).astype(np.uint64)
    for name, array in (("image", image), ("truth", truth)):
        dataset = "image" if name == "image" else "labels"
        with create_hdf5(folder / f"{name}.h5", dataset, whole, array.dtype, voxel_size) as volume:
            volume.write(box, array)
    for suffix in (".index", ".data-00000-of-00001"):
        (folder / f"model.ckpt{suffix}").write_bytes(suffix.encode())
    assembled = folder / "results" / "rods" / "assemble"
    with create_hdf5(assembled / "segmentation.h5", "labels", labels.shape, np.uint64, voxel_size, offset=OFFSET) as v:
        v.write(Box.of_shape(labels.shape), labels)
    write_json(assembled / "done.json", {"facts": {}})


def read_pairs(path: Path) -> list[Pair]:
    """All pairs of a `pairs.parquet`, in the order in which they are tried."""
    listed = pq.read_table(path, columns=["a", "b"]).to_pylist()
    return [PairsFile(path).between(row["a"], row["b"]) for row in listed]  # type: ignore[misc]


def find_pairs(config: Config, folder: Path) -> list[Pair]:
    """The pairs of a run; `folder` is made."""
    return pairs_in(spec_of(config.of_pass(0), folder))


def pairs_in(spec: Spec) -> list[Pair]:
    """The pairs of segments, found by all steps that it takes; the folder of the stage is made."""
    BlockwiseStage(spec.stage, finding_tasks(spec), "ffn agglomerate").run(1)
    return read_pairs(spec.stage.folder / PAIRS)
