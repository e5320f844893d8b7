"""The script for a GPU is tried on a processor, since where there is a GPU there is little time."""

import io
import os
import subprocess
from argparse import Namespace
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch

from benchmarks import gpu, gpu_steps, gpu_training
from tests.documented_commands import ROOT

TINY = ["--device=cpu", "--seconds=0.01", "--batch-size=2", "--images=40", "--small"]


def run_here(words: list[str], **options: Any) -> Any:
    """What a part's process does, in this one; MixMatch ends with an error, and SimPro takes too long."""
    name = words[words.index("--part") + 1]
    if name == "MixMatch":
        return Namespace(returncode=1, stdout="| MixMatch | TF32 | 1 |\n", stderr="Traceback\nValueError: why\n")
    if name == "SimPro":
        raise subprocess.TimeoutExpired(words, options["timeout"], b"| SimPro | TF32 | 2 |\n")
    out = io.StringIO()
    with redirect_stdout(out), mock.patch("sys.argv", ["gpu", *words[3:]]):
        gpu.main()
    return Namespace(returncode=0, stdout=out.getvalue(), stderr="")


@pytest.fixture
def undone() -> Iterator[None]:
    """What a process of its own would leave behind is undone."""
    matmul, convolutions = torch.backends.cuda.matmul, torch.backends.cudnn
    flags = matmul.allow_tf32, convolutions.allow_tf32
    with mock.patch.dict(os.environ):
        yield
    matmul.allow_tf32, convolutions.allow_tf32 = flags
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


@pytest.mark.usefixtures("undone")
@pytest.mark.filterwarnings("ignore:Total length of", "ignore:You passed `Trainer")
def test_all_parts_are_measured_and_those_that_fail_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = [name for name in gpu.PARTS if name not in ("DARP", "chunks")]  # which are programs of their own
    monkeypatch.setattr("sys.argv", ["gpu", f"--out={tmp_path}/new/gpu.md", *TINY, "--parts", *parts])
    monkeypatch.setattr(gpu, "machine", lambda device: device)  # which may ask a process
    with mock.patch.object(gpu.subprocess, "run", run_here):  # type: ignore[attr-defined]
        gpu.main()
    page = (tmp_path / "new" / "gpu.md").read_text()
    rows = [line.split(" | ") for line in page.splitlines() if line.startswith("| FixMatch |")]
    names = [*gpu_steps.PRECISIONS, "TF32, DDP of one process over Gloo", "TF32, compiled", "bf16-mixed, compiled"]
    assert [cells[1] for cells in rows] == names
    for cells in rows:
        ms, images = (float(cell.replace(",", "")) for cell in cells[2:4])
        assert images == pytest.approx(16 / ms * 1000, rel=0.02)
        assert len(cells) == len(gpu.HEADER.splitlines()[0].split(" | "))
    assert "| MixMatch | TF32 | 1 |" in page and "MixMatch failed: ValueError: why" in page
    assert "| SimPro | TF32 | 2 |" in page and "SimPro failed: stopped, as only" in page
    profile = page.partition("| the five largest rows |")[2].splitlines()
    assert len([line for line in profile[2:] if line.startswith("|")]) == 5


@pytest.mark.usefixtures("undone")
def test_a_training_that_fails_is_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(gpu_training.METHODS, "FixMatch", (lambda *args, **options: 1 / 0, 7))
    row = gpu_steps.row("TF32", "FixMatch", gpu_training.Setting("cpu", 0.01, 2, 40, True))
    assert row == "| FixMatch | TF32 | failed: division by zero |"


def test_script_writes_its_file_and_names_what_no_time_is_left_for(tmp_path: Path) -> None:
    words = ["bash", str(ROOT / "benchmarks" / "gpu.sh"), f"{tmp_path}/gpu.md", *TINY, "--limit=0"]
    subprocess.run(words, check=True, capture_output=True, cwd=tmp_path)
    page = (tmp_path / "gpu.md").read_text()
    assert all(f"{name}: left out, as no time is left" in page for name in gpu.PARTS)
