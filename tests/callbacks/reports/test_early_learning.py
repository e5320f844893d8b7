"""Early-learning curves: counted by hand, the same after a resume, and without a trace in the training."""

import math
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning import Callback, Trainer, seed_everything
from pytorch_lightning.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor, nn

from tailmatch.callbacks import EarlyLearningCurves
from tailmatch.callbacks.reports.early_learning import early_counts, early_figure, early_scalars, early_shares
from tailmatch.callbacks.reports.figures import to_array
from tailmatch.datamodules.bases.labeled_unlabeled import LabeledUnlabeledDataModule
from tailmatch.datamodules.images import Images, Sources
from tailmatch.datamodules.splitting.label_noise import LabelNoise, PairNoise
from tailmatch.datamodules.splitting.long_tail import LabeledFraction
from tailmatch.lightning_modules import MoCoPretraining, Supervised
from tailmatch.lightning_modules.inference.predict_set import evaluation_mode
from tailmatch.lightning_modules.networks.inputs import to_float
from tests.contract import Kill, Killed, assert_same, last, run, saved
from tests.lightning_modules.pixel_network import PixelNetwork

NAMES = ["ant", "bee", "cow"]
PREDICTED = torch.tensor([0, 1, 1, 2, 1, 0, 0])
GIVEN = torch.tensor([0, 0, 1, 1, 1, 1, 0])
TRUTH = torch.tensor([0, 1, 1, 2, 0, 2, 0])  # images 1, 3, 4 and 5 are wrongly labeled
COUNTS = [
    [3, 4, 0],  # images
    [2, 2, 0],  # fit: 0 and 6; 2 and 4
    [1, 3, 0],  # wrong: 1; 3, 4 and 5
    [1, 1, 0],  # corrected: 1; 3
    [0, 1, 0],  # memorized: 4
]


def test_counts_and_shares_by_hand() -> None:
    counts = early_counts(PREDICTED, GIVEN, TRUTH, 3)
    assert counts.tolist() == COUNTS
    assert torch.equal(early_counts(PREDICTED, GIVEN, None, 3), counts[:2])
    assert early_scalars(counts, NAMES) == pytest.approx(
        {
            "early/fit": 4 / 7,
            "early/fit_class/ant": 2 / 3,
            "early/fit_class/bee": 1 / 2,
            "early/learned": 3 / 3,  # of 0, 2 and 6
            "early/memorized": 1 / 4,
            "early/memorized_class/ant": 0,
            "early/memorized_class/bee": 1 / 3,
            "early/corrected": 2 / 4,
            "early/corrected_class/ant": 1,
            "early/corrected_class/bee": 1 / 3,
        }
    )
    assert list(early_scalars(counts[:2], NAMES)) == ["early/fit", "early/fit_class/ant", "early/fit_class/bee"]
    many = early_counts(PREDICTED, GIVEN, TRUTH, 31)
    assert list(early_scalars(many, [str(k) for k in range(31)])) == [
        "early/fit", "early/learned", "early/memorized", "early/corrected",
    ]  # fmt: skip


def test_shares_of_several_epochs_are_those_of_each() -> None:
    counts = torch.stack([early_counts(p, GIVEN, TRUTH, 3) for p in (PREDICTED, GIVEN, TRUTH)])
    shares = early_shares(counts)
    assert shares["memorized"][0].tolist() == [0.25, 1, 0] and shares["corrected"][0].tolist() == [0.5, 0, 1]
    assert shares["fit"][1][1].tolist()[:2] == [1, 1] and math.isnan(shares["fit"][1][1][2])


@pytest.mark.parametrize("classes", [3, 40])
@pytest.mark.parametrize("noisy", [False, True])
def test_the_figure_shows_the_shares(classes: int, noisy: bool) -> None:
    truth = torch.arange(classes).repeat(6)
    given = (truth + (torch.arange(6 * classes) % 7 == 0)) % classes
    random = torch.Generator().manual_seed(0)
    epochs = [2, 4, 6]
    predicted = [torch.randint(classes, given.shape, generator=random) for _ in epochs]
    counts = torch.stack([early_counts(p, given, truth if noisy else None, classes) for p in predicted])
    figure = early_figure(epochs, counts, [f"class {k}" for k in range(classes)])
    shares = early_shares(counts)
    drawn = {str(line.get_label()): line for line in figure.axes[0].lines}
    assert drawn["all"].get_xdata().tolist() == epochs
    assert drawn["all"].get_ydata().tolist() == shares["fit"][0].tolist()
    if classes == 3:
        label = f"class 1 ({int(counts[0, 0, 1])})"
        assert drawn[label].get_ydata().tolist() == shares["fit"][1][:, 1].tolist()
    else:
        assert len(figure.axes[0].lines) == 40 + 3 + 1 and any(name.startswith("many: mean of 13") for name in drawn)
    assert len(figure.axes) == 1 + noisy
    if noisy:
        memorized = next(line for line in figure.axes[1].lines if "memorized" in str(line.get_label()))
        assert memorized.get_ydata().tolist() == shares["memorized"][0].tolist()
    assert to_array(figure).std() > 0


# In a training


class Pixels(LabeledUnlabeledDataModule):
    """Images whose first pixels are the logits of their class, and of the next one for every fourth."""

    def __init__(self, noise: LabelNoise | None) -> None:
        self.class_names = list(NAMES)
        super().__init__(
            class_counts=LabeledFraction(1.0),
            labeled_batch_size=4,
            steps_per_epoch=2,
            eval_batch_size=5,
            seed=0,
            label_noise=noise,
        )

    mean, std, horizontal_flip = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), False

    def load(self) -> Sources:
        targets = torch.arange(24) % 3
        shown = (targets + (torch.arange(24) % 4 == 0)) % 3
        pixels = nn.functional.one_hot(shown, 3).to(torch.uint8)[:, None, None, :].expand(-1, 3, -1, -1) * 255
        images = Images(pixels.contiguous(), targets)
        return Sources(images, val=images)


class Fixed(Supervised):
    """Learns nothing."""

    def make_views(self, batch: Any) -> Any:
        batch["labeled"]["weak"] = to_float(batch["labeled"]["image"])
        return batch


@pytest.mark.parametrize(
    ("limits", "steps"),
    [
        ({"max_epochs": 5}, [4, 8, 10]),
        ({"max_steps": 9}, [4, 8, 9]),
        ({"max_steps": 5, "limit_train_batches": 0.5}, [2, 4, 5]),
    ],
)
def test_curves_of_a_network_whose_predictions_are_known(
    limits: dict[str, Any], steps: list[int], tmp_path: Path
) -> None:
    seed_everything(0)
    method = Fixed(num_classes=3, network=PixelNetwork, optimizer=lambda groups: torch.optim.SGD(groups, lr=1e-30))
    curves = EarlyLearningCurves(every_n_epochs=2)
    data = Pixels(PairNoise(1.0, {"ant": "bee"}))
    trainer = Trainer(
        accelerator="cpu", callbacks=[curves], logger=TensorBoardLogger(tmp_path, name="", version=""), **limits,
        use_distributed_sampler=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=tmp_path, log_every_n_steps=1,
    )  # fmt: skip
    trainer.fit(method, data)
    assert curves.epochs == [2, 4, 5]
    # Of 8 ants, now all labeled bee, every fourth looks like a bee (2), the others like an ant; of 8 bees 2 look like
    # a cow; of 8 cows 2 like an ant.
    expected = [[0, 16, 8], [0, 2 + 6, 6], [0, 8, 0], [0, 6, 0], [0, 2, 0]]
    assert [counts.tolist() for counts in curves.counts] == [expected] * 3
    events = EventAccumulator(str(tmp_path), size_guidance={"images": 0})
    events.Reload()
    assert [(e.step, e.value) for e in events.Scalars("early/memorized")] == [(step, 0.25) for step in steps]
    assert (
        events.Scalars("early/fit_class/cow")[0].value == 0.75 and "early/fit_class/ant" not in events.Tags()["scalars"]
    )
    assert [image.step for image in events.Images("early/curves")] == steps[-1:]


@pytest.mark.parametrize(
    "saving",
    [
        {"every_n_train_steps": 6},
        {"every_n_train_steps": 8},  # the last step of an epoch
        {"every_n_epochs": 1, "save_on_train_epoch_end": True},
        {"every_n_epochs": 1, "save_on_train_epoch_end": False},
    ],
)
def test_a_resumed_run_has_the_same_curves_and_the_training_is_the_same_without(saving: Any, tmp_path: Path) -> None:
    method = partial(Supervised, mixup=0.75)  # draws random numbers within a step

    def save(name: str) -> Callback:
        return last(tmp_path / name, every_n_epochs=1, save_on_train_epoch_end=True)

    run(method, tmp_path, save("without"))
    run(method, tmp_path, EarlyLearningCurves(), save("whole"))
    with pytest.raises(Killed):
        run(method, tmp_path, EarlyLearningCurves(), last(tmp_path / "killed", **saving), Kill(10))
    resumed = EarlyLearningCurves()
    run(method, tmp_path, resumed, save("resumed"), ckpt=tmp_path / "killed" / "last.ckpt")
    whole, after = saved(tmp_path / "whole"), saved(tmp_path / "resumed")
    assert resumed.epochs == [1, 2, 3]
    assert_same(whole["callbacks"]["EarlyLearningCurves"], after["callbacks"]["EarlyLearningCurves"], "curves")
    for part in ("state_dict", "trained_weights", "optimizer_states"):
        assert_same(whole[part], saved(tmp_path / "without")[part], part)
        assert_same(whole[part], after[part], part)


def test_it_is_the_averaged_weights_that_predict(tmp_path: Path) -> None:
    seen: list[Tensor] = []

    class Watch(Callback):
        def on_validation_epoch_start(self, trainer: Trainer, pl_module: Any) -> None:
            labeled = trainer.datamodule.labeled  # type: ignore[attr-defined]
            with torch.no_grad(), evaluation_mode(pl_module.network):
                predicted = pl_module.network(to_float(labeled.images.pixels[labeled.rows])).argmax(dim=1)
            seen.append(early_counts(predicted, labeled.targets, None, 10))

    curves = EarlyLearningCurves()
    run(Supervised, tmp_path, curves, Watch())
    assert len(seen) == 3 and all(torch.equal(a, b) for a, b in zip(curves.counts, seen, strict=True))


def test_what_would_show_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="MoCoPretraining trains on none"):
        run(MoCoPretraining, tmp_path, EarlyLearningCurves())
    for arguments in ({"every_n_epochs": 0}, {"figures_every": 0}):
        with pytest.raises(ValueError, match="(figures_every|every_n_epochs) is 0; it must be at least 1"):
            EarlyLearningCurves(**arguments)
