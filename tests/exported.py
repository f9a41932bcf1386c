"""A small run with an assembled segmentation, ready to be exported."""

from pathlib import Path

import numpy as np

from ffn.blockwise import Grid
from ffn.config import Config, parse_config
from ffn.files import write_json
from ffn.geometry import Box
from ffn.runs import SEGMENTATION_STORE, RunPaths
from ffn.volumes import Store, StoreLayout, create_hdf5_file

BOX = Box((5, 6, 7), (45, 70, 77))


def make_run(folder: Path, shape: tuple[int, int, int] = (60, 80, 90), box: Box = BOX, **export: object) -> Config:
    """Blocks of labels with dark lines between them in a noisy image; the segmentation is the truth, renamed."""
    z, y, x = np.indices(shape)
    labels = (1 + z // 20 + 10 * ((y + z // 4) // 16) + 100 * ((x + y // 4) // 18)).astype(np.uint64)
    line = ((y + z // 4) % 16 < 2) | ((x + y // 4) % 18 < 2)
    noise = np.random.default_rng(0).normal(0, 9, shape)
    image = np.clip(np.where(line, 60, 150) + noise, 0, 255).astype(np.uint8)
    folder.mkdir(parents=True, exist_ok=True)
    with create_hdf5_file(folder / "volume.h5") as file:
        for name, values in {"image": image, "labels": labels}.items():
            file.add(name, shape, values.dtype, (12.0, 10.0, 8.0)).write(Box.of_shape(shape), values)
    config = parse_config(
        {
            "run": "small",
            "results": str(folder / "results"),
            "data": {
                "test": {
                    "image": f"{folder}/volume.h5:image",
                    "labels": f"{folder}/volume.h5:labels",
                    "box": str(box),
                }
            },
            "network": {"fov": [9, 9, 9], "deltas": [2, 2, 2]},
            "inference": {"checkpoint": "model"},
            "export": {"chunk": [16, 32, 32], "mips": 2, **export},
        }
    )
    segmentation = np.where(line, 0, labels + np.uint64(2**63))[box.slices]
    paths = RunPaths.of(config)
    layout = StoreLayout.of_blocks(box.shape, "uint64", (32, 32, 32), (12.0, 10.0, 8.0), box.start)
    store = Store(paths.assemble / SEGMENTATION_STORE, layout).created()
    for shard in Grid(Box.of_shape(box.shape), layout.shard):
        store.write_shard(shard, segmentation[shard.slices])
    write_json(paths.assemble / "done.json", {"facts": {}})
    return config
