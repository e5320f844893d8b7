"""Priors that are estimated during a training: by hand, saved, over two processes and without a wait."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tailmatch.lightning_modules import FixMatch
from tailmatch.lightning_modules.pseudo_labels.running_prior import (
    IntervalPrior,
    RecentPrior,
    RunningPrior,
    log_shift,
    soft_counts,
)
from tests.contract import Kill, Killed, assert_same_training, at_epoch_ends, last, run, saved
from tests.pretended_gpu import GPU, PretendedGPU
from tests.process_group import on_two_processes


def close(found: Tensor, *expected: float) -> None:
    torch.testing.assert_close(found, torch.tensor(expected), atol=1e-4, rtol=0)


def test_a_running_mean_by_hand() -> None:
    prior = RunningPrior(3, momentum=0.9)
    close(prior.probs, 1 / 3, 1 / 3, 1 / 3)
    prior.update(torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1]]))  # FreeMatch's numbers
    close(prior.probs, 0.34, 0.35, 0.31)


def test_the_last_batches_by_hand() -> None:
    prior = RecentPrior(2, batches=2)
    seen = []
    for rows in ([[1.0, 0.0]], [[0.8, 0.2], [0.6, 0.4]], [[0.1, 0.9]]):
        prior.update(torch.tensor(rows))
        seen.append(prior.probs)
    for found, expected in zip(seen, (0.75, 0.85, 0.4), strict=True):
        close(found, expected, 1 - expected)


def simpro() -> tuple[Tensor, Tensor]:
    """Soft pseudo-labels and their weights, from SimPro's prior (0.5, 0.3, 0.2) and tau 2."""
    logits = torch.tensor([[3.0, 1.0, 0.0], [1.0, 1.2, 1.0], [0.0, 0.0, 4.0]])
    rows = (logits + log_shift(torch.tensor([0.5, 0.3, 0.2]), 2.0, 1e-12)).softmax(dim=1)
    return rows, (rows.amax(dim=1) >= 0.8).float()


def test_simpros_interval_by_hand() -> None:
    rows, weights = simpro()
    close(rows[0], 0.9464, 0.0461, 0.0075)
    counts = soft_counts(rows, weights)
    close(counts, 1.0454, 0.0818, 0.8728)
    unlabeled, joint = IntervalPrior(3, every=2, extra=1.0), IntervalPrior(3, every=2)
    unlabeled.begin(torch.tensor([5, 3, 2]))
    joint.begin(torch.tensor([70, 20, 10]))
    labeled = torch.tensor([2.0, 1.0, 1.0])
    unlabeled.update(counts)
    joint.update(counts)
    close(unlabeled.probs, 0.5, 0.3, 0.2)  # within the interval
    unlabeled.update(torch.zeros(3))
    joint.update(labeled)
    close(unlabeled.probs, 0.4848, 0.2727, 0.2091)
    close(joint.probs, 0.6808, 0.1980, 0.1212)
    assert not unlabeled.counts.any() and int(unlabeled.steps) == 2
    for _ in range(2):
        joint.update(torch.zeros(3))  # an interval without images changes nothing
    close(joint.probs, 0.6808, 0.1980, 0.1212)


def test_an_interval_begins_with_a_count_of_each_class() -> None:
    prior = IntervalPrior(3, 0.6, every=2, start=1)
    for _ in range(2):  # (3, 1, 0) in each interval
        prior.update(torch.tensor([1.0, 1.0, 0.0]))
        prior.update(torch.tensor([2.0, 0.0, 0.0]))
        assert prior.counts.tolist() == [1, 1, 1]
    first = [0.6 / 3 + 0.4 * share / 7 for share in (4, 2, 1)]
    close(prior.probs, *(0.6 * p + 0.4 * share / 7 for p, share in zip(first, (4, 2, 1), strict=True)))


def test_a_shift_of_a_power_and_of_a_class_that_never_occurs() -> None:
    prior = torch.tensor([0.5, 0.5, 0.0])
    close(log_shift(prior, 2.0, 1e-12), -1.38629, -1.38629, -27.63102)
    close(log_shift(prior[:2], 0.5), -0.34657, -0.34657)


PRIORS = {
    "running": partial(RunningPrior, 3, 0.9),
    "recent": partial(RecentPrior, 3, 4),
    "interval": partial(IntervalPrior, 3, every=3),
}


def updated(prior: nn.Module, rows: Tensor) -> None:
    weights = (rows.amax(dim=1) >= 0.5).float()
    prior.update(soft_counts(rows, weights) if isinstance(prior, IntervalPrior) else rows)  # type: ignore[operator]


def rows_of(step: int) -> Tensor:
    return torch.randn(8, 3, generator=torch.Generator().manual_seed(step)).softmax(dim=1)


def process(rank: int, folder: Path) -> None:
    made = {name: make() for name, make in PRIORS.items()}
    for step in range(7):
        for prior in made.values():
            updated(prior, rows_of(step)[:5] if rank == 0 else rows_of(step)[5:])  # not as many on each
    torch.save({name: prior.state_dict() for name, prior in made.items()}, folder / f"{rank}.pt")


@pytest.mark.xdist_group("processes")
def test_two_processes_have_the_prior_of_one_with_all_rows(tmp_path: Path) -> None:
    on_two_processes(process, tmp_path)
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    for name, make in PRIORS.items():
        one = make()
        for step in range(7):
            updated(one, rows_of(step))
        for buffer, expected in one.state_dict().items():
            assert torch.equal(first[name][buffer], second[name][buffer]), name
            torch.testing.assert_close(first[name][buffer], expected)


@pytest.mark.parametrize("make", PRIORS.values(), ids=PRIORS)
def test_an_update_does_not_wait_for_the_device(make: Any) -> None:
    one, other = make(), make()
    with PretendedGPU() as gpu:
        prior, batches = other.to(GPU), [rows_of(step).to(GPU) for step in range(4)]
        gpu.waits.clear()
        for rows in batches:
            updated(prior, rows)
        log_shift(prior.probs, 2.0)
        assert gpu.waits == []
        state = {name: value.cpu() for name, value in prior.state_dict().items()}
    for step in range(4):
        updated(one, rows_of(step))
    for name, value in one.state_dict().items():
        assert torch.equal(state[name], value)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (partial(RunningPrior, 3, 1.0), "momentum is 1.0"),
        (partial(RecentPrior, 3, 0), "batches is 0"),
        (partial(IntervalPrior, 3, every=0), "every is 0"),
        (partial(IntervalPrior, 3, extra=-1.0), "extra is -1"),
        (partial(IntervalPrior, 3, start=-1.0), "start is -1"),
        (partial(RunningPrior, 0), "num_classes is 0"),
    ],
)
def test_bad_values_are_named(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


class Estimating(FixMatch):
    """A method with each kind of prior as its state, and a loss that depends on them."""

    def __init__(self, num_classes: int, **kwargs: Any) -> None:
        super().__init__(num_classes, threshold=0.2, **kwargs)
        self.priors = nn.ModuleList(
            [RunningPrior(num_classes, 0.5), RecentPrior(num_classes, 3), IntervalPrior(num_classes, every=4)]
        )

    def begin_fit(self) -> None:
        super().begin_fit()
        self.get_submodule("priors.2").begin(self.class_counts)  # type: ignore[operator]

    def weigh(self, probs: Tensor, refined: Tensor, index: Tensor, labeled: Tensor | None) -> Tensor:
        weights = super().weigh(probs, refined, index, labeled)
        for prior in self.priors:
            prior.update(soft_counts(refined, weights) if isinstance(prior, IntervalPrior) else probs)  # type: ignore[operator]
        return weights

    def unlabeled_shift(self) -> Tensor:
        return sum((log_shift(prior.probs) for prior in self.priors), torch.zeros(()))  # type: ignore[arg-type]


def test_priors_of_a_method_survive_a_resume_to_the_bit(tmp_path: Path) -> None:
    run(Estimating, tmp_path, at_epoch_ends(tmp_path / "whole"))
    with pytest.raises(Killed):
        run(Estimating, tmp_path, last(tmp_path / "killed", every_n_train_steps=7), Kill(10))
    run(Estimating, tmp_path, at_epoch_ends(tmp_path / "resumed"), ckpt=tmp_path / "killed" / "last.ckpt")
    whole, resumed, killed = (saved(tmp_path / name) for name in ("whole", "resumed", "killed"))
    assert_same_training(whole, resumed)
    for name in ("0.probs", "1.means", "2.probs"):
        before, after = killed["state_dict"][f"priors.{name}"], whole["state_dict"][f"priors.{name}"]
        assert not torch.equal(before, after)  # and neither averaged nor left behind
    assert killed["state_dict"]["priors.2.counts"].any()  # saved within an interval
