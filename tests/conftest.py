"""Shared settings and fixtures of the tests."""

import os
from typing import TYPE_CHECKING

import pytest
import torch
from hypothesis import settings

if TYPE_CHECKING:
    from tests.contract import Runs

# Tiny work on few cores: threads only wait for each other. Subprocesses inherit the variable.
os.environ["OMP_NUM_THREADS"] = "1"
torch.set_num_threads(1)

# The same examples in every run, and no files beside the code.
settings.register_profile("tests", derandomize=True, database=None, deadline=None, max_examples=50)
settings.load_profile("tests")


@pytest.fixture(scope="session", autouse=True)
def cache_of_its_own(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Let no test read or write the user's cache, nor that of another test process."""
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> "Runs":
    """Runs of the contract that several tests read."""
    from tests.contract import Runs  # takes seconds, and most tests do without it

    return Runs(tmp_path_factory.mktemp("runs"))
