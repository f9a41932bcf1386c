"""Fields of view that a segmentation takes, and how good it is: the table of docs/quality.md.

Fills a box of a labelled volume under several settings of the section `inference`, and scores its inside. One JSON line
for each; what was filled before is not filled again, an interrupted fill goes on.

    python benchmarks/long/fovs_for_quality.py --config config/fib25_released.yaml --output fronts \\
        --set exact --set balanced --set fast --set fast,min_unseen=0.2 --set exact,deltas=12-12-12
    python benchmarks/long/fovs_for_quality.py --config config/fib25_released.yaml --output fronts \\
        --box 60:180,60:180,60:180 --inside 16 --set exact --set balanced

On two cores the published network looks at 4 (AVX2) to 7 (AVX-512) fields of view a second; the whole 250^3 volume
takes 25,799 of them with `exact`.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from ffn.config import Config, load_config, parse_config
from ffn.evaluation import contingency_of_volumes, coverage, score
from ffn.geometry import Box
from ffn.inference.results import LABELS, SEGMENTATION_FILE
from ffn.inference.subvolume import run_tile
from ffn.inference.tile import Tile
from ffn.inference.tiles import region_box
from ffn.runs import checkpoint_prefix, image_uri, labels_uri
from ffn.volumes import open_labels, open_volume


def main() -> None:
    """Fill and score with every setting."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, required=True, help="names image, ground truth and weights")
    parser.add_argument("--output", type=Path, required=True, help="folder for the segmentations")
    parser.add_argument("--box", type=Box.parse, help="of the image (default: the test region)")
    parser.add_argument("--inside", type=int, default=0, metavar="N", help="score without N voxels at each face")
    parser.add_argument("--set", action="append", default=[], metavar="QUALITY[,KEY=VALUE...]")
    args = parser.parse_args()
    config = load_config(args.config)
    box = args.box or region_box(config)
    for text in args.set or ["exact", "balanced", "fast"]:
        chosen = configured(config, text)
        folder = args.output / f"{box}-{text}".replace(":", "-").replace(",", "_")
        tile = Tile(image_uri(chosen, chosen.data.test), checkpoint_prefix(chosen), box, folder)
        run_tile(chosen, tile)
        print(json.dumps({"settings": text, **scores(chosen, folder, box, args.inside)}), flush=True)


def configured(config: Config, text: str) -> Config:
    """The configuration with a quality and other keys of `inference`; numbers of a vector are joined by hyphens."""
    quality, *others = text.split(",")
    changes: dict[str, Any] = {"quality": quality}
    for other in others:
        key, value = other.split("=")
        changes[key] = [json.loads(part) for part in value.split("-")] if "-" in value else json.loads(value)
    values = config.model_dump(mode="json")
    return parse_config({**values, "inference": {**values["inference"], **changes}})


def scores(config: Config, folder: Path, box: Box, inside: int) -> dict[str, Any]:
    """Fields of view and scores of a segmentation, with the background left out and as one more object."""
    inner = Box(
        tuple(a + inside for a in box.start),  # type: ignore[arg-type]
        tuple(b - inside for b in box.stop),  # type: ignore[arg-type]
    )
    truth = labels_uri(config, config.data.test)
    if truth is None:
        raise SystemExit("data.test.labels is empty: nothing says how good a segmentation is.")
    with (
        open_labels(truth, box=inner) as labels,
        open_volume(f"{folder / SEGMENTATION_FILE}:{LABELS}", box=inner.relative_to(box.start)) as found,
    ):
        table = contingency_of_volumes(labels, found)
    counters = json.loads((folder / "counters.json").read_text())
    kept = {treatment: score(table, treatment).as_dict() for treatment in ("excluded", "object")}
    return {
        "fovs": counters["fovs"],
        "segments": counters["segments"],
        "covered": round(coverage(table), 4),
        **{
            f"{name} {key}": round(kept[treatment][key], 4)
            for name, treatment in (("left out", "excluded"), ("one object", "object"))
            for key in ("voi", "voi_split", "voi_merge")
        },
    }


if __name__ == "__main__":
    main()
