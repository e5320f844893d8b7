"""Class names are drawn and logged as they are: never as a formula, and in a font that has their characters."""

import os
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import matplotlib
import numpy as np
import pytest
import torch
from pytorch_lightning.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tailmatch.callbacks.reports import figures, fonts
from tailmatch.callbacks.reports.class_figures import recall_figure
from tailmatch.callbacks.reports.early_learning import early_figure
from tailmatch.callbacks.reports.scalars import log_scalars

BUNDLED = Path(matplotlib.get_data_path(), "fonts", "ttf")
SCRIPT_G = "\N{SCRIPT SMALL G}"  # in STIX, which matplotlib has, and not in DejaVu Sans
STRANGE = ["$0_to_$10", "[unknown]", "_background", os.fsdecode(b"caf\xe9"), "two\nlines", "x" * 90]


def install(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    monkeypatch.setattr(fonts.font_manager, "findSystemFonts", lambda: [str(BUNDLED / name) for name in names])
    fonts._fallbacks.cache_clear()


def drawn(name: str) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return figures.to_array(recall_figure(torch.zeros(2), [1, 1], ["a", name]))


def test_names_are_text_and_nowhere_a_formula() -> None:
    recall = recall_figure(torch.ones(6), [1] * 6, STRANGE)
    assert figures.to_array(recall).std() > 0
    ticks = [label.get_text().removesuffix(" (1)") for label in recall.axes[0].get_yticklabels()]
    assert ticks == ["$0_to_$10", "[unknown]", "_background", "caf\\udce9", "two\\nlines", f"{'x' * 21}..."]
    curves = early_figure([1], torch.ones(1, 2, 6, dtype=torch.long), STRANGE)
    legend = curves.axes[0].get_legend()
    assert legend is not None
    assert {"$0_to_$10 (1)", " _background (1)"} <= {text.get_text() for text in legend.get_texts()}
    assert figures.to_array(curves).std() > 0


def test_a_font_of_the_system_draws_what_the_own_one_lacks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "damaged.ttf").write_text("no font")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        install(monkeypatch, str(tmp_path / "damaged.ttf"), "cmr10.ttf", "STIXGeneral.ttf")
        assert fonts.font_families("ab") == matplotlib.rcParams["font.family"]
        assert fonts.font_families(f"a{SCRIPT_G}") == [*matplotlib.rcParams["font.family"], "STIXGeneral"]
        with_font = drawn(SCRIPT_G)
    install(monkeypatch)
    with pytest.warns(UserWarning, match="no font of this machine"):
        assert (with_font != drawn(SCRIPT_G)).any()


def test_one_line_of_advice_says_which_characters_no_font_has(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, "LastResortHE-Regular.ttf")  # a font of placeholders, which has all characters
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        drawn("모자 หมวก")
        drawn("모자 หมวก")
    [line] = [str(each.message) for each in said]
    assert "characters กมวห모자: figures show boxes" in line and "fonts-noto-cjk and fonts-noto-core" in line


def test_names_in_other_encodings_are_logged_as_escapes(tmp_path: Path) -> None:
    logger = TensorBoardLogger(tmp_path)
    trainer: Any = SimpleNamespace(loggers=[logger], global_step=3)
    log_scalars(trainer, {f"early/fit_class/{STRANGE[3]}": 0.5, "early/fit_class/모자": 0.25})
    logger.finalize("success")
    events = EventAccumulator(logger.log_dir).Reload()
    assert {r"early/fit_class/caf\udce9", "early/fit_class/모자"} <= set(events.Tags()["scalars"])
