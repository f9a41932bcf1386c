"""A run in pictures and tables: curves of training, a slice with its segmentation, scores."""

from ffn.report.run import report_run

__all__ = ["report_run"]
