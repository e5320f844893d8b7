"""What differs between the weights of a checkpoint and a method is said in a few lines."""

from pathlib import Path
from typing import Any

import pytest
import torch

from tailmatch.datamodules.arguments import SettingsError
from tailmatch.lightning_modules import FixMatch, MixMatch, Supervised
from tailmatch.lightning_modules.checkpoints.differences import differing_settings, differing_tensors
from tailmatch.lightning_modules.networks import CifarResNet, WideResNet
from tests.typed import call_here


def described(name: str, **arguments: Any) -> dict[str, Any]:
    return {"class_path": f"tailmatch.lightning_modules.{name}", "init_args": arguments}


RESNET = described("networks.CifarResNet", depth=8)


@pytest.mark.parametrize(
    ("there", "here", "said"),
    [
        (described("A", network=RESNET), described("A", network=RESNET), ""),
        (None, described("A"), ""),
        (described("A"), described("B"), "class is A there and B here"),
        (
            described("A", network=RESNET, threshold=0.9),
            described("A", network=described("networks.CifarResNet", depth=20)),
            "network.depth is 8 there and 20 here",
        ),
        (
            described("A", network=RESNET),
            described("A", network=described("networks.WideResNet", widen=4)),
            "network.class is CifarResNet there and WideResNet here",
        ),
        (described("A", queue=8), described("A"), "queue is 8 there and the default here"),
    ],
)
def test_differing_settings(there: Any, here: Any, said: str) -> None:
    assert differing_settings(there, here) == said


def test_differing_tensors_are_counted_and_the_first_ones_named() -> None:
    own = {name: torch.zeros(2) for name in "abcde"}
    state = {"a": torch.zeros(3), "x": torch.zeros(1)}
    assert differing_tensors(own, state) == (
        "4 missing: b, c, d, ...; 1 unexpected: x; 1 of another shape: a [3] instead of [2]"
    )


def test_a_method_that_is_given_other_weights_says_so() -> None:
    weights = FixMatch(3, network=CifarResNet(3, depth=8)).state_dict()
    FixMatch(3, network=CifarResNet(3, depth=8)).load_state_dict(weights)
    for other in (MixMatch(3, network=WideResNet(3, 10, 1)), Supervised(4, network=CifarResNet(4, depth=8))):
        with pytest.raises(SettingsError, match="the weights of the checkpoint do not fit this method") as caught:
            other.load_state_dict(weights)
        assert len(str(caught.value).splitlines()) == 3


def test_a_test_with_another_network_names_the_file_and_the_difference(tmp_path: Path) -> None:
    model = FixMatch(10, network=CifarResNet(10, depth=8))
    content: dict[str, Any] = {"state_dict": model.state_dict(), "epoch": 0, "global_step": 0, "loops": {}}
    content |= {"pytorch-lightning_version": "2.6.6", "callbacks": {}, "class_names": [str(k) for k in range(10)]}
    content["method"] = described("FixMatch", **model.init_args)
    file = tmp_path / "a.ckpt"
    words = ["test", "--config={}", "--data=Digits", "--data.image_size=8", "--model=FixMatch"]
    words += ["--model.network=CifarResNet", f"--run_dir={tmp_path}", f"--ckpt_path={file}"]
    words += ["--trainer.accelerator=cpu", "--trainer.logger=false"]
    for change, depth, said in (
        ({}, 14, "network.depth is 8 there and 14 here"),
        ({"state_dict": [1]}, 8, f"checkpoint {file} has state_dict of another type"),
        ({"epoch": None}, 8, f"checkpoint {file} has no epoch"),
    ):
        torch.save({name: value for name, value in {**content, **change}.items() if value is not None}, file)
        result = call_here(*words, f"--model.network.depth={depth}")
        assert result.returncode == 1 and "Traceback" not in result.stderr
        end = result.stderr[result.stderr.rindex("tailmatch: error:") :]
        assert said in end and str(file) in end and len(end.splitlines()) <= 3


def test_numbers_of_another_type_are_not_converted() -> None:
    model = FixMatch(3, network=CifarResNet(3, depth=8))
    state = model.state_dict()
    for dtype, fits in ((torch.complex64, False), (torch.int64, False), (torch.float64, True), (torch.bfloat16, True)):
        given = {**state, "network.head.bias": state["network.head.bias"].to(dtype)}
        if fits:
            model.load_state_dict(given)
            continue
        with pytest.raises(SettingsError, match=f"1 of another type: network.head.bias {dtype} instead of"):
            model.load_state_dict(given)


def test_a_state_dict_does_not_say_its_run(tmp_path: Path) -> None:
    file = tmp_path / "weights.ckpt"
    torch.save({"state_dict": {}}, file)
    result = call_here("test", f"--ckpt_path={file}", f"--run_dir={tmp_path}")
    assert result.returncode == 1 and f"checkpoint {file} does not contain the settings of its run" in result.stderr
