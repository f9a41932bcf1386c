"""The update rule, and its rate as a function of the step."""

import math

import ffn.model  # noqa: F401  (before TensorFlow)

# isort: split
import keras

from ffn.config import Training


def learning_rate(training: Training, ranks: int, step: int) -> float:
    """Rate of the update number `step` (from 0): scaled by the ranks, ramped up linearly, then by the schedule.

    The ramp reaches the full rate at update `warmup_steps`; the cosine falls from there to 0 at update `steps`.
    """
    factor = {"none": 1.0, "linear": float(ranks), "sqrt": math.sqrt(ranks)}[training.rate_scaling]
    peak = training.learning_rate * factor
    if step < training.warmup_steps:
        return peak * (step + 1) / (training.warmup_steps + 1)
    if training.schedule == "constant":
        return peak
    part = (step - training.warmup_steps) / (training.steps - training.warmup_steps)
    return peak * 0.5 * (1.0 + math.cos(math.pi * part))


def build_optimizer(training: Training, model: keras.Model) -> keras.optimizers.Optimizer:
    """The configured optimizer with slots for the model's weights; the rate is set at each step."""
    optimizer = {
        "sgd": lambda: keras.optimizers.SGD(training.learning_rate),
        "momentum": lambda: keras.optimizers.SGD(training.learning_rate, momentum=0.9),
        "adam": lambda: keras.optimizers.Adam(training.learning_rate, epsilon=1e-8),
    }[training.optimizer]()
    optimizer.build(model.trainable_variables)
    return optimizer
