"""The report of an evaluation: what it keeps of the predictions, and which unlabeled images it predicts."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning import Callback, Trainer

from tailmatch.callbacks import LogitAdjustment
from tailmatch.callbacks.reports.html.callback import HtmlReport, sampled, without_labeled
from tailmatch.callbacks.reports.html.material import Pool
from tailmatch.datamodules import Digits, ListedCounts
from tailmatch.datamodules.arguments import SettingsError
from tailmatch.lightning_modules import RotationPretraining, Supervised
from tailmatch.lightning_modules.networks import CifarResNet
from tailmatch.lightning_modules.networks.inputs import to_float
from tests.callbacks.reports.html.pages import Page

LABELED = list(range(10, 0, -1))


def digits() -> Digits:
    """Digits whose labeled images are unlabeled, too."""
    counts = ListedCounts(LABELED, [20] * 10)
    return Digits(image_size=8, class_counts=counts, include_labeled_in_unlabeled=True, eval_batch_size=100)


def evaluated(folder: Path, stage: str, *callbacks: Callback, **options: Any) -> tuple[HtmlReport, Supervised, Digits]:
    """Evaluate an untrained network with a report."""
    torch.manual_seed(0)
    report, data = HtmlReport(folder, **options), digits()
    model = Supervised(num_classes=10, network=partial(CifarResNet, depth=8))
    trainer = Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, enable_checkpointing=False,
        default_root_dir=folder, callbacks=[*callbacks, report], use_distributed_sampler=False,
    )  # fmt: skip
    getattr(trainer, stage)(model, datamodule=data, verbose=False)
    return report, model, data


@pytest.mark.filterwarnings("ignore:The dataloader")
def test_predictions_are_those_of_the_metrics_and_of_the_remedies(tmp_path: Path) -> None:
    report, model, data = evaluated(tmp_path, "test", LogitAdjustment(), unlabeled_images=30)
    seen, pool = report._seen, report._pool
    assert seen is not None and isinstance(pool, Pool)
    metrics = json.loads((tmp_path / "test_metrics.json").read_text())["metrics"]
    assert float(seen.correct.double().mean()) == pytest.approx(metrics["top1"])
    assert data.test is not None and torch.equal(seen.target, data.test.targets)
    assert pool.candidates == 200 and len(pool.rows) == 30
    assert not torch.isin(pool.rows.rows, data.labeled.rows).any()
    shift = torch.tensor(LABELED).double().log()  # up to a constant for all classes
    with torch.no_grad():
        logits = model.eval()(to_float(pool.rows[0]["image"]))[0].double() - shift
    top = logits.softmax(dim=0).topk(2)
    assert [pool.outcomes.predicted[0], pool.outcomes.second[0]] == top.indices.tolist()
    assert float(pool.outcomes.margin[0]) == pytest.approx(float(top.values[0] - top.values[1]), abs=1e-5)
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert "30 of 200 unlabeled images were predicted" in " ".join(page.sections["next"].split())


@pytest.mark.filterwarnings("ignore:The dataloader")
def test_validation_images_are_said_to_be_such(tmp_path: Path) -> None:
    evaluated(tmp_path, "validate", unlabeled_images=0)
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert "200 validation images" in page.sections["result"] and "optimistic" in page.sections["result"]
    assert "Left out: unlabeled_images is 0" in page.sections["next"]


def test_a_pretraining_has_no_images_to_label(tmp_path: Path) -> None:
    trainer: Any = type("T", (), {"datamodule": digits()})()
    model = RotationPretraining(num_classes=10, network=partial(CifarResNet, depth=8))
    assert HtmlReport(tmp_path)._predicted_pool(trainer, model) == "a pre-training has no classifier of its own"


def test_a_sample_is_the_same_each_time_and_in_order() -> None:
    data = digits()
    data.setup("test")
    rows = without_labeled(data)
    chosen = sampled(rows, 50)
    assert len(chosen) == 50 and torch.equal(chosen.rows, sampled(rows, 50).rows)
    assert torch.equal(chosen.rows, rows.rows[torch.isin(rows.rows, chosen.rows)])
    assert sampled(rows, 200) is rows


@pytest.mark.parametrize(("images", "predicted"), [(10, 200), (20_000, 2000), (10**6, 5000)])
def test_few_unlabeled_images_are_predicted_for_the_evaluated_ones(images: int, predicted: int, tmp_path: Path) -> None:
    report = HtmlReport(tmp_path)
    report._collector.size = images
    assert report._most_unlabeled() == predicted
    with pytest.raises(SettingsError, match="unlabeled_images is -1"):
        HtmlReport(tmp_path, unlabeled_images=-1)


@pytest.mark.filterwarnings("ignore:The dataloader")
def test_an_error_of_the_report_loses_no_metrics(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_: Any) -> None:
        raise RuntimeError("no memory is left")

    monkeypatch.setattr("tailmatch.callbacks.reports.html.callback.rows_of_set", failing)
    with pytest.raises(RuntimeError, match="no memory is left"):
        evaluated(tmp_path, "test", unlabeled_images=30)
    assert 0 <= json.loads((tmp_path / "test_metrics.json").read_text())["metrics"]["top1"] <= 1
