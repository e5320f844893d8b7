"""What the steps of a training consist of, and the same passes without all that is around them.

A `Recorder` notes which images pass through which network in each step of a training, and which views are made. A
`Replay` then runs these passes on the trained method, with its optimizer and its averages:

* bare: on tensors that lie there;
* usual: on images from loaders whose workers make each view of each image with Pillow, and with an average of the
  weights that is updated parameter by parameter.

Each pass has the same number of images, gradients or none, and modes of the layers, so that a frozen part stays frozen
and an averaged network is in evaluation mode where the method has it so. The losses are the cross-entropies of the
network's own head with arbitrary labels, whose sum has one backward pass. What a method computes beside passes and
backward pass is left out: the passes of further heads, mixtures and turns of images, pseudo-labels, queues, and steps
that a part takes by itself, such as those of CoSSL's teacher and MoCo's key network.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader
from torch.utils.hooks import RemovableHandle

from benchmarks.darp_solver import synchronize
from benchmarks.views import Maker, PillowViews, pillow_strong_view, pillow_weak_view, torchvision_simclr_view
from tailmatch.lightning_modules import ImageClassifier
from tailmatch.lightning_modules.networks import Network
from tailmatch.lightning_modules.training.weight_averaging import averaged_tensors
from tailmatch.lightning_modules.views import SimCLRView, StrongView, View, WeakView

SIZE = 32
PILLOW_VIEWS: dict[type[View], Maker] = {
    WeakView: pillow_weak_view,
    StrongView: pillow_strong_view,
    SimCLRView: torchvision_simclr_view(SIZE, scale=(0.2, 1.0), jitter=0.5),  # MoCo's, which the methods have
}
"""What makes a view of one Pillow image, in the usual way."""


@dataclass(frozen=True)
class Pass:
    """A pass of images through the backbone of a network.

    Attributes:
        network: The network.
        shape: Shape `[B, 3, H, W]` of the images.
        gradient: Whether gradients are computed.
        modes: The layers; for each, whether it is in training mode, and whether it tracks statistics (None: it has
            none).
    """

    network: Network
    shape: torch.Size
    gradient: bool
    modes: list[tuple[nn.Module, bool, bool | None]]

    def __call__(self, images: Tensor) -> Tensor:
        """Compute logits `[B, K]` of images `[B, 3, H, W]` in [0, 1]."""
        for layer, training, tracks in self.modes:
            if layer.training != training:
                layer.training = training
            if tracks is not None and layer.track_running_stats != tracks:
                layer.track_running_stats = tracks
        with torch.set_grad_enabled(self.gradient):
            logits: Tensor = self.network(images)
        return logits


@dataclass
class Step:
    """What is done in a step.

    Attributes:
        passes: Passes through backbones, in their order.
        views: Views that are made, each with the number of images.
        images: Images that enter a network, with gradient and without, as its first convolution sees them.
        ended: When the step ended, in seconds.
    """

    passes: list[Pass] = field(default_factory=list)
    views: list[tuple[type[View], int]] = field(default_factory=list)
    images: list[int] = field(default_factory=lambda: [0, 0])
    ended: float = 0.0

    @property
    def images_of_passes(self) -> list[int]:
        """Images of all passes, with gradient and without."""
        return [sum(each.shape[0] for each in self.passes if each.gradient == wanted) for wanted in (True, False)]


class Recorder(Callback):
    """Records the steps of a training; hooks stay after it, until `remove` is called.

    Attributes:
        steps: The steps, in their order.
        current: What was done since the last one ended.
    """

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.current = Step()
        self._hooks: list[RemovableHandle] = []

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Watch all networks and views of the method, copies of the network included."""
        for module in pl_module.modules():
            if isinstance(module, Network) and isinstance(module.backbone, nn.Module):
                self._hooks.append(module.backbone.register_forward_pre_hook(partial(self._add_pass, module)))
            elif isinstance(module, View):
                self._hooks.append(module.register_forward_pre_hook(self._add_view))
            elif isinstance(module, nn.Conv2d) and module.in_channels == 3:
                self._hooks.append(module.register_forward_pre_hook(self._count))

    def _add_pass(self, network: Network, backbone: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        modes = [(layer, layer.training, getattr(layer, "track_running_stats", None)) for layer in network.modules()]
        self.current.passes.append(Pass(network, inputs[0].shape, torch.is_grad_enabled(), modes))

    def _add_view(self, view: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self.current.views.append((type(view), len(inputs[0])))  # type: ignore[arg-type]

    def _count(self, convolution: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self.current.images[not torch.is_grad_enabled()] += len(inputs[0])

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        """End a step, when the device has done it."""
        synchronize(pl_module.device)
        self.current.ended = time.perf_counter()
        self.steps.append(self.current)
        self.current = Step()

    def remove(self) -> None:
        """Remove the hooks."""
        for hook in self._hooks:
            hook.remove()


class Replay:
    """The passes of a step of a training that has ended, which go on to train the method.

    Args:
        trainer: The trainer, with its optimizer.
        step: A step of the training.
    """

    def __init__(self, trainer: Trainer, step: Step) -> None:
        model = trainer.lightning_module
        if not isinstance(model, ImageClassifier):
            raise TypeError(f"{type(model).__name__} is no method of this package")
        self.step, self.device = step, model.device
        self._optimizer = trainer.optimizers[0]
        self._decay = model._averaging.decay if model._averaging else None
        self._weights = list(averaged_tensors(model).values()) if self._decay is not None else []
        self._averages = [weight.detach().clone() for weight in self._weights]

    def bare(self, steps: int) -> list[float]:
        """Return the seconds of some steps on tensors that lie there, after one for warming up."""
        images = [torch.rand(each.shape, device=self.device) for each in self.step.passes]

        def step() -> None:
            self.train(images)
            if self._decay is not None:
                torch._foreach_lerp_(self._averages, self._weights, 1 - self._decay)

        return self._seconds(step, steps)

    def usual(self, steps: int, workers: int) -> list[float]:
        """Return the seconds of some steps on images from loaders, after one for warming up.

        Images of which equally many make up a batch have one loader, with some processes of its own.
        """
        makers: dict[int, list[Maker]] = {}
        for view, count in self.step.views:
            makers.setdefault(count, []).append(PILLOW_VIEWS[view])
        ahead = 2 * workers + 1  # batches that workers go on with, and one for warming up
        loaders = [
            iter(DataLoader(PillowViews(count * (steps + ahead), each), count, shuffle=True, num_workers=workers))
            for count, each in makers.items()
        ]

        def step() -> None:
            views = torch.cat([view for loader in loaders for view in next(loader)[:-1]]).to(self.device)
            self.train([views[torch.arange(each.shape[0]) % len(views)] for each in self.step.passes])
            if self._decay is not None:
                for average, weight in zip(self._averages, self._weights, strict=True):
                    average.mul_(self._decay).add_(weight.detach(), alpha=1 - self._decay)

        return self._seconds(step, steps)

    def train(self, images: Sequence[Tensor]) -> None:
        """Run the passes on images `[B, 3, H, W]` of each, the backward pass, and a step of the optimizer."""
        losses = []
        for each, batch in zip(self.step.passes, images, strict=True):
            logits = each(batch)
            if logits.requires_grad:
                target = torch.arange(len(logits), device=self.device) % logits.shape[1]
                losses.append(functional.cross_entropy(logits.float(), target))
        self._optimizer.zero_grad()
        torch.stack(losses).sum().backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()

    def check(self, recorder: Recorder) -> None:
        """Train once on tensors that lie there, and compare what passes with what passed in the step of the training.

        Raises:
            RuntimeError: Other images passed.
        """
        recorder.current = Step()
        self.train([torch.rand(each.shape, device=self.device) for each in self.step.passes])
        if recorder.current.images != self.step.images:
            raise RuntimeError(
                f"{recorder.current.images} images pass with gradient and without, in training {self.step.images}"
            )

    def _seconds(self, step: Callable[[], None], steps: int) -> list[float]:
        ended = []
        for _ in range(steps + 1):
            step()
            synchronize(self.device)
            ended.append(time.perf_counter())
        return [after - before for before, after in zip(ended, ended[1:], strict=False)]
