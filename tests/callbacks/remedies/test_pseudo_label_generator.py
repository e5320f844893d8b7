"""The noisy-student loop: who labels when, what arrives, and that a resumed run goes on with the same labels."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning import Callback, Trainer, seed_everything
from torch import Tensor

from tailmatch.callbacks import DARPRefinement, PseudoLabelGenerator, SelfTrainingReport
from tailmatch.callbacks.checkpoints import LastCheckpoint
from tailmatch.callbacks.remedies.darp.solver import Solver
from tailmatch.callbacks.remedies.pseudo_label_generator import due_epoch, load_teacher
from tailmatch.datamodules import Digits, ListedCounts, SymmetricNoise
from tailmatch.datamodules.pseudo_labels.labels import PseudoLabels
from tailmatch.lightning_modules import FixMatch, SelfTraining, Supervised
from tailmatch.lightning_modules.inference.predict_set import evaluation_mode
from tailmatch.lightning_modules.networks import CifarResNet
from tailmatch.lightning_modules.networks.inputs import to_float

NETWORK = partial(CifarResNet, depth=8)


@pytest.mark.parametrize(
    ("warmup", "every", "expected"),
    [
        (0, None, [0, 0, 0, 0, 0, 0]),
        (2, None, [-1, -1, 2, 2, 2, 2]),
        (0, 1, [0, 1, 2, 3, 4, 5]),
        (1, 2, [-1, 1, 1, 3, 3, 5]),
    ],
)
def test_when_labels_are_due(warmup: int, every: int | None, expected: list[int]) -> None:
    assert [due_epoch(epoch, warmup, every) for epoch in range(6)] == expected


class Taken(SelfTraining):
    """Notes the labels that arrive, and at which step."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.taken: list[tuple[int, PseudoLabels]] = []
        self.relabelings: list[tuple[PseudoLabels | None, Tensor | None]] = []

    def take_pseudo_labels(
        self, labels: PseudoLabels, labeled: PseudoLabels | None = None, *, known: bool = False
    ) -> None:
        self.taken.append((self.trainer.global_step, labels))
        super().take_pseudo_labels(labels, labeled, known=known)
        self.relabelings.append((labeled, self._relabeled))


def fit(
    folder: Path, *callbacks: Callback, method: Any = Taken, epochs: int = 3, ckpt: Path | None = None, **kwargs: Any
) -> Any:
    seed_everything(0)
    data = Digits(
        class_counts=ListedCounts([4] * 10, [6] * 10),
        labeled_batch_size=6,
        unlabeled_ratio=2,
        steps_per_epoch=3,
        seed=0,
        eval_batch_size=7,
        label_noise=kwargs.pop("label_noise", None),
    )
    model = method(num_classes=10, network=NETWORK, ema_decay=0.5, **kwargs)
    trainer = Trainer(
        max_epochs=epochs, accelerator="cpu", logger=False, use_distributed_sampler=False, default_root_dir=folder,
        num_sanity_val_steps=0,
        enable_progress_bar=False, enable_model_summary=False, callbacks=list(callbacks),
    )  # fmt: skip
    trainer.fit(model, data, ckpt_path=ckpt)
    return model


def predictions(network: torch.nn.Module, model: Any, of: str = "unlabeled") -> Tensor:
    rows = getattr(model.trainer.datamodule, of)
    pixels = rows.images.pixels[rows.rows]
    with torch.no_grad(), evaluation_mode(network):
        return network(to_float(pixels)).softmax(dim=1)  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint whose averaged weights are not its trained ones."""
    folder = tmp_path_factory.mktemp("teacher")

    class Save(Callback):
        def on_train_epoch_end(self, trainer: Trainer, *args: Any) -> None:
            trainer.save_checkpoint(folder / "teacher.ckpt")

    fit(folder, Save(), method=Supervised, epochs=1)
    return folder / "teacher.ckpt"


def test_the_teacher_labels_first_and_the_averaged_student_then(teacher: Path, tmp_path: Path) -> None:
    averaged: list[Tensor] = []

    class Watch(Callback):
        def on_validation_epoch_start(self, trainer: Trainer, pl_module: Any) -> None:
            averaged.append(predictions(pl_module.network, pl_module))

    model = fit(tmp_path, PseudoLabelGenerator(str(teacher), every_n_epochs=2), Watch(), soft=True)
    (first_step, first), (second_step, second) = model.taken
    assert (first_step, second_step) == (0, 6)  # before the first step, and after two epochs of three
    network = NETWORK(10)
    content = torch.load(teacher, weights_only=True)
    state = {k.removeprefix("network."): v for k, v in content["state_dict"].items() if k.startswith("network.")}
    network.load_state_dict(state)
    for labels, probs in ((first, predictions(network, model)), (second, averaged[1])):
        assert torch.allclose(labels.probs, probs, atol=1e-5)
        assert torch.equal(labels.label, labels.probs.argmax(dim=1))
        assert torch.equal(labels.confidence, labels.probs.amax(dim=1))
    assert not torch.equal(
        content["state_dict"]["network.head.weight"], content["trained_weights"]["network.head.weight"]
    )


def test_without_a_teacher_the_student_labels_after_the_warm_up(tmp_path: Path) -> None:
    model = fit(tmp_path, PseudoLabelGenerator(every_n_epochs=1))
    assert [step for step, _ in model.taken] == [3, 6] and model.taken[0][1].probs is None


def test_a_teacher_may_have_another_network_and_draws_nothing_from_the_step(
    teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))  # where a URL's file goes
    same = fit(tmp_path, PseudoLabelGenerator(str(teacher)), epochs=1, mixup=1.0)
    made = fit(tmp_path, PseudoLabelGenerator(teacher.as_uri(), teacher_network=NETWORK), epochs=1, mixup=1.0)
    assert torch.equal(same.taken[0][1].label, made.taken[0][1].label)
    for name, value in same.state_dict().items():
        assert torch.equal(value, made.state_dict()[name]), name
    for other in (partial(CifarResNet, depth=14), CifarResNet(10, depth=14)):
        with pytest.raises(ValueError, match=r"has another network \(.*\): set teacher_network"):
            fit(tmp_path, PseudoLabelGenerator(str(teacher), teacher_network=other))


def test_darp_refines_the_labels_of_the_whole_set(teacher: Path, tmp_path: Path) -> None:
    target = [12.0, 3, 3, 3, 3, 3, 3, 10, 10, 10]
    raw = fit(tmp_path, PseudoLabelGenerator(str(teacher)), epochs=1, soft=True).taken[0][1]
    refiner = DARPRefinement(target, alpha=3.0)
    refined = fit(tmp_path, PseudoLabelGenerator(str(teacher), refiner=refiner), epochs=1, soft=True).taken[0][1]
    expected = Solver(3.0).solve(raw.probs, torch.tensor(target, dtype=torch.float64))
    assert expected.converged and torch.allclose(refined.probs, expected.rows, atol=1e-4)
    assert refined.probs.sum(dim=0).tolist() == pytest.approx(target, abs=0.01)
    assert torch.equal(refined.label, refined.probs.argmax(dim=1))


def test_each_labeling_relabels_anew_by_what_the_same_network_says_of_the_labeled_images(
    teacher: Path, tmp_path: Path
) -> None:
    averaged: list[Tensor] = []

    class Watch(Callback):
        def on_validation_epoch_start(self, trainer: Trainer, pl_module: Any) -> None:
            averaged.append(predictions(pl_module.network, pl_module, of="labeled"))

    generator = PseudoLabelGenerator(str(teacher), every_n_epochs=2)
    callbacks = (generator, Watch(), SelfTrainingReport())
    model = fit(tmp_path, *callbacks, label_noise=SymmetricNoise(0.5), relabel_threshold=0.12)
    network = NETWORK(10)
    load_teacher(network, str(teacher), model.class_names)
    given = model.trainer.datamodule.labeled.targets
    expected = (predictions(network, model, of="labeled"), averaged[1])
    for (labeled, relabeled), probs in zip(model.relabelings, expected, strict=True):
        assert torch.equal(labeled.label, probs.argmax(dim=1)) and labeled.probs is None
        assert torch.allclose(labeled.confidence, probs.amax(dim=1), atol=1e-5)
        wrong = (labeled.label != given) & (labeled.confidence >= 0.12)
        assert wrong.any() and torch.equal(relabeled, torch.where(wrong, labeled.label, given))
    first, second = (relabeled for _, relabeled in model.relabelings)
    assert not torch.equal(first, second)
    assert len((tmp_path / "relabeled.csv").read_text().splitlines()) == 1 + int((second != given).sum())


@pytest.mark.parametrize("soft", [False, True])
def test_a_resumed_run_goes_on_with_the_replaced_labels(soft: bool, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"label_noise": SymmetricNoise(0.5), "relabel_threshold": 0.1, "soft": soft, "epochs": 4}
    save = LastCheckpoint(tmp_path, "seven", every_n_train_steps=7, save_top_k=1, enable_version_counter=False)
    whole = fit(tmp_path, PseudoLabelGenerator(every_n_epochs=2, warmup_epochs=1), save, **settings)
    generator = PseudoLabelGenerator(every_n_epochs=2, warmup_epochs=1)
    resumed = fit(tmp_path, generator, ckpt=tmp_path / "seven.ckpt", **settings)
    assert len(whole.relabelings) == len(resumed.relabelings) == 2
    for (_, before), (_, after) in zip(whole.relabelings, resumed.relabelings, strict=True):
        assert torch.equal(before, after) and before.ndim == 1 + soft
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
    without = fit(
        tmp_path, PseudoLabelGenerator(every_n_epochs=2, warmup_epochs=1), **{**settings, "relabel_threshold": None}
    )
    assert any(not torch.equal(value, without.state_dict()[name]) for name, value in whole.state_dict().items())


def test_a_run_without_predictions_of_the_labeled_images_does_not_go_on_with_relabeling(tmp_path: Path) -> None:
    save = LastCheckpoint(tmp_path, "four", every_n_train_steps=4, save_top_k=1, enable_version_counter=False)
    fit(tmp_path, PseudoLabelGenerator(every_n_epochs=1), save, epochs=2)
    with pytest.raises(ValueError, match="a run that began without it cannot be resumed with it"):
        generator = PseudoLabelGenerator(every_n_epochs=1)
        fit(tmp_path, generator, ckpt=tmp_path / "four.ckpt", epochs=2, relabel_threshold=0.5)


@pytest.mark.parametrize("soft", [False, True])
def test_a_resumed_run_goes_on_with_the_labels_it_had(soft: bool, tmp_path: Path) -> None:
    # In the third epoch, whose labels are the second's:
    save = LastCheckpoint(tmp_path, "seven", every_n_train_steps=7, save_top_k=1, enable_version_counter=False)
    whole = fit(tmp_path, PseudoLabelGenerator(every_n_epochs=2, warmup_epochs=1), save, epochs=4, soft=soft)
    assert [step for step, _ in whole.taken] == [3, 9]
    generator = PseudoLabelGenerator(every_n_epochs=2, warmup_epochs=1)
    resumed = fit(tmp_path, generator, epochs=4, soft=soft, ckpt=tmp_path / "seven.ckpt")
    assert [step for step, _ in resumed.taken] == [7, 9]
    for before, after in zip(whole.taken, resumed.taken, strict=True):
        assert torch.equal(before[1].label, after[1].label)
        assert torch.equal(before[1].confidence, after[1].confidence)
        assert (before[1].probs is None) == (not soft)
        assert not soft or torch.equal(before[1].probs, after[1].probs)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "teacher, every_n_epochs and warmup_epochs are None"),
        ({"every_n_epochs": 0}, "every_n_epochs is 0; it must be at least 1"),
        ({"warmup_epochs": -1}, "warmup_epochs is -1; it must be at least 0"),
        ({"every_n_epochs": 1, "teacher_network": NETWORK}, "teacher_network is given without a teacher"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PseudoLabelGenerator(**arguments)


def test_what_would_do_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="labels for SelfTraining, and this is FixMatch"):
        fit(tmp_path, PseudoLabelGenerator(every_n_epochs=1), method=FixMatch)
    with pytest.raises(ValueError, match="would never run: warmup_epochs is 3 and the training has 3 epochs"):
        fit(tmp_path, PseudoLabelGenerator(every_n_epochs=3))
    with pytest.raises(FileNotFoundError, match="no teacher nowhere.ckpt"):
        fit(tmp_path, PseudoLabelGenerator("nowhere.ckpt"))


def test_a_teacher_of_other_classes_is_refused(teacher: Path) -> None:
    with pytest.raises(ValueError, match=r"was trained on other classes: only there \['0', .* only here \['ant'\]"):
        load_teacher(NETWORK(10), str(teacher), ["ant"])
