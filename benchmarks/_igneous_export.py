"""igneous' own transfer and downsample of labels into shards; prints the seconds. Runs in igneous' environment."""

import argparse
import resource
import time

import igneous.task_creation as tc
from cloudvolume import CloudVolume
from taskqueue import LocalTaskQueue

ENCODING = "compressed_segmentation"


def core_seconds() -> float:
    """Of this process and of those that it started and that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def main() -> None:
    """Print seconds, core-seconds, and how many lower resolutions there are."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source")
    parser.add_argument("target")
    parser.add_argument("--mips", type=int, required=True)
    parser.add_argument("--processes", type=int, required=True)
    parser.add_argument("--memory", type=int, required=True, help="bytes of a task")
    args = parser.parse_args()
    queue = LocalTaskQueue(parallel=args.processes, progress=False)
    began, used = time.perf_counter(), core_seconds()
    transfer = tc.create_image_shard_transfer_tasks(
        args.source, args.target, encoding=ENCODING, memory_target=args.memory
    )
    queue.insert(transfer)
    queue.execute()
    made = 0
    while made < args.mips:
        downsample = tc.create_image_shard_downsample_tasks(
            args.target,
            mip=made,
            factor=(2, 2, 2),
            encoding=ENCODING,
            num_mips=args.mips - made,
            memory_target=args.memory,
        )
        queue.insert(downsample)
        queue.execute()
        before, made = made, len(CloudVolume(args.target).scales) - 1
        if made == before:
            break
    print(time.perf_counter() - began, core_seconds() - used, made)


if __name__ == "__main__":
    main()
