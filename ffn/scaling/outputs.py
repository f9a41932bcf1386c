"""Writing the study's pictures and tables."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, NullLocator, StrMethodFormatter

from ffn.files import atomic_path, write_text

BLUE, RED, GREY, GREEN = "#1f5fa8", "#b8322a", "#777777", "#2c7a3f"


def save_figure(figure: Figure, path: Path) -> None:
    """Write a PNG that is the same for the same figure."""
    with atomic_path(path) as partial:
        figure.savefig(partial, format="png", dpi=110, metadata={"Software": None})


def write_table(path: Path, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Write a CSV file; floats with six digits."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows([_cell(value) for value in row] for row in rows)
    write_text(path, text.getvalue())


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table; floats with three digits."""
    lines = [[str(name) for name in header], ["---"] * len(header)]
    lines += [[_cell(value, 3) for value in row] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def workers_axis(axes: Axes, workers: Sequence[int], name: str = "workers") -> None:
    """A logarithmic x axis with a tick at each number of workers."""
    axes.set_xscale("log", base=2)
    axes.set_xticks(list(workers), [str(n) for n in workers])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel(name)


def plain_log_y(axes: Axes) -> None:
    """A logarithmic y axis with plain numbers."""
    axes.set_yscale("log", base=2)
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def _cell(value: object, digits: int = 6) -> str:
    if not isinstance(value, float):
        return "" if value is None else str(value)
    return f"{value:.0f}" if 10**digits <= abs(value) < 1e15 else f"{value:.{digits}g}"
