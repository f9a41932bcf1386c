"""The configuration: typed sections, loading with one report of all problems, generated documentation."""

from ffn.config.agglomeration import Agglomeration, Radii
from ffn.config.assembly import Assembly, overlap_problems
from ffn.config.cluster import Cluster
from ffn.config.inference import Inference, Pass
from ffn.config.load import load_config, parse_config
from ffn.config.sections import (
    Config,
    Data,
    Export,
    Network,
    Prepare,
    Region,
    Source,
    Synthetic,
    TrainingVolume,
)
from ffn.config.study import CostModel, Efficiency, LrStudy, StrongScaling, Study
from ffn.config.training import ADDING, FREE, Allreduce, Augmentation, Threads, Training

__all__ = [
    "ADDING",
    "FREE",
    "Agglomeration",
    "Allreduce",
    "Assembly",
    "Augmentation",
    "Cluster",
    "Config",
    "CostModel",
    "Data",
    "Efficiency",
    "Export",
    "Inference",
    "LrStudy",
    "Network",
    "Pass",
    "Prepare",
    "Radii",
    "Region",
    "Source",
    "StrongScaling",
    "Study",
    "Synthetic",
    "Threads",
    "Training",
    "TrainingVolume",
    "load_config",
    "overlap_problems",
    "parse_config",
]
