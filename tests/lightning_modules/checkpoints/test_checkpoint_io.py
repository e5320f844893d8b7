"""Checkpoints are written whole or not at all."""

from pathlib import Path
from typing import Any

import pytest
import torch

from tailmatch.lightning_modules.checkpoints.checkpoint_io import AtomicCheckpointIO


def test_a_failed_write_leaves_the_old_checkpoint_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "deep" / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint({"step": 1}, path)

    def cut_off(checkpoint: Any, file: Any) -> None:
        file.write(b"half")
        raise OSError("no space left")

    monkeypatch.setattr(torch, "save", cut_off)
    with pytest.raises(OSError, match="no space left"):
        AtomicCheckpointIO().save_checkpoint({"step": 2}, path)
    monkeypatch.undo()
    assert torch.load(path, weights_only=True) == {"step": 1}
    assert [p.name for p in path.parent.iterdir()] == ["last.ckpt"]


def test_what_a_checkpoint_names_is_not_removed_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, thesis = tmp_path / "run" / "checkpoints", tmp_path / "thesis"
    thesis.mkdir()
    (thesis / "draft.ckpt").touch()
    monkeypatch.chdir(tmp_path)
    io = AtomicCheckpointIO()
    io.save_checkpoint({"step": 1}, folder / "epoch-1.ckpt")
    io.save_checkpoint({"step": 2}, folder / "epoch-2.ckpt")
    for name in (f"local://{thesis}", f"{folder}/../../thesis", f"{folder}/../../thesis/draft.ckpt", "thesis", ""):
        io.remove_checkpoint(name)
    assert (thesis / "draft.ckpt").exists() and len(list(folder.iterdir())) == 2
    io.remove_checkpoint(folder / "epoch-1.ckpt")
    assert [file.name for file in folder.iterdir()] == ["epoch-2.ckpt"]
