"""The configuration: typed sections, loading with one report of all problems, generated documentation."""

from ffn.config.load import load_config, parse_config
from ffn.config.sections import (
    Assembly,
    Cluster,
    Config,
    Data,
    Export,
    Inference,
    Network,
    Prepare,
    Region,
    Source,
    Synthetic,
    Training,
)

__all__ = [
    "Assembly",
    "Cluster",
    "Config",
    "Data",
    "Export",
    "Inference",
    "Network",
    "Prepare",
    "Region",
    "Source",
    "Synthetic",
    "Training",
    "load_config",
    "parse_config",
]
