"""Defects and changes of grey values that a training example may show, as Lee et al. 2017 (arXiv 1706.00120) use them.

All are drawn as pure functions of the seed and of the example's number, each from its own stream of random numbers:
switching one on or off does not change what another one does.
"""

from ffn.training.augment.augmenter import Augmenter

__all__ = ["Augmenter"]
