"""What self-training says of its labels: which pseudo-labels teach, and which labels were replaced."""

import csv
from collections import Counter
from pathlib import Path

from lightning_utilities.core.rank_zero import rank_zero_warn
from pytorch_lightning import Trainer
from torch import Tensor

from tailmatch.datamodules.images import ImageRows
from tailmatch.datamodules.output_files import whole_file
from tailmatch.lightning_modules.pseudo_labels.relabeling import Relabeling
from tailmatch.lightning_modules.training.run_folder import run_folder

LISTED_CLASSES = 30
"""Most classes whose selected pseudo-labels are reported one by one."""

LISTED_PAIRS = 5
"""Pairs of a given and a predicted class that the line about replaced labels names."""

REPORT = "relabeled.csv"
"""Name of the list of replaced labels in the run folder."""


def report_selection(trainer: Trainer, class_names: list[str], counts: list[int], total: int, threshold: float) -> None:
    """Print and log how many pseudo-labels of each class were selected, of all unlabeled images.

    Args:
        trainer: Its loggers and step.
        class_names: K names.
        counts: Selected ones of each class.
        total: Unlabeled images.
        threshold: Least confidence, for the message if nothing is selected.
    """
    if not sum(counts):
        rank_zero_warn(f"none of {total} pseudo-labels is selected: threshold is {threshold}")
    listed = dict(list(zip(class_names, counts, strict=True))[:LISTED_CLASSES])
    if trainer.is_global_zero:
        classes = ", ".join(f"{name} {count}" for name, count in listed.items())
        more = ", ..." if len(counts) > len(listed) else ""
        print(f"pseudo-labels: {sum(counts):,} of {total:,} unlabeled images selected ({classes}{more})", flush=True)
    scalars = {f"pseudo/selected_class/{name}": float(count) for name, count in listed.items()}
    _log(trainer, {"pseudo/selected": sum(counts) / total, **scalars})


def report_relabeling(trainer: Trainer, relabeling: Relabeling, rows: ImageRows, class_names: list[str]) -> None:
    """Write `relabeled.csv`, print a line and log `relabel/...`, on process 0.

    Args:
        trainer: Its run folder, loggers and step.
        relabeling: The new labels.
        rows: The labeled images.
        class_names: K names.
    """
    if not trainer.is_global_zero:
        return
    path = run_folder(trainer) / REPORT
    write_relabeled(path, relabeling, rows, class_names)
    print(f"{relabeling_line(relabeling, rows.truth, class_names)}; {path}", flush=True)
    _log(trainer, relabeling_scalars(relabeling, rows.truth))


def write_relabeled(path: Path, relabeling: Relabeling, rows: ImageRows, class_names: list[str]) -> None:
    """Write the replaced labels as CSV beside its place and move it there, the most confident first.

    Columns: `index` in the labeled set, `key` (path within the data set, or place in the training pool), `given`,
    `predicted`, `confidence`, and `true` after label noise.
    """
    keys, truth = rows.images.keys, rows.truth
    confidence = relabeling.predictions.confidence
    changed = relabeling.changed.nonzero().squeeze(1)
    order = changed[confidence[changed].argsort(descending=True, stable=True)]
    classes = [relabeling.given, relabeling.predictions.label, *([] if truth is None else [truth])]
    with whole_file(path) as partial, partial.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["index", "key", "given", "predicted", "confidence", *([] if truth is None else ["true"])])
        for index in order.tolist():
            row = int(rows.rows[index])
            given, predicted, *true = (class_names[int(labels[index])] for labels in classes)
            key = row if keys is None else keys[row]
            writer.writerow([index, key, given, predicted, f"{float(confidence[index]):.6f}", *true])


def relabeling_line(relabeling: Relabeling, truth: Tensor | None, class_names: list[str]) -> str:
    """How many labels were replaced, the most frequent pairs of classes, and how many are right now."""
    changed = relabeling.changed
    given, predicted = relabeling.given[changed].tolist(), relabeling.predictions.label[changed].tolist()
    line = f"relabeled: {len(given):,} of {len(changed):,} labeled images"
    if not given:
        return line
    pairs = Counter(zip(given, predicted, strict=True)).most_common()
    named = ", ".join(f"{class_names[a]} -> {class_names[b]} {count:,}" for (a, b), count in pairs[:LISTED_PAIRS])
    line += f" ({named}{', ...' if len(pairs) > LISTED_PAIRS else ''})"
    if truth is None:
        return line
    right = int((relabeling.label == truth)[changed].sum())
    before, after = (float((labels == truth).float().mean()) for labels in (relabeling.given, relabeling.label))
    return f"{line}, {right:,} of them rightly: {before:.1%} of all labels were right, now {after:.1%}"


def relabeling_scalars(relabeling: Relabeling, truth: Tensor | None) -> dict[str, float]:
    """Scalars of a relabeling.

    `relabel/share`: of the labeled images, whose label was replaced. With the truth, an `int64 [N]`: `relabel/right`,
    of the replaced labels, those that are right now; `relabel/labels_right_before` and `relabel/labels_right`, of all
    labels.
    """
    changed = relabeling.changed
    scalars = {"relabel/share": float(changed.float().mean())}
    if truth is None:
        return scalars
    if changed.any():
        scalars["relabel/right"] = float((relabeling.label == truth)[changed].float().mean())
    scalars["relabel/labels_right_before"] = float((relabeling.given == truth).float().mean())
    scalars["relabel/labels_right"] = float((relabeling.label == truth).float().mean())
    return scalars


def _log(trainer: Trainer, scalars: dict[str, float]) -> None:
    for logger in trainer.loggers:
        logger.log_metrics(scalars, step=trainer.global_step)
