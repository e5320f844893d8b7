"""Figures are drawn as arrays and then freed."""

import gc
import weakref
from functools import partial
from pathlib import Path
from unittest import mock

import torch
from pytorch_lightning import Trainer
from pytorch_lightning.loggers import TensorBoardLogger

from tailmatch.callbacks.reports import class_figures, figures
from tailmatch.callbacks.reports.class_figures import confusion_figure


def test_figures_that_are_logged_do_not_stay_in_memory(tmp_path: Path) -> None:
    made: list[weakref.ref[object]] = []

    def new_figure(*args: float, **options: int) -> object:
        made_now = NEW_FIGURE(*args, **options)
        made.append(weakref.ref(made_now[0]))
        return made_now

    trainer = Trainer(logger=TensorBoardLogger(tmp_path), accelerator="cpu")
    gc.disable()  # as if it were long before its next full run
    try:
        with mock.patch.object(class_figures, "new_figure", new_figure):
            for _ in range(3):
                draw = partial(confusion_figure, torch.ones(3, 3), [3, 2, 1], list("abc"))
                figures.log_figure(trainer, "confusion", draw)
        alive = [figure for figure in made if figure() is not None]
    finally:
        gc.enable()
    assert len(made) == 3
    assert not alive
    assert not gc.get_freeze_count()


NEW_FIGURE = figures.new_figure
