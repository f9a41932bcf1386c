"""`ffn plan`: how large, how long, how many nodes, before anything runs."""

import argparse
import json
import re

from ffn.cli.options import add_command, add_config, positive_option

_EXAMPLES = """\
  ffn plan --config config/fib25.yaml
  ffn plan --config config/fib25.yaml --measure
  ffn plan --config config/fib25.yaml --walltime 180 --memory 96 --nodes 16
  ffn plan --config config/fib25.yaml --nodes 128 --speed 3
  ffn plan --config config/fib25.yaml --nodes 128 --site theta

Speed and work are taken from what the run has finished so far, else from the last --measure with this network, else
speed is unknown and work is that of the published run; the plan that measures uses what it found. What is stated here
and not in the configuration counts for this plan only. `snakemake -n` prints the plan in three lines."""


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `plan`."""
    parser = add_command(
        commands, "plan", "print what inference will take, and how large its parts should be", _EXAMPLES
    )
    add_config(parser)
    parser.add_argument(
        "--measure",
        action="store_true",
        help="first time the network here for some seconds (of passes that differ each one), keep it",
    )
    parser.add_argument("--seconds", type=_amount, default=10.0, help="time for --measure (default: %(default)s)")
    parser.add_argument(
        "--speed",
        type=_amount,
        metavar="N",
        help="fields of view a second of one process, where that was measured on another machine",
    )
    parser.add_argument(
        "--walltime",
        type=_amount,
        metavar="MIN",
        help="minutes of a job (with --nodes: cluster.runtime_minutes)",
    )
    parser.add_argument("--memory", type=_amount, metavar="GB", help="of a node (default: cluster.memory_gb)")
    parser.add_argument(
        "--nodes",
        type=positive_option,
        metavar="N",
        help="of a cluster that work at once (default: this machine)",
    )
    parser.add_argument(
        "--site",
        metavar="NAME",
        help="profile whose site.yaml says what cores and memory a node has, such as slurm (default: this machine's)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON: times in seconds, memory in bytes")
    parser.set_defaults(run=_plan)


def _plan(args: argparse.Namespace) -> None:
    from dataclasses import replace

    from ffn.cluster.scatter import Scatter
    from ffn.cluster.site import load_site
    from ffn.config import load_config
    from ffn.errors import PlanError
    from ffn.planning.advice import advise, require_memory, warnings
    from ffn.planning.estimate import Known, configured_machine, estimate
    from ffn.planning.extent import extent_of
    from ffn.planning.memory import concurrent_tiles
    from ffn.planning.rates import Speed, store_speed, to_measure
    from ffn.planning.table import as_values, table, written
    from ffn.progress import log
    from ffn.runs import RunPaths

    config = load_config(args.config)
    extent = extent_of(config)
    if extent is None:
        raise PlanError(
            f"The size of {config.data.test.image} is not known: it cannot be opened. Fetch it first (`ffn fetch`), or "
            "give data.test.box."
        )
    if args.measure:
        from ffn.planning.measure import measure_speed

        for one in to_measure(config):
            store_speed(one, measure_speed(one, args.seconds))
    known = Known.of(config, measured=args.measure)
    if args.speed is not None:
        known = replace(known, speed=Speed(args.speed, concurrent_tiles(config), "given by --speed"))
    machine = configured_machine(config, None)
    if args.nodes is not None:
        jobs, left = divmod(args.nodes, config.cluster.inference_nodes)
        if left:
            raise PlanError(
                f"--nodes {args.nodes} cannot be given to jobs of {config.cluster.inference_nodes} nodes each "
                "(cluster.inference_nodes); use a multiple."
            )
        machine = configured_machine(config, jobs)
    if args.walltime is not None:
        machine = replace(machine, walltime_s=args.walltime * 60)
    if args.memory is not None:
        machine = replace(machine, memory=args.memory * 1e9)
    plan = estimate(config, machine, extent, known, config.inference.tiles_per_job)
    jobs = machine.jobs_at_once if args.nodes is not None else None
    site = load_site(args.site) if args.site else None
    stages = Scatter(config, RunPaths.of(config), jobs, site, None if known.speed is None else known.speed.fovs_per_s)
    advice, files = advise(config, machine, extent, known), written(config, plan, known, stages.step_jobs)
    if args.json:
        steps = {f"{step.stage} {step.step}": stages.as_values(step) for step in stages.all_steps}
        print(json.dumps({**as_values(plan, files, advice), "steps": steps}, indent=2))
    else:
        print(table(plan, files, advice, stages.table()))
    for warning in warnings(plan):
        log(f"ffn: warning: {warning}")
    require_memory(plan, advice)


def _amount(text: str) -> float:
    if re.fullmatch(r"\d+(\.\d+)?|\.\d+", text) is None or float(text) <= 0:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number above 0.")
    return float(text)
