"""Mistakes a user can make, each an exception whose text says what was given, what was expected and what to do.

`ffn.cli` prints the text of an `FFNError` as one message and exits with `exit_code`; any other exception is a
bug of ours and keeps its traceback.
"""


class FFNError(Exception):
    """Base of everything that is reported without a traceback."""

    exit_code = 2


class ConfigError(FFNError):
    """The configuration does not describe a run that can work."""


class GeometryError(FFNError):
    """A box, size or field of view that does not fit."""


class VolumeError(FFNError):
    """A volume that cannot be opened, read or written as asked."""


class FetchError(FFNError):
    """Public data that cannot be fetched, or that is not what was published."""


class CheckpointError(FFNError):
    """A checkpoint that is missing, broken or of another architecture."""


class DataError(FFNError):
    """Data that can be read but from which nothing can be learnt or segmented."""


class DivergedError(DataError):
    """Training whose loss or weights are no numbers any more; all ranks find it at the same step."""


class ExchangeError(FFNError):
    """A file of another program that is damaged, or holds something that is never read from a file."""


class StageError(FFNError):
    """An output folder that belongs to another configuration, or in which another process works."""


class HeldError(StageError):
    """Another process works in a folder."""


class WorkerError(FFNError):
    """Worker processes that were killed, or for which there is not enough memory."""


class RankError(FFNError):
    """Ranks that cannot start, or do not agree."""


class LostRankError(RankError):
    """Another rank was killed or hangs: nothing is wrong with the work, and it can go on from its last checkpoint."""

    exit_code = 75


class ClusterError(FFNError):
    """A scheduler that refused, or whose answer makes no sense."""


class InterruptedTrainingError(FFNError):
    """Work that was asked to stop, saved its state and can go on: EX_TEMPFAIL, so that a scheduler may requeue it."""

    exit_code = 75


class PlanError(FFNError):
    """Work that does not fit on the machine it is planned for."""


class ViewError(FFNError):
    """A run that cannot be shown, or an address that cannot be served on."""
