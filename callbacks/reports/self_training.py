"""Report the pseudo-labels that self-training selects, and the labels that it replaces."""

import csv
from collections import Counter
from pathlib import Path

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor

from tailmatch.callbacks.reports.pseudo_label_monitor import pseudo_label_scalars
from tailmatch.callbacks.reports.pseudo_label_totals import PseudoLabelTotals
from tailmatch.callbacks.reports.scalars import log_scalars
from tailmatch.datamodules.class_names import printable
from tailmatch.datamodules.images import ImageRows
from tailmatch.datamodules.output_files import whole_file
from tailmatch.datamodules.pseudo_labels.labels import PseudoLabels
from tailmatch.lightning_modules import ImageClassifier, SelfTraining
from tailmatch.lightning_modules.pseudo_labels.class_prior import is_known, unlabeled_totals
from tailmatch.lightning_modules.pseudo_labels.relabeling import Relabeling
from tailmatch.lightning_modules.training.run_folder import run_folder

LISTED_CLASSES = 30
"""The largest number of classes whose selected pseudo-labels are reported one by one."""

LISTED_PAIRS = 5
"""The number of pairs of a given and a predicted class that the line about replaced labels names."""

REPORT = "relabeled.csv"
"""The name of the list of replaced labels in the run folder."""


class SelfTrainingReport(Callback):
    """Report of what `SelfTraining` selects and relabels, printed and logged at each labeling.

    * The selected pseudo-labels: a printed line, `pseudo/selected` (the selected share of the unlabeled images) and,
      for up to 30 classes, `pseudo/selected_class/<name>` (the number of selected images). The other scalars and
      `pseudo_label_totals.json` are those of `PseudoLabelMonitor`, for the run's report, with the labeled counts as
      target; pseudo-labels are reported as they were taken, so that raw and refined ones are the same.
    * The replaced labels, with `relabel_threshold`: a printed line, the scalars `relabel/...` (`relabeling_scalars`),
      and the list `relabeled.csv` in the run folder (`write_relabeled`).

    The command line adds this callback to every run, and other methods ignore it. In Python, give it to the `Trainer`.
    """

    def __init__(self) -> None:
        self._kept = PseudoLabelTotals()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Register with the method, if it is `SelfTraining`."""
        if stage == "fit" and isinstance(pl_module, SelfTraining):
            pl_module.add_observer(self)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin the file of all labelings, or continue that of a resumed run."""
        self._kept.begin(trainer)

    def observe_selection(self, method: ImageClassifier, labels: PseudoLabels, selected: Tensor) -> None:
        """Print, log and keep which pseudo-labels were selected; see `SelfTrainingObserver`."""
        data = method.trainer.datamodule  # type: ignore[attr-defined]
        truth = data.unlabeled.targets if is_known(data) else None
        counts = selection_counts(labels.label, selected, truth, method.num_classes)
        total, taken_of_class = len(selected), counts["selected"].long().tolist()
        by_class = dict(zip(method.class_names, taken_of_class, strict=True))
        listed = dict(list(by_class.items())[:LISTED_CLASSES])
        if method.trainer.is_global_zero:
            classes = ", ".join(f"{printable(name)} {count}" for name, count in listed.items())
            more = ", ..." if len(by_class) > len(listed) else ""
            taken = f"{sum(taken_of_class):,} of {total:,} unlabeled images selected"
            print(f"pseudo-labels: {taken} ({classes}{more})", flush=True)
        scalars = {f"pseudo/selected_class/{name}": float(count) for name, count in listed.items()}
        if counts["raw"].any():
            target = unlabeled_totals(None, data).double()
            scalars |= pseudo_label_scalars(counts, target, None if truth is None else method.class_names)
            scalars["pseudo/selected"] = sum(taken_of_class) / total
            self._kept.keep(method.trainer, scalars, counts, target)
        log_scalars(method.trainer, {"pseudo/selected": 0.0, **scalars})

    def observe_relabeling(self, method: ImageClassifier, relabeling: Relabeling, rows: ImageRows) -> None:
        """Write `relabeled.csv`, print a line and log `relabel/...`, on process 0; see `SelfTrainingObserver`."""
        if not method.trainer.is_global_zero:
            return
        path = run_folder(method.trainer) / REPORT
        write_relabeled(path, relabeling, rows, method.class_names)
        print(f"{relabeling_line(relabeling, rows.truth, method.class_names)}; {path}", flush=True)
        log_scalars(method.trainer, relabeling_scalars(relabeling, rows.truth))


def selection_counts(label: Tensor, selected: Tensor, truth: Tensor | None, num_classes: int) -> dict[str, Tensor]:
    """Count pseudo-labels of each class, `float64 [K]`, by the names of `PseudoLabelMonitor`'s `ROWS`.

    Args:
        label: Pseudo-labels `int64 [N]`, -1 where there is none, which does not count.
        selected: Which of them are selected, `bool [N]`.
        truth: True classes `int64 [N]`; None if they are not known.
        num_classes: The number of classes K.
    """

    def count(classes: Tensor, which: Tensor) -> Tensor:
        return torch.bincount(classes[which], minlength=num_classes).double()

    labeled, right = label >= 0, torch.zeros_like(selected) if truth is None else label == truth
    of_class = label if truth is None else truth
    everything = count(label, labeled)
    return {
        "raw": everything,
        "refined": everything,
        "selected": count(label, selected),
        "truth": torch.zeros_like(everything) if truth is None else count(truth, labeled),
        "raw_correct": count(of_class, right),
        "refined_correct": count(of_class, right),
        "selected_correct": count(of_class, right & selected),
    }


def write_relabeled(path: Path, relabeling: Relabeling, rows: ImageRows, class_names: list[str]) -> None:
    """Write the replaced labels as a CSV file, the most confident ones first; the file appears when it is complete.

    The columns are `index` (in the labeled set), `key` (path within the data set, or index in the training pool),
    `given` and `predicted` (class names), `confidence` and, with label noise, `true` (class name).
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
    """Say how many labels were replaced, name the most frequent pairs of classes, and say how many are right now."""
    changed = relabeling.changed
    given, predicted = relabeling.given[changed].tolist(), relabeling.predictions.label[changed].tolist()
    line = f"relabeled: {len(given):,} of {len(changed):,} labeled images"
    if not given:
        return line
    pairs = Counter(zip(given, predicted, strict=True)).most_common()
    names = [printable(name) for name in class_names]
    named = ", ".join(f"{names[a]} -> {names[b]} {count:,}" for (a, b), count in pairs[:LISTED_PAIRS])
    line += f" ({named}{', ...' if len(pairs) > LISTED_PAIRS else ''})"
    if truth is None:
        return line
    right = int((relabeling.label == truth)[changed].sum())
    before, after = (float((labels == truth).float().mean()) for labels in (relabeling.given, relabeling.label))
    return f"{line}, {right:,} of them rightly: {before:.1%} of all labels were right, now {after:.1%}"


def relabeling_scalars(relabeling: Relabeling, truth: Tensor | None) -> dict[str, float]:
    """Compute the scalars of a relabeling.

    * `relabel/share`: the share of the labeled images whose label was replaced.
    * `relabel/right`: the share of the replaced labels that are now right.
    * `relabel/labels_right_before`, `relabel/labels_right`: the share of all labels that were right before and are now.

    Args:
        relabeling: The given and the new labels of N images.
        truth: `int64 [N]`, the true classes. None: they are not known, and `relabel/share` is the only scalar.
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
