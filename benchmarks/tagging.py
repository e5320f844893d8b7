"""Measure the geometric-mean F1 of each step of docs/tagging.md on product photographs, with wrong labels.

    unzip fashion-products.zip -d products
    python -m benchmarks.tagging products [--seeds 3] [--noise 0.2] [--steps 1000]

The steps are those of configs/tagging, with a small network without pretrained weights on images of 64 pixels: the
target is `usage`, half of the training images are labeled, and a share of these has the label of another class, drawn
uniformly; the other images are unlabeled. Validation and test labels are right. Each seed draws another split, other
wrong labels, weights and views. The checkpoint that is best on the validation images is tested, as in the
configurations. Several trainings run in parallel, each on one core.
"""

import argparse
import itertools
import logging
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import torch
import yaml

from tailmatch.command_line.lightning_cli import TailmatchCLI
from tailmatch.lightning_modules.training.quiet import quiet_known_noise

CONFIGS = Path(__file__).parent.parent / "configs"
SMALL = {
    "class_path": "TorchvisionNetwork",
    "init_args": {"name": "shufflenet_v2_x0_5"},
}
EPOCHS = 10
LEARNING_RATE = 0.003
"""Learning rate for random weights; that of the configurations is for pretrained ones."""

METRICS = ("gm_f1", "macro_f1", "balanced_accuracy", "top1")


def without_smoothing(config: dict[str, Any]) -> None:
    """Remove label smoothing from a configuration."""
    del config["model"]["init_args"]["loss"]


STEPS: dict[str, tuple[str, Callable[[dict[str, Any]], None] | None]] = {
    "image only": ("baseline", None),
    "image, smoothing": ("label_smoothing", None),
    "image + categories": ("categories", without_smoothing),
    "+ smoothing": ("categories", None),
    "+ self-training": ("self_training", None),
    "+ ensemble": ("ensemble", None),
}
"""Name to its file in configs/tagging, and the change made to it."""

ROUNDS = (("+ smoothing", "image only"), ("+ self-training", "image, smoothing", "image + categories"), ("+ ensemble",))
"""Steps that are independent of each other; a round needs the results of the rounds before."""


class Quiet(TailmatchCLI):
    """The command line without its reports."""

    def instantiate_trainer(self, **kwargs: Any) -> Any:
        """Create a silent trainer on one core."""
        return super().instantiate_trainer(
            accelerator="cpu", enable_progress_bar=False, enable_model_summary=False, logger=False, **kwargs
        )


def small(value: Any, runs: Path) -> Any:
    """Replace the network of a configuration by the small one, and its checkpoints by those of these runs."""
    if isinstance(value, dict):
        if str(value.get("class_path", "")).endswith("TorchvisionNetwork"):
            return SMALL
        return {key: small(part, runs) for key, part in value.items()}
    if isinstance(value, list):
        return [small(part, runs) for part in value]
    if isinstance(value, str) and value.startswith("runs/tagging/categories/"):
        return str(best(runs, "+ smoothing"))
    if isinstance(value, str) and value.startswith("runs/tagging/self_training/"):
        return str(best(runs, "+ self-training"))
    return value


def best(runs: Path, step: str) -> Path:
    """Return the path of a step's checkpoint."""
    return runs / step / "checkpoints" / "best.ckpt"


def run(step: str, products: Path, runs: Path, seed: int, noise: float, steps: int) -> dict[str, float]:
    """Train and test one step on one core; return test metrics by name, and the seconds."""
    begin = time.perf_counter()
    torch.set_num_threads(1)
    quiet_known_noise()
    warnings.simplefilter("ignore")
    for name in ("pytorch_lightning", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    sys.argv = sys.argv[:1]
    name, change = STEPS[step]
    config = yaml.safe_load((CONFIGS / "tagging" / f"{name}.yaml").read_text())
    if change is not None:
        change(config)
    config = {**yaml.safe_load((CONFIGS / "data" / "fashion_products.yaml").read_text()), **small(config, runs)}
    config["data"]["init_args"] |= {
        "table": str(products / "products.csv"),
        "image_size": 64,
        "steps_per_epoch": steps // EPOCHS,
        "label_noise": {"class_path": "tailmatch.datamodules.SymmetricNoise", "init_args": {"share": noise}},
    }
    if step != "+ ensemble":
        config["model"]["init_args"]["optimizer"]["init_args"]["lr"] = LEARNING_RATE
        config["trainer"]["max_epochs"] = EPOCHS
    with tempfile.TemporaryDirectory() as folder, open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
        file = Path(folder) / "config.yaml"
        file.write_text(yaml.safe_dump(config))
        arguments = ["--config", str(file), f"--seed_everything={seed}", f"--run_dir={runs / step}"]
        cli = Quiet(["test" if step == "+ ensemble" else "fit", *arguments])
        if step != "+ ensemble":
            cli.trainer.test(cli.model, cli.datamodule, ckpt_path=str(best(runs, step)), verbose=False)
    measured = {metric: float(cli.trainer.callback_metrics[f"test/{metric}"]) for metric in METRICS}
    return {**measured, "seconds": time.perf_counter() - begin}


def main() -> None:
    """Run all steps and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("products", type=Path, help="folder of products.csv")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--noise", type=float, default=0.2)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    args = parser.parse_args()
    begin, results = time.perf_counter(), dict[tuple[str, int], dict[str, float]]()
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder, ProcessPoolExecutor(args.processes, context) as pool:
        for steps in ROUNDS:
            jobs = {
                (step, seed): pool.submit(
                    run, step, args.products.resolve(), Path(folder) / str(seed), seed, args.noise, args.steps
                )
                for step, seed in itertools.product(steps, range(args.seeds))
            }
            for (step, seed), job in jobs.items():
                results[step, seed] = job.result()
                print(f"{step}, seed {seed}: {results[step, seed]['seconds']:.0f} s", file=sys.stderr, flush=True)
    print(f"test, {args.noise:.0%} of the labels wrong, {args.steps} steps, torch {torch.__version__}")
    print(f"{'step':20}{'gm_f1 by seed':>20}" + "".join(f"{name:>19}" for name in (*METRICS, "seconds")))
    for step in STEPS:
        found = [results[step, seed] for seed in range(args.seeds)]
        scores = " ".join(f"{result['gm_f1']:.1%}"[:-1] for result in found)
        means = [f"{statistics.mean(result[metric] for result in found):.1%}"[:-1] for metric in METRICS]
        seconds = f"{statistics.mean(result['seconds'] for result in found):.0f}"
        print(f"{step:20}{scores:>20}" + "".join(f"{cell:>19}" for cell in (*means, seconds)))
    print(f"{(time.perf_counter() - begin) / 60:.1f} minutes")


if __name__ == "__main__":
    main()
