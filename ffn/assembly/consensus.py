"""What several segmentations of the same voxels agree on.

A flood fill takes each decision once: a leak at one contact joins two neurons, a hesitation cuts one in two. Passes
that saw the volume turned make such mistakes in other places. Their segments are compared in four steps:

1. Voxels to which all passes give the same labels are one *piece*. Pieces are the cells of all segmentations laid over
   each other; most of a neuron lies in a few large ones, its boundary in many small ones.
2. Two large pieces are attracted by every pass that puts them into one segment, and repelled by every pass that puts
   them into two: (passes for - majority x passes that see both) x voxels of the smaller one. Only pairs that some pass
   joins count. With a majority above one half, a leak that half of the passes share joins nothing.
3. The pieces are clustered greedily: the pair with the strongest attraction is joined and its attractions to all others
   are added up, until only repulsion is left (greedy additive edge contraction, Keuper et al. 2015). So a leak in one
   pass is outvoted, and so is a gap.
4. A voxel goes to the cluster for which most passes vote. The vote of a pass is its label there, shared among the
   clusters in proportion to how many voxels of that label went into each.
"""

import heapq
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray
from scipy import sparse


class Pieces:
    """The voxels to which all passes give the same labels, of segmentations that are added one by one.

    Attributes:
        labels: int64 [piece, pass]: the label that each pass gives the piece.
        voxels: int64 [piece].
        places: Piece of each voxel, int64, flat.
    """

    def __init__(self, segmentations: Iterable[NDArray[np.unsignedinteger]]) -> None:
        """Compare label volumes of one shape, 0 = nothing; one at a time is held, and 24 bytes a voxel."""
        self.labels = np.zeros((1, 0), np.int64)
        self.places = np.zeros(1, np.int64)
        for segmentation in segmentations:
            ids = segmentation.ravel().astype(np.int64)
            base = int(ids.max(initial=0)) + 1
            ids += self.places * base
            found, self.places = np.unique(ids, return_inverse=True)
            self.labels = np.column_stack([self.labels[found // base], found % base])
        self.voxels = np.bincount(self.places, minlength=len(self.labels))

    @property
    def passes(self) -> int:
        """How many segmentations were added."""
        return self.labels.shape[1]


def agreed(pieces: Pieces, agreement: float, majority: float, smallest: int) -> NDArray[np.uint32]:
    """The object of each piece, uint32, 0 = none; objects are numbered from 1 without gaps.

    Args:
        pieces: Of all passes.
        agreement: Part of the passes that must vote for a voxel's object.
        majority: More than this part of the passes that see two pieces must join them for these to attract each other.
        smallest: Voxels from which a piece is clustered and not only assigned; so also of an object.
    """
    covered = np.count_nonzero(pieces.labels, axis=1)
    large = (pieces.voxels >= smallest) & (2 * covered >= pieces.passes)
    labels, voxels = pieces.labels[large], pieces.voxels[large]
    clusters = contract(len(labels), *attractions(labels, voxels, majority))
    votes = _votes(pieces.labels, labels, voxels, clusters)
    if votes.shape[1] == 0:
        return np.zeros(len(pieces.labels), np.uint32)
    best, strength = votes.argmax(axis=1), votes.max(axis=1).toarray()
    best, strength = np.asarray(best).ravel(), strength.ravel()
    taken = (strength > 0) & (strength >= agreement * pieces.passes)
    objects = np.where(taken, best + 1, 0)
    return np.unique(np.append(objects, 0), return_inverse=True)[1][:-1].astype(np.uint32)


def attractions(
    labels: NDArray[np.int64], voxels: NDArray[np.int64], majority: float
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Step 2: pairs (i < j) of pieces that some pass joins, and their attraction; negative = repulsion."""
    pieces, passes = labels.shape
    joined = sparse.csr_array((pieces, pieces), dtype=np.int64)
    for ids in labels.T:
        there = np.flatnonzero(ids)
        shape = (pieces, ids.max(initial=0) + 1)
        members = sparse.csr_array((np.ones(len(there), np.int64), (there, ids[there])), shape)
        joined = joined + members @ members.T
    pairs = sparse.triu(joined, 1).tocoo()
    first, second = pairs.row.astype(np.int64), pairs.col.astype(np.int64)
    seen = labels > 0
    both = np.count_nonzero(seen[first] & seen[second], axis=1)
    return first, second, (pairs.data - majority * both) / passes * np.minimum(voxels[first], voxels[second])


def contract(
    pieces: int, first: NDArray[np.int64], second: NDArray[np.int64], attraction: NDArray[np.float64]
) -> NDArray[np.int64]:
    """Step 3: cluster of each piece, int64, numbered from 0 without gaps."""
    edges = list(zip(first.tolist(), second.tolist(), attraction.tolist(), strict=True))
    near: list[dict[int, float]] = [{} for _ in range(pieces)]
    for a, b, weight in edges:
        near[a][b] = near[b][a] = weight
    queue = [(-weight, a, b) for a, b, weight in edges if weight > 0]
    heapq.heapify(queue)
    into = np.arange(pieces)
    while queue:
        negative, a, b = heapq.heappop(queue)
        if near[a].get(b) != -negative:
            continue  # one of the two was joined to something since
        if len(near[a]) < len(near[b]):
            a, b = b, a
        into[b] = a
        del near[a][b]
        for other, weight in near[b].items():
            if other == a:
                continue
            total = near[a].get(other, 0.0) + weight
            near[a][other] = near[other][a] = total
            del near[other][b]
            if total > 0:
                heapq.heappush(queue, (-total, a, other))
        near[b] = {}
    while (further := into[into] != into).any():
        into[further] = into[into[further]]
    return np.unique(into, return_inverse=True)[1]


def _votes(
    pieces: NDArray[np.int64], labels: NDArray[np.int64], voxels: NDArray[np.int64], clusters: NDArray[np.int64]
) -> sparse.csr_array:
    """Step 4: votes [piece, cluster] of all passes."""
    count = int(clusters.max(initial=-1)) + 1
    votes = sparse.csr_array((len(pieces), count))
    for number, ids in enumerate(labels.T):
        here = ids > 0
        shape = (pieces[:, number].max(initial=0) + 1, count)
        of_label = sparse.csr_array((voxels[here].astype(np.float64), (ids[here], clusters[here])), shape)
        totals = of_label.sum(axis=1)
        share = sparse.diags_array(1 / np.where(totals > 0, totals, 1.0)).tocsr() @ of_label
        votes = votes + share[pieces[:, number]]
    return votes.tocsr()
