"""What an object was made with: as plain data, and what is none."""

import copy
import inspect
import pickle
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tailmatch.lightning_modules import FixMatch
from tailmatch.lightning_modules.checkpoints.description import Described, NotPlainData, class_path, described
from tailmatch.lightning_modules.losses import DeferredReweighting, InverseWeights
from tailmatch.lightning_modules.networks import CategoryNetwork, CifarResNet, WideResNet
from tailmatch.lightning_modules.views import StrongView, WeakView


def test_plain_values_stay_and_others_become_plain() -> None:
    assert described([1, 2.5, "a", None, True, {"b": (3,)}]) == [1, 2.5, "a", None, True, {"b": [3]}]
    assert (described(np.float32(0.5)), type(described(np.int64(3)))) == (0.5, int)
    assert described(Path("a/b")) == "a/b"


def test_classes_of_ours_are_named_with_their_arguments() -> None:
    names = "tailmatch.lightning_modules"
    assert described(StrongView(weak=WeakView(flip=False)))["init_args"] == {
        "weak": {"class_path": f"{names}.views.WeakView", "init_args": {"flip": False}}
    }
    deferred = described(DeferredReweighting(InverseWeights(), start_share=0.8))
    assert deferred["init_args"] == {
        "weights": {"class_path": f"{names}.losses.InverseWeights", "init_args": {}},
        "start_share": 0.8,
    }
    factory = {"class_path": f"{names}.networks.CifarResNet", "init_args": {"depth": 8}}
    assert described(partial(CifarResNet, depth=8)) == factory
    assert described(CifarResNet(3, depth=8)) == factory  # as in a configuration, without the number of classes
    assert described(CategoryNetwork(3, ["color"], lambda k: CifarResNet(k, depth=8)))["init_args"] == {
        "levels": ["color"],
        "network": factory,
    }
    assert described(torch.optim.SGD)["class_path"] == "torch.optim.SGD"


class OfThisFile(Described):
    def __init__(self, size: int, *more: int, **named: object) -> None:
        self.size = size


@pytest.mark.parametrize(
    ("value", "what"),
    [
        (lambda k: k, "the function <lambda>"),
        (nn.Linear(2, 2), "a torch.nn.modules.linear.Linear"),
        (OfThisFile(1, named=print), "a OfThisFile whose named is the function print"),
        (partial(CifarResNet, depth=object()), "a builtins.object"),
    ],
)
def test_code_and_other_objects_are_no_plain_data(value: object, what: str) -> None:
    with pytest.raises(NotPlainData, match=what):
        described(value)


def test_a_class_that_cannot_be_imported_has_no_path() -> None:
    class Local(WideResNet):
        pass

    with pytest.raises(NotPlainData, match="Local of .*, which cannot be imported"):
        class_path(Local)


def test_the_signature_is_that_of_init_and_an_instance_has_none() -> None:
    assert list(inspect.signature(FixMatch).parameters)[:2] == ["num_classes", "threshold"]
    assert list(inspect.signature(OfThisFile).parameters) == ["size", "more", "named"]
    assert not hasattr(OfThisFile(1), "__signature__")
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'num_classes'"):
        FixMatch()  # type: ignore[call-arg]


def test_copies_know_what_the_original_was_made_with() -> None:
    network = CifarResNet(3, depth=8)
    for other in (copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
        assert described(other) == described(network)


class Own(FixMatch):
    def __init__(self, num_classes: int, **options: Any) -> None:
        mine = options.pop("mine")
        super().__init__(num_classes, **options)
        self.mine = mine


def test_an_unknown_argument_is_said_of_the_class_that_was_called() -> None:
    for kind, wrong, said in (
        (FixMatch, {"treshold": 0.9}, "FixMatch has no argument 'treshold'; did you mean 'threshold'?"),
        (FixMatch, {"netwrk": None}, "FixMatch has no argument 'netwrk'; did you mean 'network'?"),
        (CifarResNet, {"dept": 8}, "CifarResNet has no argument 'dept'; did you mean 'depth'?"),
    ):
        with pytest.raises(TypeError) as caught:
            kind(10, **wrong)
        assert str(caught.value) == said
    assert Own(10, mine=3, network=CifarResNet(10, depth=8)).mine == 3  # what takes any name takes this one
