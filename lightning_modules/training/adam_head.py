"""A linear head with an optimizer of its own, beside that of the method."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from tailmatch.datamodules.arguments import check_at_least, check_positive
from tailmatch.lightning_modules.training.distributed import place, sum_over_processes

BETAS, EPS = (0.9, 0.999), 1e-8
"""Adam's (arXiv 1412.6980), as in torch."""


class AdamHead(nn.Module):
    """A linear classifier that Adam trains on given features, within a step of a method and without its optimizer.

    Its weights have no gradient of autograd, so that the method's optimizer and averages leave them alone. The state of
    Adam lies in buffers: a checkpoint contains it, and all processes have the same. (Lightning counts the steps of two
    optimizers as two steps of the training.)

    Args:
        dim: Size D of a feature.
        num_classes: Number of classes K.
        lr: Learning rate, above 0.
        weight_decay: Factor of the L2 penalty of the weight, not of the bias; at least 0.

    Raises:
        SettingsError: An argument lies outside its domain.
    """

    mean: Tensor
    square: Tensor
    steps: Tensor

    def __init__(self, dim: int, num_classes: int, lr: float = 0.002, weight_decay: float = 5e-4) -> None:
        super().__init__()
        check_positive("teacher_lr", lr)
        check_at_least("teacher_weight_decay", weight_decay, 0)
        self.lr = lr
        self.weight_decay = weight_decay
        self.linear = nn.Linear(dim, num_classes).requires_grad_(False)
        self.register_buffer("mean", torch.zeros(num_classes, dim + 1))  # of the gradient of [weight, bias]
        self.register_buffer("square", torch.zeros(num_classes, dim + 1))
        self.register_buffer("steps", torch.zeros(()))

    def forward(self, features: Tensor) -> Tensor:
        """Compute logits `float32 [B, K]` of features `[B, D]`, also under autocast."""
        with torch.autocast(features.device.type, enabled=False):
            logits: Tensor = self.linear(features.float())
            return logits

    @torch.no_grad()
    def train_step(self, features: Tensor, target: Tensor) -> Tensor:
        """Take a step of Adam on the mean cross-entropy of the images of all processes; return that of this process.

        Args:
            features: Features `float32 [B, D]`; B is the same on all processes.
            target: Classes `int64 [B]`.
        """
        logits = self(features)
        with torch.autocast(features.device.type, enabled=False):
            residual = logits.softmax(dim=1) - functional.one_hot(target, logits.shape[1])
            inputs = functional.pad(features.float(), (0, 1), value=1.0)
            gradient = sum_over_processes(residual.T @ inputs / len(target)) / place()[1]
            gradient = gradient + self.weight_decay * functional.pad(self.linear.weight, (0, 1))
            self.steps += 1
            self.mean.lerp_(gradient, 1 - BETAS[0])
            self.square.mul_(BETAS[1]).addcmul_(gradient, gradient, value=1 - BETAS[1])
            # 1 - beta^t; of near-1 powers in float32, a difference would have four digits
            corrections = [-torch.expm1(self.steps * math.log(beta)) for beta in BETAS]
            update = self.lr * (self.mean / corrections[0]) / ((self.square / corrections[1]).sqrt() + EPS)
            self.linear.weight.sub_(update[:, :-1])
            self.linear.bias.sub_(update[:, -1])
        return functional.cross_entropy(logits, target)
