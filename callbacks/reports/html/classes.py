"""The table of classes of a report, the metrics above it, and the calibration below."""

import math
from typing import Any

import torch
from torch import Tensor

from tailmatch.callbacks.reports.evaluation_table import MEANINGS, group_sizes
from tailmatch.callbacks.reports.html.choices import calibration_error, reliability
from tailmatch.callbacks.reports.html.facts import groups_of, middle_left_out
from tailmatch.callbacks.reports.html.material import Material
from tailmatch.lightning_modules.metrics import METRICS, Evaluation

EXCERPT = 10
"""The number of classes at each end that are shown where the full table is folded."""

FOLDED_FROM = 40
"""The number of classes from which the full table is folded."""

CARDS = ("balanced_accuracy", "top1", "macro_f1", "loss")
"""The metrics that are shown large."""


def metric_cards(material: Material) -> dict[str, Any] | str:
    """Give the metrics; a text if nothing was evaluated."""
    result, model = material.evaluation, material.model
    if result is None or model is None:
        return material.lacking
    sizes = group_sizes(model.annotated_counts.cpu(), result.support.cpu())
    scalars = {name: float(result.scalars[name]) for name in METRICS if name in result.scalars}
    rows = []
    for name, value in scalars.items():
        if "{}" in MEANINGS[name] and name not in sizes:
            continue
        number = sizes.get(name)
        meaning = MEANINGS[name].format("1 class" if number == 1 else f"{number} classes")
        rows.append({"name": name, "value": value, "meaning": meaning, "share": name != "loss"})
    return {
        "cards": [row for name in CARDS for row in rows if row["name"] == name],
        "groups": [row for row in rows if row["name"] in ("many", "medium", "few")],
        "rows": rows,
        "number": int(result.support.sum()),
    }


def class_table(material: Material) -> dict[str, Any] | str:
    """Give a row for each class, the most labels first; a text if nothing was evaluated and the data is not known."""
    model, data = material.model, material.data
    if model is None or data is None:
        return material.lacking
    counts, table = torch.tensor(data.class_counts), data.class_count_table()
    groups, names, result = groups_of(torch.tensor(data.annotated_counts)), material.names, material.evaluation
    judged = {} if result is None else _judged(result, material)
    known = "unlabeled" in table and sum(table["unlabeled"]) > 0
    rows = []
    for k in counts.argsort(descending=True, stable=True).tolist():
        row: dict[str, Any] = {"name": names[k], "group": groups[k], "labeled": int(counts[k])}
        if known:
            row["unlabeled"] = table["unlabeled"][k]
        rows.append(row | {name: values[k] for name, values in judged.items()})
    rows, left_out = middle_left_out(rows)
    folded = len(rows) >= FOLDED_FROM
    return {
        "rows": rows,
        "excerpts": [rows[:EXCERPT], rows[-EXCERPT:]] if folded else [rows],
        "folded": folded,
        "left_out": left_out,
        "unlabeled": known,
        "judged": bool(judged),
        "mistaken": "mistaken" in judged,
        "number": len(counts),
        "shown": 2 * EXCERPT,
    }


def _judged(result: Evaluation, material: Material) -> dict[str, list[Any]]:
    """Give recall, precision, F1, number of images and most frequent mistake of each class; None where undefined."""
    support, predicted = result.support.cpu(), result.predicted.cpu()
    correct = (result.recall.cpu().nan_to_num(0).double() * support).round()
    found = {
        "images": support.tolist(),
        "recall": _or_none(correct / support),
        "precision": _or_none(correct / predicted),
        "f1": _or_none(2 * correct / (support + predicted)),
    }
    if material.outcomes is not None:
        found["mistaken"] = _mistakes(material)
    return found


def _or_none(values: Tensor) -> list[float | None]:
    return [None if math.isnan(value) else value for value in values.tolist()]


def _mistakes(material: Material) -> list[tuple[str, float] | None]:
    """Find the class that the images of each class are mistaken for most, and the share of them."""
    outcomes, names = material.outcomes, material.names
    assert outcomes is not None
    found: list[tuple[str, float] | None] = [None] * len(names)
    support = torch.bincount(outcomes.target, minlength=len(names))
    wrong = ~outcomes.correct
    pairs, images = torch.unique(outcomes.target[wrong] * len(names) + outcomes.predicted[wrong], return_counts=True)
    for place in images.argsort(stable=True).tolist():  # the largest last, which stays
        target, predicted = divmod(int(pairs[place]), len(names))
        found[target] = (names[predicted], int(images[place]) / int(support[target]))
    return found


def calibration(material: Material) -> dict[str, Any] | str:
    """Give the bins of confidence and the expected calibration error; a text if nothing was evaluated."""
    outcomes = material.outcomes
    if outcomes is None or not len(outcomes.position):
        return material.lacking
    bins = reliability(outcomes.confidence, outcomes.correct)
    mean, accuracy = float(outcomes.confidence.mean()), float(outcomes.correct.double().mean())
    return {
        "bins": bins,
        "error": calibration_error(bins),
        "confidence": mean,
        "accuracy": accuracy,
        "most": max(each.images for each in bins),
    }
