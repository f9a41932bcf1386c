"""The weights that were judged best on the held-out examples: best.ckpt, and best.json that says when."""

import json
from pathlib import Path

import ffn.model  # noqa: F401  (before TensorFlow)

# isort: split
import keras

from ffn.files import write_json
from ffn.model.checkpoint import save_weights


class Best:
    """The best weights in one run's folder, kept by rank 0.

    A run that resumes before the best judgement comes to the same judgement again, so the files stay as they are.
    """

    def __init__(self, folder: Path, step: int) -> None:
        """Go on after `step`; 0 forgets what an earlier start found."""
        self._weights, self._record = folder / "best.ckpt", folder / "best.json"
        known = step > 0 and self._record.exists()
        self.f1 = float(json.loads(self._record.read_text(encoding="utf-8"))["f1"]) if known else -1.0

    def offer(self, model: keras.Model, step: int, f1: float) -> None:
        """Keep the model's weights if `f1` is higher than all before; NaN never is."""
        if f1 > self.f1:
            self.f1 = f1
            save_weights(model, self._weights)
            write_json(self._record, {"step": step, "f1": f1})
