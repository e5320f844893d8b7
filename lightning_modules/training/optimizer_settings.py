"""The settings an optimizer was created with, which a resumed training may change."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch.optim import Optimizer

from tailmatch.datamodules.arguments import SettingsError

SETTINGS_KEY = "optimizer_settings"
"""Checkpoint key of the optimizers' settings, as returned by `settings_of`."""

Settings = Mapping[str, Any]
"""Settings of a parameter group, plain values by name."""


def settings_of(optimizer: Optimizer) -> list[Settings]:
    """Return the settings of each parameter group."""
    plain = (bool, int, float, str, tuple, type(None))
    return [
        {key: value for key, value in group.items() if isinstance(value, plain)} for group in optimizer.param_groups
    ]


def check_same_kind(own: Sequence[Settings], before: Sequence[Settings], source: str) -> None:
    """Refuse the saved state of an optimizer of another kind: each has settings that the other one does not know.

    Another version of PyTorch may add settings to the same optimizer.

    Args:
        own: `settings_of` the optimizer.
        before: `settings_of` the optimizer that saved the state; empty if there is none.
        source: Name of the checkpoint for the message.

    Raises:
        SettingsError: The optimizers are of different kinds.
    """
    here, there = ({key for group in groups for key in group} for groups in (own, before))
    if there and here - there and there - here:
        raise SettingsError(
            f"{source} has the state of another optimizer, with {', '.join(sorted(there - here))} instead of "
            f"{', '.join(sorted(here - there))}: name the same one, or begin a training with its weights, "
            "--model.pretrained FILE"
        )


def prefer_new_settings(optimizer: Optimizer, before: Sequence[Settings]) -> None:
    """Let an optimizer that loads a saved state keep its own settings where they have changed since.

    All other settings come from the state, which has them as training left them: an optimizer may adapt its own, and a
    schedule the learning rate.

    Args:
        optimizer: New optimizer, without a schedule yet.
        before: `settings_of` the optimizer that saved the state, when it was created.
    """
    own = settings_of(optimizer)

    def replace(_: Optimizer, state: dict[str, Any]) -> dict[str, Any]:
        groups = state["param_groups"]
        if not len(groups) == len(own) == len(before):
            return state  # PyTorch raises an error for it
        return {**state, "param_groups": [_replaced(*group) for group in zip(groups, own, before, strict=True)]}

    optimizer.register_load_state_dict_pre_hook(replace)


def _replaced(group: Settings, own: Settings, before: Settings) -> Settings:
    """Replace the settings that have changed in a saved group, and the learning rate in proportion."""
    changed = {key: value for key, value in own.items() if key in before and value != before[key]}
    if "lr" in changed:
        changed["initial_lr"] = changed["lr"]
        changed["lr"] *= group["lr"] / before["lr"] if before["lr"] else 1
    return {**group, **changed}
