"""Commands about data: fetch public data, look at a volume."""

import argparse

from ffn.cli.options import add_command, add_config, box_option


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `fetch` and `info`."""
    fetch = add_command(
        commands,
        "fetch",
        "Bring the public data that a configuration names (data.sources), verified.",
        "  ffn fetch --config config/fib25.yaml",
    )
    add_config(fetch)
    fetch.set_defaults(run=_fetch)
    info = add_command(
        commands,
        "info",
        "Show what is known of a volume: shape, type, voxel size and grey values.",
        "  ffn info volume.h5:raw\n  ffn info 'slices/*.png'\n  ffn info precomputed://https://host/layer",
    )
    info.add_argument("uri", metavar="URI", help="the volume")
    info.add_argument("--box", type=box_option, metavar="Z0:Z1,Y0:Y1,X0:X1", help="only these voxels")
    info.set_defaults(run=_info)


def _fetch(args: argparse.Namespace) -> None:
    from ffn.config import load_config
    from ffn.sources import fetch_all

    config = load_config(args.config)
    fetched = fetch_all(config.data.sources)
    for item in fetched:
        print(f"{item.folder}: {item.dataset} from {item.origin}")
    if not fetched:
        print(f"{args.config} names no data.sources: nothing to fetch.")


def _info(args: argparse.Namespace) -> None:
    from ffn.volumes import open_volume
    from ffn.volumes.describe import describe

    with open_volume(args.uri, box=args.box) as volume:
        for name, value in describe(volume).items():
            print(f"{name:<12} {value}")
