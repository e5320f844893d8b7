"""The rows that DARP keeps of every unlabeled image, and how a checkpoint has half of them.

Refined rows follow from the predictions and a few numbers of each class (`refine_rows`), to the same bits where the
rows of a process are the same. So a checkpoint has the predictions and those numbers, and refined rows only of images
that were predicted again since the last refinement: at most those of the batches of `refine_every` steps.
"""

from typing import Any

import torch
from torch import Tensor

from tailmatch.callbacks.remedies.darp.noise import Cuts
from tailmatch.callbacks.remedies.darp.solver import Prices, refine_rows
from tailmatch.datamodules.arguments import SettingsError
from tailmatch.lightning_modules.training.distributed import gather_interleaved, gather_rows, place


class Rows:
    """The newest prediction and the newest refined row of each unlabeled image of this process.

    Args:
        count: The number n of images of this process.
        classes: The number K of classes.

    Attributes:
        predictions: `float32 [n, K]`; zeros where there is none yet.
        solved: `float32 [n, K]`; zeros where there is none yet.
        prices: What the rows were refined with. None: they were not, or by an earlier version.
        since: `bool [n]`, whether an image was predicted again since the rows were refined.
    """

    def __init__(self, count: int, classes: int) -> None:
        self.predictions, self.solved = torch.zeros(count, classes), torch.zeros(count, classes)
        self.prices: Prices | None = None
        self.since = torch.zeros(count, dtype=torch.bool)
        self._to_rebuild = False

    def to(self, device: torch.device) -> None:
        """Move the rows to a device, where they are refined again if a checkpoint was loaded."""
        self.predictions, self.solved = self.predictions.to(device), self.solved.to(device)
        self.since = self.since.to(device)
        if self._to_rebuild:
            self._to_rebuild = False
            self._rebuild()

    def predict(self, rows: Tensor, probs: Tensor) -> None:
        """Keep predictions of some images; of an image that is there several times, the last one on every device."""
        last = len(rows) - 1 - (rows[:, None] == rows.flip(0)).byte().argmax(dim=1)
        self.predictions[rows] = probs.detach().float()[last]
        self.since.index_fill_(0, rows, True)

    def refine(self, solved: Tensor, predicted: Tensor | None, prices: Prices | None) -> None:
        """Keep refined rows.

        Args:
            solved: `float32 [m, K]`.
            predicted: `bool [n]`, the images that they are of. None: all.
            prices: What they were refined with.
        """
        if predicted is None:
            self.solved = solved
        else:
            self.solved = torch.zeros_like(self.predictions)
            self.solved[predicted] = solved
        self.prices = prices
        self.since = torch.zeros_like(self.since)

    def _rebuild(self) -> None:
        """Refine rows again that were not saved; as each has the same neighbors as before, to the same bits."""
        if self.prices is None:
            return
        vectors = (*vars(self.prices.cuts).values(), self.prices.nu, self.prices.target)
        threshold, cut, scale, nu, target = (vector.to(self.solved.device) for vector in vectors)
        self.prices = Prices(Cuts(threshold, cut, scale), nu, target)
        saved, since = self.solved, self.since
        predicted = known(self.predictions) & (~since | known(saved))
        everything = bool(predicted.all())
        rows = refine_rows(self.predictions if everything else self.predictions[predicted], self.prices)
        self.refine(rows, None if everything else predicted, self.prices)
        self.solved = torch.where(since[:, None], saved, self.solved)
        self.since = since

    # Checkpoints

    def state_dict(self, total: int) -> dict[str, Any]:
        """Give the rows of all processes in the order of the images, given the number of these."""
        kept = self.since if self.prices is not None else known(self.solved)
        rank, world_size = place()
        which = kept.nonzero()[:, 0]
        most = int(gather_rows(torch.tensor([len(which)], device=which.device)).max())
        index = torch.full((most,), -1, device=which.device)
        index[: len(which)] = which * world_size + rank
        rows = self.solved.new_zeros(most, self.solved.shape[1])
        rows[: len(which)] = self.solved[which]
        index, rows = gather_rows(index).cpu(), gather_rows(rows).cpu()
        order = index.argsort()[int((index < 0).sum()) :]
        return {
            "predictions": self._gathered(total),
            "prices": None if self.prices is None else _plain(self.prices),
            "since": {"index": index[order], "refined": rows[order]},
        }

    def _gathered(self, total: int) -> Tensor:
        if not self.predictions.numel():
            return self.predictions
        return gather_interleaved(self.predictions, total, torch.device("cpu"))

    def load_state_dict(self, state: dict[str, Any], rank: int, world_size: int) -> None:
        """Take this process' rows of a checkpoint, also one of an earlier version, which has all refined rows.

        Raises:
            SettingsError: The rows are those of another unlabeled set.
        """
        mine = slice(rank, None, world_size)
        predictions = state["predictions"][mine].clone()
        if len(self.predictions) and predictions.shape != self.predictions.shape:
            raise SettingsError(
                f"the checkpoint's DARP state is of {tuple(predictions.shape)} predictions, and this run has "
                f"{tuple(self.predictions.shape)}: resume on the same unlabeled images"
            )
        self.predictions, self.prices = predictions, None
        self.since = torch.zeros(len(predictions), dtype=torch.bool)
        if "refined" in state:
            self.solved = state["refined"][mine].clone()
            return
        self.solved = torch.zeros_like(predictions)
        index, rows = state["since"]["index"], state["since"]["refined"]
        here = index % world_size == rank
        self.solved[index[here] // world_size] = rows[here]
        self.since[index[here] // world_size] = True
        if state["prices"] is not None:
            prices = dict(state["prices"])
            nu, target = prices.pop("nu"), prices.pop("target")
            self.prices, self._to_rebuild = Prices(Cuts(**prices), nu, target), True


def _plain(prices: Prices) -> dict[str, Tensor]:
    return {
        name: tensor.cpu() for name, tensor in {**vars(prices.cuts), "nu": prices.nu, "target": prices.target}.items()
    }


def known(rows: Tensor) -> Tensor:
    """Find the rows `[n, K]` that were written, `bool [n]`; the others are zero."""
    return rows.sum(dim=1) > 0
