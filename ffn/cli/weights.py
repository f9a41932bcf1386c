"""`ffn export-weights`: a checkpoint for machines without TensorFlow."""

import argparse
from pathlib import Path

from ffn.cli.options import add_command


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    parser = add_command(
        commands,
        "export-weights",
        "write a checkpoint's weights as a NumPy archive, which inference reads without TensorFlow",
        "  ffn export-weights results/demo/train/model.ckpt weights.npz\n"
        "  KERAS_BACKEND=jax ffn infer --config FILE --image volume.h5:image --checkpoint weights.npz --output seg",
    )
    parser.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="common beginning of the files' names")
    parser.add_argument("output", type=Path, metavar="FILE", help="NAME.npz")
    parser.set_defaults(run=_export)


def _export(args: argparse.Namespace) -> None:
    from ffn.model.checkpoint import export_weights

    export_weights(args.checkpoint, args.output)
