"""The remedy of docs/adding-a-remedy.md, as it stands there."""

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from pytorch_lightning import LightningModule, Trainer

from tailmatch.callbacks import PseudoLabelMonitor
from tailmatch.lightning_modules import FixMatch, Supervised
from tailmatch.lightning_modules.pseudo_labels.running_prior import RunningPrior
from tests.contract import Kill, Killed, assert_same, assert_same_training, at_epoch_ends, differs, last, run, saved

PAGE = Path(__file__).parent.parent.parent / "docs" / "adding-a-remedy.md"


@pytest.fixture(scope="module")
def page() -> Any:
    """What the page's Python defines."""
    module: dict[str, Any] = {}
    for code in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL):
        exec(compile(code, str(PAGE), "exec"), module)
    return SimpleNamespace(**module)


def test_the_remedy_trains_and_resumes_exactly(page: Any, tmp_path: Path) -> None:
    class Moved(page.Moved):  # type: ignore[misc,name-defined]
        def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
            super().on_train_epoch_end(trainer, pl_module)
            shares.append(float(trainer.callback_metrics["pseudo/moved"]))

    shares: list[float] = []
    run(FixMatch, tmp_path, at_epoch_ends(tmp_path / "plain"))
    watching = (PseudoLabelMonitor(), Moved())
    trainer = run(FixMatch, tmp_path, *watching, page.Debias(1.0, 0.5), at_epoch_ends(tmp_path / "whole"))
    model = trainer.lightning_module
    assert isinstance(model, FixMatch) and not model.balanced_evaluation
    assert len(shares) == 3 and all(0 <= share <= 1 for share in shares) and max(shares) > 0

    with pytest.raises(Killed):
        run(FixMatch, tmp_path, page.Debias(1.0, 0.5), last(tmp_path / "killed", every_n_train_steps=6), Kill(7))
    resumed = at_epoch_ends(tmp_path / "resumed")
    run(FixMatch, tmp_path, page.Debias(1.0, 0.5), resumed, ckpt=tmp_path / "killed" / "last.ckpt")
    whole, again = saved(tmp_path / "whole"), saved(tmp_path / "resumed")
    assert_same_training(whole, again)
    assert_same(whole["callbacks"]["Debias"], again["callbacks"]["Debias"], "Debias")
    assert differs(saved(tmp_path / "plain")["state_dict"], whole["state_dict"])


def test_it_refines_by_the_running_mean_and_shifts_by_the_new_one(page: Any, tmp_path: Path) -> None:
    debias = page.Debias(strength=1.0, momentum=0.5)
    debias.prior = RunningPrior(2, 0.5)
    first = torch.tensor([[0.9, 0.1], [0.5, 0.5]])
    assert torch.allclose(debias.refine(first, torch.arange(2)), first)
    assert torch.allclose(debias.unlabeled_shift(), torch.tensor([0.6, 0.4]).log())  # halfway to (0.7, 0.3)
    second = debias.refine(torch.tensor([[0.6, 0.4]]), torch.arange(1))
    assert torch.allclose(second, torch.tensor([[0.5, 0.5]]))
    with pytest.raises(ValueError, match="Debias refines pseudo-labels, and Supervised has none"):
        run(Supervised, tmp_path, page.Debias())


def test_the_numbers_of_debiaspl(page: Any) -> None:
    debias = page.Debias(strength=0.5, momentum=0.0)
    debias.prior = RunningPrior(3, 0.0)
    debias.prior.probs.copy_(torch.tensor([0.6, 0.3, 0.1]))
    shift = debias.unlabeled_shift()
    torch.testing.assert_close(shift, torch.tensor([-0.2554, -0.6020, -1.1513]), atol=1e-4, rtol=0)
    probs = torch.tensor([[2.0, 1.8, 1.5]]).softmax(dim=1)
    refined = debias.refine(probs, torch.arange(1))
    torch.testing.assert_close(refined, torch.tensor([[0.2745, 0.3178, 0.4078]]), atol=1e-4, rtol=0)
    torch.testing.assert_close(debias.prior.probs, probs[0])
