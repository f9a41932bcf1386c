"""The training stage of a run: start the ranks, prepare what is missing, train, mark the folder done."""

import math
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ffn.config import ADDING, FREE, Config
from ffn.errors import ConfigError
from ffn.runs import SYNTHETIC, RunPaths
from ffn.stages import Stage
from ffn.training.admission import admit
from ffn.training.ending import Company, stop_when_asked
from ffn.training.layout import KEYS, Layout
from ffn.training.loop import TrainingLoop, TrainingResult
from ffn.training.ranks import Ranks
from ffn.training.threads import use_devices


@dataclass(frozen=True)
class TrainingOutcome:
    """`result` is None where the folder was already done with these settings."""

    folder: Path
    first_rank: bool
    result: TrainingResult | None


def settings(config: Config) -> dict[str, Any]:
    """The parts of the configuration that must stay for a run to go on.

    How its lanes are dealt out may change on the way; checkpoints and done.json tell (`ffn.training.layout`).
    """
    whole = config.model_dump(mode="json")
    training = {key: value for key, value in whole["training"].items() if key not in (*FREE, *KEYS)}
    kept = {
        "seed": whole["seed"],
        "data": {key: whole["data"][key] for key in ("train", "validation")},
        "network": whole["network"],
        "prepare": whole["prepare"],
        "training": training,
        "augmentation": whole["augmentation"],
        "allreduce": {key: whole["allreduce"][key] for key in ADDING},
    }
    if SYNTHETIC in {uri for region in config.data.labelled.values() for uri in (region.image, region.labels)}:
        kept["synthetic"] = whole["synthetic"]
    return kept


def train(
    config: Config, output: Path | None = None, resume: bool = False, launched: int | None = None
) -> TrainingOutcome:
    """Train the configured network, continuing from the last checkpoint where there is one.

    Every rank calls this. `output` replaces results/<run>/train; with `resume` it is a StageError if there is nothing
    to go on from; `launched` is how many ranks were started, for launchers that do not say. What goes wrong on one rank
    ends all of them. Raises RankError if the ranks cannot work together, LostRankError if one is killed or hangs,
    DataError if training diverges, InterruptedTrainingError after a SIGTERM.
    """
    _check(config)
    ranks = Ranks.start(config.allreduce, launched=launched)
    use_devices(config, ranks)
    folder = output or RunPaths.of(config).train
    stage, layout = Stage(folder, settings(config)), Layout.of(config.training, ranks.size)
    company = Company(ranks)
    with ExitStack() as held, company.together(), stop_when_asked(ranks):
        work = ranks.agree(bool(ranks.first_does(lambda: admit(config, stage, layout, resume, held))))
        if not work:
            return TrainingOutcome(folder, ranks.first, None)
        company.meet(folder)
        result = _train(config, stage, ranks)
        company.part()
    return TrainingOutcome(folder, ranks.first, result)


def _train(config: Config, stage: Stage, ranks: Ranks) -> TrainingResult:
    reader = ThreadPoolExecutor(1, thread_name_prefix="examples")
    try:
        loop = TrainingLoop(config, stage.folder, ranks, reader)
        result = loop.run()
    finally:
        reader.shutdown(wait=False, cancel_futures=True)
    facts = {
        "steps": result.steps,
        "f1": None if math.isnan(result.f1) else result.f1,
        "loss": result.loss,
        "ranks": ranks.size,
        "layouts": loop.history.as_json(),
    }
    ranks.first_does(lambda: stage.finish(**facts))
    return result


def _check(config: Config) -> None:
    if config.data.train is None:
        raise ConfigError("data.train is empty: there is nothing to train on.")
    if config.network.init_activation < config.network.move_threshold:
        raise ConfigError(
            f"network.init_activation {config.network.init_activation} is below network.move_threshold "
            f"{config.network.move_threshold}: the field of view would never move, not even to the first position."
        )
