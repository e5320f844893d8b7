"""Votes on the class of each unlabeled image, and the images that win theirs, as state that is saved."""

import torch
from torch import Tensor
from torch.nn import functional

from tailmatch.datamodules.arguments import check_count, check_share
from tailmatch.lightning_modules.pseudo_labels.label_memory import NONE, LabelMemory
from tailmatch.lightning_modules.training.distributed import gather_rows

NAMES = 4
"""How many classes of an image have their votes counted one by one; those of all further ones are counted together."""

Counts = tuple[Tensor, Tensor]
"""The classes that images have votes for, `int32 [B, 4]`, -1 for none; and the votes, `int32 [B, 4 + 1]`."""


class VoteMemory(LabelMemory):
    """Votes of a window of steps, and the classes of the images that won the last one. All processes have all votes.

    At the end of a window, an image is accepted if it had at least `least` votes, more than `share` of its visits, and
    more than `agreement` of its votes were for one class. That class is its label; its target is the share of each
    class in its votes. An image that is not accepted again loses its label.

    An image takes 76 bytes, whatever the number of classes: votes are kept for the first four classes that it has any
    for, and those for further ones are counted without a name.

    Args:
        share: Share of an image's visits, in [0, 1], that must be exceeded by its votes.
        agreement: Share of an image's votes, in [0, 1], that must be exceeded by those for one class.
        least: Smallest number of votes, at least 1.

    Raises:
        SettingsError: An argument lies outside its domain.
    """

    visits: Tensor
    voted: Tensor
    votes: Tensor
    won_voted: Tensor
    won_votes: Tensor

    def __init__(self, share: float, agreement: float, least: int) -> None:
        super().__init__()
        check_share("vote_share", share)
        check_share("agreement", agreement)
        check_count("least_votes", least)
        self.share, self.agreement, self.least = share, agreement, least
        for name, state in _nothing(0, self.labels.device).items():
            self.register_buffer(name, state)

    @torch.no_grad()
    def vote(self, index: Tensor, labels: Tensor, chosen: Tensor) -> None:
        """Count a visit of each image of this step, of all processes, and its vote; call it on all of them.

        Of an image that is in the step several times, the last row alone is counted.

        Args:
            index: Positions of the images in the unlabeled set, `int64 [B]`.
            labels: Classes `int64 [B]`.
            chosen: Which rows vote for their class, `bool [B]`.

        Raises:
            SettingsError: A checkpoint had votes of another number of images.
        """
        self._check_images()
        index, labels, marks = gather_rows(torch.stack([index, labels, chosen.long()], dim=1)).unbind(dim=1)
        again = (index[:, None] == index).triu(1).any(dim=1)
        place = torch.where(again, len(self.labels) - 1, index)
        voted, votes = with_votes((self.voted[place], self.votes[place]), labels, marks)
        self.visits.index_copy_(0, place, self.visits[place] + 1)
        self.voted.index_copy_(0, place, voted)
        self.votes.index_copy_(0, place, votes)
        self.visits[-1].zero_()  # the last entry belongs to no image
        self.voted[-1].fill_(NONE)
        self.votes[-1].zero_()

    @torch.no_grad()
    def close(self) -> None:
        """End the window: accept the images that win their vote, and begin the next window without votes."""
        named = self.votes[:, :NAMES]
        most, first = named.max(dim=1)
        total = self.votes.sum(dim=1)
        accepted = (total >= self.least) & (total > self.share * self.visits) & (most > self.agreement * total)
        label = self.voted.gather(1, first[:, None])[:, 0]
        self.replace(torch.where(accepted, label, NONE)[:-1])
        self.won_voted.copy_(self.voted)
        self.won_votes.copy_(named)
        self.visits.zero_()
        self.voted.fill_(NONE)
        self.votes.zero_()

    def targets(self, index: Tensor, num_classes: int) -> Tensor:
        """Compute the vote shares by which images were accepted, `float32 [B, K]`; rows of others mean nothing.

        Args:
            index: Positions of the images in the unlabeled set, `int64 [B]`.
            num_classes: Number of classes K.
        """
        votes = self.won_votes[index].float()
        rows = torch.zeros(len(index), num_classes, device=votes.device)
        rows.scatter_add_(1, self.won_voted[index].long().clamp(min=0), votes)
        return rows / rows.sum(dim=1, keepdim=True).clamp(min=1)

    def _resize(self, images: int) -> None:
        super()._resize(images)
        if len(self.visits) != images + 1:
            for name, state in _nothing(images, self.labels.device).items():
                setattr(self, name, state)


def with_votes(counts: Counts, labels: Tensor, marks: Tensor) -> Counts:
    """Add votes to those of images, all different.

    Args:
        counts: The classes that the images have votes for, and the votes.
        labels: Classes `int64 [B]`.
        marks: 1 for a vote, 0 for none, `int64 [B]`.
    """
    voted, votes = counts
    same, free = voted == labels[:, None], voted == NONE
    place = torch.where(free.any(dim=1), free.int().argmax(dim=1), NAMES)
    place = torch.where(same.any(dim=1), same.int().argmax(dim=1), place)
    added = functional.one_hot(place, NAMES + 1) * marks[:, None]
    named = torch.where(added[:, :NAMES] > 0, labels[:, None], voted)
    return named.to(torch.int32), (votes + added).to(torch.int32)


def agreeing(weak: Tensor, strong: Tensor, threshold: float) -> Tensor:
    """Tell which images vote, `bool [B]`: with the same class in both views, and both confidences at the threshold.

    Args:
        weak: Predictions `[B, K]` on weak views.
        strong: Predictions `[B, K]` on strong views.
        threshold: Smallest confidence of a vote.
    """
    (confidence, label), (other, same) = weak.max(dim=1), strong.max(dim=1)
    return (label == same) & (torch.minimum(confidence, other) >= threshold)


def _nothing(images: int, device: torch.device) -> dict[str, Tensor]:
    """Make the state of N images without votes."""

    def filled(value: int, *columns: int) -> Tensor:
        return torch.full((images + 1, *columns), value, dtype=torch.int32, device=device)

    return {
        "visits": filled(0),
        "voted": filled(NONE, NAMES),
        "votes": filled(0, NAMES + 1),
        "won_voted": filled(NONE, NAMES),
        "won_votes": filled(0, NAMES),
    }
