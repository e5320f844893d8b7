"""Memory that is freed stays in the process, unless the environment says otherwise."""

import os
import platform
import subprocess
import sys

import pytest

from tailmatch.lightning_modules.training import keep_freed_memory

FAULTS = """
import resource
import torch
from tailmatch.lightning_modules.training import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        torch.zeros(2**26, dtype=torch.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults()
before, told = faults(), keep_freed_memory()
faults()
print(before, told, faults())
"""

on_glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")


def measured(**environment: str) -> tuple[int, bool, int]:
    """Return the page faults of ten blocks before the call, what it returned, and those of ten blocks after it."""
    done = subprocess.run(
        [sys.executable, "-c", FAULTS], env=os.environ | environment, capture_output=True, text=True, check=True
    )
    before, told, after = done.stdout.split()
    return int(before), told == "True", int(after)


@on_glibc
def test_freed_memory_is_kept() -> None:
    before, told, after = measured()
    assert told and before > 100  # huge pages are few
    assert after < before / 10


@on_glibc
@pytest.mark.parametrize("environment", [{"MALLOC_ARENA_MAX": "2"}, {"GLIBC_TUNABLES": "glibc.malloc.tcache_count=7"}])
def test_what_the_environment_says_is_left_alone(environment: dict[str, str]) -> None:
    before, told, after = measured(**environment)
    assert not told and after > before / 10


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    assert not keep_freed_memory()
