"""`ffn import-segmentation` and `ffn export-segmentation`: google/ffn's result files."""

import argparse
import math
from pathlib import Path

from ffn.cli.options import add_command, zyx_option

_IMPORT_EXAMPLES = """\
  ffn import-segmentation results/fib25/sample-training2.npz --output published --voxel-size 10,10,10
  ffn import-segmentation out/0/0/seg-0_0_0.npz --prob out/0/0/seg-0_0_0.prob --min-probability 0.8 --output seg
  ffn import-segmentation out --corner 0,128,256 --split --min-size 1000 --output seg
  ffn evaluate --truth truth.h5:labels --segmentation seg/segmentation.h5:labels --output scores.json

The folder then is like one that `ffn infer` made. Nothing in the file is executed, whoever it is from."""
_EXPORT_EXAMPLES = """\
  ffn export-segmentation published --output out
  ffn tiles --config config.yaml --tile 0 --output one && ffn export-segmentation one --output out

Writes out/<x>/<y>/seg-<x>_<y>_<z>.npz, and .prob where the folder has probabilities, as google/ffn reads them."""


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `import-segmentation` and `export-segmentation`."""
    importing = add_command(
        commands, "import-segmentation", "make a finished folder from a result file of google/ffn", _IMPORT_EXAMPLES
    )
    importing.add_argument("source", type=Path, metavar="SEG", help="seg-X_Y_Z.npz, or the folder it is in")
    importing.add_argument("--output", type=Path, required=True, metavar="FOLDER", help="folder to make")
    importing.add_argument("--prob", type=Path, metavar="FILE", help="its object maps, seg-X_Y_Z.prob")
    importing.add_argument("--voxel-size", type=_voxel_size, metavar="Z,Y,X", help="nanometres, stored with the labels")
    importing.add_argument(
        "--corner",
        type=zyx_option,
        metavar="Z,Y,X",
        help="where the sub-volume lies (default: as its name says); in a folder: which one",
    )
    importing.add_argument(
        "--min-probability", type=_probability, metavar="P", help="leave out voxels below it (needs --prob)"
    )
    importing.add_argument(
        "--split", action="store_true", help="make objects of pieces that do not touch by a face, as google/ffn does"
    )
    importing.add_argument(
        "--min-size", type=_count, default=0, metavar="N", help="leave out objects below N voxels (default 0)"
    )
    importing.set_defaults(run=lambda args: _import(importing, args))

    exporting = add_command(
        commands, "export-segmentation", "write a finished folder as result files of google/ffn", _EXPORT_EXAMPLES
    )
    exporting.add_argument(
        "folder", type=Path, metavar="FOLDER", help="folder of ffn infer, consensus, assemble or agglomerate"
    )
    exporting.add_argument("--output", type=Path, required=True, metavar="DIR", help="google/ffn's output folder")
    exporting.set_defaults(run=_export)


def _import(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    if args.min_probability is not None and args.prob is None:
        parser.error("--min-probability needs the object maps: give --prob")
    from ffn.exchange.cleaning import Cleaning
    from ffn.exchange.folder import import_segmentation

    import_segmentation(
        args.source,
        args.output,
        probability=args.prob,
        corner=args.corner,
        voxel_size=args.voxel_size,
        cleaning=Cleaning(args.min_probability, args.split, args.min_size),
    )
    print(f"{args.output}/segmentation.h5:labels")


def _export(args: argparse.Namespace) -> None:
    from ffn.exchange.folder import export_segmentation

    print(export_segmentation(args.folder, args.output))


def _count(text: str) -> int:
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"'{text}' is not a number of voxels")
    return int(text)


def _probability(text: str) -> float:
    value = _float(text)
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not a probability between 0 and 1")
    return value


def _voxel_size(text: str) -> tuple[float, float, float]:
    values = [_float(part) for part in text.split(",")]
    if len(values) != 3 or not all(math.isfinite(value) and value > 0 for value in values):
        raise argparse.ArgumentTypeError(f"'{text}' is not three numbers of nanometres Z,Y,X such as 10,10,10")
    return values[0], values[1], values[2]


def _float(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
