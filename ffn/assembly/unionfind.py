"""Which nodes hang together, from any number of pairs that come in pieces.

A forest over the nodes: each points to a smaller one of its set or, as its root, to itself. A batch of pairs is taken
to its roots, the components of that small graph are found (SciPy), and every root points to the smallest of its
component from then on. So the root of a set is its smallest node, whatever the order of the pairs, and memory is that
of the forest, 4 bytes a node below 2^31 of them, and one batch.
"""

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

Nodes = NDArray[np.int32] | NDArray[np.int64]

BATCH = 1 << 22
"""Pairs that are joined at once."""

STRETCH = 1 << 20
"""Nodes that are worked on at once; NumPy holds an index of 8 bytes for each."""


def smallest_members(nodes: int, pairs: Iterable[tuple[Nodes, Nodes]], batch: int = BATCH) -> Nodes:
    """The smallest node of each node's set, [nodes]: int32 below 2^31 nodes, else int64.

    Args:
        nodes: How many there are, numbered from 0.
        pairs: Arrays a, b of equal length: node a[i] and node b[i] are in one set.
        batch: Pairs that are joined at once.
    """
    above: Nodes = np.arange(nodes, dtype=np.int32) if nodes < 1 << 31 else np.arange(nodes, dtype=np.int64)
    for a, b in _batches(pairs, batch):
        _join(above, _roots(above, a), _roots(above, b))
    # Every way leads to smaller nodes, and those of earlier stretches point to their roots already.
    for stretch in stretches(nodes):
        part = above[stretch]
        while ((higher := above[part]) != part).any():
            part[:] = higher
    return above


def numbered(members: Nodes, counted: NDArray[np.bool_] | None = None) -> NDArray[np.uint64]:
    """Numbers 1, 2, ... of sets in the order of their smallest nodes, for each node, uint64.

    Args:
        members: The smallest node of each node's set.
        counted: bool [nodes], looked at for smallest nodes only: sets that get a number; the others get 0.
    """
    numbers = np.zeros(len(members), np.uint64)
    used = 0
    for stretch in stretches(len(members)):
        part = members[stretch]
        roots = stretch.start + np.flatnonzero(part == np.arange(stretch.start, stretch.start + len(part)))
        if counted is not None:
            roots = roots[counted[roots]]
        numbers[roots] = np.arange(used + 1, used + 1 + len(roots), dtype=np.uint64)
        used += len(roots)
        numbers[stretch] = numbers[part]  # roots keep their own
    return numbers


def stretches(nodes: int) -> Iterator[slice]:
    """All nodes, `STRETCH` at a time."""
    return (slice(begin, begin + STRETCH) for begin in range(0, nodes, STRETCH))


def _batches(pairs: Iterable[tuple[Nodes, Nodes]], batch: int) -> Iterator[tuple[Nodes, Nodes]]:
    """The same pairs, about `batch` at a time: small pieces are put together, large ones are cut."""
    waiting: list[tuple[Nodes, Nodes]] = []
    count = 0
    for a, b in pairs:
        for begin in range(0, len(a), batch):
            piece = slice(begin, begin + batch)
            waiting.append((a[piece], b[piece]))
            count += len(a[piece])
            if count >= batch:
                yield _together(waiting)
                waiting, count = [], 0
    if waiting:
        yield _together(waiting)


def _together(pieces: list[tuple[Nodes, Nodes]]) -> tuple[Nodes, Nodes]:
    return np.concatenate([a for a, _ in pieces]), np.concatenate([b for _, b in pieces])


def _roots(above: Nodes, nodes: Nodes) -> Nodes:
    roots = above[nodes]
    while ((higher := above[roots]) != roots).any():
        roots = higher
    above[nodes] = roots  # the way is short from then on
    return roots


def _join(above: Nodes, a: Nodes, b: Nodes) -> None:
    from scipy.sparse import coo_array  # takes a tenth of a second to load; plans need this module, not its work
    from scipy.sparse.csgraph import connected_components

    differ = a != b
    a, b = a[differ], b[differ]
    if len(a) == 0:
        return
    found, places = np.unique(np.concatenate([a, b]), return_inverse=True)
    first, second = np.split(places, 2)
    graph = coo_array((np.ones(len(a), np.int8), (first, second)), shape=(len(found), len(found)))
    count, component = connected_components(graph, directed=False)
    smallest = np.empty(count, found.dtype)
    smallest[component[::-1]] = found[::-1]  # of several values for one place NumPy keeps the last
    above[found] = smallest[component]
