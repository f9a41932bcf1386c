"""Blockwise work: the same function for each unit of a stage, over any number of processes, jobs and nodes.

    stage    a folder with steps one behind the other, `started.json` and `done.json`
    step     a task for all of its units: a map over blocks, or a reduce, which has a single unit
    unit     what one process does at once, and what a kill loses: a block, a sub-volume, a group of pairs
    job      a contiguous part of a step's units; the processes of a job share its units
    ledger   which units are done, and the small arrays that each leaves for a later step

A unit is a pure function of files and its number. Its output is written whole, atomically, and always the same, so
doing a unit twice is harmless: processes need no locks and no messages, only a common file system.
"""

from ffn.blockwise.grid import Grid, part_of
from ffn.blockwise.ledger import Columns, Entry, Ledger
from ffn.blockwise.pool import Pool, library_threads, usable_cores
from ffn.blockwise.stage import EVERYTHING, BlockwiseStage, JobPart, Share, Step
from ffn.blockwise.task import BlockTask, Reduce, Result, Task

__all__ = [
    "EVERYTHING",
    "BlockTask",
    "BlockwiseStage",
    "Columns",
    "Entry",
    "Grid",
    "JobPart",
    "Ledger",
    "Pool",
    "Reduce",
    "Result",
    "Share",
    "Step",
    "Task",
    "library_threads",
    "part_of",
    "usable_cores",
]
