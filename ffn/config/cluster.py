"""The section `cluster` of config.yaml: nodes and wall time of jobs."""

from typing import Annotated, Literal

from pydantic import Field

from ffn.config.base import NotNegative, Positive, Section


class Cluster(Section):
    """Nodes for the jobs that run on a cluster; a profile's launcher turns it into a command line."""

    nodes: Positive = Field(1, description="Nodes of the training job.")
    ranks_per_node: Positive = Field(1, description="Training ranks on each.")
    inference_nodes: Positive = Field(1, description="Nodes of an inference job.")
    inference_ranks_per_node: Positive = Field(
        1, description="Processes of an inference job on each; they share the job's sub-volumes."
    )
    stage_nodes: Positive = Field(
        1, description="Nodes of each job of the stages that work block by block, where they are cut into jobs."
    )
    stage_jobs: Positive | None = Field(
        None,
        description="Jobs into which each step of these stages is cut; empty = as many as are worth a quarter of an "
        "hour each, up to `jobs` of the profile.",
    )
    memory_gb: Annotated[float, Field(gt=0)] | None = Field(
        None, description="Memory of a node; `ffn plan` refuses sub-volumes that need more. Empty = not looked at."
    )
    runtime_minutes: Positive = Field(
        60,
        description="Wall time asked for the jobs of training and inference; jobs of other stages are cut so that they "
        "take half of it at most, and ask for what they need.",
    )
    launcher: Literal["horovodrun", "aprun", "mpiexec", "srun"] = Field(
        "horovodrun", description="Starts the ranks of training and inference jobs."
    )
    restarts: NotNegative = Field(
        3,
        description="How often training is started again, at most, after a rank was killed or hung; on Cobalt also how "
        "often its job is submitted again after its time was over.",
    )
