"""`ffn infer`, `ffn consensus`, `ffn tiles`, `ffn assemble`: from an image and a network to labels."""

import argparse
from pathlib import Path

from ffn.cli.options import (
    add_blockwise,
    add_command,
    add_config,
    add_wait,
    box_option,
    numbers_option,
    positive_option,
    share_of,
    zyx_option,
)

_INFER_EXAMPLES = """\
  ffn infer --config config.yaml --image volume.h5:image --checkpoint model.ckpt --box 0:40,0:48,170:250 --output seg
  ffn infer --config config.yaml --image volume.h5:image --checkpoint model.ckpt --seed 24,31,200 --output one
  ffn infer --config config.yaml --tile 0
  ffn infer --config config.yaml --tile 0-7,12
  ffn infer --config config.yaml --tile 0 --pass 3
  mpiexec -n 4 ffn infer --config config.yaml --tile 0-63

The first form segments one box (or the whole image) as one sub-volume with the configured network and leaves
seg/segmentation.h5 (dataset labels) and seg/origins.json. The second follows the one object at a place (the numbers of
a Neuroglancer position the other way round). The third segments one of the run's sub-volumes, which `ffn tiles` lists,
the fourth several, on a GPU in common batches; the fifth is one of its `inference.passes`; in the last four processes
share the sub-volumes. A command that was killed continues when it is run again."""


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the commands of inference and assembly."""
    infer = add_command(commands, "infer", "segment sub-volumes by flood filling", _INFER_EXAMPLES)
    add_config(infer)
    add_wait(infer)
    infer.add_argument("--image", metavar="URI", help="EM image")
    infer.add_argument("--checkpoint", type=Path, metavar="PATH", help="weights: common beginning of the files' names")
    infer.add_argument(
        "--box", type=box_option, metavar="Z0:Z1,Y0:Y1,X0:X1", help="segment only these voxels, as if they were all"
    )
    infer.add_argument(
        "--seed",
        type=zyx_option,
        metavar="Z,Y,X",
        action="append",
        default=[],
        help="begin here, in voxels of the image, and nowhere else; may be given several times",
    )
    infer.add_argument("--output", type=Path, metavar="DIR", help="folder for the results")
    infer.add_argument(
        "--tile",
        type=numbers_option,
        metavar="K",
        help="instead: sub-volumes of the run's test region, such as 3 or 0-7,12",
    )
    infer.add_argument(
        "--pass", dest="number", type=int, metavar="P", help="which of the configured inference.passes (default 0)"
    )
    _add_ranks(infer)
    infer.set_defaults(run=lambda args: _infer(infer, args))
    agreeing = add_command(
        commands,
        "consensus",
        "join the passes over sub-volumes: keep what they agree on",
        "  ffn consensus --config config.yaml --tile 0\n  ffn consensus --config config.yaml --tile 0-7,12",
    )
    add_config(agreeing)
    add_wait(agreeing)
    agreeing.add_argument(
        "--tile",
        type=numbers_option,
        metavar="K",
        required=True,
        help="sub-volumes of the run's test region, such as 3 or 0-7,12",
    )
    _add_ranks(agreeing)
    agreeing.set_defaults(run=_consensus)
    listing = add_command(
        commands,
        "tiles",
        "list the sub-volumes of a run's test region, or copy the files of a finished one",
        "  ffn tiles --config config.yaml\n  ffn tiles --config config.yaml --tile 3 --output one\n\n"
        "The second form copies what the flood fill of sub-volume 3 left (segmentation.h5, origins.json and more) from "
        "the run's archives into a folder.",
    )
    add_config(listing)
    listing.add_argument("--tile", type=int, metavar="K", help="copy the files of this sub-volume")
    listing.add_argument(
        "--pass", dest="number", type=int, metavar="P", help="of this pass (default: of what all passes agree on)"
    )
    listing.add_argument("--output", type=Path, metavar="DIR", help="new folder for the copy")
    listing.set_defaults(run=lambda args: _tiles(listing, args))
    joining = add_command(
        commands,
        "assemble",
        "join a run's segmented sub-volumes into one volume with global ids",
        "  ffn assemble --config config.yaml\n  ffn assemble --config config.yaml --step labels --part 2/5\n\n"
        "The second form does a part of one step: overlaps, ids, labels, summary; or, where objects are split or\n"
        "dropped, overlaps, ids, pieces, touching (with split), objects, labels, summary.",
    )
    add_config(joining)
    add_blockwise(joining)
    joining.set_defaults(run=lambda args: _assemble(joining, args))


def _add_ranks(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--ranks",
        type=positive_option,
        metavar="N",
        help="processes that a launcher started and that share the sub-volumes (default: what the environment says; "
        "needed with aprun, which does not; 1 = do not ask it)",
    )


def _infer(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    required = ("image", "checkpoint", "output")
    if args.tile is not None:
        given = [f"--{name}" for name in (*required, "box", "seed") if getattr(args, name) not in (None, [])]
        if given:
            parser.error(f"{', '.join(given)} cannot be combined with --tile: the run decides them")
    else:
        if args.number is not None:
            parser.error("--pass goes with --tile: a box alone is segmented once, as it is")
        if args.ranks is not None:
            parser.error("--ranks goes with --tile: a box alone is segmented by one process")
        missing = [f"--{name}" for name in required if getattr(args, name) is None]
        if missing:
            parser.error(f"give {', '.join(missing)}, or --tile alone for a sub-volume of the run")
    from ffn.config import load_config
    from ffn.inference.devices import share_devices
    from ffn.inference.subvolume import run_tile
    from ffn.inference.tile import Tile
    from ffn.inference.tiles import infer_tiles
    from ffn.peers import Peer

    config = load_config(args.config)
    if args.tile is not None:
        peer = Peer.of(ranks=args.ranks)
        share_devices(peer)
        infer_tiles(config, args.tile, args.number or 0, peer)
    else:
        run_tile(config, Tile(args.image, args.checkpoint, args.box, args.output, seeds=tuple(args.seed)))


def _consensus(args: argparse.Namespace) -> None:
    from ffn.assembly.passes import join_passes
    from ffn.config import load_config
    from ffn.peers import Peer

    join_passes(load_config(args.config), args.tile, Peer.of(ranks=args.ranks))


def _tiles(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    from ffn.config import load_config
    from ffn.inference.tiles import copy_tile, tiles

    if (args.tile is None) != (args.output is None) or (args.number is not None and args.tile is None):
        parser.error("--tile and --output go together, and --pass with them")
    config = load_config(args.config)
    if args.tile is not None:
        copy_tile(config, args.tile, args.output, args.number)
        return
    boxes = tiles(config)
    print(f"{len(boxes)} sub-volume" + ("s" if len(boxes) > 1 else ""))
    for index, box in enumerate(boxes):
        print(f"{index}\t{box}")


def _assemble(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    from ffn.assembly.run import assemble
    from ffn.config import load_config

    assemble(load_config(args.config), share_of(parser, args))
