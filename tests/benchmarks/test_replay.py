"""A replay has the convolutions and normalizations of the step that it stands for, of every method and remedy."""

from argparse import Namespace
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning import Callback, Trainer
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks import methods
from benchmarks.replay import Recorder, Replay
from tailmatch.lightning_modules.networks import CifarResNet

STEPS = 3
COMMON = ("FixMatch", "MixMatch", "ReMixMatch", "SimPro", "MeanTeacher", "CoSSL", "MetaExpert", "MoCoPretraining")
SMALL: dict[str, Any] = {
    "steps": STEPS + 1,
    "network": partial(CifarResNet, depth=8),
    "batch_size": 4,
    "accelerator": "cpu",
}
pytestmark = pytest.mark.filterwarnings("ignore:Total length of", "ignore:.*does not have many workers")


class Kernels(TorchDispatchMode):
    """Counts the convolutions and normalizations of feature maps, by their shapes, and by the mode of the latter."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[tuple[Any, ...]] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if "convolution" in name or ("batch_norm" in name and args[0].ndim == 4):
            shapes = [tuple(each.shape) for each in args if isinstance(each, torch.Tensor)]
            modes = [each for each in args if isinstance(each, bool)]
            self.found[(name, *shapes, *modes)] += 1
        return func(*args, **(kwargs or {}))


class OfLastStep(Callback):
    """Keeps what was counted in the newest step."""

    def __init__(self, kernels: Kernels) -> None:
        self.kernels = kernels
        self.found: Counter[tuple[Any, ...]] = Counter()

    def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
        self.found, self.kernels.found = self.kernels.found, Counter()


def convolutions(found: Counter[tuple[Any, ...]]) -> Counter[tuple[Any, ...]]:
    return Counter({kernel: count for kernel, count in found.items() if "convolution" in kernel[0]})


def marked(name: str) -> Any:
    return pytest.param(name, marks=[] if name in COMMON else pytest.mark.exhaustive)


@pytest.mark.parametrize("name", [marked(name) for name in methods.rows(None)])
def test_replay_has_the_convolutions_of_the_step(name: str, tmp_path: Path) -> None:
    recorder = Recorder()
    with Kernels() as kernels:
        last = OfLastStep(kernels)
        trainer = methods.trained(methods.rows([name])[name], tmp_path, recorder, last, **SMALL)
        replay = Replay(trainer, recorder.steps[-1])
        replay.check(recorder)
        kernels.found.clear()
        replay.train([torch.rand(each.shape) for each in replay.step.passes])
    assert convolutions(kernels.found)
    assert convolutions(kernels.found) == convolutions(last.found)
    assert kernels.found <= last.found  # the heads of CPE and MetaExpert normalize feature maps, too


def test_replay_that_misses_a_pass_is_refused(tmp_path: Path) -> None:
    recorder = Recorder()
    trainer = methods.trained(methods.rows(["MixMatch"])["MixMatch"], tmp_path, recorder, **SMALL)
    step = recorder.steps[-1]
    Replay(trainer, step).check(recorder)
    passed = f"{step.images_of_passes}"
    for index, missed in enumerate(step.passes):
        others = [each for each in step.passes if each is not missed]
        with pytest.raises(RuntimeError, match="images pass with gradient and without, in training") as error:
            Replay(trainer, replace(step, passes=others)).check(recorder)
        assert passed in str(error.value), index


def test_all_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(methods, "trained", partial(methods.trained, network=SMALL["network"]))
    options = Namespace(steps=STEPS, batch_size=4, unlabeled_ratio=2, accelerator="cpu", workers=1)
    found = {name: [methods.measure(row, tmp_path, options)] for name, row in methods.rows(["CCL", "FixMatch"]).items()}
    first, ccl = found["FixMatch"][0], found["CCL"][0]
    assert first.images == [12, 8]
    assert ccl.images == [28, 8]
    assert min(first.ours, first.bare, first.usual) > 0
    header, rule, *lines = methods.table(found).splitlines()
    assert {line.count("|") for line in (header, rule, *lines)} == {10}
    cells = lines[0].split(" | ")
    assert float(cells[2]) == pytest.approx(first.ours / first.bare, abs=0.006)
    assert float(cells[3]) == pytest.approx(first.usual / first.bare, abs=0.006)
    assert cells[4:7] == ["1.00", "12", "8"]
