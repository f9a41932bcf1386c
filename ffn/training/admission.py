"""What the first rank sees to before a run trains: that its folder is free and fits, and that its input is there."""

import json
from contextlib import ExitStack
from typing import Any

from ffn.config import Config
from ffn.errors import ConfigError, StageError
from ffn.preflight import require_training_inputs
from ffn.prepare.coordinates import CoordinateStream
from ffn.prepare.run import labelled_files, prepare_inputs
from ffn.progress import log
from ffn.stages import Stage
from ffn.training.layout import KEYS, History, Layout
from ffn.training.state import latest_step

_RESULTS = ("checkpoints", "curves.csv", "model.ckpt.index", "model.json")


def admit(config: Config, stage: Stage, layout: Layout, resume: bool, held: ExitStack) -> bool:
    """Whether there is work; if so, its input is prepared and the folder locked until `held` ends.

    Raises StageError if the folder holds something else or another process works in it, ConfigError if there are fewer
    examples than lanes, and what preparing raises.
    """
    if stage.is_done():
        stage.clear_lock()
        _refuse_other_layout(config, stage, layout)
        return False
    if resume and not latest_step(stage.folder / "checkpoints"):
        raise StageError(
            f"{stage.folder} holds no checkpoint to resume from; leave --resume away to start from the beginning."
        )
    foreign = [name for name in _RESULTS if (stage.folder / name).exists()]
    if foreign and not stage.started_marker.exists():
        raise StageError(
            f"{stage.folder} holds {foreign[0]}, but no started.json that says which settings made it. Choose another "
            "run name or output folder, or move that file away."
        )
    if layout.ranks != config.training.ranks:
        log(f"training.ranks is {config.training.ranks}, but {layout.ranks} training rank(s) were started.")
    require_training_inputs(config)
    prepare_inputs(config)
    _require_examples(config, layout)
    return stage.begin_locked(held)


def _refuse_other_layout(config: Config, stage: Stage, layout: Layout) -> None:
    """A finished run was made by one number of lanes; with another there is nothing to go on with."""
    facts: dict[str, Any] = json.loads(stage.done_marker.read_text(encoding="utf-8")).get("facts", {})
    if "layouts" not in facts:
        return
    made_by = History.read(facts["layouts"]).last
    if made_by.same_training(layout, config):
        return
    differing = [
        f"training.{key}: there {getattr(made_by, key)}, now {getattr(layout, key)}"
        for key in KEYS
        if getattr(made_by, key) != getattr(layout, key)
    ]
    raise StageError(
        f"{stage.folder} is complete, with results of another configuration ({'; '.join(differing)}). "
        "Choose another run name or output folder, or delete that folder to start over."
    )


def _require_examples(config: Config, layout: Layout) -> None:
    files = labelled_files(config)
    found = {}
    for key in config.data.volumes:
        with CoordinateStream(files[key][1].coordinates, config.seed) as stream:
            found[key] = sum(stream.counts.values())
    total = sum(found.values())
    if total < layout.lanes:
        listed = ", ".join(f"{key} has {count}" for key, count in found.items())
        raise ConfigError(
            f"There are fewer training examples ({listed}) than the {layout.lanes} that one step takes: "
            f"{layout.ranks} ranks x {layout.virtual_workers} training.virtual_workers x {layout.batch} "
            "training.batch. Some would get none of their own: use fewer, or a larger training region."
        )
