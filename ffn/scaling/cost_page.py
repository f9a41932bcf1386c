"""The cost model in a figure and a page: how well it predicts here, what explains the paper, what each remedy gains."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ffn.config import Config
from ffn.scaling.calibration import Calibration
from ffn.scaling.cost import Machine, Prediction, combinations, predict
from ffn.scaling.outputs import BLUE, GREY, RED, markdown_table, save_figure, workers_axis
from ffn.scaling.paper import AS_PUBLISHED, CONSTANTS, EFFICIENCY, NODES, Split, explained, splits
from ffn.scaling.spread import expected_slowest

COLUMNS = (
    "scenario", "workers", "remedy", "compute_s", "allreduce_s", "step_s", "fovs_per_s", "efficiency",
)  # fmt: skip
_DRAWN = ("one message (fusion)", "drop slowest 2%", "accumulate 4", "fusion + fp16 + accumulate 4 + drop 2%")
_AT = (1024, 2048)


def draw_cost(config: Config, calibrations: Sequence[Calibration], path: Path) -> None:
    """Left: predicted and measured FOVs/s here. Right: efficiency on Theta over nodes with some remedies."""
    figure = Figure(figsize=(12, 4.4), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.7))
    _draw_check(config, calibrations, left)
    _draw_remedies(config.study.cost.workers, right)
    save_figure(figure, path)


def _draw_check(config: Config, calibrations: Sequence[Calibration], axes: Axes) -> None:
    places = np.arange(len(calibrations))
    axes.bar(places - 0.2, [c.predicted for c in calibrations], 0.4, color=BLUE, label="predicted")
    axes.bar(places + 0.2, [c.measured for c in calibrations], 0.4, color=GREY, label="measured")
    axes.set_xticks(places, [f"{c.ranks}\n{c.error:+.1%}" for c in calibrations])
    axes.set(title=f"{config.run}: this machine", xlabel="ranks, error of the prediction", ylabel="FOVs/s")
    axes.legend(fontsize=8, loc="lower right")


def _draw_remedies(workers: Sequence[int], axes: Axes) -> None:
    anew, lasting = explained(0.0), explained(1.0)
    remedies = {remedy.name: remedy for remedy in combinations(AS_PUBLISHED)}
    base = [predict(anew, n, AS_PUBLISHED).efficiency for n in workers]
    axes.plot(workers, base, color="black", linewidth=2, label=AS_PUBLISHED.name)
    for name in _DRAWN:
        (line,) = axes.plot(workers, [predict(anew, n, remedies[name]).efficiency for n in workers], label=name)
        values = [predict(lasting, n, remedies[name]).efficiency for n in workers]
        axes.plot(workers, values, ":", color=line.get_color())
    axes.plot(NODES, EFFICIENCY, "*", color=RED, markersize=14, label="paper: 71 % at 1024 nodes")
    workers_axis(axes, workers, "nodes")
    axes.set(title="Theta; dotted: slow nodes stay slow", ylabel="parallel efficiency", ylim=(0, 1.05))
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, loc="lower left")


def page(config: Config, calibrations: Sequence[Calibration], like_this: Sequence[Prediction]) -> str:
    """The result page."""
    return _PAGE.format(
        run=config.run,
        check=_check_table(calibrations),
        machine=_machine_table(calibrations),
        constants=markdown_table(("constant", "value", "kind", "source"), CONSTANTS),
        splits=markdown_table(
            ("network", "messages", "allreduce not hidden, ms", "share of the loss", "spread needed (sd / mean)"),
            [_split_row(split) for split in splits()],
        ),
        cv=f"{explained(0.0).step.cv:.1%}",
        slowest=expected_slowest(explained(0.0).step, NODES) / explained(0.0).step.mean,
        remedies=_remedy_table(),
        like_this=markdown_table(
            ("nodes", "step_s", "FOVs/s", "efficiency"),
            [[p.workers, p.step_s, p.fovs_per_s, p.efficiency] for p in like_this],
        ),
    )


def _check_table(calibrations: Sequence[Calibration]) -> str:
    rows = [[c.ranks, c.predicted, c.measured, f"{c.error:+.1%}"] for c in calibrations]
    return markdown_table(("ranks", "predicted FOVs/s", "measured FOVs/s", "error"), rows)


def _machine_table(calibrations: Sequence[Calibration]) -> str:
    rows = [
        [c.ranks, c.cores, c.step.mean, c.step.cv, 1e3 * c.line.fixed_s, 1e9 * c.line.per_byte_s,
         1e3 * c.gradients_s]
        for c in calibrations
    ]  # fmt: skip
    header = (
        "ranks",
        "cores",
        "step side by side, s",
        "its sd / mean",
        "allreduce: fixed ms",
        "ns a byte",
        "gradients ms",
    )
    return markdown_table(header, rows)


def _split_row(split: Split) -> list[object]:
    spread = "none: too much already" if split.cv is None else f"{split.cv:.1%}"
    return [split.network, split.remedy.name, 1e3 * split.allreduce_s, f"{split.lost_to_allreduce:.0%}", spread]


def _remedy_table() -> str:
    machines: dict[float, Machine] = {lasting: explained(lasting) for lasting in (0.0, 0.5, 1.0)}
    rows = []
    for remedy in combinations(AS_PUBLISHED):
        cells: list[object] = [remedy.name]
        for n in _AT:
            found = {lasting: predict(machine, n, remedy) for lasting, machine in machines.items()}
            cells += [f"{found[0.0].fovs_per_s:.0f}", *(f"{p.efficiency:.1%}" for p in found.values())]
        rows.append(cells)
    header = ["remedy"]
    for n in _AT:
        header += [f"{n} nodes: FOVs/s", "efficiency: spread anew", "half lasting", "all lasting"]
    return markdown_table(header, rows)


_PAGE = """# {run}: what a synchronous step costs

step = slowest of N workers + the part of the allreduce that no computation hides. The slowest of N is the expected
largest of N draws from the distribution of one worker's step; the allreduce is latency and bytes over bandwidth.

![Prediction against measurement, and remedies](cost.png)

## Checked on this machine

For each number of ranks, steps side by side without waiting, allreduces, and real synchronous steps were measured in
turns. The prediction knows the first two only. Medians over the turns; the error is the median of each turn's own, so
that other load on the machine falls on both sides alike.

{check}
{machine}
Ranks beyond the cores share them: the work is conserved, so a step takes the time in which all ranks did one step
each side by side, and what the busiest core has more work than the mean. (Their spread by the clock, in the table, is
mostly the system's turns between them.)

## The paper's 71 % at 1024 nodes

{constants}
One FOV takes 1.389 s on one node and 1.958 s in step with 1023 others: 0.569 s are lost. The paper names two
causes, the slowest of many workers and the allreduce. For each assumption on the allreduce, the spread of the step
times that explains the rest:

{splits}
**What is known and what is not.** Two numbers (0.72 and 523 FOVs/s) fix one unknown. If the allreduce was fused, or hid
behind the backward pass as Horovod arranges, it explains a few percent of the loss with these constants, and the rest
takes a spread of {cv} (standard deviation over mean): the slowest of 1024 then needs {slowest:.2f} times the mean. If
nothing had been hidden or fused, 38 messages through a ring of 1024 would explain all of it without any spread; and
with ten times the latency even hidden ones would cost more than was lost, so that can be excluded. The numbers alone do
not decide between the first two. Is the spread plausible? Clocks alone would not do: processors that boost differ by up
to 16 % (Acun et al. 2016, *Variation among processors under Turbo Boost in HPC systems*). But for Cray XC systems with
KNL, runs of one program that differ by factors of two to three are reported, from noise on the cores, the cache mode of
the memory and the network (Chunduri et al. 2017, *Run-to-run variability on Xeon Phi based Cray XC systems*). So it is
plausible, and not measured for this program. Nor do the numbers tell whether slow nodes stay slow or every step draws
anew; the remedies are given for both, and for half of each.

## What each remedy is worth

Starting from the paper's set-up with that spread. FOVs/s for a spread drawn anew; FOVs of dropped workers are not
counted; accumulation makes the batch as many times larger.

{remedies}
Fusion and fp16 gain next to nothing at 1024 nodes, since a message of 1.9 MB is short, but fusion matters at 2048,
where 38 rings no longer fit behind the backward pass. Accumulation evens out a spread that is drawn anew and does
nothing about slow nodes; not waiting for the slowest helps against both.

## Nodes like this one

One rank a node with the step times measured here for one rank, all gradients in one message, and the network of the
table above, which was not measured here.

{like_this}"""
