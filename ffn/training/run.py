"""The training stage of a run: start the ranks, prepare what is missing, train, mark the folder done."""

import math
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ffn.model  # noqa: F401  (before TensorFlow)

# isort: split
import tensorflow as tf

from ffn.config import Config
from ffn.errors import ConfigError, FFNError, StageError
from ffn.progress import log
from ffn.runs import SYNTHETIC, RunPaths
from ffn.stages import Stage
from ffn.training.loop import TrainingLoop, TrainingResult
from ffn.training.ranks import Ranks, lost_rank
from ffn.training.state import latest_step

# What may change between two starts of a run without changing its result.
_FREE = frozenset({"checkpoint_every", "keep_checkpoints", "microbatch"})
_ADDING = ("operation", "compression", "message")
_RESULTS = ("checkpoints", "curves.csv", "model.ckpt.index", "model.json")


@dataclass(frozen=True)
class TrainingOutcome:
    """`result` is None where the folder was already done with these settings."""

    folder: Path
    first_rank: bool
    result: TrainingResult | None


def settings(config: Config, ranks: int) -> dict[str, Any]:
    """The parts of the configuration that decide the trained weights, with the number of ranks that really run."""
    whole = config.model_dump(mode="json")
    training = {key: value for key, value in whole["training"].items() if key not in _FREE}
    kept = {
        "seed": whole["seed"],
        "data": {key: whole["data"][key] for key in ("train", "validation")},
        "network": whole["network"],
        "prepare": whole["prepare"],
        "training": {**training, "ranks": ranks},
        "augmentation": whole["augmentation"],
        "allreduce": {key: whole["allreduce"][key] for key in _ADDING},
    }
    if _synthetic(config):
        kept["synthetic"] = whole["synthetic"]
    return kept


def train(config: Config, output: Path | None = None, resume: bool = False) -> TrainingOutcome:
    """Train the configured network, continuing from the last checkpoint where there is one.

    Every rank calls this. `output` replaces results/<run>/train; with `resume` it is a StageError if there is nothing
    to go on from. Raises RankError if the ranks cannot work together, DataError if training diverges,
    InterruptedTrainingError after a SIGTERM.
    """
    _check(config)
    ranks = Ranks.start()
    use_devices(config, ranks)
    folder = output or RunPaths.of(config).train
    stage = Stage(folder, settings(config, ranks.size))
    try:
        work = ranks.agree(bool(ranks.first_does(lambda: _claim(config, stage, ranks, resume))))
        result = _train(config, stage, ranks) if work else None
    except FFNError:
        raise
    except Exception as error:
        lost = lost_rank(error)
        if lost is None:
            raise
        raise lost from error
    return TrainingOutcome(folder, ranks.first, result)


def _train(config: Config, stage: Stage, ranks: Ranks) -> TrainingResult:
    with ThreadPoolExecutor(1, thread_name_prefix="examples") as reader:
        try:
            result = TrainingLoop(config, stage.folder, ranks, reader).run()
        finally:
            reader.shutdown(wait=True, cancel_futures=True)
    f1 = None if math.isnan(result.f1) else result.f1
    ranks.first_does(lambda: stage.finish(steps=result.steps, f1=f1, loss=result.loss, ranks=ranks.size))
    return result


def _claim(config: Config, stage: Stage, ranks: Ranks, resume: bool) -> bool:
    """Whether there is work; if so, its input is prepared and the folder claimed."""
    if stage.is_done():
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
    if ranks.size != config.training.ranks:
        log(f"training.ranks is {config.training.ranks}, but {ranks.size} training rank(s) were started.")
    _prepare(config)
    return stage.begin()


def _prepare(config: Config) -> None:
    from ffn.prepare.run import prepare_training

    if _synthetic(config):
        from ffn.synthetic.run import synthesize

        synthesize(config)
    prepare_training(config)


def _synthetic(config: Config) -> bool:
    return any(SYNTHETIC in (region.image, region.labels) for region in config.data.labelled.values())


def _check(config: Config) -> None:
    if config.data.train is None:
        raise ConfigError("data.train is empty: there is nothing to train on.")
    if config.network.init_activation < config.network.move_threshold:
        raise ConfigError(
            f"network.init_activation {config.network.init_activation} is below network.move_threshold "
            f"{config.network.move_threshold}: the field of view would never move, not even to the first position."
        )


def use_devices(config: Config, ranks: Ranks) -> None:
    """Threads, GPU and reproducible kernels of this rank; before TensorFlow runs anything.

    Ranks that share a machine share its cores; left to itself, TensorFlow would give each of them all. On a CPU, with
    the same number of threads, the same configuration gives the same bits; a GPU's faster kernels do not promise that.
    """
    cores = os.cpu_count() or 1
    intra = config.threads.intra_op or (max(cores // ranks.local_size, 1) if ranks.local_size > 1 else 0)
    gpus = tf.config.list_physical_devices("GPU")
    try:
        tf.config.threading.set_intra_op_parallelism_threads(intra)
        tf.config.threading.set_inter_op_parallelism_threads(config.threads.inter_op)
        if gpus:
            mine = gpus[ranks.local_rank % len(gpus)]
            tf.config.set_visible_devices(mine, "GPU")
            tf.config.experimental.set_memory_growth(mine, True)
    except RuntimeError:
        log("TensorFlow is already running in this process: training's thread and GPU settings have no effect.")
    if not gpus:
        tf.config.experimental.enable_op_determinism()
    # This graph rewriting stumbles over the residual connections, at another node in every process, and reports an
    # error; training is as fast without it.
    tf.config.optimizer.set_experimental_options({"remapping": False})
