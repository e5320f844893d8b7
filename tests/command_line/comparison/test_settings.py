"""Which settings tell runs apart."""

from typing import Any

import pytest

from tailmatch.command_line.comparison.settings import NONE, columns_of, flat_settings, titles
from tests.command_line.made_up_runs import config

DARP = {"class_path": "tailmatch.callbacks.DARP", "init_args": {"alpha": 2.0, "target": "unlabeled"}}
REPORTS = [
    {"class_path": "tailmatch.callbacks.LastEvaluations", "init_args": {"n": 5}},
    {"class_path": "pytorch_lightning.callbacks.LearningRateMonitor"},
]


def columns(*configs: dict[str, Any]) -> tuple[list[str], list[tuple[str, ...]], list[str]]:
    found = columns_of([flat_settings(each) for each in configs], [str(each["seed_everything"]) for each in configs])
    return found.titles, found.values, [name for name, _ in found.beside]


def test_what_differs_becomes_the_columns() -> None:
    many = [
        config(seed=0),
        config(seed=1),
        config(callbacks=[DARP, *REPORTS]),
        config(callbacks=[DARP | {"init_args": {"alpha": 1.5, "target": "unlabeled"}}]),
        config(callbacks=REPORTS, threshold=0.9),
        config("MixMatch"),
    ]
    titles, values, _ = columns(*many)
    assert titles == ["method", "callbacks", "DARP.alpha"]  # one threshold alone is no difference
    assert values[0] == values[1] == values[4] == ("FixMatch", "none", NONE) and values[5][0] == "MixMatch"
    assert values[2:4] == [("FixMatch", "DARP", "2.0"), ("FixMatch", "DARP", "1.5")]


def test_places_and_devices_are_no_settings() -> None:
    other = config(seed=3, data={"root": "elsewhere", "num_workers": 4, "eval_batch_size": 7, "seed": 3})
    other["trainer"] |= {"devices": [1], "accelerator": "gpu", "log_every_n_steps": 3}
    assert columns(config(), other)[:2] == (["method"], [("FixMatch",)] * 2)


def test_a_setting_that_follows_from_another_is_named_beside_it() -> None:
    network = {"class_path": "tailmatch.lightning_modules.networks.WideResNet", "init_args": {"depth": 28}}
    titles, values, beside = columns(config(), config("MixMatch", network=network))
    assert titles == ["method"] and values == [("FixMatch",), ("MixMatch",)]
    assert beside == ["model.network", "model.network.depth"]


def test_a_teacher_of_each_seed_is_one_setting() -> None:
    runs = [config(seed=seed, teacher=f"runs/{kind}-{seed}/checkpoints/last.ckpt") for kind in "ab" for seed in (0, 1)]
    titles, values, _ = columns(*runs)
    assert titles == ["teacher"] and values[0] == values[1] != values[2] == values[3]
    rates = [config(seed=seed, teacher=f"runs/t-0.1-seed{seed}/labels.npz") for seed in (0, 1, 2)]
    assert len(set(columns(*rates)[1])) == 1  # the digits of 0.1 are no seeds
    fixed = [config(seed=seed, pretrained="weights/net-0.pth") for seed in (0, 1)]
    assert len(set(columns(*fixed)[1])) == 1


def test_a_setting_that_another_version_lacks_divides_nothing() -> None:
    runs = [config(), config(soft_targets=False), config(callbacks=[DARP], soft_targets=True)]
    titles, values, _ = columns(*runs)
    assert titles == ["callbacks"] and values == [("none",), ("none",), ("DARP",)]


def test_long_values_are_cut_if_they_can_be_told_apart() -> None:
    lists = [config(prior=[number] * 40) for number in (1, 2)]
    assert all(len(value) <= 32 and value.endswith("…") for (value,) in columns(*lists)[1])
    tails = [config(prior=[0] * 40 + [number]) for number in (1, 2)]
    assert len(set(columns(*tails)[1])) == 2
    paths = [config(pretrained=f"/a/very/long/folder/of/some/user/{name}.pth") for name in ("a", "b")]
    assert columns(*paths)[1] == [("…/a.pth",), ("…/b.pth",)]


def test_classes_of_others_keep_their_path() -> None:
    mine = config()
    mine["model"]["class_path"] = "mine.FixMatch"
    assert columns(config(), mine)[1] == [("FixMatch",), ("mine.FixMatch",)]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["model", "model.optimizer.lr"], ["method", "lr"]),
        (["model.optimizer.lr", "model.head.lr"], ["optimizer.lr", "head.lr"]),
        (["DARP.alpha", "data"], ["DARP.alpha", "data"]),
    ],
)
def test_titles_are_as_short_as_they_may_be(names: list[str], expected: list[str]) -> None:
    assert titles(names) == expected
