"""`ffn profiles`: the workflow's Snakemake profiles."""

import argparse
from pathlib import Path

from ffn.cli.options import add_command


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `profiles link`."""
    parser = add_command(
        commands, "profiles", "make the workflow's Snakemake profiles known by name", "  ffn profiles link"
    )
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    link = add_command(
        actions,
        "link",
        "link each profile into the folder where Snakemake looks for names; nothing is overwritten",
        "  ffn profiles link\n  snakemake --profile theta -n",
    )
    link.add_argument("--from", dest="source", type=Path, metavar="DIR", help="profiles (default: workflow/profiles)")
    link.add_argument(
        "--to", dest="target", type=Path, metavar="DIR", help="where to link them (default: Snakemake's own folder)"
    )
    link.set_defaults(run=_link)


def _link(args: argparse.Namespace) -> None:
    from ffn.cluster.profiles import link_profiles, shipped_profiles, snakemake_profiles

    source = args.source or shipped_profiles()
    for link in link_profiles(source, args.target or snakemake_profiles()):
        print(f"profile {link.name}: {link.path} {link.outcome}")
        if link.outcome == "left alone":
            print(f"  another profile has that name; ours: snakemake --profile {source / link.name}")
