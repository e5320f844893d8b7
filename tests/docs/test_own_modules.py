"""The network, the data and the callback of docs/own-modules.md, as they stand there, and their commands."""

import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.typed import call_here

PAGE = Path(__file__).parents[2] / "docs" / "own-modules.md"
SMALL = "--trainer.accelerator=cpu --trainer.max_epochs=1 --data.steps_per_epoch=2 --trainer.enable_progress_bar=false"
RUN = [*SMALL.split(), "--trainer.logger=false"]


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[list[str]]]:
    """The page's commands, in a folder with the page's module and data."""
    text = PAGE.read_text()
    (tmp_path / "my_modules.py").write_text("".join(re.findall(r"```python\n(.*?)```", text, re.DOTALL)))
    random = np.random.default_rng(0)
    images = random.integers(0, 255, (150, 12, 12, 3), dtype=np.uint8)
    np.savez(tmp_path / "shop.npz", images=images, targets=np.arange(150) % 3)
    monkeypatch.chdir(tmp_path)
    [block] = re.findall(r"```\n(tailmatch fit.*?)```", text, re.DOTALL)
    yield [shlex.split(line)[1:] for line in block.replace("\\\n", "").splitlines()]
    sys.modules.pop("my_modules", None)


def test_own_modules_train_and_are_evaluated(commands: list[list[str]], tmp_path: Path) -> None:
    fit, validate = commands
    result = call_here(*fit, *RUN)
    assert result.returncode == 0, result.stderr
    content = torch.load(tmp_path / "runs/own/checkpoints/best.ckpt", weights_only=True)
    assert content["state_dict"]["network.backbone.features.0.weight"].shape == (32, 3, 3, 3)
    result = call_here(*validate)
    assert result.returncode == 0 and "worst_class" in result.stdout
    sys.modules.pop("my_modules")
    stranger = call_here("validate", "--ckpt_path=runs/own/checkpoints/best.ckpt", "--run_dir=elsewhere")
    assert stranger.returncode == 1 and "my_modules" in stranger.stderr and "trust" in stranger.stderr
    assert "my_modules" not in sys.modules  # nothing of it was run


def test_a_function_makes_a_network(commands: list[list[str]], tmp_path: Path) -> None:
    with (tmp_path / "my_modules.py").open("a") as file:
        file.write("\n\ndef make(num_classes: int) -> nn.Module:\n    return TwoLayers(num_classes, 8)\n")
    options = ["--model=Supervised", "--model.network=my_modules.make", "--data=my_modules.Archive"]
    result = call_here("fit", *options, "--data.file=shop.npz", "--data.val_holdout=2", "--run_dir=run", *RUN)
    assert result.returncode == 0, result.stderr
    result = call_here("validate", "--run_dir=run", "--ckpt_path=best")
    assert result.returncode == 0, result.stderr
