"""Optimizers with published defaults, and the parameter groups of weight decay."""

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer

from tailmatch.datamodules.arguments import (
    SettingsError,
    check_at_least,
    check_below_one,
    check_each,
    check_positive,
)


def check_optimizer(settings: Mapping[str, Any]) -> None:
    """Refuse settings of an optimizer that cannot train; torch accepts some of them, such as a momentum of 2.

    Args:
        settings: Settings by name, such as `optimizer.defaults`. Those of other names than torch's are not checked.

    Raises:
        SettingsError: A learning rate is not above 0, a momentum or decay rate lies outside [0, 1), or a weight decay
            is negative; or one of them is no finite number.
    """
    if "lr" in settings and not isinstance(settings["lr"], Tensor):
        check_positive("lr", settings["lr"])
    if "momentum" in settings:
        check_below_one("momentum", settings["momentum"])
    if "betas" in settings:
        check_each("betas", settings["betas"], check_below_one)
    if "weight_decay" in settings:
        check_at_least("weight_decay", settings["weight_decay"], 0)


class FixMatchSGD(SGD):
    """SGD with FixMatch's defaults (arXiv 2001.07685, table 4).

    Args:
        params: Parameters or parameter groups.
        lr: Learning rate, above 0.
        momentum: Momentum factor, in [0, 1).
        weight_decay: Factor of the L2 penalty, at least 0. The paper's 5e-4 times `l2_loss = w**2 / 2` is torch's 5e-4.
        nesterov: Whether to use Nesterov momentum.

    Raises:
        SettingsError: An argument lies outside its domain.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 0.03,
        momentum: float = 0.9,
        weight_decay: float = 5e-4,
        nesterov: bool = True,
    ) -> None:
        check_optimizer({"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        if nesterov and not momentum:
            raise SettingsError("momentum is 0 and nesterov is true: give a momentum above 0, or set nesterov to false")
        super().__init__(params, lr=lr, momentum=momentum, weight_decay=weight_decay, nesterov=nesterov)


class RetrainingSGD(SGD):
    """SGD with the defaults of classifier re-training.

    Kang et al. 2020 (arXiv 1910.09217), section 5.1; facebookresearch/classifier-balancing
    `config/ImageNet_LT/cls_crt.yaml` and `cls_lws.yaml`, for batches of 512 (Places-LT: 0.1 for 256).

    Args:
        params: Parameters or parameter groups.
        lr: Learning rate, above 0.
        momentum: Momentum factor, in [0, 1).
        weight_decay: Factor of the L2 penalty, at least 0.

    Raises:
        SettingsError: An argument lies outside its domain.
    """

    def __init__(
        self, params: Iterable[Any], lr: float = 0.2, momentum: float = 0.9, weight_decay: float = 5e-4
    ) -> None:
        check_optimizer({"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        super().__init__(params, lr=lr, momentum=momentum, weight_decay=weight_decay)


class MixMatchAdam(AdamW):
    """Adam with decoupled weight decay and MixMatch's defaults (google-research/mixmatch `mixmatch.py`).

    The authors multiply kernels by `1 - weight_decay * lr` after each step of Adam; AdamW does so before the step. A
    public re-implementation also multiplies BatchNorm's running statistics; here, these are not parameters.

    Args:
        params: Parameters or parameter groups.
        lr: Learning rate, above 0.
        weight_decay: Factor of decoupled weight decay, at least 0: each step multiplies weights by
            `1 - weight_decay * lr`.
        betas: Adam's decay rates of the running means of the gradient and its square, in [0, 1).
        eps: Adam's constant that is added to the denominator, at least 0.

    Raises:
        SettingsError: An argument lies outside its domain.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 0.002,
        weight_decay: float = 0.02,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ) -> None:
        check_optimizer({"lr": lr, "weight_decay": weight_decay})
        check_each("betas", betas, check_below_one, length=2)
        check_at_least("eps", eps, 0)
        super().__init__(params, lr=lr, weight_decay=weight_decay, betas=betas, eps=eps)


def parameter_groups(
    module: nn.Module, decay_norm_and_bias: bool = False, rates: Mapping[str, float] | None = None
) -> list[dict[str, Any]]:
    """Return trainable parameters in groups: with the optimizer's weight decay and without any, for each rate.

    Args:
        module: Module with the parameters.
        decay_norm_and_bias: Whether to decay normalization weights and biases (parameters of one dimension) too. The
            authors of FixMatch only decay kernels.
        rates: Factors of the learning rate, above 0, by the name of a parameter; 1 for all others, whose groups come
            first. Where there are any, each group has its factor as `lr_factor`, for `scale_rates`.
    """
    factors = rates or {}
    by_factor: dict[float, list[nn.Parameter]] = {1.0: []}
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            by_factor.setdefault(factors.get(name, 1.0), []).append(parameter)
    groups: list[dict[str, Any]] = []
    for factor, parameters in by_factor.items():
        own = {"lr_factor": factor} if factors else {}
        decayed = [p for p in parameters if decay_norm_and_bias or p.ndim > 1]
        plain = [p for p in parameters if not (decay_norm_and_bias or p.ndim > 1)]
        groups += [{"params": decayed, **own}] if decayed or not factors else []
        groups += [{"params": plain, "weight_decay": 0.0, **own}] if plain else []
    return groups


def scale_rates(optimizer: Optimizer) -> None:
    """Multiply the learning rate of each group that has an `lr_factor` by it; call this before a schedule is made."""
    for group in optimizer.param_groups:
        if "lr_factor" in group:
            group["lr"] = group["lr"] * group["lr_factor"]
