"""Faults of checkpoints, and checkpoints that do not fit."""

from pathlib import Path
from typing import Any

import torch

from tests.bad_inputs.engine import Row, Spoil, row
from tests.bad_inputs.prepared import BEST, EXPORT, FIT, LAST, NETWORK, PREDICT, RESUME, TEST
from tests.bad_inputs.spoil import copy, cut, fifo, flip, html, link, make, pointer, remove, rights, write

FOREIGN = f"test --config small.yaml --ckpt_path {BEST}"
"""A test with the settings of a file and the weights of a checkpoint."""


def saved(name: str, content: object) -> Spoil:
    """Save something else in place of a checkpoint."""
    return lambda folder: torch.save(content, folder / name)


def edited(name: str, **changed: Any) -> Spoil:
    """Change entries of a checkpoint: a function changes the entry, None removes it."""

    def spoil(folder: Path) -> None:
        content = torch.load(folder / name, weights_only=True)
        for key, value in changed.items():
            new = value(content[key]) if callable(value) else value
            content.pop(key, None)
            if new is not None:
                content[key] = new
        torch.save(content, folder / name)

    return spoil


def broken(number: float) -> Any:
    """Give a function that puts a number into every tensor of a state dict."""

    def change(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {key: value.fill_(number) if value.is_floating_point() else value for key, value in state.items()}

    return change


def tested(name: str, *spoils: object, says: tuple[str, ...] = (), **more: object) -> Row:
    """Make a row of a spoiled checkpoint in a test, which the message must name."""
    return row(f"{name} in a test", TEST, "best.ckpt", *says, given=spoils, **more)


def resumed(name: str, *spoils: object, says: tuple[str, ...] = (), **more: object) -> Row:
    """Make a row of a spoiled checkpoint on a resume, which the message must name."""
    command = f"{RESUME} --trainer.max_epochs 2"
    return row(f"{name} on a resume", command, "last.ckpt", *says, given=spoils, **more)


ROWS = [
    row("no such checkpoint", "test --ckpt_path nowhere.ckpt", "nowhere.ckpt"),
    row("a typo in best", "test --run_dir runs/good --ckpt_path bset", "bset", "best.ckpt"),
    row("no such run", "test --run_dir runs/goood --ckpt_path best", "runs/goood"),
    row("a run without best", TEST, "best.ckpt", "last.ckpt", given=[remove(BEST)]),
    row("a run without checkpoints", RESUME, "last.ckpt", given=[remove("runs/good/checkpoints")]),
    row("the checkpoints' folder as checkpoint", "test --ckpt_path runs/good/checkpoints", "runs/good/checkpoints"),
    row("a link to nothing", TEST, "best.ckpt", given=[link(BEST, "nowhere.ckpt")]),
    row("an address that is not there", "test --ckpt_path file:///nowhere/best.ckpt", "file:///nowhere/best.ckpt"),
    row("a server that is not there", "test --ckpt_path http://127.0.0.1:9/best.ckpt", "http://127.0.0.1:9/best.ckpt"),
    row("an unknown protocol", "test --ckpt_path htp://example.org/best.ckpt", "htp://example.org/best.ckpt"),
    row("the configuration as checkpoint", "test --ckpt_path runs/good/config.yaml", "config.yaml"),
    tested("an empty checkpoint", write(BEST)),
    tested("a checkpoint cut at its front", cut(BEST, 0.05)),
    tested("a checkpoint cut in the middle", cut(BEST, 0.5)),
    tested("a checkpoint cut at its end", cut(BEST, 0.999)),
    tested("a flipped bit in the middle", flip(BEST, 0.5)),
    tested("a flipped bit near the front", flip(BEST, 0.1)),
    tested("a flipped bit near the end", flip(BEST, 0.95)),
    tested("a web page", html(BEST), says=("HTML",)),
    tested("a pointer of git-lfs", pointer(BEST), says=("git-lfs",)),
    tested("a text", write(BEST, "weights\n")),
    tested("an archive of something else", copy("pseudo_labels.npz", BEST)),
    tested("an image", copy("photos/0.png", BEST)),
    tested("a FIFO", fifo(BEST)),
    tested("a folder", make(BEST)),
    tested("a file that may not be read", rights(BEST, 0), says=("ermission",)),
    tested("a tensor", saved(BEST, torch.zeros(3))),
    tested("a list", saved(BEST, [1, 2])),
    tested("an empty dict", saved(BEST, {})),
    tested("a state dict alone", saved(BEST, {"weight": torch.zeros(3)})),
    tested("a whole model", saved(BEST, torch.nn.Linear(2, 2)), says=("Linear",)),
    tested("no weights", edited(BEST, state_dict=None), says=("state_dict",)),
    tested("weights that are no dict", edited(BEST, state_dict=[1, 2])),
    tested("weights with a text", edited(BEST, state_dict=lambda state: {**state, next(iter(state)): "a"})),
    tested("some weights missing", edited(BEST, state_dict=lambda state: dict(list(state.items())[3:])), says=("missing",)),
    row("no configuration in a test", TEST, "--data", given=[edited(BEST, config=None)], code=2),
    tested("a configuration that is no text", edited(BEST, config=5)),
    tested("a configuration that is no YAML", edited(BEST, config="model: [")),
    row("other class names in a test", TEST, "other classes", "cat", given=[edited(BEST, class_names=["a", "b", "c"])]),
    tested("weights that are NaN", edited(BEST, state_dict=broken(float("nan"))), says=("NaN",)),
    resumed("an empty checkpoint", write(LAST), says=("best.ckpt",)),
    resumed("a checkpoint cut in the middle", cut(LAST), says=("best.ckpt",)),
    resumed("a web page", html(LAST), says=("HTML", "best.ckpt")),
    resumed("a flipped bit", flip(LAST), says=("best.ckpt",)),
    resumed("no optimizer", edited(LAST, optimizer_states=None)),
    resumed("an empty optimizer", edited(LAST, optimizer_states=[])),
    resumed("no loops", edited(LAST, loops=None)),
    resumed("weights that are NaN", edited(LAST, state_dict=broken(float("nan"))), says=("NaN",)),
    row("a resume with other data", f"{RESUME} --trainer.max_epochs 2 --data.class_counts.fraction 0.5", "another split", "seed"),
    row("a resume with another seed", f"{RESUME} --trainer.max_epochs 2 --seed_everything 5", "seed"),
    row("a resume with another method", f"{RESUME} --trainer.max_epochs 2 --model MixMatch {NETWORK}", "FixMatch", "MixMatch"),
    row("a resume with another depth", f"{RESUME} --trainer.max_epochs 2 --model.network.depth 14", "depth"),
    row("a resume with another optimizer", f"{RESUME} --trainer.max_epochs 2 --model.optimizer torch.optim.AdamW", "optimizer"),
    row("a resume of a file from elsewhere", f"fit --ckpt_path {LAST}", "last.ckpt", "--trust_checkpoint"),
    row("another depth", f"{FOREIGN} --model.network.depth 14", "best.ckpt", "depth"),
    row("another network", f"{FOREIGN} --model.network WideResNet --model.network.depth 10", "best.ckpt", "WideResNet"),
    row("another method", f"{FOREIGN} --model ReMixMatch {NETWORK}", "best.ckpt", "ReMixMatch"),
    row("another number of classes", f"{FOREIGN} --data Digits", "other classes", "cat"),
    row("weights to begin with that are missing", f"{FIT} --model.pretrained nowhere.ckpt", "nowhere.ckpt"),
    row("weights of another network to begin with", f"{FIT} --model.network.depth 14 --model.pretrained {BEST}", "best.ckpt"),
    row("a folder to begin with", f"{FIT} --model.pretrained images", "images"),
    row("a new head on a web page", f"{FIT} --model ClassifierRetraining --model.checkpoint page.ckpt", "page.ckpt", given=[html("page.ckpt")]),
    row("a new head on another network", f"{FIT} --model ClassifierRetraining --model.checkpoint {BEST} --model.network.depth 16", "best.ckpt"),
    row("a teacher that is a web page", f"{FIT} --model SelfTraining {NETWORK} --trainer.callbacks+=PseudoLabelGenerator --trainer.callbacks.teacher page.ckpt", "page.ckpt", given=[html("page.ckpt")]),
    row("a teacher of other classes", f"{FIT} --data Digits --data.labeled_batch_size 4 --model SelfTraining {NETWORK} --trainer.callbacks+=PseudoLabelGenerator --trainer.callbacks.teacher {BEST}", "best.ckpt"),
    row("a prediction with a web page", PREDICT, "best.ckpt", given=[html(BEST)]),
    row("a prediction with NaN", PREDICT, "NaN", given=[edited(BEST, state_dict=broken(float("nan")))]),
    row("an export of nothing", "export nowhere.ckpt out.pt2", "nowhere.ckpt"),
    row("an export of a web page", EXPORT, "best.ckpt", given=[html(BEST)]),
    row("an export of NaN", EXPORT, "best.ckpt", "NaN", given=[edited(BEST, state_dict=broken(float("nan")))]),
]  # fmt: skip
