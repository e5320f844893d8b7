"""The configuration that a run saves gives the same settings again, whatever was typed."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.command_line.test_configs import Built, build

share = st.floats(0, 1)
above = st.floats(1e-6, 1e6)
counts = st.integers(1, 500)
text = st.sampled_from(["plain", "with space", "null", "1e3", "[a, b]", "yes", "a: b", "ü#1", "'", "~"])
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "seed_everything": st.integers(0, 2**32 - 1),
    "run_dir": text.map(lambda name: f"runs/{name}"),
    "data.labeled_batch_size": counts,
    "data.val_holdout": st.one_of(st.integers(0, 20), st.floats(0, 0.3), st.none()),
    "data.labeled_sampling": st.sampled_from(["uniform", "balanced", "effective_number"]),
    "data.include_labeled_in_unlabeled": st.booleans(),
    "data.seed": st.one_of(st.none(), st.integers(0, 2**40)),
    "data.class_counts": st.sampled_from(["tailmatch.datamodules.DARPCounts", "LabeledFraction"]),
    "data.label_noise": st.sampled_from(["SymmetricNoise", "PairNoise"]),
    "data.label_noise.share": share,
    "model.ema_decay": st.one_of(st.none(), st.floats(0, 0.999)),
    "model.optimizer": st.sampled_from(["torch.optim.SGD", "torch.optim.AdamW"]),
    "model.optimizer.lr": above,
    "model.optimizer.weight_decay": share,
    "model.lr_scheduler": st.sampled_from(["CosineDecay", "StepDecay", "CosineAnnealing"]),
    "model.lr_scheduler.total_steps": counts,
    "model.threshold": share,
    "model.lambda_u": st.floats(0, 1e3),
    "model.strong_views": st.integers(1, 3),
    "model.weak": st.just("WeakView"),
    "model.weak.flip": st.sampled_from([True, False, None]),
    "trainer.max_epochs": counts,
    "trainer.precision": st.sampled_from(["32-true", "bf16-mixed"]),
    "trainer.gradient_clip_val": st.one_of(st.none(), above),
    "trainer.limit_val_batches": st.one_of(counts, share.filter(bool)),
    "checkpoint.monitors": st.lists(st.sampled_from(["val/loss", "val/top1"]), min_size=1, unique=True),
    "checkpoint.last_every_n_steps": st.one_of(st.none(), counts),
}
NEEDS = {"data.label_noise.share": "data.label_noise", "data.label_noise": "data.label_noise.share"}
NEEDS |= {name: name.rsplit(".", 1)[0] for name in VALUES if name.count(".") == 2 and "noise" not in name}
BASE = ["--data=Digits", "--model=FixMatch", "--model.network=CifarResNet", "--model.network.depth=8"]
BASE += ["--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false"]


@st.composite
def commands(draw: Any) -> list[str]:
    """Draw arguments of a fit, each with those that it stands below."""
    names = draw(st.sets(st.sampled_from(sorted(VALUES)), min_size=1, max_size=12))
    names |= {NEEDS[name] for name in names if name in NEEDS}
    words = []
    for name in (name for name in VALUES if name in names):
        value = draw(VALUES[name])
        words.append(f"--{name}={'null' if value is None else value}")
    return [*BASE, *words]


def saved(built: Built) -> str:
    """The text of the run's `config.yaml`; see `RunConfig`."""
    return str(built._parser("fit").dump(built.config["fit"], skip_unset=False))


@settings(max_examples=12)
@given(commands())
def test_a_saved_configuration_gives_the_same_settings(command: list[str]) -> None:
    first = build(*command)
    with TemporaryDirectory() as folder:
        file = Path(folder) / "config.yaml"
        file.write_text(saved(first))
        second = build(f"--config={file}")
    assert saved(second) == saved(first)
    for name in ("threshold", "lambda_u", "strong_views"):
        assert getattr(second.model, name) == getattr(first.model, name)
    assert vars(second.datamodule.class_counts_rule) == vars(first.datamodule.class_counts_rule)
