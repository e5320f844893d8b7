"""Run the contract's cases in each of the two processes of `test_two_processes.py`."""

import json
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from pytorch_lightning import Callback, Trainer, seed_everything
from torch import Tensor

from tailmatch.callbacks import PredictionWriter, PseudoLabelWriter
from tailmatch.datamodules import Digits, ImageDataModule, InMemory, LabeledFraction, UnlabeledImages
from tailmatch.lightning_modules import ImageClassifier, MixMatch, SimMixMatch, Supervised
from tailmatch.lightning_modules.heads import NCM, TauNorm
from tailmatch.lightning_modules.networks import CifarResNet, NetworkFactory
from tests.contract import (
    NO_REMEDY,
    at_epoch_ends,
    callbacks_of,
    cases,
    category_network,
    last,
    plain_network,
    post_hoc,
    source_checkpoint,
)
from tests.contract import run as run_method
from tests.joint_batches import CASES, train
from tests.lightning_modules.pixel_network import PixelNetwork


def case_folder(root: Path, method: type[ImageClassifier], remedy: str) -> Path:
    """Where a case leaves its checkpoints and `test_metrics.json`."""
    return root / f"{method.__name__}-{remedy.replace(' ', '-')}"


def run_case(method: type[ImageClassifier], remedy: str, folder: Path, network: NetworkFactory = plain_network) -> None:
    """A whole run and its test, and one that goes on from the middle of it."""

    def run(name: str, *more: Callback, ckpt: Path | None = None) -> Trainer:
        options: dict[str, Any] = {"network": network, "devices": 2, "strategy": "ddp"}
        return run_method(method, folder / name, *callbacks_of(remedy), *more, ckpt=ckpt, **options)

    middle = folder / "middle"
    trainer = run("whole", at_epoch_ends(folder / "whole"), last(middle, every_n_train_steps=7))
    if isinstance(trainer.lightning_module, SimMixMatch):
        save_contrast(trainer.lightning_module, folder)
    trainer.test(trainer.lightning_module, trainer.datamodule, verbose=False)  # type: ignore[attr-defined]
    run("resumed", at_epoch_ends(folder / "resumed"), ckpt=middle / "last.ckpt")


def save_computed_heads(folder: Path) -> None:
    """Leave the state of each computed head on this process."""
    for head in (TauNorm(), NCM()):
        method = post_hoc(source_checkpoint(folder), head)
        trainer = run_method(method, folder, devices=2, strategy="ddp")
        torch.save(trainer.lightning_module.state_dict(), folder / f"{type(head).__name__}-{trainer.global_rank}.pt")


def embeddings() -> Tensor:
    """`[processes, views, images, D]` to contrast."""
    return torch.randn(2, 2, 3, 4, generator=torch.Generator().manual_seed(0))


def save_contrast(method: SimMixMatch, folder: Path) -> None:
    """Leave this process' gradient of the contrastive loss over all processes."""
    own = embeddings()[method.global_rank].requires_grad_()
    method.contrast(own).backward()  # type: ignore[no-untyped-call]
    torch.save(own.grad, folder / f"contrast-{method.global_rank}.pt")


def write_photos(root: Path) -> None:
    """Leave images without labels: 11 of them, so that the last batch is not full."""
    (root / "photos").mkdir()
    for number in range(11):
        Image.new("RGB", (8, 8), (20 * number, 100, 250 - 20 * number)).save(root / "photos" / f"{number}.png")


def save_predictions(root: Path, folder: Path, **trainer: Any) -> None:
    """Predict images with labels and without, as tables and as pseudo-labels."""
    seed_everything(0, verbose=False)
    model = Supervised(num_classes=10, network=partial(CifarResNet, depth=8))
    names = [str(k) for k in range(10)]
    photos = str(root / "photos")
    kinds: dict[str, Callable[[], ImageDataModule]] = {
        "digits": lambda: Digits(image_size=8, eval_batch_size=100, predict_set="test"),
        "photos": lambda: UnlabeledImages(
            photos, names, image_size=8, cache_dir=str(folder / "cache"), eval_batch_size=3
        ),
    }
    columns = ["key", "label", "confidence", "runners_up", "probs"]
    for name, data in kinds.items():
        tables = [PredictionWriter(str(folder / f"{name}{suffix}"), columns) for suffix in (".csv", ".parquet")]
        pseudo_labels = [PseudoLabelWriter(str(folder / f"{name}.npz"), probs=True)]
        made = Trainer(
            accelerator="cpu", default_root_dir=folder, callbacks=[*tables, *pseudo_labels], logger=False,
            enable_progress_bar=False, enable_model_summary=False, use_distributed_sampler=False, **trainer,
        )  # fmt: skip
        made.predict(model, data(), return_predictions=False)


def validation_of_few(folder: Path, **trainer: Any) -> dict[str, float]:
    """Validate a fit that changes nothing on five images, one a step, so that a process may have an image less."""
    pixels = torch.randint(256, (20, 4, 3, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)).numpy()
    targets = [place % 3 for place in range(20)]
    data = InMemory(
        pixels[5:], targets[5:], val=(pixels[:5], targets[:5]), class_counts=LabeledFraction(1.0),
        labeled_batch_size=2, steps_per_epoch=2, eval_batch_size=1,
    )  # fmt: skip
    method = Supervised(3, network=PixelNetwork, ema_decay=None, optimizer=partial(torch.optim.SGD, lr=1e-30))
    made = Trainer(
        accelerator="cpu", default_root_dir=folder, logger=False, max_epochs=1, num_sanity_val_steps=0,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        use_distributed_sampler=False, **trainer,
    )  # fmt: skip
    made.fit(method, data)
    return {name: value.item() for name, value in made.callback_metrics.items() if name.startswith("val/")}


def process(rank: int, root: Path) -> None:
    """Run all cases as one of the two processes: most of the time of a case on its own would be their start."""
    os.environ["LOCAL_RANK"] = str(rank)  # so that Lightning starts no more processes
    for method, remedy in cases("two processes"):
        run_case(method, remedy, case_folder(root, method, remedy))
    save_computed_heads(root)
    run_case(MixMatch, NO_REMEDY, root / "categories", category_network)
    save_predictions(root, root / "predictions", devices=2, strategy="ddp")
    few = validation_of_few(root, devices=2, strategy="ddp")
    (root / f"few-{rank}.json").write_text(json.dumps(few))
    for number, name in enumerate(CASES):
        torch.save(train(name, root, devices=2, strategy="ddp"), root / f"joint-{number}-{rank}.pt")


def process_of_resumes(rank: int, root: Path) -> None:
    """Continue every case, as one of two processes, after the steps that one process did."""
    os.environ["LOCAL_RANK"] = str(rank)
    for method, remedy in cases("two processes"):
        folder = case_folder(root, method, remedy) / "changed"
        ckpt = folder / "one" / "last.ckpt"
        options: dict[str, Any] = {"ckpt": ckpt, "devices": 2, "strategy": "ddp"}
        run_method(method, folder, *callbacks_of(remedy), at_epoch_ends(folder / "two"), **options)
