"""What the report says of labels that were selected and replaced, by hand."""

import csv
import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tailmatch.callbacks import SelfTrainingReport
from tailmatch.callbacks.reports.self_training import (
    relabeling_line,
    relabeling_scalars,
    selection_counts,
    write_relabeled,
)
from tailmatch.datamodules.images import ImageRows, Images
from tailmatch.datamodules.pseudo_labels.labels import PseudoLabels
from tailmatch.lightning_modules import SelfTraining, Supervised
from tailmatch.lightning_modules.pseudo_labels.relabeling import relabel
from tests.lightning_modules.pixel_network import PixelNetwork

NAMES = ["ant", "bee", "cow"]
GIVEN = torch.tensor([0, 1, 2, 0, 1, 0])
PREDICTIONS = PseudoLabels(torch.tensor([1, 1, 0, 2, 0, -1]), torch.tensor([0.9, 0.8, 0.55, 0.95, 0.7, 0.9]))
TRUTH = torch.tensor([1, 1, 2, 0, 2, 0])
UNLABELED = ImageRows(Images(torch.zeros(4, 3, 1, 1, dtype=torch.uint8), torch.tensor([0, 1, 2, 2])), torch.arange(4))


def rows(keys: bool = True, noisy: bool = True) -> ImageRows:
    """Rows 2 to 7 of a pool of eight."""
    names = tuple(f"train/{name}.jpg" for name in "abcdefgh") if keys else None
    truth = torch.cat([torch.zeros(2, dtype=torch.long), TRUTH if noisy else GIVEN])
    images = Images(torch.zeros(8, 3, 1, 1, dtype=torch.uint8), truth, names)
    return ImageRows(images, torch.arange(2, 8), given=GIVEN if noisy else None)


DATA = SimpleNamespace(
    labeled=rows(),
    unlabeled=UNLABELED,
    class_counts=[2, 1, 1],
    annotated_counts=[2, 1, 1],
    num_classes=3,
    class_names=NAMES,
)


def test_the_report_lists_replaced_labels_the_most_confident_first(tmp_path: Path) -> None:
    path = tmp_path / "run" / "relabeled.csv"
    for _ in range(2):  # a later labeling renews it
        write_relabeled(path, relabel(GIVEN, PREDICTIONS, 0.6), rows(), NAMES)
    with path.open(newline="") as file:
        assert list(csv.reader(file)) == [
            ["index", "key", "given", "predicted", "confidence", "true"],
            ["3", "train/f.jpg", "ant", "cow", "0.950000", "ant"],
            ["0", "train/c.jpg", "ant", "bee", "0.900000", "bee"],
            ["4", "train/g.jpg", "bee", "ant", "0.700000", "cow"],
        ]
    write_relabeled(path, relabel(GIVEN, PREDICTIONS, 0.91), rows(keys=False, noisy=False), NAMES)
    assert path.read_text().splitlines() == ["index,key,given,predicted,confidence", "3,5,ant,cow,0.950000"]
    assert [file.name for file in path.parent.iterdir()] == ["relabeled.csv"]


def test_the_line_and_the_scalars() -> None:
    changed = relabel(GIVEN, PREDICTIONS, 0.6)
    line = "relabeled: 3 of 6 labeled images (ant -> bee 1, ant -> cow 1, bee -> ant 1)"
    assert relabeling_line(changed, None, NAMES) == line
    # Given labels 1, 2, 3 and 5 are right; of the replaced ones that of image 0 alone, and that of 3 was right before.
    right = ", 1 of them rightly: 66.7% of all labels were right, now 66.7%"
    assert relabeling_line(changed, TRUTH, NAMES) == line + right
    assert relabeling_scalars(changed, None) == {"relabel/share": 0.5}
    assert relabeling_scalars(changed, TRUTH) == pytest.approx(
        {
            "relabel/share": 0.5,
            "relabel/right": 1 / 3,
            "relabel/labels_right_before": 4 / 6,
            "relabel/labels_right": 4 / 6,
        }
    )
    nothing = relabel(GIVEN, PREDICTIONS, 0.99)
    assert relabeling_line(nothing, TRUTH, NAMES) == "relabeled: 0 of 6 labeled images"
    assert "relabel/right" not in relabeling_scalars(nothing, TRUTH)


def test_the_line_names_the_most_frequent_pairs() -> None:
    given = torch.tensor([0] * 3 + [1] * 4 + [2] * 5 + [3, 3, 4, 5])
    predicted = torch.tensor([1] * 3 + [2] * 4 + [3] * 5 + [4, 4, 5, 0])
    changed = relabel(given, PseudoLabels(predicted, torch.ones(16)), 0.5)
    named = "2 -> 3 5, 1 -> 2 4, 0 -> 1 3, 3 -> 4 2, 4 -> 5 1, ..."
    assert relabeling_line(changed, None, list("012345")) == f"relabeled: 16 of 16 labeled images ({named})"


def test_each_labeling_is_printed_and_logged_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    logged: list[tuple[int, dict[str, float]]] = []
    logger = SimpleNamespace(log_metrics=lambda scalars, step: logged.append((step, scalars)))
    trainer: Any = SimpleNamespace(
        world_size=1, global_rank=0, is_global_zero=True, logger=None, loggers=[logger], global_step=7,
        default_root_dir=tmp_path, datamodule=DATA, current_epoch=2, ckpt_path=None,
    )  # fmt: skip
    method = SelfTraining(num_classes=3, network=PixelNetwork, threshold=0.5, relabel_threshold=0.6)
    method._trainer, method.class_names = trainer, NAMES
    report = SelfTrainingReport()
    for model in (method, method, Supervised(num_classes=3, network=PixelNetwork)):  # a second fit, another method
        report.setup(trainer, model, "fit")
    unlabeled = PseudoLabels(torch.tensor([0, 1, 1, 2]), torch.tensor([0.9, 0.4, 0.8, 0.95]))
    method.take_pseudo_labels(unlabeled, PREDICTIONS)
    assert capsys.readouterr().out.splitlines() == [
        "relabeled: 3 of 6 labeled images (ant -> bee 1, ant -> cow 1, bee -> ant 1), 1 of them rightly: 66.7% of all "
        f"labels were right, now 66.7%; {tmp_path / 'relabeled.csv'}",
        "pseudo-labels: 3 of 4 unlabeled images selected (ant 1, bee 1, cow 1)",
    ]
    assert len((tmp_path / "relabeled.csv").read_text().splitlines()) == 4
    (first, relabeled), (second, selected) = logged
    assert first == second == 7 and relabeled["relabel/share"] == 0.5
    by_class = {f"pseudo/selected_class/{name}": 1.0 for name in NAMES}
    right = {f"pseudo/accuracy_refined_class/{name}": share for name, share in zip(NAMES, (1, 1, 0.5), strict=True)}
    # Of the labels 0, 1, 1, 2 the third is wrong; a quarter, a half, a quarter beside a half, a quarter, a quarter.
    scalars = {"selected": 0.75, "accuracy_raw": 0.75, "accuracy_refined": 0.75, "accuracy_selected": 2 / 3}
    scalars |= {"kl_raw": math.log(2) / 4, "kl_refined": math.log(2) / 4}
    named = {f"pseudo/{name}": value for name, value in scalars.items()}
    assert selected == pytest.approx(named | by_class | right)
    kept = json.loads((tmp_path / "pseudo_label_totals.json").read_text())
    shares = {"raw": [0.25, 0.5, 0.25], "target": [0.5, 0.25, 0.25], "truth": [0.25, 0.25, 0.5]}
    assert kept["last"] == shares | {"refined": shares["raw"]} and kept["class_names"] == NAMES
    [row] = kept["epochs"]
    assert row["few"] == {name: share[2] for name, share in kept["last"].items()} and row["epoch"] == 3
    assert {name: row[name] for name in scalars} == pytest.approx(scalars)


def test_labels_of_no_class_and_an_unknown_truth_do_not_count() -> None:
    label, selected = torch.tensor([0, -1, 1, 1]), torch.tensor([True, False, True, False])
    counts = selection_counts(label, selected, None, 2)
    shown = {name: row.tolist() for name, row in counts.items() if row.any()}
    assert shown == {"raw": [1, 2], "refined": [1, 2], "selected": [1, 1]}
    known = selection_counts(label, selected, torch.tensor([0, 1, 0, 1]), 2)
    assert known["truth"].tolist() == [2, 1] and known["selected_correct"].tolist() == [1, 0]
    assert known["raw_correct"].tolist() == [1, 1]
