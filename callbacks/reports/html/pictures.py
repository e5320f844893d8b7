"""The parts of a report that show images: confusions, confident mistakes, and what to label next."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tailmatch.callbacks.reports.html.choices import label_next, worst_confusions
from tailmatch.callbacks.reports.html.material import Material, Pool, key_of
from tailmatch.callbacks.reports.html.outcomes import Outcomes
from tailmatch.callbacks.reports.html.templates import shown
from tailmatch.callbacks.reports.html.thumbnails import Thumbnails
from tailmatch.datamodules.images import ImageRows
from tailmatch.datamodules.output_files import whole_file

PAIRS, EXAMPLES = 8, 6
"""The number of confusions that are shown, and of images of each."""

MISTAKES = 24
"""The number of confident mistakes that are shown."""

TO_LABEL, SHOWN_TO_LABEL = 200, 36
"""The number of images to label next in `label_next.csv`, and of those that are shown."""

LABEL_NEXT = "label_next.csv"
"""The name of that file in the run folder."""


def _cards(
    thumbnails: Thumbnails, rows: ImageRows, outcomes: Outcomes, chosen: Sequence[int], names: list[str]
) -> list[dict[str, Any]]:
    """Describe images for the template: `chosen` are places in `outcomes`, whose positions are those in `rows`."""
    positions = outcomes.position[torch.tensor(chosen, dtype=torch.long)]
    pixels = rows.images.pixels.index_select(0, rows.rows[positions]) if len(positions) else torch.empty(0)
    cards = []
    for place, position, image in zip(chosen, positions.tolist(), pixels, strict=True):
        target = int(outcomes.target[place])
        cards.append(
            {
                "uri": thumbnails.uri(image),
                "key": shown(key_of(rows, position)),
                "target": names[target] if target >= 0 else None,
                "predicted": names[int(outcomes.predicted[place])],
                "confidence": float(outcomes.confidence[place]),
                "second": names[int(outcomes.second[place])],
                "second_confidence": float(outcomes.second_confidence[place]),
            }
        )
    return cards


def confusions(material: Material, thumbnails: Thumbnails) -> list[dict[str, Any]] | str:
    """Show the worst confusions, each with its most confident images; a text if there are none."""
    outcomes, rows = material.outcomes, material.rows
    if outcomes is None or rows is None:
        return material.lacking
    pairs = worst_confusions(outcomes.target, outcomes.predicted, len(material.brief_names), PAIRS)
    if not pairs:
        return f"every one of the {material.images} is recognized"
    found = []
    for pair in pairs:
        of_pair = (outcomes.target == pair.target) & (outcomes.predicted == pair.predicted)
        cards = _cards(thumbnails, rows, outcomes, _surest(outcomes, of_pair, EXAMPLES), material.brief_names)
        target, predicted = material.brief_names[pair.target], material.brief_names[pair.predicted]
        found.append(
            {"target": target, "predicted": predicted, "images": pair.images, "support": pair.support, "cards": cards}
        )
    return found


def mistakes(material: Material, thumbnails: Thumbnails) -> list[dict[str, Any]] | str:
    """Show the wrong predictions of the highest confidence; a text if there are none."""
    outcomes, rows = material.outcomes, material.rows
    if outcomes is None or rows is None:
        return material.lacking
    surest = _surest(outcomes, ~outcomes.correct, MISTAKES)
    if not surest:
        return f"every one of the {material.images} is recognized"
    return _cards(thumbnails, rows, outcomes, surest, material.brief_names)


def _surest(outcomes: Outcomes, among: Tensor, number: int) -> list[int]:
    """List the places of the most confident predictions among some."""
    places = among.nonzero().squeeze(1)
    order = outcomes.confidence[places].argsort(descending=True, stable=True)
    return places[order[:number]].tolist()


def to_label(material: Material, thumbnails: Thumbnails) -> dict[str, Any] | str:
    """Show unlabeled images to label next; a text if there are none."""
    pool = material.pool
    if isinstance(pool, str):
        return pool
    chosen = chosen_to_label(material)
    return {
        "cards": _cards(thumbnails, pool.rows, pool.outcomes, chosen[:SHOWN_TO_LABEL], material.brief_names),
        "number": len(chosen),
        "predicted": len(pool.outcomes.position),
        "candidates": pool.candidates,
        "classes": int((torch.bincount(pool.outcomes.predicted) > 0).sum()),
        "file": LABEL_NEXT,
    }


def chosen_to_label(material: Material) -> list[int]:
    """List the places in the pool's outcomes of the images to label next, the most wanted first."""
    assert isinstance(material.pool, Pool) and material.model is not None
    outcomes = material.pool.outcomes
    counts = material.model.class_counts.cpu()
    return label_next(outcomes.predicted, outcomes.margin, counts, TO_LABEL).tolist()


def write_label_next(material: Material, path: Path) -> None:
    """Write the images to label next as a CSV file, the most wanted first; the file appears when it is complete.

    The columns are `key` (path within the data set, or row of the training pool), `predicted` and `second` (the names
    of the two most likely classes), their probabilities `confidence` and `second_confidence`, and `margin`, the
    difference of these.
    """
    pool, model = material.pool, material.model
    assert isinstance(pool, Pool) and model is not None
    outcomes, names = pool.outcomes, model.class_names
    with whole_file(path) as partial, partial.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["key", "predicted", "confidence", "second", "second_confidence", "margin"])
        for place in chosen_to_label(material):
            first, second = outcomes.predicted[place], outcomes.second[place]
            numbers = (outcomes.confidence, outcomes.second_confidence, outcomes.margin)
            confidence, second_confidence, margin = (f"{float(values[place]):.6f}" for values in numbers)
            key = key_of(pool.rows, int(outcomes.position[place]))
            writer.writerow([key, names[int(first)], confidence, names[int(second)], second_confidence, margin])
