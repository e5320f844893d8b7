"""MoCo: loss by hand, queue, momentum, and a step against the algorithm written out."""

import copy
import math
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from tailmatch.lightning_modules import MoCoPretraining
from tailmatch.lightning_modules.methods.moco import contrast_logits, enqueue, update_by_momentum
from tailmatch.lightning_modules.networks import CifarResNet
from tailmatch.lightning_modules.training.optimization import parameter_groups


def method(**kwargs: Any) -> MoCoPretraining:
    torch.manual_seed(1)
    arguments = {"queue_size": 10, "dim": 6, **kwargs}
    made = MoCoPretraining(num_classes=10, network=partial(CifarResNet, depth=8), **arguments)
    made.track = lambda **values: None  # type: ignore[method-assign]
    return made


def batch(size: int = 4) -> dict[str, dict[str, Tensor]]:
    random = torch.Generator().manual_seed(2)
    query, key = torch.rand(2, size, 3, 8, 8, generator=random)
    return {"pool": {"query": query, "key": key, "order": torch.randperm(size, generator=random)}}


def test_loss_by_hand() -> None:
    query, key = torch.tensor([[1.0, 0]]), torch.tensor([[0.8, 0.6]])
    queue = torch.tensor([[0.0, 1], [-1, 0], [0.6, 0.8]])
    logits = contrast_logits(query, key, queue, temperature=0.2)
    assert logits[0].tolist() == pytest.approx([4, 0, -5, 3])  # 0.8, 0, -1 and 0.6 over 0.2
    loss = functional.cross_entropy(logits, torch.tensor([0]))
    assert loss.item() == pytest.approx(math.log(math.exp(4) + 1 + math.exp(-5) + math.exp(3)) - 4, rel=1e-5)


def test_the_queue_is_a_ring() -> None:
    queue, pointer = torch.zeros(5, 1), torch.zeros((), dtype=torch.long)
    for start in (1, 4, 7):
        enqueue(queue, pointer, torch.arange(start, start + 3).view(3, 1).float())
    # 1 2 3 . . / 6 2 3 4 5 / 6 7 8 9 5
    assert queue.flatten().tolist() == [6, 7, 8, 9, 5] and pointer.item() == 4
    enqueue(queue, pointer, torch.zeros(5, 1))
    assert not queue.any() and pointer.item() == 4
    with pytest.raises(ValueError, match="queue_size is 5; it must be at least the batch of all processes, 6 images"):
        enqueue(queue, pointer, torch.zeros(6, 1))


def test_momentum_moves_parameters_and_no_statistics() -> None:
    query, key = CifarResNet(3, depth=8), CifarResNet(3, depth=8)
    before = copy.deepcopy(key)
    for module in query.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.fill_(7)  # type: ignore[union-attr]
    update_by_momentum(key, query, 0.75)
    for moved, old, target in zip(key.parameters(), before.parameters(), query.parameters(), strict=True):
        torch.testing.assert_close(moved, 0.75 * old + 0.25 * target)
    assert all(torch.equal(a, b) for a, b in zip(key.buffers(), before.buffers(), strict=True))


def test_a_step_is_the_algorithm_written_out() -> None:
    moco, views = method(momentum=0.9, temperature=0.5), batch()
    with torch.no_grad():
        for parameter in moco.key_network.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape))
    start = copy.deepcopy(moco)
    loss = moco.training_step(views, 0)
    assert torch.equal(moco.queue, start.queue) and moco.pointer.item() == 0
    loss.backward()
    moco.on_after_backward()

    key_network = start.key_network
    with torch.no_grad():
        for own, query_parameter in zip(key_network.parameters(), start.network.parameters(), strict=True):
            own.copy_(0.9 * own + 0.1 * query_parameter)
        keys = key_network(views["pool"]["key"])  # BatchNorm on one device does not see the order
        queries = start.network(views["pool"]["query"])
    expected = []
    for query, key in zip(queries, keys, strict=True):
        others = functional.cosine_similarity(query[None], torch.cat([key[None], start.queue]), dim=1) / 0.5
        expected.append(others.exp().sum().log() - others[0])
    torch.testing.assert_close(loss, torch.stack(expected).mean())
    torch.testing.assert_close(moco.queue[:4], functional.normalize(keys, dim=1))
    assert torch.equal(moco.queue[4:], start.queue[4:]) and moco.pointer.item() == 4
    assert all(parameter.grad is not None for parameter in moco.network.parameters())
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in moco.key_network.parameters())


def test_only_the_query_network_is_optimized() -> None:
    moco = method()
    [group] = parameter_groups(moco, decay_norm_and_bias=True)
    assert {id(p) for p in group["params"]} == {id(p) for p in moco.network.parameters()}


def test_the_queue_begins_on_the_sphere_and_the_networks_equal() -> None:
    moco = method()
    torch.testing.assert_close(moco.queue.norm(dim=1), torch.ones(10))
    state, key_state = moco.network.state_dict(), moco.key_network.state_dict()
    assert all(torch.equal(state[name], key_state[name]) for name in state)
    assert [layer for layer in state if layer.startswith("head")] == [
        "head.0.weight", "head.0.bias", "head.2.weight", "head.2.bias",
    ]  # fmt: skip


def test_views_are_two_draws_and_the_order_is_the_same_on_every_rank() -> None:
    moco = method()
    progress = SimpleNamespace(total=SimpleNamespace(ready=3))
    orders = []
    for seed in (1, 2):  # each rank has its own seed for views
        moco._trainer = SimpleNamespace(  # type: ignore[assignment]
            world_size=2, fit_loop=SimpleNamespace(epoch_loop=SimpleNamespace(batch_progress=progress))
        )
        torch.manual_seed(seed)
        images = torch.randint(256, (3, 3, 8, 8), dtype=torch.uint8)
        pool = moco.make_views({"pool": {"image": images}})["pool"]
        assert pool["query"].shape == pool["key"].shape == images.shape
        assert not torch.equal(pool["query"], pool["key"])
        orders.append(pool["order"].tolist())
    assert orders[0] == orders[1] and sorted(orders[0]) == list(range(6))


def test_synchronized_norms_are_refused() -> None:
    moco = method()
    moco.network = torch.nn.SyncBatchNorm.convert_sync_batchnorm(moco.network)
    with pytest.raises(ValueError, match="trainer.sync_batchnorm is true"):
        moco.begin_fit()


@pytest.mark.parametrize(
    ("name", "value"),
    [("queue_size", 0), ("momentum", 1.5), ("temperature", 0.0), ("dim", 0), ("norm_splits", 0)],
)
def test_bad_values_are_named(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{name} is {value}"):
        method(**{name: value})
