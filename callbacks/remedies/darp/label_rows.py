"""Rows of pseudo-label files that DARP refines, wherever they are; those of this process."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from tailmatch.callbacks.remedies.darp.prices import FittedPrices, fit_prices
from tailmatch.callbacks.remedies.darp.solver import Prices, refine_rows
from tailmatch.datamodules.pseudo_labels.files import check_output
from tailmatch.datamodules.pseudo_labels.labels import Origin, PseudoLabelFile
from tailmatch.datamodules.pseudo_labels.parts import PseudoLabelParts, write_chunks


class LabelRows(Protocol):
    """Pseudo-labels that can be refined, wherever their rows are."""

    @property
    def origin(self) -> Origin:
        """The classes, the checkpoint and the data of all rows."""

    @property
    def rows(self) -> int:
        """The number of rows."""

    @property
    def has_probs(self) -> bool:
        """Whether there are probabilities of all classes."""

    def fit(
        self, target: Tensor, sample: int | None, alpha: float, tolerance: float, seed: int
    ) -> tuple[FittedPrices, bool]:
        """Fit prices to all rows or to a random sample, and tell whether the solver reached the target."""

    def write_refined(self, output: str | Path, prices: Prices) -> Tensor:
        """Refine all rows, and return their class totals, `float64 [K]`."""


class Place(Protocol):
    """Where rows are read, refined and written."""

    def check_output(self, output: str | Path, overwrite: bool) -> None:
        """Refuse an output that could not be written in the end."""

    def open(self, labels: str | Path) -> LabelRows:
        """Open pseudo-labels."""


class Here:
    """This process (see `Place`)."""

    def check_output(self, output: str | Path, overwrite: bool) -> None:
        """Refuse a file that could not be written in the end."""
        check_output(Path(output), overwrite)

    def open(self, labels: str | Path) -> LabelRows:
        """Open a pseudo-label file or a folder of Parquet files."""
        return _RowsHere(PseudoLabelParts.open(Path(labels)))


@dataclass(frozen=True)
class _RowsHere:
    parts: PseudoLabelParts

    @property
    def origin(self) -> Origin:
        return self.parts.origin

    @property
    def rows(self) -> int:
        return self.parts.rows

    @property
    def has_probs(self) -> bool:
        return self.parts.has_probs

    def fit(
        self, target: Tensor, sample: int | None, alpha: float, tolerance: float, seed: int
    ) -> tuple[FittedPrices, bool]:
        """Fit prices to all rows or some, drawn at random; the same seed draws the same."""
        count = self.rows if sample is None else min(sample, self.rows)
        chosen = np.arange(self.rows)
        if count < self.rows:
            chosen = np.sort(np.random.default_rng(seed).choice(self.rows, count, replace=False, shuffle=False))
        probs = torch.empty(count, len(target))
        first = filled = 0
        for chunk in self.parts.chunks():
            low, high = np.searchsorted(chosen, (first, first + len(chunk.key)))
            probs[filled : filled + high - low] = probs_of(chunk)[torch.from_numpy(chosen[low:high] - first)]
            first, filled = first + len(chunk.key), filled + int(high - low)
        fitted, solution = fit_prices(probs, target, self.origin.class_names, alpha, tolerance)
        return fitted, solution.converged

    def write_refined(self, output: str | Path, prices: Prices) -> Tensor:
        """Refine all rows chunk by chunk."""
        totals = torch.zeros(len(prices.nu), dtype=torch.float64)
        write_chunks(Path(output), refined(self.parts.chunks(), prices, totals), self.origin)
        return totals


def refined(chunks: Iterator[PseudoLabelFile], prices: Prices, totals: Tensor) -> Iterator[PseudoLabelFile]:
    """Refine rows chunk by chunk, and add their class totals to `totals`, `float64 [K]`."""
    for chunk in chunks:
        rows = refine_rows(probs_of(chunk), prices)
        totals += rows.sum(0, dtype=torch.float64)
        confidence, label = rows.max(dim=1)
        yield replace(chunk, label=label.numpy(), confidence=confidence.numpy(), probs=rows.numpy())


def probs_of(chunk: PseudoLabelFile) -> Tensor:
    """Return the probabilities of rows that have some, `float32 [n, K]`."""
    if chunk.probs is None:
        raise RuntimeError("these pseudo-labels were opened as some with probs")
    return torch.from_numpy(np.array(chunk.probs, np.float32))
