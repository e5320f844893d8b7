"""Reports: figures have the right content, tables the right numbers."""

import io
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
import torch
from pytorch_lightning import Trainer
from rich.console import Console

from tailmatch.callbacks import LastEvaluations
from tailmatch.callbacks.reports import figures
from tailmatch.callbacks.reports.run import ClassCountsReport, EvaluationFigures, ViewGrid, class_counts_table
from tailmatch.datamodules import Digits, ListedCounts, PairNoise
from tailmatch.datamodules.arguments import SettingsError
from tailmatch.lightning_modules import Supervised
from tailmatch.lightning_modules.networks import CifarResNet


def test_view_grid_finds_the_views_of_any_method() -> None:
    images = torch.full((9, 3, 4, 4), 51, dtype=torch.uint8)
    views = ViewGrid(images=2)._views(
        {"image": images, "index": torch.arange(9), "weak": images / 255, "strong": [images / 255] * 2}
    )
    assert list(views) == ["image", "weak", "strong 1", "strong 2"]
    assert all(v.shape == (2, 3, 4, 4) and torch.allclose(v, torch.tensor(0.2)) for v in views.values())
    strip = figures.views_figure(views).axes[1].images[0].get_array()
    assert strip.shape == (4, 8, 3)


def test_views_are_drawn_once_however_many_batches_come_before_the_first_step(tmp_path: Path) -> None:
    drawn: list[str] = []
    data = Digits(image_size=8, class_counts=ListedCounts([4] * 10, [4] * 10), labeled_batch_size=8, steps_per_epoch=4)
    model = Supervised(num_classes=10, network=partial(CifarResNet, depth=8))
    trainer = Trainer(
        accelerator="cpu", accumulate_grad_batches=3, max_steps=1, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=tmp_path, callbacks=[ViewGrid()],
        use_distributed_sampler=False, limit_val_batches=0,
    )  # fmt: skip
    with mock.patch.object(figures, "log_figure", lambda trainer, tag, figure: drawn.append(tag)):
        trainer.fit(model, datamodule=data)
    assert drawn == ["data/views"] and trainer.global_step == 1


def test_table_shows_totals_and_what_is_unknown() -> None:
    table = {"labeled": [1200, 5], "unlabeled": [30, 40]}
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(class_counts_table(table, ["ant", "bee"], unlabeled_total=170))
    text = console.export_text()
    assert "1,205" in text and "ant" in text and "and 100 unlabeled images of" in text


class Labeled(list[int]):
    """No labeled images, without noise in their labels."""

    truth = None


def test_class_names_are_printed_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    names = ["[unknown]", "coat [old]", "a [/sale]", ":car:", "\x1b[31mred", "모자"]
    data = SimpleNamespace(
        class_count_table=lambda: {"labeled": [1] * 6, "unlabeled": [0] * 6}, class_names=names,
        unlabeled=[], labeled=Labeled(), annotated=Labeled(), warnings=lambda: [f"6 classes ({', '.join(names)})"],
    )  # fmt: skip
    trainer: Any = SimpleNamespace(datamodule=data, is_global_zero=True, loggers=[], ckpt_path=None)
    ClassCountsReport().on_fit_start(trainer, None)  # type: ignore[arg-type]
    out = capsys.readouterr().out
    for name in (*names[:4], r"\x1b[31mred", "모자"):
        assert out.count(name) == 2, name
    assert "\x1b" not in out


def test_long_tables_are_cut_in_the_middle() -> None:
    console = Console(width=100, record=True, file=io.StringIO())
    names = [f"k{k}" for k in range(100)]
    console.print(class_counts_table({"labeled": [1] * 100, "unlabeled": [0] * 100}, names, 0))
    text = console.export_text()
    assert "k0" in text and "k99" in text and "k50" not in text and "..." in text


def test_the_report_says_how_many_labels_are_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    data = Digits(class_counts=ListedCounts([5] * 10, [6] * 10), label_noise=PairNoise(1.0, {"3": "8"}))
    data.setup("fit")
    trainer: Any = SimpleNamespace(datamodule=data, is_global_zero=True, loggers=[], ckpt_path=None)
    ClassCountsReport().on_fit_start(trainer, None)  # type: ignore[arg-type]
    out = capsys.readouterr().out
    assert "label noise: 5 of 50 labels are wrong (10.0%)" in out
    assert "1 class (3) without a labeled image" in out and "label_noise changes a share of 1" in out


def test_figures_are_drawn_now_and_then_and_at_the_end_that_the_steps_make(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []
    monkeypatch.setattr(EvaluationFigures, "_log", lambda self, trainer, model, stage: drawn.append(epoch))
    for epoch in range(5):
        trainer: Any = SimpleNamespace(
            current_epoch=epoch, sanity_checking=False, max_epochs=-1, max_steps=9, limit_train_batches=1.0,
            accumulate_grad_batches=1, datamodule=SimpleNamespace(steps_per_epoch=2),
        )  # fmt: skip
        EvaluationFigures(every_n_epochs=3).on_validation_end(trainer, None)  # type: ignore[arg-type]
    assert drawn == [2, 4]


def test_a_summary_that_is_no_json_is_named(tmp_path: Path) -> None:
    for name, text in (("test_metrics.json", "{}"), ("last_evaluations.json", "{broken")):
        (tmp_path / name).write_text(text)
    trainer: Any = SimpleNamespace(logger=None, default_root_dir=str(tmp_path), is_global_zero=True)
    with pytest.raises(SettingsError, match="last_evaluations.json is not JSON"):
        LastEvaluations().on_test_end(trainer, torch.nn.Identity())  # type: ignore[arg-type]
