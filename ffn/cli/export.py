"""`ffn export` and `ffn view`: Neuroglancer layers of a run or one HDF5 file, and a look at them."""

import argparse
import signal
from pathlib import Path

from ffn.cli.options import add_blockwise, add_command, add_config, share_of

_EXPORT_EXAMPLES = """\
  ffn export --config config.yaml
  ffn export --config config.yaml --step layer --part 2/5
  ffn export --config config.yaml --format h5
  ffn export --config config.yaml --format h5 --output /scratch/neurons.h5

The second form does a part of one step: layer, mips. The third one writes the segmentation only, as
results/<run>/export/segmentation.h5:labels (uint64), by one process; a killed one begins anew.
"""
_VIEW_EXAMPLES = """\
  ffn view results/demo
  ffn view results/demo --port 0                # any free port
  ssh -L 9000:127.0.0.1:9000 cluster            # then `ffn view` there, the browser here
"""


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `export` and `view`."""
    export = add_command(
        commands, "export", "write a run as Neuroglancer layers, or its segmentation as one HDF5 file", _EXPORT_EXAMPLES
    )
    add_config(export)
    export.add_argument(
        "--format",
        choices=("precomputed", "h5"),
        default="precomputed",
        help="precomputed: layers of image, ground truth and segmentation (default); h5: the segmentation as one file",
    )
    export.add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        help="the file of --format h5 (default: segmentation.h5 in the run's folder export)",
    )
    add_blockwise(export)
    export.set_defaults(run=lambda args: _export(export, args))

    view = add_command(commands, "view", "look at a run in Neuroglancer, served from this machine", _VIEW_EXAMPLES)
    view.add_argument("folder", type=Path, metavar="RUN", help="the run's folder, such as results/demo")
    view.add_argument("--port", type=int, default=9000, metavar="N", help="port to listen on (default 9000; 0 = any)")
    view.add_argument(
        "--bind",
        default="127.0.0.1",
        metavar="ADDRESS",
        help="address to listen on (default 127.0.0.1: only from here)",
    )
    view.set_defaults(run=_view)


def _export(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    from ffn.config import load_config
    from ffn.export import export_hdf5, export_run

    if args.format == "h5":
        given = [f"--{name}" for name in ("step", "part", "ranks") if getattr(args, name) is not None]
        if given:
            parser.error(f"{', '.join(given)} goes with --format precomputed: one process writes an HDF5 file")
        output, written = export_hdf5(load_config(args.config), args.output)
        print(f"Labels are in {output}:labels." if written else f"{output} is already complete.")
        return
    if args.output is not None:
        parser.error("--output goes with --format h5: layers are in the folder export of the run")
    folder = export_run(load_config(args.config), share_of(parser, args))
    if (folder / "done.json").exists():
        print(f"Layers are in {folder}. Look at them with: ffn view {folder.parent}")


def _view(args: argparse.Namespace) -> None:
    from ffn.export import ViewServer

    # A shell starts background jobs with SIGINT ignored; this one should stop on it (and on SIGTERM) all the same.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    with ViewServer(args.folder, args.bind, args.port) as server:
        print(f"Open {server.address}/ in a browser (Ctrl-C stops).\nThe link with the view in it:\n{server.link}")
        print(flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            server.stopped.set()
            print("Stopped.")
