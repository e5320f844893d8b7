"""NT-Xent over any number of views."""

import torch
from torch import Tensor
from torch.nn import functional


def nt_xent(views: Tensor, temperature: float, candidates: Tensor | None = None, process: int = 0) -> Tensor:
    """Compute the contrastive loss of K views of each image, `[]`.

    With `s_ij` the cosine similarity of two views divided by the temperature, and `S(i)` the K - 1 other views of the
    same image as view i:

        loss = mean_i mean_{j in S(i)} -log(exp(s_ij) / sum_{a != i} exp(s_ia))

    For K = 2 it is SimCLR's NT-Xent (Chen et al. 2020, arXiv 2002.05709, equation 1); for more views, its
    generalization by Khosla et al. 2020 (arXiv 2004.11362, equation 2) with each image as a class.

    Similarities keep the type of the embeddings under autocast too: in half precision they would have three digits.

    Args:
        views: Embeddings `[K, B, D]` of K >= 2 views of B images, not normalized.
        temperature: Temperature, above 0.
        candidates: Embeddings `[W, K, B, D]` of all W processes, with gradient; None contrasts within `views` alone.
        process: Index in `candidates` of the process whose embeddings are `views`.
    """
    anchors = functional.normalize(views, dim=-1).flatten(0, 1)
    others = anchors if candidates is None else functional.normalize(candidates, dim=-1).flatten(0, 2)
    with torch.autocast(views.device.type, enabled=False):
        similarity = anchors @ others.t() / temperature
    count, images = len(anchors), views.shape[1]
    own = torch.arange(count, device=views.device)[:, None]
    place = torch.arange(len(others), device=views.device)[None, :] - process * count
    itself = place == own
    sibling = (place >= 0) & (place < count) & (place % images == own % images) & ~itself
    log_probs = similarity.masked_fill(itself, -torch.inf).log_softmax(dim=1)
    return -torch.where(sibling, log_probs, 0.0).sum(dim=1).mean() / (len(views) - 1)
