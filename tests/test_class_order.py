"""Every method and every remedy follows its classes: in another order of them, all results are permuted."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tailmatch.lightning_modules import FixMatch, ImageClassifier
from tailmatch.lightning_modules.bases.pretraining import Pretraining
from tests.contract import METHODS, NO_REMEDY, REMEDIES, Case, each
from tests.joint_batches import without_draws
from tests.permuted_classes import assert_follows_classes


def permutable() -> list[Case]:
    """List every method but pre-trainings, which have no classes, and those that label a whole set between steps."""
    methods = [kind for kind in METHODS if not issubclass(kind, Pretraining) and not kind.reads_pseudo_labels]
    remedies: list[Case] = [
        (kind, name)
        for name, remedy in REMEDIES.items()
        for kind in [next(kind for kind in (FixMatch, *methods) if remedy.works_with(kind))]
    ]
    return [(kind, NO_REMEDY) for kind in methods] + remedies


@pytest.mark.parametrize(("method", "remedy"), each(permutable()))
def test_permuted_classes_have_permuted_results(method: type[ImageClassifier], remedy: str, tmp_path: Path) -> None:
    remedies: Any = list if remedy == NO_REMEDY else lambda: [REMEDIES[remedy].make()]
    assert_follows_classes(partial(method, **without_draws(method)), tmp_path, remedies)


class ByNumber(FixMatch):
    """Trusts the first classes more than the others, as if they were the frequent ones."""

    def weigh(self, probs: Tensor, refined: Tensor, index: Tensor, labeled: Tensor | None) -> Tensor:
        return (refined.argmax(dim=1) < 5).float()


class ByRunningClass(FixMatch):
    """Keeps a buffer of the classes that is moved by their number."""

    def __init__(self, num_classes: int, **kwargs: Any) -> None:
        super().__init__(num_classes, threshold=0.2, **kwargs)
        self.register_buffer("seen", torch.zeros(num_classes))

    def weigh(self, probs: Tensor, refined: Tensor, index: Tensor, labeled: Tensor | None) -> Tensor:
        self.get_buffer("seen").add_(torch.arange(10))
        return super().weigh(probs, refined, index, labeled)


@pytest.mark.parametrize("method", [ByNumber, ByRunningClass])
def test_a_method_that_goes_by_the_number_of_a_class_is_found(method: type[FixMatch], tmp_path: Path) -> None:
    with pytest.raises(AssertionError):
        assert_follows_classes(method, tmp_path)
