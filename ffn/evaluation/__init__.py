"""How well a segmentation agrees with the ground truth: contingency table, scores, the worst errors."""

from ffn.evaluation.contingency import Contingency, contingency_of_volumes
from ffn.evaluation.run import WORST, evaluate, evaluate_run, evaluate_to
from ffn.evaluation.scores import TREATMENTS, Scores, coverage, score

__all__ = [
    "TREATMENTS",
    "WORST",
    "Contingency",
    "Scores",
    "contingency_of_volumes",
    "coverage",
    "evaluate",
    "evaluate_run",
    "evaluate_to",
    "score",
]
