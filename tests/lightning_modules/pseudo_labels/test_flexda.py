"""FlexDA's shifts by hand, the order of its updates, its given priors (UDAL), and what it is refused beside."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor

from tailmatch.callbacks import DebiasPL, DistributionAlignment, FlexDA, LogitAdjustment
from tailmatch.datamodules import Digits, ListedCounts
from tailmatch.lightning_modules import ADELLO, FixMatch, MixMatch, SimPro, Supervised
from tailmatch.lightning_modules.pseudo_labels.flexda import flattening, flexda_shift
from tests.contract import run
from tests.lightning_modules.pixel_network import PixelNetwork

PRIOR, LABELED = torch.tensor([0.6, 0.3, 0.1]), torch.tensor([0.7, 0.2, 0.1])


def close(found: Tensor | None, *expected: float) -> None:
    assert found is not None
    torch.testing.assert_close(found, torch.tensor(expected), atol=1e-4, rtol=0)


def test_the_published_numbers() -> None:
    alpha = flattening(0.5, 0.1, 2.0)
    assert alpha == pytest.approx(0.775)
    close(flexda_shift(LABELED, PRIOR, alpha), 0.2497, -0.4659, -0.3076)
    close(flexda_shift(PRIOR, PRIOR, alpha), 0.0956, -0.0604, -0.3076)
    flat = PRIOR.log() - flexda_shift(PRIOR, PRIOR, flattening(1.0, 0.1, 2.0))
    close(flat.exp(), 0.3611, 0.3370, 0.3019)


def test_it_begins_with_no_unlabeled_shift_and_a_class_without_images_stays_finite() -> None:
    assert flattening(0.0, 0.1, 2.0) == 1
    close(flexda_shift(PRIOR, PRIOR, 1.0), 0.0, 0.0, 0.0)
    empty = torch.tensor([1.0, 0.0])
    for alpha in (1.0, 0.1):
        close(flexda_shift(empty, empty, alpha), 0.0, 0.0)
    assert flexda_shift(empty, torch.tensor([0.5, 0.5]), 0.5).isfinite().all()


def set_up(remedy: FlexDA, step: int, include: bool = False, method: Any = FixMatch) -> SimpleNamespace:
    """Set a remedy up for 100 steps of digits, with 3 labeled images of class 0 and one of each other class."""
    data = Digits(class_counts=ListedCounts([3] + [1] * 9, [6] * 10), include_labeled_in_unlabeled=include)
    data.setup("fit")
    trainer = SimpleNamespace(datamodule=data, max_steps=100, max_epochs=-1, global_step=step, limit_train_batches=1.0)
    trainer.accumulate_grad_batches = 1
    model = method(num_classes=10, network=PixelNetwork)
    remedy.setup(trainer, model, "fit")  # type: ignore[arg-type]
    return trainer


def rows(*largest: int) -> Tensor:
    made = torch.full((len(largest), 10), 0.01)
    made[range(len(largest)), list(largest)] = 0.91
    return made


def test_the_shifts_of_a_step_have_the_estimate_before_it() -> None:
    remedy = FlexDA(momentum=0.5)
    trainer = set_up(remedy, step=50)
    batch = rows(2, 2)
    assert torch.equal(remedy.refine(batch, torch.arange(2)), batch)
    labeled = torch.tensor([3.0] + [1.0] * 9) / 12
    uniform = torch.full((10,), 0.1)
    close(remedy.labeled_shift(), *flexda_shift(labeled, uniform, 0.775).tolist())
    close(remedy.unlabeled_shift(), *[0.0] * 10)
    estimate = (uniform + batch[0]) / 2
    close(remedy.unlabeled_prior(), *estimate.tolist())
    trainer.global_step = 100
    remedy.refine(batch, torch.arange(2))
    close(remedy.labeled_shift(), *flexda_shift(labeled, estimate, 0.1).tolist())
    close(remedy.unlabeled_shift(), *flexda_shift(estimate, estimate, 0.1).tolist())


def test_labeled_images_in_the_unlabeled_set_do_not_count() -> None:
    remedy = FlexDA(momentum=0.5)
    set_up(remedy, step=0, include=True)  # rows 0 to 11 are labeled
    remedy.refine(rows(0, 4, 0), torch.tensor([11, 12, 3]))
    close(remedy.unlabeled_prior(), *(0.05 + rows(4)[0] / 2).tolist())
    before = remedy.unlabeled_prior().clone()
    remedy.refine(rows(0, 0), torch.tensor([0, 11]))  # none of the batch counts
    torch.testing.assert_close(remedy.unlabeled_prior(), before)


@pytest.mark.parametrize(
    ("target", "expected"),
    [("labeled", [3.0] + [1.0] * 9), ("oracle", [6.0] * 10), ([float(k) for k in range(1, 11)], range(1, 11))],
)
def test_a_given_prior_stays(target: Any, expected: Any) -> None:
    remedy = FlexDA(target)
    set_up(remedy, step=50)
    prior = torch.tensor([float(k) for k in expected])
    for _ in range(2):
        remedy.refine(rows(2, 2), torch.arange(2))
        close(remedy.unlabeled_shift(), *flexda_shift(prior / prior.sum(), prior / prior.sum(), 0.775).tolist())
    if target == "labeled":  # UDAL: both losses have the same shift
        close(remedy.labeled_shift(), *remedy.unlabeled_shift().tolist())  # type: ignore[union-attr]


def test_a_resumed_estimate_continues_on_every_kind_of_method(tmp_path: Path) -> None:
    first = FlexDA(momentum=0.5)
    set_up(first, step=10)
    first.refine(rows(2, 3), torch.arange(2))
    second = FlexDA(momentum=0.5)
    set_up(second, step=10, method=MixMatch)
    second.load_state_dict(first.state_dict())
    for remedy in (first, second):
        remedy.refine(rows(5), torch.arange(1))
    assert torch.equal(first.unlabeled_prior(), second.unlabeled_prior())
    assert torch.equal(first.labeled_shift(), second.labeled_shift())  # type: ignore[arg-type]


class Forget(Callback):
    """Makes the training's length unknown."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        trainer.fit_loop.max_epochs = -1


@pytest.mark.parametrize(
    ("method", "others", "message"),
    [
        (Supervised, [], "FlexDA shifts the losses of pseudo-labels, and Supervised has none"),
        (SimPro, [], "FlexDA corrects for the class prior, and so does SimPro itself: leave FlexDA out"),
        (FixMatch, [DistributionAlignment()], "FlexDA and DistributionAlignment both correct for the class prior"),
        (ADELLO, [DebiasPL()], "DebiasPL and FlexDA both correct for the class prior"),
        (FixMatch, [LogitAdjustment()], "those of this FixMatch are trained to be without it"),
        (FixMatch, [Forget()], "max_steps is -1 and trainer.max_epochs -1; set one of them"),
    ],
)
def test_what_it_does_not_go_with(method: Any, others: list[Callback], message: str, tmp_path: Path) -> None:
    remedies = [FlexDA()] if method is not ADELLO else []
    with pytest.raises(ValueError, match=message):
        run(method, tmp_path, *remedies, *others)


@pytest.mark.parametrize(
    ("name", "value"), [("alpha_min", 0.0), ("alpha_min", 1.5), ("power", 0.0), ("momentum", 1.0), ("target", [-1.0])]
)
def test_bad_values_are_named(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"{name}(\[0\])? is"):
        FlexDA(**{name: value})
