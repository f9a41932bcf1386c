"""`ffn seeds`, `ffn partitions`, `ffn coordinates`, `ffn prepare`: what training needs."""

import argparse
from pathlib import Path

from ffn.cli.options import add_blockwise, add_command, add_config, box_option, share_of, zyx_option


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the commands of data preparation."""
    _register_seeds(commands)
    _register_partitions(commands)
    _register_coordinates(commands)
    parser = add_command(
        commands,
        "prepare",
        "Seeds, partitions and coordinates of a run's training region, as one stage.",
        "  ffn prepare --config config.yaml\n"
        "  ffn prepare --config config.yaml --step classes --part 2/5\n\n"
        "Steps: label_sizes, objects, classes, class_counts, sample, coordinates, seeds, summary. Each step needs all\n"
        "parts of the one before; what is done is kept.",
    )
    add_config(parser)
    add_blockwise(parser)
    parser.set_defaults(run=lambda args: _prepare(parser, args))


def _register_seeds(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = add_command(
        commands,
        "seeds",
        "Find the points where flood filling starts: far from edges, one z,y,x a line.",
        "  ffn seeds --image data/training_sample2/grayscale_maps --output seeds.csv\n"
        "  ffn seeds --image volume.h5:image --box 0:100,0:200,0:200 --output seeds.csv\n\n"
        "Coordinates count from the corner of the box. The whole box is held in memory, about 24 bytes a voxel.",
    )
    parser.add_argument("--image", required=True, metavar="URI", help="EM image")
    parser.add_argument("--output", required=True, type=Path, metavar="FILE", help="text file to write")
    parser.add_argument(
        "--fov",
        type=zyx_option,
        default=(33, 33, 33),
        metavar="Z,Y,X",
        help="field of view in voxels; seeds keep half of it to the border (default 33,33,33)",
    )
    parser.add_argument(
        "--voxel-size", type=zyx_option, metavar="Z,Y,X", help="nanometres (default: read from the image, else 1,1,1)"
    )
    parser.add_argument("--box", type=box_option, metavar="Z0:Z1,Y0:Y1,X0:X1", help="use only these voxels")
    _add_overwrite(parser)
    parser.set_defaults(run=_seeds)


def _register_partitions(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = add_command(
        commands,
        "partitions",
        "Classify each voxel by how much of its surroundings is its own object.",
        "  ffn partitions --labels groundtruth.h5.gz --output partitions.h5:partitions\n"
        "  ffn partitions --labels volume.h5:labels --output partitions.h5 --lom-radius 16,16,16 --min-size 1000",
    )
    parser.add_argument("--labels", required=True, metavar="URI", help="ground truth, 0 = unknown")
    parser.add_argument("--output", required=True, metavar="URI", help="file.h5[:dataset] to write")
    parser.add_argument(
        "--lom-radius",
        type=zyx_option,
        default=(24, 24, 24),
        metavar="Z,Y,X",
        help="half size of the surroundings in voxels: fov//2 + deltas (default 24,24,24)",
    )
    parser.add_argument(
        "--min-size", type=int, default=10_000, metavar="N", help="smaller objects are class 0 (default 10000)"
    )
    parser.add_argument("--box", type=box_option, metavar="Z0:Z1,Y0:Y1,X0:X1", help="use only these voxels")
    _add_overwrite(parser)
    parser.set_defaults(run=_partitions)


def _register_coordinates(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = add_command(
        commands,
        "coordinates",
        "Write the centres of training examples, sorted into their partition classes and shuffled.",
        "  ffn coordinates --partitions partitions.h5:partitions --output coordinates.h5 --margin 24,24,24",
    )
    parser.add_argument("--partitions", required=True, metavar="URI", help="volume of `ffn partitions`")
    parser.add_argument("--output", required=True, type=Path, metavar="FILE", help="HDF5 file to write")
    parser.add_argument(
        "--margin",
        type=zyx_option,
        default=(0, 0, 0),
        metavar="Z,Y,X",
        help="voxels at each face without centres: fov//2 + deltas (default 0,0,0)",
    )
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="decides the order (default 1)")
    _add_overwrite(parser)
    parser.set_defaults(run=_coordinates)


def _add_overwrite(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--overwrite", action="store_true", help="replace an output file with other contents")


def _seeds(args: argparse.Namespace) -> None:
    import numpy as np

    from ffn.errors import DataError
    from ffn.prepare.outputs import new_output, same_bytes
    from ffn.prepare.seeds import peak_seeds, write_seeds
    from ffn.volumes import open_image

    with open_image(args.image, box=args.box, voxel_size=args.voxel_size) as image:
        values = np.asarray(image[...], np.float32)
        seeds = peak_seeds(values, args.fov, image.voxel_size or (1.0, 1.0, 1.0))
    if len(seeds) == 0:
        raise DataError(
            f"No seed was found in {args.image}: no place is both away from edges and at least half the field of view "
            f"{args.fov} away from the border. Check the image and the box, or use a smaller --fov."
        )
    with new_output(args.output, args.overwrite, same_bytes) as path:
        write_seeds(path, seeds)
    print(f"{len(seeds)} seeds in {args.output}")


def _partitions(args: argparse.Namespace) -> None:
    from ffn.prepare.outputs import new_output, same_hdf5
    from ffn.prepare.partitions import write_partitions
    from ffn.volumes import open_labels, parse_output

    output, dataset = parse_output(args.output, "partitions")
    with (
        open_labels(args.labels, box=args.box) as labels,
        new_output(output, args.overwrite, same_hdf5) as path,
    ):
        counts = write_partitions(
            labels,
            path,
            dataset,
            lom_radius=args.lom_radius,
            min_size=args.min_size,
            voxel_size=labels.voxel_size,
        )
    for value, voxels in counts.items():
        print(f"class {value:3d}: {voxels} voxels")


def _coordinates(args: argparse.Namespace) -> None:
    from ffn.prepare.coordinates import write_coordinates
    from ffn.prepare.outputs import new_output, same_hdf5
    from ffn.volumes import open_volume

    with (
        open_volume(args.partitions) as partitions,
        new_output(args.output, args.overwrite, same_hdf5) as path,
    ):
        counts = write_coordinates(partitions, path, args.margin, args.seed)
    print(f"{sum(counts.values())} coordinates in {len(counts)} classes in {args.output}")


def _prepare(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    from ffn.config import load_config
    from ffn.preflight import require_training_inputs
    from ffn.prepare.run import prepare_training

    config = load_config(args.config)
    require_training_inputs(config)
    prepare_training(config, share_of(parser, args))
