"""The head with an optimizer of its own, beside torch's Adam."""

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.optim import Adam

from tailmatch.lightning_modules.training.adam_head import AdamHead


def test_steps_are_those_of_adam_without_decay_of_the_bias() -> None:
    random = torch.Generator().manual_seed(0)
    head, expected = AdamHead(4, 3, lr=0.01, weight_decay=0.1), nn.Linear(4, 3)
    expected.load_state_dict(head.linear.state_dict())
    groups = [{"params": [expected.weight], "weight_decay": 0.1}, {"params": [expected.bias]}]
    optimizer = Adam(groups, lr=0.01)
    for _ in range(30):
        features = torch.randn(5, 4, generator=random)
        target = torch.randint(3, (5,), generator=random)
        with torch.autocast("cpu", torch.bfloat16):
            loss = head.train_step(features, target)
        own = functional.cross_entropy(expected(features), target)
        optimizer.zero_grad()
        own.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        torch.testing.assert_close(loss, own.detach())
    torch.testing.assert_close(head.linear.weight, expected.weight.detach(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(head.linear.bias, expected.bias.detach(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["lr", "weight_decay"])
def test_bad_values_are_named(name: str) -> None:
    with pytest.raises(ValueError, match=f"teacher_{name} is -1"):
        AdamHead(4, 3, **{name: -1})
