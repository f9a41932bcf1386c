"""igneous' own transfer and downsample of a layer into shards; prints the seconds. Runs in igneous' environment."""

import argparse
import time

import igneous.task_creation as tc
from cloudvolume import CloudVolume
from taskqueue import LocalTaskQueue


def main() -> None:
    """Print seconds and how many lower resolutions there are."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source")
    parser.add_argument("target")
    parser.add_argument("--mips", type=int, required=True)
    parser.add_argument("--encoding", required=True)
    parser.add_argument("--processes", type=int, required=True)
    parser.add_argument("--memory", type=int, required=True, help="bytes of a task")
    args = parser.parse_args()
    queue = LocalTaskQueue(parallel=args.processes, progress=False)
    began = time.perf_counter()
    transfer = tc.create_image_shard_transfer_tasks(
        args.source, args.target, encoding=args.encoding, memory_target=args.memory
    )
    queue.insert(transfer)
    queue.execute()
    made = 0
    while made < args.mips:
        downsample = tc.create_image_shard_downsample_tasks(
            args.target,
            mip=made,
            factor=(2, 2, 2),
            encoding=args.encoding,
            num_mips=args.mips - made,
            memory_target=args.memory,
        )
        queue.insert(downsample)
        queue.execute()
        before, made = made, len(CloudVolume(args.target).scales) - 1
        if made == before:
            break
    print(time.perf_counter() - began, made)


if __name__ == "__main__":
    main()
