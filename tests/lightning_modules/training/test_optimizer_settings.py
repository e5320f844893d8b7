"""A resumed training takes what was set otherwise since, and else what training made of it."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import StepLR

from tailmatch.lightning_modules import Supervised
from tailmatch.lightning_modules.training.optimization import FixMatchSGD
from tailmatch.lightning_modules.training.optimizer_settings import prefer_new_settings, settings_of
from tailmatch.lightning_modules.training.schedules import CosineDecay, StepDecay
from tests.contract import Kill, Killed, at_epoch_ends, last, run, saved


def groups(count: int = 2) -> list[dict[str, list[nn.Parameter]]]:
    return [{"params": [nn.Parameter(torch.zeros(1))]} for _ in range(count)]


def test_what_changed_wins_and_the_rest_is_the_states() -> None:
    old = FixMatchSGD(groups())
    before = settings_of(old)
    assert before[0]["lr"] == 0.03 and "params" not in before[0]
    for group in old.param_groups:
        group.update(lr=0.006, momentum=0.5, steps_seen=7)  # as a schedule and an adaptive optimizer may
    new = FixMatchSGD(groups(), lr=0.3, weight_decay=0.1)
    prefer_new_settings(new, before)
    new.load_state_dict(old.state_dict())
    for group in new.param_groups:
        assert group["lr"] == pytest.approx(0.06) and group["initial_lr"] == 0.3
        assert (group["weight_decay"], group["momentum"], group["steps_seen"]) == (0.1, 0.5, 7)

    same = FixMatchSGD(groups())
    prefer_new_settings(same, before)
    same.load_state_dict(old.state_dict())
    assert [group["lr"] for group in same.param_groups] == [0.006] * 2


def test_other_groups_are_pytorchs_to_refuse() -> None:
    old, new = FixMatchSGD(groups()), FixMatchSGD(groups(1))
    prefer_new_settings(new, settings_of(old))
    with pytest.raises(ValueError, match="different number of parameter groups"):
        new.load_state_dict(old.state_dict())


def test_a_schedule_goes_on_at_its_step_with_its_own_length_and_options() -> None:
    old = StepDecay(FixMatchSGD(groups()), total_steps=10)
    for _ in range(9):
        old.optimizer.step()
        old.step()
    assert old.optimizer.param_groups[0]["lr"] == pytest.approx(0.0003)
    new = StepDecay(FixMatchSGD(groups(), lr=0.5), total_steps=20, milestones=(0.4, 0.9))
    new.load_state_dict(old.state_dict())
    assert (new.last_epoch, new.total_steps, new.milestones) == (9, 20, [0.4, 0.9])
    assert new.get_last_lr() == [group["lr"] for group in new.optimizer.param_groups] == pytest.approx([0.05] * 2)


@pytest.mark.parametrize("schedule", [CosineDecay, partial(StepLR, step_size=3)], ids=["ours", "PyTorch's"])
def test_a_resume_with_other_options(schedule: object, tmp_path: Path) -> None:
    def method(**options: float) -> Any:
        return partial(Supervised, optimizer=partial(FixMatchSGD, **options), lr_scheduler=schedule)

    run(method(), tmp_path, at_epoch_ends(tmp_path / "whole"))
    with pytest.raises(Killed):
        run(method(), tmp_path, last(tmp_path / "killed", every_n_train_steps=3), Kill(7))
    changed = method(lr=0.003, weight_decay=0.1)
    run(changed, tmp_path, at_epoch_ends(tmp_path / "changed"), ckpt=tmp_path / "killed" / "last.ckpt")
    whole, found = (saved(tmp_path / name)["optimizer_states"][0]["param_groups"] for name in ("whole", "changed"))
    assert [group["weight_decay"] for group in found] == [0.1, 0.0]  # normalization and biases have none
    assert [group["lr"] for group in found] == pytest.approx([group["lr"] / 10 for group in whole])
