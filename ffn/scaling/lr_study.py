"""The learning-rate study: from finished cells to plot, tables and page in results/<run>/scaling/lr_study."""

from collections.abc import Mapping
from pathlib import Path

from ffn.config import Config
from ffn.errors import DataError, StageError
from ffn.files import write_json, write_text
from ffn.scaling.cells import Cell
from ffn.scaling.lr_page import CELL_COLUMNS, cell_rows, facts_of, page
from ffn.scaling.lr_plot import draw_heat_map
from ffn.scaling.lr_table import analyse_all
from ffn.scaling.outcomes import Outcome, read_outcomes
from ffn.scaling.outputs import write_table
from ffn.scaling.paths import StudyPaths
from ffn.scaling.rounds import next_cells
from ffn.stages import Stage


def run_lr_study(config: Config) -> Path:
    """Train what is missing, unless the cells are jobs of their own, and write the results; returns their folder.

    Raises StageError where cells are missing that other jobs have to train, DataError where none has a score.
    """
    if config.study.real:
        outcomes = read_outcomes(config)
        missing = next_cells(config.study.lr_study, outcomes)
        if missing:
            raise StageError(
                f"{len(missing)} cells of the study are not done, the first is {missing[0].name}: run `snakemake "
                "lr_study`, which starts each as its own job, or `ffn study cell` for each."
            )
    else:
        from ffn.scaling.train_cells import train_all

        outcomes = train_all(config)
    return write_results(config, outcomes)


def write_results(config: Config, outcomes: Mapping[Cell, Outcome]) -> Path:
    """Write plot, CSV, JSON and page of these cells, as a stage."""
    folder = StudyPaths.of(config).lr_study
    settings = config.study.lr_study
    studies = analyse_all(config, outcomes)
    if not studies or (studies[0].judged_on, studies[0].score) != (settings.judged_on, settings.score):
        raise DataError(
            f"No cell of the study has a {settings.judged_on} {settings.score}: all diverged, or study.lr_study.steps "
            f"{settings.steps} are too few to finish one example. Use smaller rates or more steps."
        )
    rows = cell_rows(config, outcomes)
    stage = Stage(folder, {"study": settings.model_dump(mode="json"), "cells": rows})
    with stage.locked():
        if not stage.begin():
            return folder
        write_table(folder / "lr_study.csv", CELL_COLUMNS, rows)
        write_json(folder / "lr_study.json", facts_of(config, studies))
        draw_heat_map(config, studies[0], folder / "lr_study.png")
        write_text(folder / "lr_study.md", page(config, studies, len(outcomes)))
        stage.finish()
    return folder
