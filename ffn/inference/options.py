"""The numbers that decide what a flood fill does, with all probabilities already turned into logits."""

from dataclasses import dataclass, replace

import numpy as np

from ffn.config import Inference, Network
from ffn.geometry import ZYX
from ffn.model.logits import logit
from ffn.model.orientation import Orientation

_AT_FACES = 1 / 3
"""Of `min_unseen`, at the faces of a sub-volume that is not continued beyond them: what is not seen from there stays
empty, as it is where a strip of 5 voxels is less than 0.15 of a field of view of 33."""


@dataclass(frozen=True)
class FloodOptions:
    """Settings of a flood fill. Sizes are z,y,x in voxels; the four levels are float32 logits.

    Logits are compared as float32 throughout, as the network produces them: a voxel exactly at a level counts as
    reaching it.
    """

    fov: ZYX
    deltas: ZYX
    init: np.float32
    """Object map at the seed voxel."""
    pad: np.float32
    """Object map shown to the network where nothing has been predicted yet."""
    move: np.float32
    """Level at a face's maximum from which the field of view moves there."""
    segment: np.float32
    """Level from which a voxel belongs to the object."""
    min_segment_size: int
    min_boundary_dist: ZYX
    disco: float
    """Fraction of a prediction that must reach `move` before rejected voxels are held down; negative = never."""
    min_unseen: float = 0.0
    """Part of a field of view that has to be unseen; 0 = the reference's policy."""
    min_unseen_at_faces: float = 0.0
    """The same within a step of the outermost places where a field of view fits."""
    offers_compared: int = 1
    """Of this many offers the one that would show most goes first, where some are left out."""
    join_share: float = 1.0
    """Part of an object that has to lie in an earlier one for it to be a part of that; 1 = objects stay apart."""

    @classmethod
    def of(cls, network: Network, inference: Inference) -> "FloodOptions":
        return cls(
            fov=network.fov,
            deltas=network.deltas if inference.deltas is None else inference.deltas,
            init=logit(network.init_activation),
            pad=logit(network.pad_value),
            move=logit(network.move_threshold if inference.move_threshold is None else inference.move_threshold),
            segment=logit(inference.segment_threshold),
            min_segment_size=inference.min_segment_size,
            min_boundary_dist=inference.min_boundary_dist,
            disco=inference.disco_seed_threshold,
            min_unseen=inference.least_unseen,
            min_unseen_at_faces=inference.least_unseen * (1 if inference.mirror else _AT_FACES),
            offers_compared=inference.offers_compared,
            join_share=inference.least_joined,
        )

    def turned(self, orientation: Orientation) -> "FloodOptions":
        """For a volume that is turned this way."""
        return replace(
            self,
            fov=orientation.reordered(self.fov),
            deltas=orientation.reordered(self.deltas),
            min_boundary_dist=orientation.reordered(self.min_boundary_dist),
        )

    @property
    def reach(self) -> ZYX:
        """Voxels between a field of view's centre and its faces."""
        z, y, x = self.fov
        return z // 2, y // 2, x // 2
