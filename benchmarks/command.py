"""Run `tailmatch` commands in this process, silently, with a callback that watches their trainer."""

import os
from contextlib import redirect_stderr, redirect_stdout
from typing import Any
from unittest import mock

from pytorch_lightning import Callback, Trainer

from tailmatch.command_line.lightning_cli import TailmatchCLI
from tests.typed import tailmatch


def run_watched(callback: Callback, *words: str) -> None:
    """Run a command, whose trainer has the callback as its last one."""
    make = TailmatchCLI.instantiate_trainer

    def with_callback(cli: TailmatchCLI, **settings: Any) -> Trainer:
        trainer = make(cli, **settings)
        trainer.callbacks.append(callback)  # type: ignore[attr-defined]
        return trainer

    with (
        open(os.devnull, "w") as nowhere,
        redirect_stdout(nowhere),
        redirect_stderr(nowhere),
        mock.patch.object(TailmatchCLI, "instantiate_trainer", with_callback),
    ):
        tailmatch(*words)
