"""Scores as an HTML table, for Snakemake's report, which does not show Markdown."""

from html import escape

_STYLE = (
    "body{font-family:sans-serif;margin:1em}table{border-collapse:collapse}"
    "td,th{padding:.3em .8em;border-bottom:1px solid #ccc;text-align:right}"
    "td:first-child,th:first-child{text-align:left}"
)


def html_of_table(markdown: str) -> str:
    """A page with the table and the paragraphs below it; `markdown` is what `ffn.evaluation.scores_table` makes."""
    table, _, rest = markdown.partition("\n\n")
    head, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    parts = ["<!DOCTYPE html>", f'<html lang="en"><meta charset="utf-8"><title>Scores</title><style>{_STYLE}</style>']
    parts += ["<table>", _row(head, "th"), *(_row(row, "td") for row in rows), "</table>"]
    parts += [f"<p>{escape(line)}</p>" for line in rest.splitlines() if line]
    return "\n".join([*parts, "</html>"]) + "\n"


def _row(cells: list[str], tag: str) -> str:
    return "<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in cells) + "</tr>"
