"""One of two processes that run every method with every remedy: `python -m tests.two_processes FOLDER`.

Both are started once for all cases, since most of the time of a small run in processes of its own is their start.
`LOCAL_RANK`, `MASTER_ADDR` and `MASTER_PORT` say who they are.
"""

import json
import os
import sys
import traceback
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from pytorch_lightning import Trainer, seed_everything
from pytorch_lightning.strategies import DDPStrategy
from torch import Tensor

from tailmatch.callbacks import PredictionWriter
from tailmatch.datamodules import Digits, ImageDataModule, UnlabeledImages
from tailmatch.lightning_modules import ImageClassifier, MixMatch, SimMixMatch, Supervised
from tailmatch.lightning_modules.heads import NCM, TauNorm
from tailmatch.lightning_modules.networks import CifarResNet, NetworkFactory
from tests.contract import (
    KILLED_AFTER,
    METHODS,
    NO_REMEDY,
    SAVED_AFTER,
    Kill,
    Killed,
    at_epoch_ends,
    callbacks_of,
    category_network,
    last,
    plain_network,
    post_hoc,
    remedies,
    source_checkpoint,
)
from tests.contract import run as run_method


def case_folder(root: Path, method: type[ImageClassifier], remedy: str) -> Path:
    """Where a case leaves its checkpoints and `result.json`."""
    return root / f"{method.__name__}-{remedy.replace(' ', '-')}"


def run_case(
    method: type[ImageClassifier], remedy: str, folder: Path, network: NetworkFactory = plain_network
) -> dict[str, float]:
    """A whole run, a killed and resumed one; test metrics of the whole one."""

    def run(name: str, *more: object, ckpt: Path | None = None) -> Trainer:
        strategy = DDPStrategy(process_group_backend="gloo", timeout=timedelta(seconds=60))
        arguments: dict[str, Any] = {"ckpt": ckpt, "network": network, "devices": 2, "strategy": strategy}
        return run_method(method, folder / name, *callbacks_of(remedy), *more, **arguments)  # type: ignore[arg-type]

    trainer = run("whole", at_epoch_ends(folder / "whole"))
    if isinstance(trainer.lightning_module, SimMixMatch):
        save_contrast(trainer.lightning_module, folder)
    [metrics] = trainer.test(trainer.lightning_module, trainer.datamodule, verbose=False)  # type: ignore[attr-defined]
    try:
        run("killed", last(folder / "killed", every_n_train_steps=SAVED_AFTER), Kill(KILLED_AFTER))
    except Killed:
        run("resumed", at_epoch_ends(folder / "resumed"), ckpt=folder / "killed" / "last.ckpt")
    return dict(metrics)


def save_computed_heads(folder: Path) -> None:
    """Leave the state of each computed head on this process."""
    for head in (TauNorm(), NCM()):
        strategy = DDPStrategy(process_group_backend="gloo", timeout=timedelta(seconds=60))
        method = post_hoc(source_checkpoint(folder), head)
        trainer = run_method(method, folder, devices=2, strategy=strategy)
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


def save_predictions(root: Path, folder: Path, devices: int = 1) -> None:
    """Predict images with labels and without, as text and as Parquet."""
    seed_everything(0, verbose=False)
    model = Supervised(num_classes=10, network=partial(CifarResNet, depth=8))
    names = [str(k) for k in range(10)]
    kinds: dict[str, Callable[[], ImageDataModule]] = {
        "digits": lambda: Digits(image_size=8, eval_batch_size=100, predict_set="test"),
        "photos": lambda: UnlabeledImages(
            str(root / "photos"), names, 8, cache_dir=str(folder / "cache"), eval_batch_size=3
        ),
    }
    for name, data in kinds.items():
        for suffix in (".csv", ".parquet"):
            writer = PredictionWriter(
                str(folder / f"{name}{suffix}"), ["key", "label", "confidence", "runners_up", "probs"]
            )
            strategy = (
                DDPStrategy(process_group_backend="gloo", timeout=timedelta(seconds=60)) if devices > 1 else "auto"
            )
            made = Trainer(
                accelerator="cpu", default_root_dir=folder, callbacks=[writer], logger=False,
                enable_progress_bar=False, enable_model_summary=False, use_distributed_sampler=False,
                devices=devices, strategy=strategy,
            )  # fmt: skip
            made.predict(model, data(), return_predictions=False)


def main() -> None:
    """Run all cases; write what happened to each."""
    root = Path(sys.argv[1])
    torch.set_num_threads(1)
    for method in METHODS:
        for remedy in remedies(method):
            folder = case_folder(root, method, remedy)
            folder.mkdir(parents=True, exist_ok=True)
            try:
                result: dict[str, object] = {"metrics": run_case(method, remedy, folder)}
            except Exception:
                result = {"error": traceback.format_exc()}
            if os.environ["LOCAL_RANK"] == "0" or "error" in result:
                (folder / "result.json").write_text(json.dumps(result))
            if "error" in result:
                sys.exit(1)  # the other process would wait for this one
    save_computed_heads(root)
    run_case(MixMatch, NO_REMEDY, root / "categories", category_network)
    save_predictions(root, root / "predictions", devices=2)


if __name__ == "__main__":
    main()
