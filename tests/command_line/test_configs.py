"""The YAML files: their headers, and the settings that they promise; `tests/docs/test_commands.py` builds them all."""

import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from tailmatch.callbacks import DARP, LastEvaluations
from tailmatch.command_line.lightning_cli import TailmatchCLI
from tailmatch.command_line.studies.cells import cells_of
from tailmatch.command_line.studies.reading import read_study
from tailmatch.lightning_modules.training.length import total_steps

ROOT = Path(__file__).parent.parent.parent / "configs"
FILES = sorted(str(path.relative_to(ROOT)) for path in ROOT.rglob("*.yaml"))
STUDIES = [file for file in FILES if file.startswith("studies/") and file != "studies/search.yaml"]  # no cells yet
DATA, METHOD = "data/digits_lt.yaml", "methods/fixmatch.yaml"


class Built(TailmatchCLI):
    """Parses and builds everything, and does not run."""

    def before_instantiate_classes(self) -> None:
        self.config[self.subcommand].run_dir = "not-made"

    def _run_subcommand(self, subcommand: str) -> None:
        pass


def build(*args: str) -> Built:
    sys.argv = ["tailmatch"]
    return Built(["fit", *args])


def composition(file: str) -> list[str]:
    """The options of a file and, unless it is a whole run, of what it is laid over."""
    base = [DATA] if file.startswith("pretraining/") else [DATA, METHOD]
    return [word for name in (*base, file) for word in ("--config", str(ROOT / name))]


def test_headers_name_a_command_or_what_is_overlaid() -> None:
    for file in FILES:
        head = (ROOT / file).read_text().split("\n")
        comments = [line for line in head if line.startswith("#")]
        assert comments, file
        assert file.split("/")[0] in ("trainer",) or any(
            part in line
            for line in comments
            for part in ("tailmatch fit", "tailmatch test", "tailmatch sweep", "overlay on")
        ), file


def test_headers_begin_with_a_description_and_name_files_that_exist() -> None:
    for file in FILES:
        text = (ROOT / file).read_text()
        first = text.split("\n")[0]
        assert re.fullmatch(r"# [A-Z].*[.]", first, re.IGNORECASE) and len(first) <= 112, file
        named = re.findall(r"--config ([^\s\]]+)|(?<= )([a-z]+/\w+\.yaml)", text)
        missing = [name for name in (one or other for one, other in named) if name not in FILES]
        assert not missing, f"{file}: {missing}"


def test_studies_name_their_command_and_have_a_folder_for_each_cell() -> None:
    for file in STUDIES:
        study = read_study(ROOT / file)
        assert f"#   tailmatch sweep {file}" in study.text, file
        cells = cells_of(study)
        assert len({cell.name.casefold() for cell in cells}) == len(cells) > len(study.seeds), file


def test_published_numbers_of_studies_are_beside_a_row() -> None:
    assert any("published:" in (ROOT / file).read_text() for file in STUDIES)
    for file in STUDIES:
        study = read_study(ROOT / file)
        rows = {frozenset(cell.levels.items()) for cell in cells_of(study) if cell.shown}
        for table in yaml.safe_load(study.text).get("published", []):
            assert table["unit"] == "percent" and table["metric"] in ("balanced_accuracy", "gm_recall", "top1"), file
            named = [frozenset((axis, str(level)) for axis, level in row["where"].items()) for row in table["rows"]]
            assert len(set(named)) == len(named), f"{file}: a row twice"
            assert set(named) <= rows, f"{file}: {set(named) - rows}"
            assert all(1 < row["mean"] < 100 for row in table["rows"]), file


def settings(*args: str) -> Any:
    return build("--config", str(ROOT / DATA), "--config", str(ROOT / METHOD), *args).model


def test_overlays_change_what_they_name() -> None:
    smoothed = settings("--config", str(ROOT / "methods/smoothed_fixmatch.yaml"))
    assert smoothed.label_smoothing == 0.1 and smoothed.threshold == 0.95
    built = build(
        *composition("methods/fashion_fixmatch.yaml"),
        "--config",
        str(ROOT / "methods/over_fixmatch.yaml"),
    )
    assert (built.model.threshold, built.model.lambda_u) == (0.85, 3.0)
    assert (built.datamodule.unlabeled_ratio, built.datamodule.labeled_sampling) == (3, "balanced")


def test_the_length_of_the_long_tailed_tables() -> None:
    callbacks = composition("callbacks/darp.yaml")[4:]  # which has the last evaluations too
    built = build(*composition("trainer/long_tail.yaml"), *callbacks)
    assert built.datamodule.steps_per_epoch == 500 and built.trainer.max_steps == 250_000
    [last] = [each for each in built.trainer.callbacks if isinstance(each, LastEvaluations)]
    assert last.n == 20 and total_steps(built.trainer) == 250_000


def test_pretraining_files_are_the_authors_settings() -> None:
    small = build(*composition("pretraining/moco_small.yaml")).model
    assert (small.queue.shape, small.momentum, small.temperature) == ((4096, 128), 0.99, 0.1)
    assert small.view.blur.probability == 0 and small.view.crop.scale == (0.08, 1.0)
    imagenet = build(*composition("pretraining/moco_imagenet.yaml")).model
    assert (imagenet.queue.shape, imagenet.momentum, imagenet.temperature) == ((65536, 128), 0.999, 0.2)
    assert imagenet.view.crop.size == 224 and imagenet.view.crop.scale == (0.2, 1.0)
    rotation = build(*composition("pretraining/rotation.yaml"), "--model.lr_scheduler.total_steps=200").model
    assert rotation._averaging is None and not rotation.all_rotations
    [group] = rotation.configure_optimizers()["optimizer"].param_groups
    assert group["lr"] == pytest.approx(0.1 / 5) and group["weight_decay"] == 2e-4


def test_darp_files_are_the_lines_of_the_authors_script() -> None:
    every_100 = ["--config", str(ROOT / "callbacks/darp_every_100.yaml")]
    cifar = build(*composition("experiments/mixmatch_darp_cifar100.yaml"), *every_100)
    labeled, unlabeled = cifar.datamodule.class_counts_rule.counts([500] * 100)
    assert (labeled[0], labeled[-1], unlabeled[0], unlabeled[-1]) == (300, 15, 150, 7)
    stl = build(*composition("experiments/mixmatch_darp_stl10.yaml"), *every_100, "--trainer.callbacks.target=a.json")
    labeled, unlabeled = stl.datamodule.class_counts_rule.counts([500] * 10)
    assert (labeled[0], labeled[-1], unlabeled, stl.datamodule.image_size) == (450, 22, [0] * 10, 32)
    for built, target in ((cifar, None), (stl, "a.json")):
        [darp] = [callback for callback in built.trainer.callbacks if isinstance(callback, DARP)]
        assert (darp.refine_every, darp.solver.alpha, darp.warmup_epochs, darp.target) == (100, 2.0, 200, target)
        assert built.trainer.max_epochs * built.datamodule.steps_per_epoch == 500 * 500
        assert (built.model.lambda_u, built.model.temperature, built.model.network.normalization_is_fixed) == (
            75,
            0.5,
            True,
        )


def test_a_class_named_anew_starts_from_its_own_defaults() -> None:
    model = settings("--model.optimizer=torch.optim.AdamW", "--model.lr_scheduler.total_steps=5")
    adam = model.configure_optimizers()["optimizer"]
    assert type(adam).__name__ == "AdamW"
    assert adam.defaults["weight_decay"] == 0.01 and adam.defaults["lr"] == 1e-3  # not FixMatchSGD's
    assert settings("--model.network=CifarResNet").network is not None  # depth 32, not 28


def test_one_argument_of_a_default_class_can_be_changed() -> None:
    model = settings("--model.optimizer.lr=0.5", "--model.network.depth=10", "--model.lr_scheduler.total_steps=5")
    sgd = model.configure_optimizers()["optimizer"]
    assert sgd.defaults["lr"] == 0.5 and sgd.defaults["momentum"] == 0.9 and sgd.defaults["nesterov"]
    assert sum(p.numel() for p in model.network.parameters()) < 350_000


def test_null_can_be_typed_for_an_argument_of_an_argument(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", lambda *args, **kwargs: pytest.fail("weights fetched"))
    small = ["class_path=TorchvisionNetwork", "name=mnasnet0_5", "weights=DEFAULT"]
    plain = settings(*[f"--model.network.{argument}" for argument in (*small, "weights=null")])
    assert plain.network.feature_dim == 1280
    outer = ["class_path=CategoryNetwork", "levels=[size]"]
    inner = [f"network.{argument}" for argument in (*small, "weights=null")]
    nested = settings(*[f"--model.network.{argument}" for argument in (*outer, *inner)])
    assert nested.network.feature_dim == 1280 + 18
