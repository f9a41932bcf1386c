"""The cost model of a run: calibrate here, check against real steps, explain the paper, predict."""

import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ffn.config import Config
from ffn.errors import RankError
from ffn.files import write_json, write_text
from ffn.progress import log
from ffn.scaling.calibration import Calibration, message_bytes, read_calibration
from ffn.scaling.cost import Machine, combinations, predict
from ffn.scaling.cost_page import COLUMNS, draw_cost, page
from ffn.scaling.network import Network
from ffn.scaling.outputs import write_table
from ffn.scaling.paper import AS_PUBLISHED, ONE_MESSAGE, THETA_NETWORK, explained, gradient_bytes, splits
from ffn.scaling.paths import StudyPaths
from ffn.stages import Stage, done_digest

LASTING = (0.0, 0.5, 1.0)
"""Parts of the spread that stay with a node: what the paper's numbers cannot tell apart."""


def run_cost(config: Config, config_file: Path, launch: Callable[[int], str]) -> Path:
    """Measure what is missing, starting the ranks by `launch`, and write the results; returns their folder.

    Raises RankError if the ranks of a measurement fail.
    """
    folder = StudyPaths.of(config).cost
    for ranks in config.study.cost.ranks:
        _measure(config, config_file, folder / f"ranks-{ranks:04d}", ranks, launch(ranks))
    calibrations = [read_calibration(folder / f"ranks-{n:04d}", n) for n in config.study.cost.ranks]
    markers = [done_digest(folder / f"ranks-{n:04d}", "ffn study cost") for n in config.study.cost.ranks]
    stage = Stage(
        folder,
        {"measured": markers, "workers": config.study.cost.workers, "nodes_like_this": workers_like_this(config)},
    )
    with stage.locked():
        if stage.begin():
            _write(config, calibrations, folder)
            stage.finish(errors={str(c.ranks): c.error for c in calibrations})
    return folder


def node_like_this(config: Config, calibrations: list[Calibration], network: Network = THETA_NETWORK) -> Machine:
    """A node with one rank that has the machine to itself, in a network that was not measured here."""
    alone = min(calibrations, key=lambda calibration: calibration.ranks)
    tensors = gradient_bytes(config.network.depth, config.network.features)
    return Machine(alone.step, 0.0, network, tensors, alone.fovs)


def workers_like_this(config: Config) -> list[int]:
    """Numbers of such nodes that are predicted: those of `study.cost` and those of the learning-rate study, which
    `efficiency` looks up here."""
    return sorted({*config.study.cost.workers, *config.study.lr_study.workers})


def rows_of(machine: Machine, scenario: str, workers: list[int]) -> list[list[object]]:
    """One row of COLUMNS for each remedy and number of workers."""
    found = [predict(machine, n, remedy) for remedy in combinations(AS_PUBLISHED) for n in workers]
    return [
        [scenario, p.workers, p.remedy.name, p.compute_s, p.allreduce_s, p.step_s, p.fovs_per_s, p.efficiency]
        for p in found
    ]


def _measure(config: Config, config_file: Path, folder: Path, ranks: int, launch: str) -> None:
    stage = Stage(folder, _settings(config, ranks))
    with stage.locked():
        if not stage.begin():
            return
        log(f"cost model: measuring {ranks} rank(s)")
        part = ["study", "cost-ranks", "--config", str(config_file), "--ranks", str(ranks), "--output", str(folder)]
        done = subprocess.run([*shlex.split(launch), sys.executable, "-m", "ffn", *part], check=False)
        if done.returncode:
            raise RankError(
                f"The measurement of {ranks} rank(s) ended with code {done.returncode}; see its messages above. Choose "
                "other study.cost.ranks, or another --launcher."
            )
        stage.finish()


def _settings(config: Config, ranks: int) -> dict[str, Any]:
    values = config.model_dump(mode="json")
    cost = {key: value for key, value in values["study"]["cost"].items() if key not in ("ranks", "workers")}
    kept = {key: values[key] for key in ("data", "network", "training", "augmentation", "allreduce", "threads")}
    return {**kept, "cost": cost, "ranks": ranks}


def _write(config: Config, calibrations: list[Calibration], folder: Path) -> None:
    here, workers = node_like_this(config, calibrations), config.study.cost.workers
    rows = [
        row
        for lasting in LASTING
        for row in rows_of(explained(lasting), f"Theta, {lasting:.0%} of the spread lasting", workers)
    ]
    like_this = {n: predict(here, n, ONE_MESSAGE) for n in workers_like_this(config)}
    write_table(folder / "cost.csv", COLUMNS, rows + rows_of(here, "nodes like this", list(like_this)))
    write_json(
        folder / "cost.json",
        {
            "calibration": [_facts(calibration) for calibration in calibrations],
            "theta": {
                "spread_cv": explained(0.0).step.cv,
                "splits": [
                    {
                        "network": split.network,
                        "messages": split.remedy.name,
                        "allreduce_s": split.allreduce_s,
                        "lost_to_allreduce": split.lost_to_allreduce,
                        "spread_cv": split.cv,
                    }
                    for split in splits()
                ],
            },
            "nodes_like_this": {
                "message": message_bytes(config),
                "step_mean_s": here.step.mean,
                "step_cv": here.step.cv,
                "step_s": {str(n): p.step_s for n, p in like_this.items()},
                "efficiency": {str(n): p.efficiency for n, p in like_this.items()},
            },
        },
    )
    draw_cost(config, calibrations, folder / "cost.png")
    write_text(folder / "cost.md", page(config, calibrations, list(like_this.values())))


def _facts(calibration: Calibration) -> dict[str, Any]:
    line, step = calibration.line, calibration.step
    return {
        "ranks": calibration.ranks,
        "cores": calibration.cores,
        "step_mean_s": step.mean,
        "step_cv": step.cv,
        "allreduce_fixed_s": line.fixed_s,
        "allreduce_per_byte_s": line.per_byte_s,
        "allreduce_of_gradients_s": calibration.gradients_s,
        "predicted_fovs_per_s": calibration.predicted,
        "measured_fovs_per_s": calibration.measured,
        "error": calibration.error,
    }
