"""Scores as a table that a person reads (Markdown, aligned so that it reads well in a terminal too)."""

from typing import Any

from ffn.evaluation.scores import TREATMENTS

_COLUMNS = {
    "voi_split": "VOI split",
    "voi_merge": "VOI merge",
    "voi": "VOI",
    "are": "adapted Rand error",
    "precision": "precision",
    "recall": "recall",
    "voxels": "voxels",
}


def scores_table(result: dict[str, Any]) -> str:
    """Render what `ffn.evaluation.evaluate` returned."""
    head = ["background of the segmentation", *_COLUMNS.values()]
    names = {"object": "one more segment", "singletons": "each voxel alone", "excluded": "left out"}
    rows = [[names[key], *(_cell(result[key][column]) for column in _COLUMNS)] for key in TREATMENTS]
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    lines = [_line(head, widths), "|" + "|".join("-" * (width + 2) for width in widths) + "|"]
    lines += [_line(row, widths) for row in rows]
    inputs = result["inputs"]
    facts = [
        f"{result['coverage']:.2%} of the voxels with known truth have a segment; "
        f"{result['truth_bodies']:,} bodies, {result['segments']:,} segments.",
        "VOI in bits: split = H(segmentation | truth), merge = H(truth | segmentation). Truth 0 does not count.",
        f"Truth {inputs['truth']}, segmentation {inputs['segmentation']}"
        + (f", box {inputs['box']} (z,y,x)." if inputs["box"] else "."),
    ]
    return "\n".join(lines) + "\n\n" + "\n".join(facts) + "\n"


def _line(cells: list[str], widths: list[int]) -> str:
    padded = [cells[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(cells[1:], widths[1:], strict=True))]
    return "| " + " | ".join(padded) + " |"


def _cell(value: float | int | None) -> str:
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int) else f"{value:.4f}"
