"""The contrasts of CCL with labels that may be soft (Zhou et al., NeurIPS 2024, arXiv 2410.06109).

Rows are projections of length 1. The score of class k for a row is the mean similarity of the rows that know it to be
k, however many they are: contrasts are balanced.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from tailmatch.lightning_modules.bases.semi_supervised import sharpen
from tailmatch.lightning_modules.training.distributed import gather_with_gradient

TEMPERATURE, SPREAD, SHARPENING = 0.1, 0.2, 0.25
"""The authors' temperature of similarities, share of the neighbors in a label, and temperature of a target."""


def class_scores(rows: Tensor, known: Tensor, labels: Tensor) -> Tensor:
    """Compute the logarithm of the mean of `exp(cosine / 0.1)` to the known rows of each class, `[N, K]`.

    Args:
        rows: Rows `[N, D]`.
        known: Rows `[M, D]` whose labels are known.
        labels: Shares of the classes in each of them, `[M, K]`; no class may be without any.
    """
    return (((rows @ known.t() / TEMPERATURE).exp() @ labels) / labels.sum(dim=0)).log()


def propagated(rows: Tensor, known: Tensor, labels: Tensor) -> Tensor:
    """Label rows by the known ones and by each other: `(1 - a) (1 - a S)^-1 p`, probs `[N, K]`.

    p is the softmax of the scores, S that of the rows' cosines among each other, and the share a is 0.2.

    Args:
        rows: Rows `[N, D]`.
        known: Rows `[M, D]` whose labels are known.
        labels: Shares of the classes in each of them, `[M, K]`; no class may be without any.
    """
    similar = (rows @ rows.t()).softmax(dim=1)
    own = (1 - SPREAD) * class_scores(rows, known, labels).softmax(dim=1)
    system = torch.eye(len(rows), device=rows.device) - SPREAD * similar
    solution: Tensor = torch.linalg.solve_ex(system, own)[0]  # `solve` would wait to see that the system is regular
    return solution


def smoothed_contrast(weak: Tensor, strong: Sequence[Tensor], known: Tensor, labels: Tensor) -> Tensor:
    """Compute how far the propagated labels of views are from those of the weak view, and from a class, `[]`.

    It is the mean of CE(q, p_v) over the views v and of the entropy of the mean of the p_v, with the sharpened label q
    of the weak view, which has no gradient.

    Args:
        weak: Rows `[N, D]` of the weak views.
        strong: Rows `[N, D]` of each strong view.
        known: Rows `[M, D]` whose labels are known.
        labels: Shares of the classes in each of them, `[M, K]`; no class may be without any.
    """
    with torch.autocast(weak.device.type, enabled=False):
        with torch.no_grad():
            target = sharpen(propagated(weak, known, labels), SHARPENING)
        views = [propagated(rows, known, labels) for rows in strong]
        mean = torch.stack(views).mean(dim=0)
        terms = [-(q * p.log()).sum(dim=1).mean() for q, p in [*((target, view) for view in views), (mean, mean)]]
    return torch.stack(terms).mean()


def reliable_contrast(rows: Tensor, labels: Tensor, weights: Tensor, centers: int) -> Tensor:
    """Compute the cross-entropy `[]` of the scores that rows have by all others, with their labels.

    Args:
        rows: Rows `[N, D]`, of which the first are the centers of the classes.
        labels: Shares of the classes in each of them, `[N, K]`.
        weights: How much each row counts, both by itself and for others, `[N]`; at least 0, and 1 for a center.
        centers: Number of centers, which have no loss of their own.
    """
    with torch.autocast(rows.device.type, enabled=False):
        itself = torch.eye(len(rows), dtype=torch.bool, device=rows.device)[centers:]
        similar = (rows[centers:] @ rows.t() / TEMPERATURE).exp().masked_fill(itself, 0.0)
        shares = weights[:, None] * labels
        scores = ((similar @ shares) / (shares.sum(dim=0) - shares[centers:])).log()
        losses = -(labels[centers:] * scores.log_softmax(dim=1)).sum(dim=1)
    return (losses * weights[centers:]).sum() / weights[centers:].sum()


class ContinuousContrast(nn.Module):
    """Both contrasts of projected features, those of all processes, with centers: the projected weights of the classes.

    A projection is linear, BatchNorm, ReLU and linear, as wide and twice as wide as the features. It keeps no
    statistics, since only training uses it.

    Args:
        feature_dim: Size D of the features.
    """

    def __init__(self, feature_dim: int) -> None:
        super().__init__()
        self.features, self.centers = projection(feature_dim), projection(feature_dim)

    def forward(
        self,
        labeled: Sequence[Tensor],
        labels: Tensor,
        unlabeled: Sequence[Tensor],
        probs: Tensor,
        reliable: Tensor,
        class_weights: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Compute `smoothed_contrast` and `reliable_contrast`, both `[]`.

        Args:
            labeled: Features `float32 [B, D]` of each view of the labeled images.
            labels: Classes `int64 [B]`.
            unlabeled: Features `float32 [U, D]` of the weak view, then of each strong view.
            probs: Pseudo-labels `float32 [U, K]`.
            reliable: Which of them are reliable (1 or 0), `float32 [U]`.
            class_weights: Weights `[K, D]` of the classes in a head.
        """
        one_hot = functional.one_hot(labels, len(class_weights)).float()
        *labeled, one_hot = gathered([*labeled, one_hot])
        *unlabeled, probs, reliable = gathered([*unlabeled, probs, reliable[:, None]])
        rows = functional.normalize(self.features(torch.cat([*labeled, *unlabeled])).float(), dim=1)
        labeled_rows, unlabeled_rows = rows.tensor_split([len(labeled) * len(one_hot)])
        centers = functional.normalize(self.centers(class_weights).float(), dim=1)
        known = torch.cat([centers, labeled_rows])
        known_labels = torch.cat([torch.eye(len(centers), device=rows.device), *[one_hot] * len(labeled)])
        weak, *strong = unlabeled_rows.chunk(len(unlabeled))
        all_labels = torch.cat([known_labels, *[sharpen(probs, SHARPENING)] * len(strong)])
        weights = torch.cat([torch.ones_like(known[:, 0]), *[reliable[:, 0]] * len(strong)])
        all_rows = torch.cat([known, *strong])
        return (
            smoothed_contrast(weak, strong, known, known_labels),
            reliable_contrast(all_rows, all_labels, weights, len(centers)),
        )


def projection(width: int) -> nn.Sequential:
    """Make a projection of rows `[B, width]` to `[B, 2 width]`."""
    norm = nn.BatchNorm1d(width, track_running_stats=False)
    return nn.Sequential(nn.Linear(width, width), norm, nn.ReLU(), nn.Linear(width, 2 * width))


def gathered(parts: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Gather parts `[B, D_i]` of all processes, `[W B, D_i]`, in one message."""
    rows = gather_with_gradient(torch.cat(list(parts), dim=1))
    return torch.split(rows, [part.shape[1] for part in parts], dim=1)
