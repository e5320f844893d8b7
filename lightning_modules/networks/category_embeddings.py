"""Embeddings of the values of categories, and the names of these values."""

from collections.abc import Collection, Mapping, Sequence
from itertools import accumulate, pairwise
from typing import TypedDict

import torch
from torch import Tensor, nn
from torch.nn import functional

SHOWN = 5
"""Largest number of values that a warning lists."""


class Level(TypedDict):
    """One level, as a checkpoint stores it.

    Its `name`, its `values` in the order of their embeddings, and whether the embedding of unknown values was trained.
    """

    name: str
    values: list[str]
    unknown_trained: bool


class CategoryEmbeddings(nn.Module):
    """Embeddings of the values of L levels, in one table of R rows.

    A level with V values has 1 + V consecutive rows. The first is that of an unknown value; it starts as zeros, the
    mean of the distribution of the others. `translate` sets the values that ids in `categories` stand for.

    Args:
        names: Names of the levels.
        dim: Length of an embedding.
    """

    columns: Tensor
    translation: Tensor

    def __init__(self, names: Sequence[str], dim: int) -> None:
        super().__init__()
        self.levels: list[Level] = [{"name": name, "values": [], "unknown_trained": False} for name in names]
        self.table = nn.Parameter(torch.zeros(len(names), dim))
        self.register_buffer("columns", torch.empty(0), persistent=False)
        self.register_buffer("translation", torch.empty(0), persistent=False)
        self.take(self.levels)

    @property
    def sizes(self) -> list[int]:
        """Number of rows of each level."""
        return [1 + len(level["values"]) for level in self.levels]

    def take(self, levels: Sequence[Level]) -> None:
        """Replace the levels and their values, to which ids in `categories` refer; all embeddings become zeros."""
        self.levels = [{**level, "values": list(level["values"])} for level in levels]
        self.table.data, self.table.grad = self.table.new_zeros(sum(self.sizes), self.table.shape[1]), None
        self.translate({level["name"]: level["values"] for level in self.levels})

    @torch.no_grad()
    def draw(self) -> None:
        """Draw the embeddings of known values from N(0, 1), as `nn.Embedding` does."""
        self.table.normal_()
        self.table[self.translation[:, 0]] = 0

    def translate(self, values: Mapping[str, Sequence[str]]) -> None:
        """Let ids in `categories` refer to the values of other data from now on.

        Args:
            values: Values of each of the data's M levels, by name; those without an embedding count as unknown.
        """
        names, device = list(values), self.table.device
        longest = max((len(listed) for listed in values.values()), default=0)
        translation = torch.zeros(len(self.levels), 1 + longest, dtype=torch.long)
        columns, first = [], 0
        for number, (level, size) in enumerate(zip(self.levels, self.sizes, strict=True)):
            places = {value: first + 1 + place for place, value in enumerate(level["values"])}
            theirs = values.get(level["name"], ())
            translation[number] = first
            translation[number, 1 : 1 + len(theirs)] = torch.tensor([places.get(value, first) for value in theirs])
            columns.append(1 + names.index(level["name"]) if level["name"] in values else 0)
            first += size
        self.columns, self.translation = torch.tensor(columns, device=device), translation.to(device)
        self.data_levels = len(names)

    def rows(self, categories: Tensor) -> Tensor:
        """Look up rows `int64 [B, L]` of `categories int64 [B, M]` of the data's M levels, -1 where unknown.

        Raises:
            ValueError: The number of levels is not the one that `translate` was given.
        """
        if categories.ndim != 2 or categories.shape[1] != self.data_levels:
            raise ValueError(
                f"categories are {list(categories.shape)}; they must be [B, {self.data_levels}], as in the data that "
                "the network was adapted to"
            )
        known = functional.pad(categories + 1, (1, 0))  # column 0, for levels that the data lacks: unknown
        return self.translation.gather(1, known[:, self.columns].T).T

    def weights(self, rows: Tensor) -> Tensor:
        """Return weights `float32 [B, R, 1, 1]` of the table's rows: 1 for `rows int64 [B, L]`, else 0."""
        chosen = torch.zeros(rows.shape[0], sum(self.sizes), device=rows.device)
        return chosen.scatter_(1, rows, 1.0)[:, :, None, None]

    def forward(self, weights: Tensor) -> Tensor:
        """Compute embeddings `[B, L dim]`, level by level, as linear functions of `weights [B, R, 1, 1]`."""
        levels = list(pairwise(accumulate(self.sizes, initial=0)))
        flat = weights.flatten(1).to(self.table.dtype)
        return torch.cat([flat[:, first:end] @ self.table[first:end] for first, end in levels], dim=1)


def levels_with_empty_cells(values: Mapping[str, Sequence[str]], *sets: Tensor | None) -> set[str]:
    """Return the names of the data's levels for which some image has no value.

    Args:
        values: Values of each of the M levels, by name.
        sets: Categories `int64 [N, M]` of sets of images, -1 where unknown; `[N, 0]` or None for sets without any.
    """
    empty = [(categories < 0).any(dim=0).tolist() for categories in sets if categories is not None]
    return {name for lacking in empty for name, lacks in zip(values, lacking, strict=False) if lacks}


def unknown_in(vocabulary: Sequence[Level], values: Mapping[str, Sequence[str]], empty: Collection[str] = ()) -> str:
    """Describe which categories of the data will count as unknown, and whether the network was trained on unknown ones.

    Args:
        vocabulary: The network's levels.
        values: Values of each of the data's levels, by name.
        empty: The data's levels with empty cells; they are reported only if the network was not trained on any.

    Returns:
        A warning; empty if the network has embeddings of all levels and values of the data.
    """
    parts, untrained = [], []
    for level in vocabulary:
        name, known, theirs = level["name"], set(level["values"]), values.get(level["name"])
        strange = [value for value in theirs or () if value not in known]
        if strange:
            listed = ", ".join(strange[:SHOWN]) + (", ..." if len(strange) > SHOWN else "")
            values_are = "1 value" if len(strange) == 1 else f"{len(strange)} values"
            parts.append(f"{values_are} of {name} that no training image has ({listed})")
        if theirs is None:
            parts.append(f"{name}, which the data lacks")
        if name in empty and not level["unknown_trained"]:
            parts.append(f"empty cells of {name}")
        if (strange or theirs is None or name in empty) and not level["unknown_trained"]:
            untrained.append(name)
    if not parts:
        return ""
    text = f"categories that count as unknown: {'; '.join(parts)}"
    if untrained:
        text += (
            f". Every training image had a known {', '.join(untrained)}, so that the network never learned what unknown"
            " means there, and takes the mean of the distribution that embeddings began with: train with level_dropout"
        )
    return text
