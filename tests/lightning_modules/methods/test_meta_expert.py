"""Meta-Expert's losses by hand, its choice of a head, and that its gate is trained."""

from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor
from torch.nn import functional

import tailmatch
from tailmatch.lightning_modules import CPE, MetaExpert
from tailmatch.lightning_modules.losses.class_weights import EffectiveNumberWeights
from tailmatch.lightning_modules.networks.expert_head import mixed
from tailmatch.lightning_modules.networks.inputs import to_float
from tailmatch.lightning_modules.pseudo_labels.class_groups import groups_of, trusted
from tests.contract import at_epoch_ends, plain_network, prepare, run, saved
from tests.lightning_modules.methods.test_cpe import PixelMap
from tests.lightning_modules.pixel_network import image

SORTED = torch.tensor([40, 30, 20, 10])


@pytest.mark.parametrize(
    ("counts", "head"),
    [
        ((0.3, 0.25, 0.2, 0.25), 1),
        ((0.6, 0.3, 0.05, 0.05), 0),
        ((0.05, 0.05, 0.3, 0.6), 2),
        ((0.1, 0.4, 0.4, 0.1), 0),
        ((0.0, 0.0, 3.0, 6.0), 2),  # a class without a label
    ],
)
def test_the_head_that_suits_the_counts(counts: tuple[float, ...], head: int) -> None:
    found = torch.tensor(counts)
    expected = functional.one_hot(torch.tensor(head), 3).float()
    assert torch.equal(trusted(found, SORTED), expected)
    order = torch.tensor([2, 0, 3, 1])  # halves go by rank
    assert torch.equal(trusted(found[order], SORTED[order]), expected)


def test_without_counts_all_heads_have_the_same_share() -> None:
    torch.testing.assert_close(trusted(torch.zeros(4), SORTED), torch.full((3,), 1 / 3))


def test_weights_of_classes_and_groups_by_hand() -> None:
    for counts, expected in (((100, 10, 1), (0.0422, 0.28, 2.6777)), ((110, 20, 10), (0.2571, 0.9444, 1.7985))):
        found = EffectiveNumberWeights(0.99).weights(torch.tensor(counts))
        torch.testing.assert_close(found, torch.tensor(expected), atol=1e-4, rtol=0)
    groups = groups_of(torch.arange(10, 0, -1), (0.0, 0.2, 0.4))
    assert groups.tolist() == [[1, 1] + [0] * 8, [0, 0, 1, 1] + [0] * 6, [0] * 4 + [1] * 6]
    assert torch.equal(groups_of(torch.arange(1, 11), (0.0, 0.2, 0.4)), groups.flip(1))


def made(epoch: int, **kwargs: Any) -> Any:
    """A method in an epoch of 4, on a network whose features are pixels."""
    torch.manual_seed(0)
    method: Any = MetaExpert(3, network=PixelMap, start_epoch=2, cuts=[0.4, 0.7], **kwargs)
    data = SimpleNamespace(class_counts=[20, 70, 10], steps_per_epoch=5)
    method._trainer = SimpleNamespace(current_epoch=epoch, max_epochs=4, max_steps=-1, datamodule=data)
    method._trainer.limit_train_batches, method._trainer.accumulate_grad_batches = 1.0, 1
    method.class_counts.copy_(torch.tensor(data.class_counts))
    counts = method.class_counts
    method.network.head.groups.copy_(groups_of(counts, method.cuts))
    prior = counts / counts.sum()
    method.network.head.shifts.copy_(torch.tensor([0.0, 2.0, 4.0])[:, None] * prior.log())
    method.loss_weights = EffectiveNumberWeights(0.99).weights(counts)
    method.group_weights = EffectiveNumberWeights(0.99).weights((method.network.head.groups * counts).sum(dim=1))
    method.logged = {}
    method.track = method.logged.update
    return method


def batch() -> Any:
    torch.manual_seed(1)
    return {
        "labeled": {"weak": torch.cat([image(1, 0, 0), image(0, 2, 1)]), "target": torch.tensor([2, 1])},
        "unlabeled": {
            "weak": torch.cat([image(*torch.randn(3).tolist()) for _ in range(4)]),
            "strong": [torch.cat([image(*torch.randn(3).tolist()) for _ in range(4)]) for _ in range(2)],
            "index": torch.arange(4),
        },
    }


def cross_entropies(logits: Tensor, target: Tensor) -> Tensor:
    return -logits.log_softmax(dim=1)[torch.arange(len(target)), target]


def test_the_losses_are_those_of_the_formulas() -> None:
    method, given = made(2, strong_views=2, threshold=0.4, lambda_u=2.0), batch()
    method.confident.copy_(torch.tensor([5.0, 1.0, 20.0]))  # ranks 1, 0, 2: the third head
    reference = made(2, strong_views=2, threshold=0.4, lambda_u=2.0)
    loss = method.training_step(given, 0)
    head = reference.network.head
    with torch.no_grad():
        maps = reference.network.feature_map(given["unlabeled"]["weak"])
        views = reference.network.feature_map(torch.cat([given["labeled"]["weak"], *given["unlabeled"]["strong"]]))
        gates, mixtures, adjusted = [], [], []
        for feature_map in (maps, views):
            branches = head.branches(feature_map)
            z = [[expert(branch) for branch in branches] for expert in (head.first, head.head, head.third)]
            means = [torch.stack(rows).mean(dim=0) for rows in z]
            gate, weights = head.weights(feature_map.mean(dim=(2, 3)), means)
            gates.append(gate)
            mixtures.append(sum(weights[:, b, None] * z[2][b] for b in range(3)))
            adjusted = [(means[k] + head.shifts[k]) * weights[:, k, None] for k in range(3)]
    target = given["labeled"]["target"]
    weights = reference.loss_weights[target]
    fused = (weights * cross_entropies(sum(adjusted)[:2], target)).sum() / weights.sum()  # type: ignore[index]
    group = torch.tensor([2, 0])  # class 2 is the rarest, class 1 the most frequent
    weights = reference.group_weights[group]
    of_gate = (weights * cross_entropies(gates[1][:2], group)).sum() / weights.sum()
    strong = cross_entropies(mixtures[1][2:], mixtures[0].argmax(dim=1).repeat(2)).mean()
    strong = strong + cross_entropies(gates[1][2:], gates[0].argmax(dim=1).repeat(2)).mean()
    for name, expected in (("loss_fused", fused), ("loss_gate", of_gate), ("loss_strong", strong)):
        torch.testing.assert_close(method.logged[name].detach(), expected, msg=name)
    of_heads = sum(
        method.logged[f"loss_labeled{name}"] + 2 * method.logged[f"loss_unlabeled{name}"] for name in SUFFIXES
    )
    torch.testing.assert_close(loss, of_heads + fused + of_gate + 2 * strong)


SUFFIXES = ("_first", "", "_third")


def test_before_its_start_it_is_cpe_and_the_last_epoch_before_counts() -> None:
    method = made(0, threshold=0.4)
    plain: Any = CPE(3, network=PixelMap, cuts=[0.4, 0.7], threshold=0.4)
    names = {"first": "network.head.first", "third": "network.head.third"}
    state = method.state_dict()
    plain.load_state_dict(
        {name: state[names.get(first := name.split(".")[0], first) + name[len(first) :]] for name in plain.state_dict()}
    )
    plain._trainer, plain.track = method._trainer, lambda **values: None
    given = batch()
    given["unlabeled"]["strong"].pop()
    torch.testing.assert_close(method.training_step(given, 0), plain.training_step(given, 0))
    assert not method.confident.any()
    method._trainer.current_epoch = 1
    maps = method.network.feature_map(given["unlabeled"]["weak"])
    probs = method.branch_logits(maps)[1].mean(dim=0).softmax(dim=1)
    expected = torch.bincount(probs.argmax(dim=1)[probs.amax(dim=1) >= 0.4], minlength=3)
    for passes in (1, 2):
        method.training_step(given, 0)
        assert torch.equal(method.confident, passes * expected.float()) and expected.sum() > 0
    method._trainer.current_epoch = 2
    method.training_step(given, 0)
    assert torch.equal(method.confident, 2 * expected.float())


class AfterEpochs(Callback):
    """Keeps the gate's parameters at the start and after each epoch."""

    def __init__(self) -> None:
        self.gates: list[dict[str, Tensor]] = []

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.keep(pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.keep(pl_module)

    def keep(self, method: Any) -> None:
        self.gates.append({name: value.clone() for name, value in method.network.head.gate.state_dict().items()})


def test_every_parameter_of_the_gate_is_trained_and_the_mixture_is_evaluated(tmp_path: Path) -> None:
    kept = AfterEpochs()
    optimizer = partial(torch.optim.SGD, lr=0.1)  # without weight decay
    kind = partial(MetaExpert, start_epoch=1, threshold=0.1, optimizer=optimizer, ema_decay=None)
    trainer = run(kind, tmp_path, kept, at_epoch_ends(tmp_path))
    begin, before, after, _ = kept.gates
    assert len(begin) == 6
    for name, value in begin.items():
        assert torch.equal(value, before[name]) and not torch.equal(value, after[name]), name
    model, data = trainer.lightning_module, trainer.datamodule  # type: ignore[attr-defined]
    images = data.test.__getitems__(list(range(8)))["image"]
    head: Any = model.eval().network.head
    with torch.no_grad():
        feature_map = model.network.feature_map(to_float(images))
        logits = [z.mean(dim=0) for z in model.branch_logits(feature_map)]
        expected = mixed(model.gate(feature_map, list(torch.stack(logits)[:, None]))[1], logits)
        torch.testing.assert_close(model(to_float(images)), expected, rtol=1e-4, atol=1e-4)  # means, then norms
    loaded = tailmatch.load(tmp_path / "last.ckpt", network=plain_network)
    torch.testing.assert_close(loaded.predict(images).probs, expected.softmax(dim=1), rtol=1e-4, atol=1e-4)
    assert saved(tmp_path)["state_dict"]["confident"].sum() > 0 and head.groups.sum() == 10
    trainer, model, data = prepare(partial(MetaExpert, cuts=[0.3, 0.6]), tmp_path)
    trainer.fit(model, data, ckpt_path=tmp_path / "last.ckpt")
    assert model.network.head.groups.sum(dim=1).tolist() == [3, 3, 4]  # type: ignore[union-attr,operator]


def test_what_does_not_fit_is_named(tmp_path: Path) -> None:
    for kwargs, says in (({"start_epoch": 3}, "start_epoch is 3 and the training has 3 epochs"),
                         ({"start_epoch": 1, "cuts": [0.2, 0.2]}, "they leave a head none")):  # fmt: skip
        trainer, model, data = prepare(partial(MetaExpert, **kwargs), tmp_path)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match=says):
            trainer.fit(model, data)
    with pytest.raises(ValueError, match="start_epoch is 0"):
        MetaExpert(3, network=PixelMap, start_epoch=0)


def test_networks_are_taken_over() -> None:
    first = MetaExpert(3, network=PixelMap)
    assert set(MetaExpert(3, network=first.network).state_dict()) == set(first.state_dict())
