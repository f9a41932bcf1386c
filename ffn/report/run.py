"""The stage `report`."""

import json
from contextlib import ExitStack
from pathlib import Path

from ffn.config import Config
from ffn.errors import VolumeError
from ffn.evaluation.table import scores_table
from ffn.files import write_text
from ffn.report.curves import draw_curves, read_curves
from ffn.report.overlay import draw_overlay, drawn_step, read_slice, slice_title
from ffn.report.scores import html_of_table
from ffn.runs import RunPaths, image_uri, labels_uri
from ffn.stages import Stage, done_digest
from ffn.volumes import Volume, open_image, open_labels


def report_run(config: Config) -> Path:
    """Write results/<run>/report and return the folder: overlay.png; curves.png after a training; scores.md and
    scores.html where there is ground truth. A finished report of the same results is left as it is."""
    paths = RunPaths.of(config)
    trained, scored = config.inference.checkpoint is None, config.data.test.labels is not None
    settings = {
        "run": config.run,
        "train": done_digest(paths.train, "ffn train") if trained else None,
        "segmentation": done_digest(paths.segmented, f"ffn {paths.segmented.name}"),
        "scores": done_digest(paths.evaluate, "ffn evaluate") if scored else None,
    }
    stage = Stage(paths.report, settings)
    with stage.locked():
        if not stage.begin():
            return paths.report
        if trained:
            judged = paths.train / "validation.csv"
            held_out = read_curves(judged) if config.data.validation is not None and judged.exists() else None
            curves = read_curves(paths.train / "curves.csv")
            draw_curves(curves, f"{config.run}: training", paths.report / "curves.png", held_out)
        _overlay(config, paths)
        if scored:
            table = scores_table(json.loads(paths.scores.read_text(encoding="utf-8")))
            write_text(paths.report / "scores.md", f"# {config.run}\n\n{table}")
            write_text(paths.report / "scores.html", html_of_table(table))
        stage.finish()
    return paths.report


def _overlay(config: Config, paths: RunPaths) -> None:
    region = config.data.test
    truth_uri = labels_uri(config, region)
    with ExitStack() as files:
        image = files.enter_context(open_image(image_uri(config, region), box=region.bounds))
        volumes: dict[str, Volume] = {}
        if truth_uri is not None:
            volumes["ground truth"] = files.enter_context(open_labels(truth_uri, box=region.bounds))
        volumes["segmentation"] = files.enter_context(open_labels(paths.segmentation))
        for volume in volumes.values():
            if volume.shape != image.shape:
                raise VolumeError(
                    f"{volume.uri} has shape {volume.shape}, the image {image.uri} {image.shape} (z,y,x); "
                    "they must cover the same voxels."
                )
        depth, height, width = image.shape
        middle, step = depth // 2, drawn_step(height, width)
        voxel_size = config.data.voxel_size or image.voxel_size
        draw_overlay(
            read_slice(image, middle, step, labels=False),
            {name: read_slice(volume, middle, step, labels=True) for name, volume in volumes.items()},
            slice_title(config.run, middle, depth, step),
            None if voxel_size is None else (step * voxel_size[1], step * voxel_size[2]),
            paths.report / "overlay.png",
        )
