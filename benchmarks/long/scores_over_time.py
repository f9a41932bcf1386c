"""How good the segmentation would have been, had training stopped earlier: scores against training time.

Takes the checkpoints that a finished run kept (give it `training.keep_checkpoints: 100`), segments and scores the test
region with the weights of each, as the workflow does, and writes scores.csv and scores.png. Not for the embedded
synthetic volume, which belongs to its run.

    python benchmarks/long/scores_over_time.py --config config/fib25_split.yaml --output curve

Ten minutes on two cores for each checkpoint of config/fib25_split.yaml; what is done is not done again. With the
schedule `cyclic` only the checkpoints at its lowest rates tell what a training of that length would give: name them
with --steps.
"""

import argparse
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import ffn.model  # noqa: F401  (before TensorFlow)

# isort: split
import numpy as np
import yaml
from _checkpoints import average_at, fovs_per_step, kept_checkpoints
from matplotlib.figure import Figure

from ffn.assembly.passes import join_passes
from ffn.assembly.run import assemble
from ffn.config import Config, load_config, parse_config
from ffn.evaluation.run import evaluate_run
from ffn.files import write_text
from ffn.inference.tiles import tiles
from ffn.model.checkpoint import save_weights
from ffn.progress import log
from ffn.runs import RunPaths
from ffn.scaling.outcomes import read_columns
from ffn.scaling.outputs import BLUE, GREEN, RED, save_figure, write_table

COLUMNS = ("step", "fovs", "minutes", "voi_all", "voi_left_out", "are_left_out", "covered")


def main() -> None:
    """Parse the arguments, score every checkpoint, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, required=True, help="of the finished run")
    chosen = parser.add_mutually_exclusive_group()
    chosen.add_argument("--every", type=int, default=1, metavar="K", help="every Kth checkpoint (default 1)")
    chosen.add_argument("--steps", type=int, nargs="+", metavar="N", help="only the checkpoints after these steps")
    parser.add_argument("--output", type=Path, required=True, help="folder for the curve and what it takes")
    args = parser.parse_args()
    config = load_config(args.config)
    timing = read_columns(RunPaths.of(config).train / "timing.csv", ("step", "seconds"))
    rows: list[list[float]] = []
    checkpoints = kept_checkpoints(config, args.every)
    for step in args.steps or checkpoints:
        if step not in checkpoints:
            parser.error(f"--steps: {args.config} kept no checkpoint of step {step}; it kept {[*checkpoints]}.")
        scores = _scores_at(config, step, checkpoints[step], args.output)
        out, both = scores["excluded"], scores["object"]
        # Rows are written every training.log_every steps, which need not be those of the checkpoints.
        minutes = float(np.interp(step, timing["step"], timing["seconds"])) / 60
        rows.append(
            [step, step * fovs_per_step(config), minutes, both["voi"], out["voi"], out["are"], scores["coverage"]]
        )
        log(f"step {step}: {json.dumps(dict(zip(COLUMNS, rows[-1], strict=True)))}")
        write_table(args.output / "scores.csv", COLUMNS, rows)
        _draw(rows, config.run, args.output / "scores.png")


def _scores_at(config: Config, step: int, prefix: Path, output: Path) -> dict:
    name = f"step-{step:08d}"
    kept, file = output / f"{name}.ckpt", output / f"{name}.yaml"
    if not kept.with_name(kept.name + ".index").exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        save_weights(average_at(config, prefix), kept)
    values = config.model_dump(mode="json")
    values |= {"run": name, "results": str(output)}
    values["inference"]["checkpoint"] = str(kept)
    then = parse_config(values, f"step {step}")
    write_text(file, yaml.safe_dump(values, sort_keys=False))
    passes = [(tile, number) for tile in range(len(tiles(then))) for number in range(then.inference.passes)]
    cores = os.cpu_count() or 1
    with ThreadPoolExecutor(max(cores // (then.inference.intra_op_threads or cores), 1)) as pool:
        list(pool.map(partial(_infer, file), *zip(*passes, strict=True)))
    if then.inference.passes > 1:
        for index in range(len(tiles(then))):
            join_passes(then, index)
    assemble(then)
    evaluate_run(then)
    return json.loads(RunPaths.of(then).scores.read_text(encoding="utf-8"))


def _infer(file: Path, tile: int, number: int) -> None:
    """One pass in a process of its own: TensorFlow takes its number of threads once in the life of a process."""
    command = ["-m", "ffn", "infer", "--config", str(file), "--tile", str(tile), "--pass", str(number)]
    subprocess.run([sys.executable, *command], check=True)


def _draw(rows: list[list[float]], title: str, path: Path) -> None:
    figure = Figure(figsize=(7, 4), layout="constrained")
    left = figure.subplots()
    right = left.twinx()
    of = dict(zip(COLUMNS, zip(*rows, strict=True), strict=True))
    left.plot(of["minutes"], of["voi_all"], "o-", color=BLUE, label="VOI, all voxels")
    left.plot(of["minutes"], of["voi_left_out"], "o-", color=RED, label="VOI, background left out")
    right.plot(of["minutes"], [100 * share for share in of["covered"]], "o--", color=GREEN, label="covered")
    left.set(title=title, xlabel="minutes of training", ylabel="bits")
    left.set_ylim(bottom=0)
    right.set(ylabel="% of the labelled voxels", ylim=(0, 100))
    left.grid(alpha=0.3)
    handles = [*left.get_lines(), *right.get_lines()]
    left.legend(handles, [str(line.get_label()) for line in handles], fontsize=8, loc="lower right")
    save_figure(figure, path)


if __name__ == "__main__":
    main()
