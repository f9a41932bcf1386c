"""Time of one allreduce: latency and bandwidth of the network, and what Horovod adds."""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls


@dataclass(frozen=True)
class Network:
    """Constants of an allreduce between nodes.

    Attributes:
        latency_s: seconds of one small message between two nodes.
        bytes_per_s: of one node, each direction.
        cycle_s: Horovod's wait for more tensors; a message waits half of it on average.
        coordinator_s: seconds that rank 0 spends on each other rank's request and answer before a message starts.
        algorithm: `ring` or `tree` (recursive halving and doubling).
    """

    latency_s: float
    bytes_per_s: float
    cycle_s: float = 0.0
    coordinator_s: float = 0.0
    algorithm: Literal["ring", "tree"] = "ring"

    def allreduce(self, workers: int, size: float) -> float:
        """Seconds of one allreduce of `size` bytes; 0 for one worker.

        Ring: 2(n-1) messages of size/n. Tree: 2 log2(n) messages, in all as many bytes (Thakur et al. 2005).
        """
        if workers == 1:
            return 0.0
        hops = 2 * (workers - 1) if self.algorithm == "ring" else 2 * math.ceil(math.log2(workers))
        moved = 2 * (workers - 1) / workers * size
        return hops * self.latency_s + moved / self.bytes_per_s + self.cycle_s / 2 + workers * self.coordinator_s


@dataclass(frozen=True)
class Line:
    """Measured allreduce of one number of ranks: fixed_s + bytes * per_byte_s."""

    fixed_s: float
    per_byte_s: float

    @classmethod
    def fit(cls, sizes: NDArray[np.float64], seconds: NDArray[np.float64]) -> "Line":
        """Least relative squares with both parts at least 0.

        Args:
            sizes: float64 [n], bytes; at least two different ones.
            seconds: float64 [n], median time of each size.
        """
        rows = np.stack([1 / seconds, sizes / seconds], axis=1)
        scale = rows.max(axis=0)
        (fixed, slope), _ = nnls(rows / scale, np.ones(len(sizes)))
        return cls(float(fixed / scale[0]), float(slope / scale[1]))

    def seconds(self, size: float) -> float:
        return self.fixed_s + self.per_byte_s * size
