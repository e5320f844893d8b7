"""The DARP callback: when it refines what, its state, its processes, its errors."""

import json
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from jsonargparse import ArgumentParser
from pytorch_lightning import Trainer
from torch import Tensor

from tailmatch.callbacks import DARP, DARPRefinement
from tailmatch.callbacks.remedies.darp.solver import Solver
from tailmatch.datamodules import Digits, ListedCounts
from tailmatch.datamodules.arguments import SettingsError
from tailmatch.lightning_modules import FixMatch, SelfTraining, Supervised
from tailmatch.lightning_modules.networks import CifarResNet
from tailmatch.lightning_modules.pseudo_labels.class_prior import unlabeled_totals
from tailmatch.lightning_modules.training.distributed import gather_interleaved
from tests.process_group import on_two_processes

UNLABELED = 61


def digits(**kwargs: Any) -> Digits:
    data = Digits(
        class_counts=ListedCounts([20, 18, 16, 14, 12, 10, 8, 6, 4, 2], [1, 2, 3, 4, 5, 6, 7, 9, 11, 13]),
        steps_per_epoch=4,
        **kwargs,
    )
    data.setup("fit")
    assert len(data.unlabeled) == UNLABELED
    return data


def set_up(darp: DARP, *, epochs: int = 5, rank: int = 0, world_size: int = 1, method: Any = FixMatch) -> Any:
    trainer = SimpleNamespace(datamodule=digits(), global_rank=rank, world_size=world_size, current_epoch=0)
    model = method(num_classes=10, network=partial(CifarResNet, depth=8))
    model.total_epochs = lambda: epochs
    darp.setup(trainer, model, "fit")  # type: ignore[arg-type]
    return trainer


def begin_epoch(darp: DARP, trainer: Any, epoch: int) -> None:
    trainer.current_epoch = epoch
    darp.on_train_batch_start(trainer, None)  # type: ignore[arg-type]


def predictions(seed: int) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    return (2 * torch.randn(UNLABELED, 10, generator=random)).softmax(dim=1)


EVERY = torch.arange(UNLABELED)


def test_predictions_are_kept_in_the_warm_up_and_passed_on() -> None:
    darp = DARP(warmup_epochs=2)
    trainer = set_up(darp)
    begin_epoch(darp, trainer, 1)
    probs = predictions(0)
    assert darp.refine(probs[:5], EVERY[:5]) is not None
    assert torch.equal(darp.refine(probs, EVERY), probs)
    assert torch.equal(darp.state_dict()["predictions"], probs)


def test_the_first_refined_step_refines_the_newest_predictions_of_all_images() -> None:
    darp = DARP(warmup_epochs=1, refine_every=3)
    trainer = set_up(darp)
    begin_epoch(darp, trainer, 0)
    old, new = predictions(0), predictions(1)
    darp.refine(old, EVERY)
    begin_epoch(darp, trainer, 1)
    batch = torch.tensor([7, 3, 60])
    got = darp.refine(new[batch], batch)
    newest = old.clone()
    newest[batch] = new[batch]
    expected = Solver(2.0).solve(newest, darp.target_totals).rows
    assert torch.allclose(got, expected[batch])
    # Until the next refinement, other images get what was refined then; their own newest predictions wait.
    others = torch.tensor([1, 2])
    assert torch.allclose(darp.refine(new[others], others), expected[others])
    assert torch.allclose(darp.refine(new[others], others), expected[others])
    newest[others] = new[others]
    again = Solver(2.0).solve(newest, darp.target_totals).rows
    assert torch.allclose(darp.refine(new[others], others), again[others], atol=1e-3)


def test_images_without_a_prediction_take_no_part_and_get_their_own_at_first() -> None:
    darp = DARP(target=[1.0] * 10, warmup_epochs=0, refine_every=2)
    trainer = set_up(darp)
    begin_epoch(darp, trainer, 0)
    probs, seen, late = predictions(0), EVERY[:40], EVERY[40:]
    refined = darp.refine(probs[seen], seen)
    assert refined.sum(dim=0).tolist() == pytest.approx([4.0] * 10, abs=0.01)
    assert torch.equal(darp.refine(probs[late], late), probs[late])
    again = darp.refine(probs, EVERY)
    assert again.sum(dim=0).tolist() == pytest.approx([6.1] * 10, abs=0.01)


def test_class_totals_are_reached_and_known_only_through_the_target() -> None:
    darp = DARP(target="oracle", warmup_epochs=0, refine_every=1)
    trainer = set_up(darp)
    begin_epoch(darp, trainer, 0)
    refined = darp.refine(predictions(0), EVERY)
    assert torch.allclose(refined.sum(dim=1), torch.ones(UNLABELED), atol=1e-5)
    assert refined.sum(dim=0).tolist() == pytest.approx([1, 2, 3, 4, 5, 6, 7, 9, 11, 13], abs=0.01)


def test_a_saved_and_loaded_state_goes_on_the_same() -> None:
    first, second = (DARP(warmup_epochs=0, refine_every=2) for _ in range(2))
    trainers = [set_up(first), set_up(second)]
    for darp, trainer in zip((first, second), trainers, strict=True):
        begin_epoch(darp, trainer, 0)
    for step in range(3):
        first.refine(predictions(step), EVERY)
    second.load_state_dict(first.state_dict())
    for step in range(3, 6):
        assert torch.equal(first.refine(predictions(step), EVERY), second.refine(predictions(step), EVERY))


def process(rank: int, folder: Path) -> None:
    darp = DARP(warmup_epochs=0, refine_every=2)
    trainer = set_up(darp, rank=rank, world_size=2)
    begin_epoch(darp, trainer, 0)
    mine = EVERY[rank::2]
    rows = [darp.refine(predictions(step)[mine], mine) for step in range(4)]
    state = darp.state_dict()
    assert darp._rows.predictions.shape == (len(mine), 10)
    together = gather_interleaved(rows[-1], UNLABELED)
    if rank == 0:
        torch.save({"rows": together, "state": state}, folder / "two.pt")


@pytest.mark.xdist_group("processes")
def test_two_processes_refine_as_one_and_their_checkpoint_resumes_on_one(tmp_path: Path) -> None:
    on_two_processes(process, tmp_path)
    two = torch.load(tmp_path / "two.pt", weights_only=True)
    one = DARP(warmup_epochs=0, refine_every=2)
    trainer = set_up(one)
    begin_epoch(one, trainer, 0)
    rows = [one.refine(predictions(step), EVERY) for step in range(4)]
    assert torch.allclose(two["rows"], rows[-1], atol=1e-4)

    resumed = DARP(warmup_epochs=0, refine_every=2)
    trainer = set_up(resumed)
    begin_epoch(resumed, trainer, 0)
    resumed.load_state_dict(two["state"])
    assert torch.equal(resumed.state_dict()["predictions"], one.state_dict()["predictions"])
    assert torch.allclose(resumed.refine(predictions(9), EVERY), one.refine(predictions(9), EVERY), atol=1e-4)


def test_what_cannot_work_is_said_at_the_start() -> None:
    with pytest.raises(ValueError, match="DARP refines pseudo-labels of a step, and Supervised has none$"):
        set_up(DARP(), method=Supervised)
    with pytest.raises(ValueError, match="and SelfTraining has none; tailmatch.callbacks.DARPRefinement is for"):
        set_up(DARP(), method=SelfTraining)
    with pytest.raises(ValueError, match="DARP would never run: warmup_epochs is 5 and the training has 5 epochs"):
        set_up(DARP(warmup_epochs=5), epochs=5)
    with pytest.raises(ValueError, match="refine_every is 0"):
        DARP(refine_every=0)
    darp = DARP(warmup_epochs=0)
    set_up(darp)
    state = {**darp.state_dict(), "predictions": torch.ones(7, 10)}
    with pytest.raises(ValueError, match="resume on the same unlabeled images"):
        darp.load_state_dict(state)


@pytest.mark.parametrize(
    ("limits", "epochs"),
    [
        ({"max_steps": 6, "limit_train_batches": 2}, 3),
        ({"max_steps": 6, "limit_train_batches": 0.5}, 3),
        ({"max_steps": 100, "max_epochs": 2, "limit_train_batches": 0.5}, 2),
        ({"max_epochs": 2, "accumulate_grad_batches": 3}, 2),  # two steps of four batches each
    ],
)
def test_the_warm_up_is_measured_in_the_epochs_that_there_are(
    limits: dict[str, Any], epochs: int, tmp_path: Path
) -> None:
    def fit(darp: DARP) -> None:
        model = FixMatch(num_classes=10, network=partial(CifarResNet, depth=8))
        trainer = Trainer(
            accelerator="cpu", logger=False, use_distributed_sampler=False, enable_progress_bar=False,
            enable_model_summary=False, enable_checkpointing=False, num_sanity_val_steps=0, limit_val_batches=0,
            default_root_dir=tmp_path, callbacks=[darp], **limits,
        )  # fmt: skip
        trainer.fit(model, digits(labeled_batch_size=2, unlabeled_ratio=2))

    late = DARP(warmup_epochs=epochs - 1)
    fit(late)
    assert late.scalars
    with pytest.raises(ValueError, match=f"warmup_epochs is {epochs} and the training has {epochs} epochs"):
        fit(DARP(warmup_epochs=epochs))


def test_a_target_that_was_not_reached_warns_with_what_is_left() -> None:
    darp = DARP(target=[float(2**k) for k in range(10)], warmup_epochs=0, max_iterations=1)
    trainer = set_up(darp)
    begin_epoch(darp, trainer, 0)
    probs = predictions(0)
    with pytest.warns(UserWarning, match=r"a class total is off by .*target \(logged as darp/residual\)"):
        refined = darp.refine(probs, EVERY)
    assert refined.isfinite().all()
    assert torch.allclose(refined.sum(dim=1), torch.ones(UNLABELED), atol=1e-5)


@pytest.mark.parametrize("way", [DARP, DARPRefinement])
def test_both_ways_to_refine_have_the_same_settings(way: type[DARP] | type[DARPRefinement]) -> None:
    parser = ArgumentParser()
    parser.add_class_arguments(way, "way")
    parsed = parser.parse_args([]).way
    shared = {name: parsed[name] for name in ("target", "alpha", "tolerance", "max_iterations")}
    assert shared == {"target": None, "alpha": 2.0, "tolerance": 1e-5, "max_iterations": 200}
    bad: dict[str, Any] = {"alpha": 0.5, "tolerance": 0.0, "max_iterations": 0}
    for name, value in bad.items():
        with pytest.raises(ValueError, match=f"{name} is {value}"):
            way(**{name: value})
    made = way("oracle", 3.0, tolerance=1e-3, max_iterations=7)
    solver = made.solver
    assert (made.target, solver.alpha, solver.tolerance, solver.max_iterations) == ("oracle", 3.0, 1e-3, 7)


def test_the_labels_of_one_time_are_refined_to_the_target_or_a_warning_says_how_far_off() -> None:
    data, probs = digits(), predictions(0)
    got = DARPRefinement("oracle", alpha=3.0)(probs, data)
    totals = unlabeled_totals("oracle", data)
    assert torch.equal(got, Solver(3.0).solve(probs, totals).rows)
    with pytest.warns(UserWarning, match="off by [0-9.]+% of its target$"):
        DARPRefinement([float(2**k) for k in range(10)], max_iterations=1)(probs, data)


def test_targets(tmp_path: Path) -> None:
    data = digits()
    assert unlabeled_totals(None, data).tolist() == pytest.approx([c * UNLABELED / 110 for c in data.class_counts])
    assert unlabeled_totals([1.0] * 10, data).tolist() == pytest.approx([UNLABELED / 10] * 10)
    assert unlabeled_totals("oracle", data).tolist() == [1, 2, 3, 4, 5, 6, 7, 9, 11, 13]
    file = tmp_path / "prior.json"
    file.write_text(json.dumps({"counts": [2] * 10, "class_names": data.class_names}))
    assert unlabeled_totals(str(file), data).tolist() == pytest.approx([UNLABELED / 10] * 10)
    file.write_text(json.dumps({"counts": [2] * 10, "class_names": list("abcdefghij")}))
    for bad, message in (
        ([1.0] * 9, "target has 9 entries; it needs one for each of 10 classes"),
        ([-1.0] + [1.0] * 9, r"target\[0\] is -1.0; it must be at least 0"),
        ([0.0] * 10, "its sum must be above 0"),
        (str(file), "of other classes"),
    ):
        with pytest.raises(ValueError, match=message):
            unlabeled_totals(bad, data)  # type: ignore[arg-type]
    for text in ("[" * 100_000 + "]" * 100_000, f'{{"counts": [1{"0" * 400}], "class_names": []}}', "9" * 5000):
        file.write_text(text)
        with pytest.raises(ValueError, match=r"prior.json(: counts| is no prior file)"):
            unlabeled_totals(str(file), data)
    file.write_text("[" + "1," * 5_000_000 + "1]")
    with pytest.raises(ValueError, match="prior.json has 10,000,003 bytes; a prior file has at most 10,000,000"):
        unlabeled_totals(str(file), data)
    with pytest.raises(FileNotFoundError, match="no prior file nowhere.json"):
        unlabeled_totals("nowhere.json", data)
    for counts, message in (
        ({str(k): 5 for k in range(10)}, "counts is {.*}; it must be a list of numbers"),
        ("1111111111", "counts is '1111111111'; it must be a list of numbers"),
        (7, "counts is 7; it must be a list of numbers"),
        ([1] * 9 + [float("nan")], r"counts\[9\] is nan; it must be at least 0"),
        ([1] * 9 + [-3], r"counts\[9\] is -3; it must be at least 0"),
        ([1] * 9 + [[1]], r"counts\[9\] is \[1\]; it must be at least 0"),
        (["1"] * 10, r"counts\[0\] is '1'; it must be at least 0"),
        ([0] * 10, "counts is .*; its sum must be above 0 and finite"),
        ([1e308] * 10, "counts is .*; its sum must be above 0 and finite"),
        ([1] * 11, "counts has 11 entries; it needs one for each of 10 classes"),
    ):
        file.write_text(json.dumps({"counts": counts, "class_names": data.class_names}))
        with pytest.raises(SettingsError, match=f"prior.json: {message}"):
            unlabeled_totals(str(file), data)
    for text in ("", "[]", "null", '{"counts": [1]}', "\xff", "[" * 100_000):
        file.write_text(text, encoding="latin-1")
        with pytest.raises(SettingsError, match=r"prior.json(: counts| is no prior file)"):
            unlabeled_totals(str(file), data)
    file.write_text(json.dumps({"counts": [1] * 10, "class_names": 10}))
    with pytest.raises(SettingsError, match="prior.json: class_names is 10; it must be a list of names"):
        unlabeled_totals(str(file), data)
    data.unlabeled.images.targets[data.unlabeled.rows[0]] = -1
    with pytest.raises(ValueError, match="target is oracle, and the class of some"):
        unlabeled_totals("oracle", data)
