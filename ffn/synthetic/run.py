"""The stage `synth`: the configured volume on disk."""

from pathlib import Path

from ffn.config import Config
from ffn.geometry import Box, blocks
from ffn.progress import log
from ffn.runs import RunPaths
from ffn.stages import Stage
from ffn.synthetic.volume import make_volume
from ffn.volumes import create_hdf5_file


def synthesize(config: Config, folder: Path | None = None) -> Path:
    """Make volume.h5 with the data sets `image` and `labels` in results/<run>/synth, or in `folder`, once.

    Raises StageError where the folder holds a volume of other settings, DataError where the settings leave no room
    for any cell.
    """
    default = RunPaths.of(config).synthetic_volume
    path = default if folder is None else folder / default.name
    settings = config.synthetic
    stage = Stage(path.parent, {"seed": config.seed, "synthetic": settings.model_dump()})
    if stage.is_done():
        stage.clear_lock()
        log(f"{path} is already complete.")
        return path
    with stage.locked():
        if stage.is_done():
            return path
        log(f"Synthetic volume of {' x '.join(str(size) for size in settings.shape)} voxels")
        image, labels = make_volume(config.seed, settings)
        stage.begin()
        with create_hdf5_file(path) as file:
            for name, values in (("image", image), ("labels", labels)):
                volume = file.add(name, values.shape, values.dtype, settings.voxel_size)
                for box in blocks(Box.of_shape(values.shape), volume.chunk):
                    volume.write(box, values[box.slices])
        stage.finish(cells=int(labels.max()), voxels=int(labels.size))
    log(f"{path}: {labels.max()} cells")
    return path
