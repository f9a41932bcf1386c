"""What the Snakemake rules need to know of a configuration: files, markers, triggers, resources. Nothing else is in
the rules, so that all of it is tested without Snakemake.

    fetch, synth -> prepare -> train -> infer (a job for each pass over a batch of sub-volumes)
        -> consensus (for each batch, of several passes) -> assemble -> agglomerate (where enabled)
        -> evaluate -> report
        -> export

A rule's output is its stage's done-marker, never its data: Snakemake deletes declared outputs before it runs a job
again, and a killed stage continues from its data. A batch has a marker of its own beside those of its sub-volumes, so
that even a batch that is run again keeps what is finished of it.
"""

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from ffn.cluster.resources import Asked, launch_line_of, launcher_of, node_hours, refusals
from ffn.cluster.scatter import Scatter
from ffn.cluster.site import Site
from ffn.config import Config, Region
from ffn.config.inference import OF_CONSENSUS
from ffn.errors import ConfigError
from ffn.files import write_text
from ffn.fingerprint import STAGE_KEYS, trigger
from ffn.planning.batching import SubvolumeBatches
from ffn.planning.estimate import consensus_bytes, consensus_mb, inference_mb
from ffn.planning.extent import extent_of
from ffn.planning.steps import StepWork
from ffn.planning.table import outlook
from ffn.planning.walltime import synth_minutes
from ffn.preflight import checked
from ffn.runs import SYNTHETIC, RunPaths
from ffn.scaling.targets import StudyPlan
from ffn.stages import settings_hash

ALL_CORES = 1024
"""Threads of a job that takes whatever there is: Snakemake lowers it to --cores."""

_STAGES = {"synth", "prepare", "train", "assemble", "agglomerate", "evaluate", "export", "report"}
"""Rules of one job."""

_GROUPS = {"synth": "data", "prepare": "data", "evaluate": "scores", "report": "scores"}
"""Short stages that follow each other: one job of a cluster, so that they wait in its queue once."""


@dataclass(frozen=True)
class Plan:
    """The jobs of one run; `jobs` is how many a cluster is given at once, None where they run on this machine."""

    config: Config
    paths: RunPaths
    jobs: int | None = None
    site: Site | None = None

    @classmethod
    def of(
        cls,
        values: Mapping[str, Any],
        name: str,
        inputs: bool = True,
        jobs: int | None = None,
        site: Site | None = None,
    ) -> "Plan":
        """Check Snakemake's configuration; `name` is how an error calls it.

        Raises ConfigError with all problems of the keys and, where `inputs`, of the volumes and the checkpoint.
        """
        if not values:
            raise ConfigError(
                f"{name} is empty. Give one with --configfile, or pass `config: config` to the module statement."
            )
        config = checked(values, name, inputs)
        return cls(config, RunPaths.of(config), jobs, site)

    # --- what there is to do

    @property
    def fetches(self) -> bool:
        return bool(self.config.data.sources)

    @property
    def synthesises(self) -> bool:
        return any(SYNTHETIC in (region.image, region.labels) for region in self._regions)

    @property
    def trains(self) -> bool:
        return self.config.inference.checkpoint is None

    @property
    def scores(self) -> bool:
        return self.config.data.test.labels is not None

    @property
    def targets(self) -> list[str]:
        """What a run is for."""
        stages = ["evaluate"] if self.scores else []
        return [self.marker(stage) for stage in (*stages, "export", "report")]

    @property
    def study(self) -> StudyPlan:
        """The jobs of the scaling study."""
        return StudyPlan.of(self.config)

    # --- files

    @property
    def config_file(self) -> str:
        """The one checked file that every command reads. Its name tells its contents, so that a Snakemake that is
        started while another one runs never changes the file under that one's jobs."""
        return str(self.paths.root / f"config-{settings_hash(self._values)[:8]}.yaml")

    def write_config(self) -> None:
        """Write `config_file` where it is not there yet."""
        path = Path(self.config_file)
        if not path.exists():
            write_text(path, yaml.safe_dump(self._values, sort_keys=False))

    @property
    def fetched(self) -> str:
        """Marker of this run's fetch; the data themselves are shared by all runs."""
        return str(self.paths.root / "fetched")

    def marker(self, stage: str) -> str:
        """Done-marker of a stage."""
        return str(self.paths.root / stage / "done.json")

    def log(self, name: str) -> str:
        """Log file of a rule."""
        return str(self.paths.root / "logs" / f"{name}.log")

    @property
    def joins_passes(self) -> bool:
        """Whether sub-volumes are flood-filled several times."""
        return len(self.config.inference.all_passes) > 1

    @property
    def agglomerates(self) -> bool:
        """Whether pieces are joined after assembly."""
        return self.paths.agglomerates

    @property
    def segmentation_marker(self) -> str:
        """Done-marker of the stage whose segmentation is scored, exported and shown."""
        return self.marker(self.paths.segmented.name)

    @property
    def batch_marker(self) -> str:
        """Marker of a batch of finished sub-volumes, with the wildcards `first` and `last`."""
        return str(self.paths.infer_jobs / "{first}-{last}.done")

    @property
    def pass_marker(self) -> str:
        """Marker of a pass over a batch, with the wildcards of the batch and, of several passes, `number`."""
        if not self.joins_passes:
            return self.batch_marker
        return str(self.paths.infer_jobs / "{first}-{last}-pass-{number}.done")

    @property
    def pass_markers(self) -> list[str]:
        """Markers of all passes over a batch, with its wildcards."""
        count = len(self.config.inference.all_passes)
        return [self.pass_marker.replace("{number}", str(number)) for number in range(count)]

    @property
    def pass_log(self) -> str:
        """Log of a pass, with the wildcards of its marker."""
        return self.log("infer/{first}-{last}-pass-{number}" if self.joins_passes else "infer/{first}-{last}")

    @property
    def tile_list(self) -> str:
        """What `ffn tiles` prints, one line a sub-volume: where their number needs a look at the data."""
        return str(self.paths.infer / "tiles.txt")

    @property
    def figures(self) -> dict[str, str]:
        """Files of the report by name."""
        names = {"overlay": "overlay.png"}
        if self.trains:
            names["curves"] = "curves.png"
        if self.scores:
            names["scores"] = "scores.html"
        return {name: str(self.paths.report / file) for name, file in names.items()}

    # --- what a rule waits for

    def data(self, purpose: str) -> list[str]:
        """Markers of what brings the data to `train` with, or to `test` on."""
        data = self.config.data
        regions = list(data.labelled.values()) if purpose == "train" else [data.test]
        markers = [self.fetched] if self.fetches else []
        if any(SYNTHETIC in (region.image, region.labels) for region in regions):
            markers.append(self.marker("synth"))
        return markers

    @property
    def weights(self) -> list[str]:
        """Marker of what brings the weights; a ready-made checkpoint comes with the data."""
        return [self.marker("train")] if self.trains else []

    @cached_property
    def batches(self) -> SubvolumeBatches:
        """Sub-volumes of the test region as jobs of inference."""
        return SubvolumeBatches(self.config, self.paths, self.jobs)

    def batch_markers(self, checkpoints: Any) -> list[str]:
        """Markers of all batches; `checkpoints` is Snakemake's, asked only where the number of tiles is unknown."""
        count = self.batches.count
        if count is None:
            listing = Path(checkpoints.tiles.get().output.boxes).read_text(encoding="utf-8")
            count = sum("\t" in line for line in listing.splitlines())
        return self.batches.markers(count)

    @property
    def results(self) -> dict[str, str]:
        """Markers of what the report shows."""
        stages = [
            *(["train"] if self.trains else []),
            self.paths.segmented.name,
            *(["evaluate"] if self.scores else []),
        ]
        return {stage: self.marker(stage) for stage in stages}

    def stage_inputs(self, stage: str, checkpoints: Any = None) -> list[str]:
        """What a blockwise stage is made from."""
        if stage == "assemble":
            return self.batch_markers(checkpoints)
        if stage == "prepare":
            return self.data("train")
        if stage == "agglomerate":
            return [*self.data("test"), *self.weights, self.marker("assemble")]
        return [*self.data("test"), self.segmentation_marker]

    def step_inputs(self, stage: str, checkpoints: Any, wildcards: Any) -> list[str]:
        """What one job of a step waits for: the step before, or what its stage is made from."""
        before = self.scatter.before(stage, wildcards.step)
        return self.stage_inputs(stage, checkpoints) if before is None else before

    def step_ranks(self, stage: str, wildcards: Any) -> int:
        """Processes that a launcher starts for one job of a step."""
        return self.scatter.ranks(stage, wildcards.step)

    @cached_property
    def scatter(self) -> Scatter:
        """Blockwise stages as jobs."""
        return Scatter(self.config, self.paths, self.jobs, self.site)

    # --- what starts a rule again

    def stage_settings(self, stage: str) -> str:
        """`settings` of a blockwise stage."""
        return trigger(self._values, STAGE_KEYS[stage])

    def settings(self, *keys: str) -> str:
        """The values of these keys (`prepare`, `data.test`) as text: as a param, a change starts the rule again."""
        return trigger(self._values, keys)

    @property
    def pass_settings(self) -> str:
        """The same of flood filling: other votes do not submit the passes again."""
        return trigger(self._values, ("data.test", "data.voxel_size", "network", "inference"), without=OF_CONSENSUS)

    # --- resources

    def launch(self, resources: Any) -> str:
        """Launch line of a rule of one process."""
        return launch_line_of(resources, "horovodrun", 1, 1)

    def launch_training(self, resources: Any) -> str:
        """Launch line of the training ranks."""
        return self.launch_ranks(resources, self.training_ranks(resources))

    def training_ranks(self, resources: Any) -> int:
        """Training ranks: on this machine `training.ranks`, else nodes x ranks per node."""
        return int(self.config.training.ranks if self._is_local(resources) else resources.tasks)

    def launch_inference(self, resources: Any) -> str:
        """Launch line of the processes that share a batch."""
        ranks = self.inference_ranks(resources)
        return self.launch(resources) if ranks == 1 else self.launch_ranks(resources, ranks)

    def inference_ranks(self, resources: Any) -> int:
        """Processes of an inference job: on this machine `inference.ranks`, else nodes x ranks per node."""
        return self.config.inference.ranks if self._is_local(resources) else self.inference_tasks

    @property
    def inference_tasks(self) -> int:
        """Processes of an inference job on a cluster."""
        return self.config.cluster.inference_nodes * self.config.cluster.inference_ranks_per_node

    def group(self, rule: str) -> str | None:
        """The group of rules that run in one job of a cluster."""
        if self.jobs is None or (rule in self.scatter.stages and self.scatter.is_scattered(rule)):
            return None  # what waits for other jobs cannot share one with what these wait for
        return _GROUPS[rule]

    @property
    def synth_minutes(self) -> int:
        """Wall time of making the embedded volume."""
        return synth_minutes(self.config)

    @cached_property
    def inference_mb(self) -> int:
        """Memory of a node of an inference job."""
        return inference_mb(self.config, self.jobs)

    def consensus_workers(self, wildcards: Any) -> int:
        """Sub-volumes of a batch whose passes are joined side by side."""
        units, extent = int(wildcards.last) - int(wildcards.first) + 1, extent_of(self.config)
        held = 0 if extent is None else consensus_bytes(extent)
        return self.scatter.workers(StepWork("consensus", "sub_volumes", units, 0.0, max(held, 1)))

    def consensus_mb(self, wildcards: Any) -> int:
        """Memory of a job of these."""
        return consensus_mb(self.config, self.consensus_workers(wildcards))

    def outlook(self) -> list[str]:
        """What inference will take, in a few lines; never an error."""
        return outlook(self.config, self.jobs, self.batches.size, self.scatter.step_jobs)

    def refusals(self, asked: Iterable[Asked]) -> list[str]:
        """What the queues of a cluster would not take of the rules that have not finished, a sentence each."""
        unfinished = [one for one in asked if not Path(self.marker(one.rule)).exists()]
        return refusals(unfinished, _GROUPS)

    def node_hours(self, asked: Sequence[Asked]) -> str:
        """What the run's jobs that are still to do ask of a cluster, in one line; empty on this machine."""
        stages = [one.rule for one in asked if one.rule in _STAGES]
        counts = {rule: 1 - int(Path(self.marker(rule)).exists()) for rule in stages}
        batches = self.batches.to_do()
        counts |= {"infer": batches * len(self.config.inference.all_passes), "consensus": batches}
        counts |= {f"{stage}_step": self.scatter.unfinished_jobs(stage) for stage in self.scatter.stages}
        return node_hours(asked, counts)

    def _is_local(self, resources: Any) -> bool:
        return self.launcher(resources) == "horovodrun"

    def launcher(self, resources: Any) -> str:
        """What starts the ranks of a job."""
        return launcher_of(resources, self.config.cluster.launcher)

    @property
    def attend_training(self) -> str:
        """What starts the training again where that helps; goes in front of the launch line."""
        notes, progress = self.paths.root / "logs" / "train.attempt", self.paths.train / "checkpoints"
        options = {"notes": notes, "progress": progress, "restarts": self.config.cluster.restarts}
        return " ".join(["ffn attend", *(f"--{name} {shlex.quote(str(value))}" for name, value in options.items())])

    def launch_ranks(self, resources: Any, ranks: int) -> str:
        """Launch line of this many ranks, on the nodes of the job where it is one of a cluster."""
        default = self.config.cluster.launcher
        nodes = 1 if launcher_of(resources, default) == "horovodrun" else resources.nodes
        return launch_line_of(resources, default, ranks, nodes)

    @property
    def tasks(self) -> int:
        """Training ranks on a cluster."""
        return self.config.cluster.nodes * self.config.cluster.ranks_per_node

    @property
    def all_cores(self) -> int:
        """Threads of a job that runs alone."""
        return ALL_CORES

    @property
    def training_threads(self) -> int:
        return self.config.training.ranks * self.config.threads.intra_op or ALL_CORES

    @property
    def inference_threads(self) -> int:
        return self.config.inference.ranks * self.config.inference.intra_op_threads or ALL_CORES

    @property
    def _values(self) -> dict[str, Any]:
        return self.config.model_dump(mode="json")

    @property
    def _regions(self) -> list[Region]:
        return [*(self.config.data.labelled.values() if self.trains else ()), self.config.data.test]
