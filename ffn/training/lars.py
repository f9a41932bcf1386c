"""LARS, which Keras does not have: momentum with a rate of its own for each layer."""

from typing import Any

import ffn.model  # noqa: F401  (before TensorFlow)

# isort: split
import keras
from keras import ops

TRUST = 0.001


class Lars(keras.optimizers.Optimizer):
    """Layer-wise adaptive rate scaling (You, Gitman & Ginsburg 2017, arXiv 1708.03888).

    A kernel w with gradient g moves by `rate * TRUST * |w| / (|g| + trust_decay * |w|) * (g + trust_decay * w)`, with
    momentum. Biases, and kernels that are still zero, move by momentum alone.
    """

    def __init__(self, learning_rate: float, momentum: float = 0.9, trust_decay: float = 0.0, **shared: Any) -> None:
        super().__init__(learning_rate=learning_rate, name="lars", **shared)
        self.momentum, self.trust_decay = momentum, trust_decay

    def build(self, variables: list[keras.Variable]) -> None:
        """Make the momentum slots."""
        if not self.built:
            super().build(variables)
            (self._momenta,) = self.add_optimizer_variables(variables, ["momentum"])

    def update_step(self, gradient: Any, variable: keras.Variable, learning_rate: Any) -> None:
        """Move one weight array."""
        rate = ops.cast(learning_rate, variable.dtype)
        if len(variable.shape) > 1:
            size, slope = (ops.sqrt(ops.sum(ops.square(array))) for array in (variable, gradient))
            trust = TRUST * size / (slope + self.trust_decay * size)
            usable = ops.logical_and(size > 0, slope > 0)
            rate = rate * ops.where(usable, trust, ops.ones_like(trust))
            gradient = gradient + self.trust_decay * variable
        momentum = self._momenta[self._get_variable_index(variable)]
        self.assign(momentum, self.momentum * momentum - rate * gradient)
        self.assign_add(variable, momentum)

    def get_config(self) -> dict[str, Any]:
        """As for every Keras optimizer."""
        return {**super().get_config(), "momentum": self.momentum, "trust_decay": self.trust_decay}
