"""Draw figures of classes: the most frequent one first, at up to 30 classes with names, and of more the 30 worst."""

from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray
from torch import Tensor

from tailmatch.callbacks.reports.figures import TICK_LIMIT, new_figure
from tailmatch.datamodules.class_names import short_name
from tailmatch.lightning_modules.metrics import third_groups

GROUP_COLORS = {"many": "tab:blue", "medium": "tab:gray", "few": "tab:orange"}
"""The colors of the classes of each third."""

BAR = 0.24
"""The height of a bar with a name, in inches."""

SEPARATE = 200
"""The largest number of bars without names that are drawn as bars; more are drawn as lines."""


def by_frequency(class_counts: Sequence[int]) -> tuple[list[int], list[str]]:
    """Return the classes, the one with the most labels first, and the group of each: `many`, `medium` or `few`."""
    counts = torch.tensor(class_counts)
    order = counts.argsort(descending=True, stable=True).tolist()
    groups = third_groups(counts)
    return order, [next(name for name, members in groups.items() if members[k]) for k in order]


def class_rows(axis: Axes, names: Sequence[str], title: str) -> None:
    """Label the rows of horizontal bars with names, the first one on top."""
    axis.set_yticks(range(len(names)), names, fontsize=8)
    axis.set_ylim(len(names) - 0.4, -0.6)
    axis.set_title(title, fontsize=10)
    axis.grid(axis="x", alpha=0.3)


def rank_rows(axis: Axes, groups: Sequence[str], title: str) -> None:
    """Label the rows of classes without names by their rank, with the groups beside them."""
    axis.set_ylim(len(groups) - 0.5, -0.5)
    axis.set_ylabel(f"{len(groups)} classes, the one with the most labels on top")
    axis.set_title(title, fontsize=10)
    axis.grid(axis="x", alpha=0.3)
    for name in GROUP_COLORS:
        places = [row for row, group in enumerate(groups) if group == name]
        if places:
            axis.axhline(places[-1] + 0.5, color="0.6", linewidth=0.8, linestyle=":")
            axis.text(1.01, (places[0] + places[-1]) / 2, name, color=GROUP_COLORS[name], rotation=270, va="center",
                      fontsize=9, transform=axis.get_yaxis_transform())  # fmt: skip


def bars(axis: Axes, widths: NDArray[np.float64], groups: Sequence[str]) -> None:
    """Draw horizontal bars in the colors of their groups; very many as lines, which are drawn faster."""
    colors = [GROUP_COLORS[group] for group in groups]
    if len(widths) <= SEPARATE:
        axis.barh(np.arange(len(widths)), widths, color=colors)
    else:
        axis.hlines(np.arange(len(widths)), 0, widths, colors=colors, linewidth=1)


def recall_figure(recall: Tensor, class_counts: Sequence[int], class_names: Sequence[str]) -> Figure:
    """Draw the recall of each class; of more than 30 classes, also the 30 lowest ones, with names.

    Args:
        recall: The recall of each class, `[K]`; NaN, of a class without an image, is left out.
        class_counts: The number of labeled images of each class.
        class_names: The K names.
    """
    values = recall.double().cpu().nan_to_num(0).numpy()
    order, groups = by_frequency(class_counts)
    labels = [f"{short_name(class_names[k])} ({class_counts[k]:,})" for k in order]
    if len(order) <= TICK_LIMIT:
        figure, [axis] = new_figure(7, BAR * len(order) + 1.2)
        bars(axis, values[order], groups)
        class_rows(axis, labels, "recall, and labeled images in brackets")
        shown = [Patch(color=GROUP_COLORS[name], label=name) for name in GROUP_COLORS if name in groups]
        axis.legend(handles=shown, loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize=8)
        axis.set_xlim(0, 1)
        return figure
    figure, [left, right] = new_figure(12, BAR * TICK_LIMIT + 1, columns=(1, 1))
    bars(left, values[order], groups)
    rank_rows(left, groups, "recall")
    measured = recall.cpu().isfinite()[order].nonzero().squeeze(1).tolist()
    worst = sorted(measured, key=lambda row: values[order[row]])[:TICK_LIMIT]
    bars(right, values[[order[row] for row in worst]], [groups[row] for row in worst])
    class_rows(right, [labels[row] for row in worst], f"the {len(worst)} lowest, and labeled images in brackets")
    for axis in (left, right):
        axis.set_xlim(0, 1)
    return figure


def class_counts_figure(table: dict[str, list[int]], class_names: Sequence[str]) -> Figure:
    """Draw the number of images per class of each set, on a logarithmic scale.

    Args:
        table: The numbers of images of each class, by the name of the set; the first, of labeled images, sorts them.
        class_names: The names of the classes.
    """
    order, groups = by_frequency(next(iter(table.values())))
    named = len(order) <= TICK_LIMIT
    figure, [axis] = new_figure(8, BAR * len(order) + 1.4 if named else 7)
    places = np.arange(len(order))
    for (name, counts), marker in zip(table.items(), "os^D", strict=False):
        known = np.array(counts, dtype=float)[order]
        known[known == 0] = np.nan
        axis.plot(known, places, marker, markersize=5 if named else 2.5, label=f"{name} ({sum(counts):,})")
    axis.set_xscale("log")
    axis.xaxis.set_major_formatter("{x:,.0f}")
    axis.xaxis.set_minor_formatter("")
    if named:
        class_rows(axis, [short_name(class_names[k]) for k in order], "images of each class")
    else:
        rank_rows(axis, groups, "images of each class")
    axis.legend(loc="center left", bbox_to_anchor=(1.06, 0.5), frameon=False, fontsize=8)
    return figure


def confusion_figure(confusion: Tensor, class_counts: Sequence[int], class_names: Sequence[str]) -> Figure:
    """Draw a confusion matrix, its classes sorted by labels; of more than 30 classes, also the 30 worst confusions.

    Args:
        confusion: Numbers of images `[K, K]`; rows are true classes, scaled to sum 1, and columns predictions.
        class_counts: The number of labeled images of each class.
        class_names: The K names.
    """
    order, groups = by_frequency(class_counts)
    counts = confusion.double().cpu()[order][:, order]
    rates = (counts / counts.sum(1, keepdim=True)).nan_to_num(0).numpy()
    labels = [short_name(class_names[k]) for k in order]
    if len(order) <= TICK_LIMIT:
        size = max(4.5, 0.32 * len(order) + 2)
        figure, [axis] = new_figure(size + 1.2, size)
        _matrix(figure, axis, rates)
        axis.set_xticks(range(len(labels)), labels, rotation=90, fontsize=8)
        axis.set_yticks(range(len(labels)), labels, fontsize=8)
        return figure
    figure, [left, right] = new_figure(17, BAR * TICK_LIMIT + 1, columns=(1, 0.45))
    _matrix(figure, left, rates)
    rank_rows(left, groups, "")
    left.set_ylabel("true class, the one with the most labels on top")
    left.grid(visible=False)
    np.fill_diagonal(rates, 0)
    worst = np.argsort(-rates, axis=None, kind="stable")[:TICK_LIMIT]
    pairs = [(int(row), int(column)) for row, column in zip(*np.unravel_index(worst, rates.shape), strict=True)]
    pairs = [pair for pair in pairs if rates[pair]]
    bars(right, np.array([rates[pair] for pair in pairs]), [groups[row] for row, _ in pairs])
    named = [f"{labels[row]} as {labels[column]}" for row, column in pairs]
    class_rows(right, named, f"the {len(pairs)} worst, as a share of the true class")
    right.set_xlim(0, 1)
    return figure


def _matrix(figure: Figure, axis: Axes, rates: NDArray[np.float64]) -> None:
    image = axis.imshow(rates, vmin=0, vmax=1, cmap="Blues", interpolation="nearest")
    figure.colorbar(image, ax=axis, label="share of the true class", shrink=0.7)
    if len(rates) <= 20:
        for row, column in np.ndindex(*rates.shape):
            if rates[row, column] >= 0.005:
                color = "white" if rates[row, column] > 0.5 else "black"
                text = f"{100 * rates[row, column]:.0f}"
                axis.text(column, row, text, ha="center", va="center", fontsize=7, color=color)
    axis.set_ylabel("true class")
    axis.set_xlabel("predicted class")


def pseudo_label_figure(
    counts: dict[str, Tensor], totals: Tensor, class_counts: Sequence[int], class_names: Sequence[str]
) -> Figure:
    """Draw the share of each class among the pseudo-labels, and beside it the accuracy, if the truth is known.

    Of more than 30 classes, the 30 whose refined share is farthest from the target are drawn.

    Args:
        counts: Numbers of pseudo-labels `[K]` by the names of `PseudoLabelMonitor`'s `ROWS`.
        totals: The target, `[K]`, in any scale.
        class_counts: The number of labeled images of each class.
        class_names: The K names.
    """
    order, _ = by_frequency(class_counts)
    shares = {name: (counts[name] / counts[name].sum()).numpy() for name in ("raw", "refined", "truth")}
    shares["target"] = (totals / totals.sum()).numpy()
    title = "share of the pseudo-labels"
    if len(order) > TICK_LIMIT:
        gaps = np.abs(shares["refined"] - shares["target"])[order]
        order = [order[row] for row in sorted(np.argsort(-gaps, kind="stable")[:TICK_LIMIT])]
        title += f"\n(the {TICK_LIMIT} of {len(class_names)} classes farthest from the target)"
    known = bool(counts["truth"].sum())
    figure, axes = new_figure(11 if known else 7, 1.3 * BAR * len(order) + 1.6, columns=(1, 1) if known else (1,))
    places = np.arange(len(order))
    for offset, name in ((-0.2, "raw"), (0.2, "refined")):
        axes[0].barh(places + offset, shares[name][order], height=0.4, label=name)
    axes[0].plot(shares["target"][order], places, "k|", markersize=12, markeredgewidth=1.5, label="target")
    if known:
        axes[0].plot(shares["truth"][order], places, "r.", label="truth")
        for offset, name in ((-0.2, "raw"), (0.2, "refined")):
            share = (counts[f"{name}_correct"] / counts["truth"]).nan_to_num(0).numpy()
            axes[1].barh(places + offset, share[order], height=0.4, label=name)
        class_rows(axes[1], [""] * len(order), "accuracy")
        axes[1].set_xlim(0, 1.05)
    class_rows(axes[0], [short_name(class_names[k]) for k in order], title)
    axes[0].legend(fontsize=8)
    return figure
