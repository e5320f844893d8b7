"""What self-training is told to train on: which pseudo-labels teach, and which labels were replaced."""

import csv
from collections import Counter
from pathlib import Path

from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor

from tailmatch.callbacks.reports.scalars import log_scalars
from tailmatch.datamodules.images import ImageRows
from tailmatch.datamodules.output_files import whole_file
from tailmatch.lightning_modules import ImageClassifier, SelfTraining
from tailmatch.lightning_modules.pseudo_labels.relabeling import Relabeling
from tailmatch.lightning_modules.training.run_folder import run_folder

LISTED_CLASSES = 30
"""Most classes whose selected pseudo-labels are reported one by one."""

LISTED_PAIRS = 5
"""Pairs of a given and a predicted class that the line about replaced labels names."""

REPORT = "relabeled.csv"
"""Name of the list of replaced labels in the run folder."""


class SelfTrainingReport(Callback):
    """Prints and logs what `SelfTraining` selects and relabels, at each labeling; of other methods it says nothing.

    * A line and the scalars `pseudo/selected` and `pseudo/selected_class/<name>` (up to 30 classes): the selected share
      of the unlabeled images, and how many of each class.
    * With `relabel_threshold`: a line, the scalars `relabel/...` (`relabeling_scalars`), and `relabeled.csv` in the run
      folder, the list of replaced labels (`write_relabeled`).

    The command line adds it to every run. In Python, give it to the `Trainer`.
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Register with the method."""
        if stage == "fit" and isinstance(pl_module, SelfTraining):
            pl_module.add_observer(self)

    def observe_selection(self, method: ImageClassifier, selected: Tensor, counts: Tensor) -> None:
        """Print and log how many pseudo-labels were selected. See `SelfTrainingObserver`."""
        total, by_class = len(selected), dict(zip(method.class_names, counts.tolist(), strict=True))
        listed = dict(list(by_class.items())[:LISTED_CLASSES])
        if method.trainer.is_global_zero:
            classes = ", ".join(f"{name} {count}" for name, count in listed.items())
            more = ", ..." if len(by_class) > len(listed) else ""
            taken = f"{int(counts.sum()):,} of {total:,} unlabeled images selected"
            print(f"pseudo-labels: {taken} ({classes}{more})", flush=True)
        scalars = {f"pseudo/selected_class/{name}": float(count) for name, count in listed.items()}
        log_scalars(method.trainer, {"pseudo/selected": int(counts.sum()) / total, **scalars})

    def observe_relabeling(self, method: ImageClassifier, relabeling: Relabeling, rows: ImageRows) -> None:
        """Write `relabeled.csv`, print a line and log `relabel/...`, on process 0. See `SelfTrainingObserver`."""
        if not method.trainer.is_global_zero:
            return
        path = run_folder(method.trainer) / REPORT
        write_relabeled(path, relabeling, rows, method.class_names)
        print(f"{relabeling_line(relabeling, rows.truth, method.class_names)}; {path}", flush=True)
        log_scalars(method.trainer, relabeling_scalars(relabeling, rows.truth))


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
