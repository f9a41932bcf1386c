"""The update rule, and its rate as a function of the step."""

import math
from typing import Any

import ffn.model  # noqa: F401  (before TensorFlow)

# isort: split
import keras

from ffn.config import Training
from ffn.training.lars import Lars

LINEAR_UP_TO = 16
"""Workers up to which the paper found the linear scaling rule best (Dong et al. 2019, Fig. 4)."""


def rate_factor(training: Training, workers: int) -> float:
    """How many times the rate of one worker `workers` of them use.

    `auto` is continuous: beyond 16 workers it goes on from 16 with the square root, 16 * sqrt(workers / 16).
    """
    exponent = training.rate_exponent if training.rate_exponent is not None else 0.0
    return {
        "none": 1.0,
        "linear": float(workers),
        "sqrt": math.sqrt(workers),
        "exponent": workers**exponent,
        "auto": float(workers) if workers <= LINEAR_UP_TO else math.sqrt(LINEAR_UP_TO * workers),
    }[training.rate_scaling]


def learning_rate(training: Training, workers: int, step: int) -> float:
    """Rate of the update number `step` (from 0): scaled by the workers, ramped up linearly, then by the schedule.

    The ramp reaches the full rate at update `warmup_steps`; all schedules begin there. The cosine falls to 0 at update
    `steps`; `cyclic` is the triangular policy of Smith (2017), falling first.
    """
    peak = training.learning_rate * rate_factor(training, workers)
    if step < training.warmup_steps:
        return peak * (step + 1) / (training.warmup_steps + 1)
    since = step - training.warmup_steps
    if training.schedule == "exponential":
        return float(peak * training.decay_factor ** (since / training.decay_steps))
    if training.schedule == "cosine":
        return peak * 0.5 * (1.0 + math.cos(math.pi * since / (training.steps - training.warmup_steps)))
    if training.schedule == "cyclic":
        down = abs((since / training.decay_steps + 1) % 2 - 1)
        return peak * (1.0 - (1.0 - training.decay_factor) * down)
    return peak


class Updater:
    """The configured optimizer over a model's weights, with what surrounds it: clipping, average, loss scaling.

    Adam and AdamW use epsilon 1e-8, momentum and LARS 0.9. `float16` arithmetic scales the loss dynamically, and leaves
    an update out where that overflows.
    """

    def __init__(self, training: Training, model: keras.Model) -> None:
        self._model = model
        inner = _build(training)
        self.optimizer = keras.optimizers.LossScaleOptimizer(inner) if training.precision == "float16" else inner
        self.optimizer.build(model.trainable_variables)
        self._averages = training.ema is not None

    @property
    def scales_loss(self) -> bool:
        """Whether gradients may overflow now and then without anything being wrong."""
        return isinstance(self.optimizer, keras.optimizers.LossScaleOptimizer)

    @property
    def updates(self) -> int:
        """Updates made so far, without those left out."""
        return int(self.optimizer.iterations.numpy())

    @property
    def variables(self) -> list[keras.Variable]:
        """Everything but the weights that changes with an update, always in the same order."""
        return list(self.optimizer.variables)

    def kept_weights(self) -> Any:
        """The weights to judge and to keep, as of `Model.get_weights`: their moving average where there is one."""
        current = self._model.get_weights()
        if not self._averages or self.updates == 0:  # the averages begin with the first update
            return current
        self.optimizer.finalize_variable_values(self._model.trainable_variables)
        kept = self._model.get_weights()
        self._model.set_weights(current)
        return kept


def _build(training: Training) -> keras.optimizers.Optimizer:
    made: Any = keras.optimizers
    rate, decay = training.learning_rate, training.weight_decay
    shared: dict[str, Any] = {
        "clipvalue": training.gradient_clip,
        "global_clipnorm": training.gradient_clip_norm,
        "use_ema": training.ema is not None,
        "ema_momentum": training.ema or 0.0,
    }
    build: Any = {
        "sgd": lambda: made.SGD(rate, **shared),
        "momentum": lambda: made.SGD(rate, momentum=0.9, **shared),
        "adam": lambda: made.Adam(rate, epsilon=1e-8, **shared),
        "adamw": lambda: made.AdamW(rate, weight_decay=decay, epsilon=1e-8, **shared),
        "lars": lambda: Lars(rate, trust_decay=decay, **shared),
        "lamb": lambda: made.Lamb(rate, weight_decay=decay, **shared),
    }[training.optimizer]
    return build()
