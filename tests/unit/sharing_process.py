"""`ffn` as one of several processes, with a small NumPy network in the place of TensorFlow's.

sharing_process.py FAIL ARGUMENT...: the network of the process whose HOROVOD_RANK is FAIL breaks at its 20th look;
`always`: there is none.
"""

import os
import sys
import types

from flooding import Batches, SmallNetwork

from ffn.cli import main
from ffn.errors import DataError


class Breaking(SmallNetwork):
    def __call__(self, image, object_map):
        if self.calls >= 20:
            raise DataError("The network broke.")
        return super().__call__(image, object_map)


executor = types.ModuleType("ffn.inference.executor")
network = (Breaking if os.environ.get("HOROVOD_RANK") == sys.argv[1] else SmallNetwork)(2)
executor.load_executor = lambda *_, **__: Batches(network)  # type: ignore[attr-defined]
if sys.argv[1] != "always":
    sys.modules[executor.__name__] = executor
else:
    sys.modules[executor.__name__] = None  # type: ignore[assignment]
if __name__ == "__main__":  # and not in a worker process
    sys.exit(main(sys.argv[2:]))
