"""The checkpoints that a run keeps."""

from pathlib import Path

from tailmatch.callbacks.checkpoints import Checkpoints, checkpoint_callbacks


def test_a_plan_becomes_callbacks_with_distinct_states(tmp_path: Path) -> None:
    plan = Checkpoints(monitors=["val/top1", "val/top5"], mode="max", every_n_epochs=50, last_every_n_steps=100)
    callbacks = checkpoint_callbacks(plan, tmp_path)
    assert [c.filename for c in callbacks] == ["best", "best-top5", "epoch-{epoch:04d}", "last", "last"]  # type: ignore[attr-defined]
    assert len({c.state_key for c in callbacks}) == 5
