"""Test that every method, with every remedy, fits, resumes exactly and tests every image once on two processes."""

import json
from pathlib import Path

import pytest
import torch

from tailmatch.lightning_modules import ImageClassifier, MixMatch, SelfTraining, SimMixMatch
from tailmatch.lightning_modules.heads import NCM, ComputedHead, TauNorm
from tailmatch.lightning_modules.losses import nt_xent
from tailmatch.lightning_modules.training.finite import not_finite, tensors_in
from tests.contract import (
    EPOCHS,
    METHODS,
    NO_REMEDY,
    STEPS_PER_EPOCH,
    WITHOUT_STATE,
    Kill,
    Killed,
    Runs,
    assert_same,
    assert_same_training,
    callbacks_of,
    cases,
    category_network,
    differs,
    last,
    post_hoc,
    prepare,
    run,
    saved,
    source_checkpoint,
)
from tests.joint_batches import CASES, STEPS, joined, train
from tests.process_group import on_two_processes
from tests.two_processes import (
    case_folder,
    embeddings,
    process,
    process_of_resumes,
    save_predictions,
    validation_of_few,
    write_photos,
)

pytestmark = pytest.mark.xdist_group("processes")


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of all cases, each run by the same two processes."""
    folder = tmp_path_factory.mktemp("two-processes")
    write_photos(folder)
    on_two_processes(process, folder)
    return folder


@pytest.mark.parametrize(("method", "remedy"), cases("two processes"))
def test_two_processes(method: type[ImageClassifier], remedy: str, two: Path, tmp_path: Path) -> None:
    folder = case_folder(two, method, remedy)
    whole, resumed = saved(folder / "whole"), saved(folder / "resumed")
    assert whole["global_step"] == STEPS_PER_EPOCH * EPOCHS
    assert_same_training(whole, resumed, remedy)
    if remedy == NO_REMEDY:
        trainer, model, data = prepare(method, tmp_path)  # the same test images on one process
        [metrics] = trainer.test(model, data, folder / "whole" / "last.ckpt", verbose=False)
        record = json.loads((folder / "whole" / "test_metrics.json").read_text())
        assert {f"test/{name}": value for name, value in record["metrics"].items()} == pytest.approx(metrics, rel=1e-5)
    else:
        plain = saved(case_folder(two, method, NO_REMEDY) / "whole")
        assert differs(plain["state_dict"], whole["state_dict"])


@pytest.mark.parametrize(("number", "name"), list(enumerate(CASES)), ids=list(CASES))
def test_two_processes_train_as_one_does_on_the_joint_batches(
    number: int, name: str, two: Path, tmp_path: Path
) -> None:
    both = [torch.load(two / f"joint-{number}-{rank}.pt", weights_only=True) for rank in range(2)]
    batches = [joined(list(parts)) for parts in zip(*(each["batches"] for each in both), strict=True)]
    one = train(name, tmp_path, batches)
    assert len(one["gradients"]) == len(both[0]["gradients"]) == STEPS
    for expected, *found in zip(one["gradients"], *(each["gradients"] for each in both), strict=True):
        largest = max(float(gradient.abs().max()) for gradient in expected.values())
        for gradients in found:
            torch.testing.assert_close(gradients, expected, rtol=1e-4, atol=5e-5 * largest)
    for each in both:
        torch.testing.assert_close(each["weights"], one["weights"], rtol=1e-4, atol=1e-5)
    # Where predictions are nearly certain, DARP's class totals, for which prices are solved, depend little on a price:
    torch.testing.assert_close(both[0]["remedies"], one["remedies"], rtol=1e-3, atol=1e-4)


@pytest.fixture(scope="module")
def changed(two: Path) -> Path:
    """Folder of all cases, each with 7 steps on two processes, 2 on one, and the last 3 on two."""
    for method, remedy in cases("two processes"):
        folder = case_folder(two, method, remedy)
        one = last(folder / "changed" / "one", every_n_train_steps=9)
        middle = folder / "middle" / "last.ckpt"
        with pytest.raises(Killed):
            run(method, folder, *callbacks_of(remedy), one, Kill(10), ckpt=middle, labeled_batch_size=12)
    (two / "store").unlink(missing_ok=True)
    on_two_processes(process_of_resumes, two)
    return two


@pytest.mark.exhaustive
@pytest.mark.parametrize(("method", "remedy"), cases("two processes"))
def test_a_run_goes_on_with_another_number_of_processes(
    method: type[ImageClassifier], remedy: str, changed: Path
) -> None:
    folder = case_folder(changed, method, remedy)
    states = [saved(folder / name) for name in ("whole", "middle", "changed/one", "changed/two")]
    assert [state["global_step"] for state in states] == [12, 7, 9, 12]
    whole, middle, one, two_again = states
    assert_same(whole["lr_schedulers"], two_again["lr_schedulers"], "schedule")
    assert not not_finite(tensors_in(two_again["state_dict"]))
    for before, after in ((middle, one), (one, two_again)):
        assert differs(before["state_dict"], after["state_dict"])
        if remedy not in (NO_REMEDY, *WITHOUT_STATE):
            parts = [tensors_in(each["callbacks"][remedy]) for each in (before, after)]
            assert parts[0].keys() == parts[1].keys()
            rows = all(parts[0][part].shape[1:] == tensor.shape[1:] for part, tensor in parts[1].items())
            assert rows  # DARP saves the refined rows of some images alone


def test_categories_are_learned_on_two_processes(two: Path, runs: Runs) -> None:
    folder = two / "categories"
    whole = saved(folder / "whole")
    assert_same_training(whole, saved(folder / "resumed"))
    one = saved(runs.whole(MixMatch, network=category_network)[0])  # on one process
    assert differs(one["state_dict"], whole["state_dict"])


def test_darp_goes_on_with_another_number_of_processes(two: Path, tmp_path: Path) -> None:
    [method, *_] = [method for method, remedy in cases("two processes") if remedy == "DARP"]
    folder = case_folder(two, method, "DARP") / "middle"
    remedy, *reports = callbacks_of("DARP")
    run(method, tmp_path, remedy, *reports, ckpt=folder / "last.ckpt", max_steps=8)  # one step more
    before, after = saved(folder)["callbacks"]["DARP"]["predictions"], remedy.state_dict()["predictions"]
    changed = (before != after).any(dim=1)
    assert before.shape == after.shape == (60, 10) and 0 < changed.sum() <= 12  # a step has 12 unlabeled images
    assert before[~changed].any()


def test_the_contrast_over_processes_has_the_gradient_of_the_whole(two: Path) -> None:
    folder = case_folder(two, SimMixMatch, NO_REMEDY)
    everything = embeddings().requires_grad_()
    nt_xent(everything.transpose(0, 1).flatten(1, 2), temperature=0.1).backward()  # type: ignore[no-untyped-call]
    assert everything.grad is not None
    for rank, expected in enumerate(everything.grad):
        # Each process' loss is a mean over its own views: data-parallel training averages the two gradients.
        gradient = torch.load(folder / f"contrast-{rank}.pt", weights_only=True) / 2
        assert torch.allclose(gradient, expected, atol=1e-6)


def test_labels_of_all_images_are_replaced_on_two_processes(two: Path) -> None:
    folder = case_folder(two, SelfTraining, NO_REMEDY)
    states = [saved(folder / name)["callbacks"]["PseudoLabelGenerator"] for name in ("whole", "resumed")]
    assert_same(states[0], states[1], "labels")
    labeled = states[0]["labeled"]
    report = [(folder / name / "relabeled.csv").read_text() for name in ("whole", "resumed")]
    listed = {int(line.split(",")[0]) for line in report[0].splitlines()[1:]}
    assert report[0] == report[1] and len(labeled["label"]) == 40
    given = torch.arange(10).repeat_interleave(4)
    replaced = (labeled["label"] != given) & (
        labeled["confidence"] >= METHODS[SelfTraining].arguments["relabel_threshold"]
    )
    assert listed == set(replaced.nonzero().squeeze(1).tolist()) and len(listed) > 0


@pytest.mark.parametrize("head", [TauNorm(), NCM()], ids=lambda head: type(head).__name__)
def test_a_head_is_computed_from_the_images_of_all_processes(head: ComputedHead, two: Path, tmp_path: Path) -> None:
    first, second = (torch.load(two / f"{type(head).__name__}-{rank}.pt", weights_only=True) for rank in range(2))
    assert_same(first, second, "ranks")
    one = run(post_hoc(source_checkpoint(tmp_path), head), tmp_path)
    for name, value in one.lightning_module.network.head.state_dict().items():  # type: ignore[union-attr]
        torch.testing.assert_close(first[f"network.head.{name}"], value)


def test_each_image_is_validated_once_where_a_process_has_one_less(two: Path, tmp_path: Path) -> None:
    one = validation_of_few(tmp_path)
    assert "val/loss" in one
    for rank in range(2):
        assert json.loads((two / f"few-{rank}.json").read_text()) == pytest.approx(one, rel=1e-6, nan_ok=True)


def test_predictions_are_the_same_bytes(two: Path, tmp_path: Path) -> None:
    save_predictions(two, tmp_path)
    for name, rows in (("digits", 400), ("photos", 11)):
        assert (tmp_path / f"{name}.csv").read_text().count("\n") == 1 + rows
    files = ["digits.csv", "digits.npz", "digits.parquet", "photos.csv", "photos.npz", "photos.parquet"]
    assert sorted(path.name for path in (two / "predictions").iterdir()) == ["cache", *files]
    for file in files:
        assert (two / "predictions" / file).read_bytes() == (tmp_path / file).read_bytes(), file
    assert not list((two / "predictions" / "cache").iterdir())
