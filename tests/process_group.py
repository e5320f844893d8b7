"""Start two processes for a test."""

import os
from collections.abc import Callable
from datetime import timedelta
from multiprocessing import set_forkserver_preload
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import distributed
from torch.multiprocessing import start_processes


def on_two_processes(function: Callable[..., None], folder: Path, *args: Any) -> None:
    """Call `function(rank, folder, *args)` on each of two processes of one group, and wait for both.

    They meet in a file of the folder, since a port might be taken. They are forks of a server that imports the package
    once in a test session: importing takes seconds, and a fork of the test's own process would have its threads' locks.
    """
    set_forkserver_preload(["tests.contract"])
    start_processes(_process, args=(function, folder, *args), nprocs=2, start_method="forkserver")


def _process(rank: int, function: Callable[..., None], folder: Path, *args: Any) -> None:
    torch.set_num_threads(1)
    store = f"file://{folder}/store"
    distributed.init_process_group("gloo", init_method=store, rank=rank, world_size=2, timeout=timedelta(seconds=60))
    function(rank, folder, *args)
    leave()


def leave() -> NoReturn:
    """End this process well, and at once.

    Before torch 2.8, `destroy_process_group` may hold Python's lock while it waits for a thread of gloo that waits for
    the lock (pytorch/pytorch, pull request 154976); without it, Python's own end may abort for the same reason.
    """
    os._exit(0)
