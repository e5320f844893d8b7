"""What an optimizer was set to when it was made, which a resumed training may change."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch.optim import Optimizer

SETTINGS_KEY = "optimizer_settings"
"""Where a checkpoint has what `settings_of` gave of its optimizer."""

Settings = Mapping[str, Any]
"""Settings of a group of parameters, plain values by name."""


def settings_of(optimizer: Optimizer) -> list[Settings]:
    """Settings of each group."""
    plain = (bool, int, float, str, tuple, type(None))
    return [
        {key: value for key, value in group.items() if isinstance(value, plain)} for group in optimizer.param_groups
    ]


def prefer_new_settings(optimizer: Optimizer, before: Sequence[Settings]) -> None:
    """Let an optimizer that goes on from a saved state take what was set otherwise since; the rest is the state's.

    (A state has the settings as training left them: an optimizer may adapt its own, and a schedule the learning rate.)

    Args:
        optimizer: As it was made, without a schedule yet.
        before: `settings_of` the optimizer of the saved state, when it was made.
    """
    own = settings_of(optimizer)

    def replace(_: Optimizer, state: dict[str, Any]) -> dict[str, Any]:
        groups = state["param_groups"]
        if not len(groups) == len(own) == len(before):
            return state  # which PyTorch refuses
        return {**state, "param_groups": [_replaced(*group) for group in zip(groups, own, before, strict=True)]}

    optimizer.register_load_state_dict_pre_hook(replace)


def _replaced(group: Settings, own: Settings, before: Settings) -> Settings:
    """The settings of a saved group with those that have changed, and the learning rate in proportion."""
    changed = {key: value for key, value in own.items() if key in before and value != before[key]}
    if "lr" in changed:
        changed["initial_lr"] = changed["lr"]
        changed["lr"] *= group["lr"] / before["lr"] if before["lr"] else 1
    return {**group, **changed}
