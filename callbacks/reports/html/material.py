"""What a report is made of, and the beginnings of its parts."""

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from tailmatch.callbacks.reports.html.outcomes import Outcomes
from tailmatch.callbacks.reports.html.templates import shown
from tailmatch.datamodules import LabeledUnlabeledDataModule
from tailmatch.datamodules.images import ImageRows
from tailmatch.lightning_modules import ImageClassifier
from tailmatch.lightning_modules.metrics import Evaluation

BRIEF_LENGTH = 48
"""The number of characters of a name that is written beside a picture."""


@dataclass
class Pool:
    """Unlabeled images that were predicted to find those to label next.

    Attributes:
        rows: The predicted images.
        candidates: The number of unlabeled images, of which `rows` is a sample.
        outcomes: Their predictions, one for each of `rows`.
    """

    rows: ImageRows
    candidates: int
    outcomes: Outcomes


@dataclass
class Material:
    """What is known of a run; None for what it lacks.

    Attributes:
        folder: The folder of the run.
        settings: The configuration of the run; empty if it is not known.
        checkpoint: The evaluated checkpoint, or those of an ensemble.
        trained: Facts of the checkpoint: `epoch`, `global_step`, `pytorch-lightning_version`, as far as it has them.
        model: The method.
        data: The data module of the run.
        images: What the evaluated images are: `test images` or `validation images`.
        evaluation: The metrics.
        rows: The evaluated images.
        outcomes: Their predictions.
        pool: Predictions of unlabeled images, or why there are none.
        lacking: Why there is no evaluation.
    """

    folder: Path
    settings: dict[str, Any] = field(default_factory=dict)
    checkpoint: str | list[str] | None = None
    trained: dict[str, Any] = field(default_factory=dict)
    model: ImageClassifier | None = None
    data: LabeledUnlabeledDataModule | None = None
    images: str = "test images"
    evaluation: Evaluation | None = None
    rows: ImageRows | None = None
    outcomes: Outcomes | None = None
    pool: Pool | str = "no checkpoint was evaluated"
    lacking: str = "no checkpoint was evaluated"

    @cached_property
    def names(self) -> list[str]:
        """The names of the classes as a table shows them."""
        return [] if self.model is None else [shown(name) for name in self.model.class_names]

    @cached_property
    def brief_names(self) -> list[str]:
        """The names of the classes as they are written beside pictures."""
        return [shown(name, BRIEF_LENGTH) for name in self.names]


def key_of(rows: ImageRows, position: int) -> str:
    """Name an image: its path within the data set, or its row of the pool."""
    row = int(rows.rows[position])
    return str(row) if rows.images.keys is None else rows.images.keys[row]
