"""The weights that a training would have ended with, had it stopped at one of the checkpoints that it kept."""

from pathlib import Path

import ffn.model  # noqa: F401  (before TensorFlow)

# isort: split
import keras

from ffn.config import Config
from ffn.errors import StageError
from ffn.model.checkpoint import load_weights, read_tensors
from ffn.model.network import build_network
from ffn.runs import RunPaths
from ffn.training.optimizer import Updater


def fovs_per_step(config: Config) -> int:
    """Fields of view of one update, of all workers."""
    training = config.training
    return training.batch * training.accumulate * training.virtual_workers * training.ranks


def kept_checkpoints(config: Config, every: int) -> dict[int, Path]:
    """Prefix of the weights of every `every`th checkpoint of a finished training, and of its last step, by step."""
    train = RunPaths.of(config).train
    if not (train / "done.json").exists():
        raise StageError(f"{train} is not finished: run the workflow with this configuration first.")
    found = sorted(path for path in (train / "checkpoints").glob("step-*") if path.name[5:].isdigit())
    weights = {int(path.name[5:]): path / "weights" for path in found[every - 1 :: every]}
    return {**weights, config.training.steps: train / "model.ckpt"}


def average_at(config: Config, prefix: Path) -> keras.Model:
    """The network with the weights to keep: those of the checkpoint or, with `training.ema`, their moving average."""
    model = build_network(config.network.depth, config.network.features, config.seed)
    load_weights(model, prefix)
    tensors = read_tensors(prefix)
    slots = [tensors[name] for name in sorted(tensors) if name.startswith("optimizer/")]
    if slots:
        updater = Updater(config.training, model)
        for slot, variable in zip(slots, updater.variables, strict=True):
            variable.assign(slot)
        model.set_weights(updater.kept_weights())
    return model
