"""ADELLO's loss by hand: FixMatch's, shifted, and soft targets for the images that it leaves out."""

import math
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from tailmatch.callbacks import FlexDA
from tailmatch.lightning_modules import ADELLO, FixMatch
from tests.contract import at_epoch_ends, run, saved
from tests.lightning_modules.pixel_network import PixelNetwork, image

LABELED_SHIFT, UNLABELED_SHIFT = [0.2497, -0.4659, -0.3076], [0.0956, -0.0604, -0.3076]
STRONG = [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]


class Shifts:
    """The shifts of the published numbers."""

    balances = True

    def labeled_shift(self) -> Tensor:
        return torch.tensor(LABELED_SHIFT)

    def unlabeled_shift(self) -> Tensor:
        return torch.tensor(UNLABELED_SHIFT)


def step(global_step: int, **arguments: float) -> tuple[float, dict[str, Tensor]]:
    method = ADELLO(num_classes=3, network=PixelNetwork, strong_views=2, **arguments)  # type: ignore[arg-type]
    trainer = SimpleNamespace(datamodule=None, max_steps=100, max_epochs=-1, global_step=global_step)
    method.trainer = trainer  # type: ignore[assignment]
    method.add_shift(Shifts())
    logged: dict[str, Tensor] = {}
    method.track = logged.update  # type: ignore[method-assign,assignment]
    strong = torch.cat([image(*row) for row in STRONG])
    batch = {
        "labeled": {"weak": image(1, 0, 0), "target": torch.tensor([1])},
        "unlabeled": {
            "weak": torch.cat([image(5, 0, 0), image(0, 0, 1)]),  # one confident, one not
            "strong": [strong, strong],
            "index": torch.tensor([4, 2]),
        },
    }
    return method.training_step(batch, 0).item(), logged


def cross_entropy(target: list[float], logits: list[float], shift: list[float]) -> float:
    shifted = [z + s for z, s in zip(logits, shift, strict=True)]
    total = math.log(sum(math.exp(z) for z in shifted))
    return sum(t * (total - z) for t, z in zip(target, shifted, strict=True))


LABELED = cross_entropy([0, 1, 0], [1, 0, 0], LABELED_SHIFT)
CONFIDENT = cross_entropy([1, 0, 0], STRONG[0], UNLABELED_SHIFT) / 2
SOFT = [1 / (2 + math.e), 1 / (2 + math.e), math.e / (2 + math.e)]
COMPLEMENTARY = cross_entropy(SOFT, STRONG[1], UNLABELED_SHIFT) / 2


def test_the_complementary_term_begins_at_its_share_of_the_training() -> None:
    before, logged = step(19)
    assert before == pytest.approx(LABELED + CONFIDENT, abs=1e-5)
    assert logged["loss_complementary"].item() == pytest.approx(COMPLEMENTARY, abs=1e-5)
    assert step(20)[0] == pytest.approx(LABELED + CONFIDENT + COMPLEMENTARY, abs=1e-5)
    assert step(0, complementary_start=0.0, lambda_c=3.0, lambda_u=2.0)[0] == pytest.approx(
        LABELED + 2 * CONFIDENT + 3 * COMPLEMENTARY, abs=1e-5
    )


def test_without_the_term_it_is_fixmatch_with_flexda(tmp_path: Path) -> None:
    state: list[dict[str, Tensor]] = []
    for method, remedies in ((partial(ADELLO, lambda_c=0.0), []), (partial(FixMatch, threshold=0.2), [FlexDA()])):
        run(method, tmp_path, *remedies, at_epoch_ends(tmp_path), max_steps=3, limit_val_batches=0)
        state.append(saved(tmp_path)["state_dict"])
    assert state[0].keys() == state[1].keys()
    for name, value in state[0].items():
        assert torch.equal(value, state[1][name]), name


def test_it_brings_flexda_unless_there_is_one(tmp_path: Path) -> None:
    own = FlexDA("labeled")
    for given, expected in (([], None), ([own], "labeled")):
        trainer = run(ADELLO, tmp_path, *given, max_steps=1, limit_val_batches=0, enable_checkpointing=False)
        [found] = [each for each in trainer.callbacks if isinstance(each, FlexDA)]  # type: ignore[attr-defined]
        assert found.target == expected and trainer.lightning_module.balanced_evaluation


@pytest.mark.parametrize(("name", "value"), [("lambda_c", -1.0), ("complementary_start", 1.5)])
def test_bad_values_are_named(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{name} is {value}"):
        ADELLO(num_classes=3, network=PixelNetwork, **{name: value})  # type: ignore[arg-type]
