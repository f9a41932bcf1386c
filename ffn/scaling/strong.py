"""Strong scaling: fields of view per second over ranks (the paper's Figure 3)."""

import json
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from ffn.config import Config
from ffn.errors import StageError
from ffn.files import write_json, write_text
from ffn.scaling.outputs import BLUE, GREY, markdown_table, plain_log_y, save_figure, workers_axis, write_table
from ffn.scaling.paths import StudyPaths
from ffn.stages import Stage

COLUMNS = ("ranks", "fovs_per_s", "least", "most", "ideal", "efficiency", "step_s", "repeats")


@dataclass(frozen=True)
class Throughput:
    """FOVs/s of one number of ranks: `rates` of the repeats, float64 [repeats]; `step_s` their median step, seconds."""

    ranks: int
    rates: NDArray[np.float64]
    step_s: float

    @property
    def rate(self) -> float:
        return float(np.mean(self.rates))


def point_settings(config: Config, ranks: int, repeat: int) -> dict[str, Any]:
    """What decides a measurement, machine aside."""
    values = config.model_dump(mode="json")
    kept = {key: values[key] for key in ("data", "network", "training", "augmentation", "allreduce", "threads")}
    scaling = values["study"]["scaling"]
    return {**kept, "ranks": ranks, "repeat": repeat, "steps": scaling["steps"], "warmup": scaling["warmup_steps"]}


def measure_point(config: Config, ranks: int, repeat: int) -> Path:
    """Time the training steps of the ranks that were started, after the warm-up; every rank calls it.

    Raises RankError if they are not as many as asked for.
    """
    from ffn.scaling.probe import Trainer, example_reader, join_ranks
    from ffn.training.threads import common_cores

    folder = StudyPaths.of(config).point(ranks, repeat)
    stage = Stage(folder, point_settings(config, ranks, repeat))
    everyone = join_ranks(config, ranks)
    with ExitStack() as held:
        if everyone.agree(bool(everyone.first_does(lambda: stage.begin_locked(held)))):
            scaling = config.study.scaling
            with example_reader() as reader:
                trainer = Trainer(config, everyone, reader)
                trainer.times(scaling.warmup_steps, everyone)
                seconds = trainer.times(scaling.steps, everyone).wall
            training = config.training
            fovs = ranks * training.virtual_workers * training.batch * training.accumulate
            facts = {"ranks": ranks, "fovs_per_step": fovs, "seconds": seconds, "ranks_here": everyone.local_size}
            everyone.first_does(lambda: stage.finish(**facts, cores_here=common_cores(everyone.local_size)))
    return folder


def read_throughput(config: Config) -> list[Throughput]:
    """All configured points. Raises StageError where one is missing."""
    return [_read(config, ranks) for ranks in config.study.scaling.ranks]


def _read(config: Config, ranks: int) -> Throughput:
    facts = [_point_facts(config, ranks, repeat) for repeat in range(1, config.study.scaling.repeats + 1)]
    rates = [fact["fovs_per_step"] * len(fact["seconds"]) / sum(fact["seconds"]) for fact in facts]
    return Throughput(ranks, np.array(rates), float(np.median(np.concatenate([fact["seconds"] for fact in facts]))))


def _point_facts(config: Config, ranks: int, repeat: int) -> dict[str, Any]:
    stage = Stage(StudyPaths.of(config).point(ranks, repeat), point_settings(config, ranks, repeat))
    if not stage.is_done():
        raise StageError(
            f"{stage.folder} is not measured yet: run `snakemake scaling`, or start {ranks} rank(s) of "
            f"`ffn study rate --ranks {ranks} --repeat {repeat}`."
        )
    facts: dict[str, Any] = json.loads(stage.done_marker.read_text(encoding="utf-8"))["facts"]
    return facts


def scaling_rows(points: list[Throughput]) -> list[list[object]]:
    """One row of COLUMNS for each number of ranks; ideal and efficiency are against the fewest ranks."""
    one = points[0].rate / points[0].ranks
    return [
        [p.ranks, p.rate, float(p.rates.min()), float(p.rates.max()), one * p.ranks, p.rate / (one * p.ranks), p.step_s,
         len(p.rates)]
        for p in points
    ]  # fmt: skip


def gather_scaling(config: Config) -> Path:
    """Write plot, CSV, JSON and page of the measured points; returns their folder."""
    folder = StudyPaths.of(config).strong
    points = read_throughput(config)
    rows = scaling_rows(points)
    stage = Stage(folder, {"rows": rows})
    with stage.locked():
        if not stage.begin():
            return folder
        facts = _point_facts(config, points[-1].ranks, 1)
        write_table(folder / "scaling.csv", COLUMNS, rows)
        write_json(folder / "scaling.json", {"rows": [dict(zip(COLUMNS, row, strict=True)) for row in rows]})
        draw_scaling(points, f"{config.run}: throughput over ranks", folder / "scaling.png")
        write_text(folder / "scaling.md", _page(config, rows, facts))
        stage.finish()
    return folder


def draw_scaling(points: list[Throughput], title: str, path: Path) -> None:
    """FOVs/s with the spread of the repeats and the ideal line; efficiency beside it."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    figure.suptitle(title, fontsize=11)
    left, right = figure.subplots(1, 2)
    ranks = [point.ranks for point in points]
    rows = np.array([row[1:6] for row in scaling_rows(points)], float)
    left.plot(ranks, rows[:, 3], "--", color=GREY, label="ideal")
    error = np.abs(rows[:, 1:3].T - rows[:, 0])
    left.errorbar(ranks, rows[:, 0], error, fmt="o-", color=BLUE, capsize=4, label="measured, least to most")
    right.plot(ranks, rows[:, 4], "o-", color=BLUE)
    right.axhline(1, linestyle="--", color=GREY)
    plain_log_y(left)
    left.set_ylabel("FOVs/s")
    right.set_ylabel("parallel efficiency")
    right.set_ylim(0, 1.3)
    for axes in (left, right):
        workers_axis(axes, ranks, "ranks")
        axes.grid(alpha=0.3)
    left.legend(fontsize=8)
    save_figure(figure, path)


def _page(config: Config, rows: list[list[object]], facts: dict[str, Any]) -> str:
    network, scaling = config.network, config.study.scaling
    shared = ""
    if facts["ranks_here"] > 1:
        shared = (
            f"The {facts['ranks_here']} ranks of the last row shared {facts['cores_here']} cores of one machine, so "
            "the ideal line cannot be reached beyond the cores: this measures the software, not a cluster.\n"
        )
    return "\n".join(
        [
            f"# {config.run}: throughput over ranks\n",
            f"Depth {network.depth}, {network.features} features, field of view {network.fov}, batch "
            f"{config.training.batch} a rank; {scaling.steps} steps after {scaling.warmup_steps} of warm-up, "
            f"{scaling.repeats} fresh starts each. Efficiency is against the fewest ranks.\n",
            "![FOVs/s over ranks](scaling.png)\n",
            markdown_table(COLUMNS, rows),
            shared,
        ]
    )
