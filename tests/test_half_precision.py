"""Test which operations of a step every method computes in half precision, and how close the loss is to float32's."""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tailmatch.callbacks import DARP, DistributionAlignment
from tailmatch.lightning_modules import FixMatch, ImageClassifier, SimMixMatch, Supervised
from tailmatch.lightning_modules.losses import LDAM, ClassificationLoss, Focal, LogitAdjusted, SymmetricCrossEntropy
from tailmatch.lightning_modules.methods.ensemble import MeanNetwork, log_mean_probs
from tailmatch.lightning_modules.networks import CifarResNet, Network
from tailmatch.lightning_modules.views.prediction import resized
from tests.contract import METHODS, Killed, plain_network, run
from tests.mixed_precision import TYPES, Name, methods

MOVES = ("cat", "detach", "slice", "split", "select", "unbind", "view", "alias")
"""Operations that leave numbers as they are."""


class HalfOutsideNetworks(TorchDispatchMode):
    """Notes operations with half-precision results, but for those in the forward pass of a network or of a layer."""

    def __init__(self) -> None:
        super().__init__()
        self.found: set[str] = set()
        self.depth = 0

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        half = any(isinstance(leaf, Tensor) and leaf.dtype in TYPES.values() for leaf in tree_leaves(result))
        if half and not self.depth and func.overloadpacket.__name__ not in MOVES:
            self.found.add(str(func))
        return result

    def __enter__(self) -> "HalfOutsideNetworks":
        def enters(module: nn.Module, args: Any) -> None:
            self.depth += not isinstance(module, ClassificationLoss)

        def leaves(module: nn.Module, args: Any, output: Any) -> None:
            self.depth -= not isinstance(module, ClassificationLoss)

        self.hooks = [register_module_forward_pre_hook(enters), register_module_forward_hook(leaves, always_call=True)]
        super().__enter__()
        return self

    def __exit__(self, *exception: Any) -> None:
        super().__exit__(*exception)
        for hook in self.hooks:
            hook.remove()


class OneStep(Callback):
    """Calls a function with the method and the first batch of training, and ends the run."""

    def __init__(self, call: Callable[[Any, Any], None]) -> None:
        self.call = call

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self.call(pl_module, batch)
        raise Killed


def one_step(method: Any, folder: Path, call: Callable[[Any, Any], None], *callbacks: Callback, **more: Any) -> None:
    with pytest.raises(Killed):
        run(method, folder, *callbacks, OneStep(call), **more)


@contextmanager
def features_as_a_layer(noted: HalfOutsideNetworks, patch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let `Network.features`, which is no call of a module, count as one."""
    features = Network.features

    def counted(network: Network, images: Any) -> Tensor:
        noted.depth += 1
        try:
            return features(network, images)
        finally:
            noted.depth -= 1

    with patch.context() as within:
        within.setattr(Network, "features", counted)
        yield


STEPS: dict[str, tuple[Any, list[Callable[[], Callback]]]] = {
    **{method.__name__: (method, []) for method in METHODS},
    "FixMatch with DARP": (FixMatch, [partial(DARP, warmup_epochs=0, refine_every=1)]),
    "FixMatch with alignment": (FixMatch, [DistributionAlignment]),
    "SimMixMatch on a projection": (partial(SimMixMatch, contrast_on="projection"), []),
    "mixup": (partial(Supervised, mixup=1.0), []),
    "LDAM": (partial(Supervised, loss=LDAM()), []),
    "Focal": (partial(Supervised, loss=Focal(0.5)), []),
    "LogitAdjusted": (partial(Supervised, loss=LogitAdjusted()), []),
    "SymmetricCrossEntropy": (partial(Supervised, loss=SymmetricCrossEntropy()), []),
}


def network_of(method: Any) -> Any:
    """The small network, with a cosine head where the loss asks for one."""
    keywords = method.keywords if isinstance(method, partial) else {}
    return partial(CifarResNet, depth=8, cosine_scale=30) if isinstance(keywords.get("loss"), LDAM) else plain_network


def enlarge_logits(method: ImageClassifier, batch: Any, size: float) -> None:
    """Scale each last layer such that the largest output on the batch's images is this large."""
    images = next(iter(batch.values()))["image"].float() / 255
    for network in [module for module in method.modules() if isinstance(module, Network)]:
        *_, layer = [module for module in network.head.modules() if isinstance(module, nn.Linear)]
        with torch.no_grad():
            factor = size / network(images).abs().max()
            layer.weight.mul_(factor)
            layer.bias.mul_(factor)


def assert_losses_agree(module: Any, batch: Any, tolerance: dict[Name, float], patch: pytest.MonkeyPatch) -> None:
    """The loss of one step is that of float32 up to a share, and nothing outside of networks is computed in half."""
    state = copy.deepcopy(module.state_dict())

    def loss(precision: Name | None) -> float:
        module.load_state_dict(state)
        torch.manual_seed(7)  # of mixup
        noted = HalfOutsideNetworks()
        autocast = torch.autocast("cpu", TYPES[precision]) if precision else nullcontext()
        with autocast, noted, features_as_a_layer(noted, patch):
            found = module.training_step(batch, 0)
        assert found.dtype == torch.float32 and noted.found == set()
        return float(found.detach())

    expected = loss(None)
    assert {name: loss(name) for name in TYPES} == {
        name: pytest.approx(expected, rel=share) for name, share in tolerance.items()
    }


@pytest.mark.parametrize(("method", "remedies"), STEPS.values(), ids=list(STEPS))
def test_the_loss_is_float32s_and_nothing_but_networks_is_in_half(
    method: Any, remedies: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def compare(module: Any, batch: Any) -> None:
        # A rounding is 1/2048 or 1/256 at most; of the many in a network, a mean over the batch sees less.
        assert_losses_agree(module, batch, {"bf16-mixed": 0.02, "16-mixed": 0.002}, monkeypatch)

    one_step(method, tmp_path, compare, *(remedy() for remedy in remedies), network=network_of(method))


@methods
def test_the_loss_of_extreme_logits_is_float32s(
    method: type[ImageClassifier], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def compare(module: Any, batch: Any) -> None:
        if hasattr(module, "rampup_steps"):
            module.rampup_steps = 0  # the unlabeled loss counts from the first step on
        for size in (50.0, 300.0):
            enlarge_logits(module, batch, size)
            assert_losses_agree(module, batch, {"bf16-mixed": 0.03, "16-mixed": 0.005}, monkeypatch)

    one_step(method, tmp_path, compare)


def test_an_ensemble_takes_the_mean_in_float32() -> None:
    images = torch.rand(2, 3, 12, 12)
    members = [plain_network(3).eval(), plain_network(3).eval()]
    together = MeanNetwork(members, [None, [8, 8]], [0.25, 0.75], log_mean_probs).eval()
    with torch.autocast("cpu", torch.float16), torch.no_grad():
        found = together(images)
        smaller = resized(images, (8, 8))
        logits = torch.stack([members[0](images), members[1](smaller)])
    assert (smaller.dtype, logits.dtype, found.dtype) == (torch.float32, torch.float16, torch.float32)
    expected = 0.25 * logits[0].double().softmax(dim=1) + 0.75 * logits[1].double().softmax(dim=1)
    torch.testing.assert_close(found.exp(), expected.float(), rtol=1e-5, atol=0)


def test_remedies_and_weights_compute_in_float32() -> None:
    class Doubled:
        """Refines by a matrix product, which autocast would take in half."""

        def refine(self, probs: Tensor, index: Tensor) -> Tensor:
            seen.append(probs @ torch.eye(3))
            return probs

        def observe(self, raw: Tensor, refined: Tensor, weights: Tensor, index: Tensor) -> None:
            seen.append(refined @ torch.eye(3))

    class Weighing(FixMatch):
        def weigh(self, probs: Tensor, refined: Tensor, index: Tensor, labeled: Tensor | None) -> Tensor:
            seen.append(probs @ torch.eye(3))
            return super().weigh(probs, refined, index, labeled)

    seen: list[Tensor] = []
    method = Weighing(num_classes=3, network=plain_network)
    method.add_refiner(Doubled(), before_sharpening=True)
    method.add_refiner(Doubled())
    method.add_observer(Doubled())
    probs = torch.tensor([[0.3, 0.3, 0.4]])
    with torch.autocast("cpu", torch.float16):
        method.pseudo_labels(probs, torch.tensor([0]))
    assert len(seen) == 4
    for product in seen:
        assert product.dtype == torch.float32 and torch.equal(product, probs)
