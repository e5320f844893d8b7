"""Compile the backbone for a training, so that it launches fewer and larger kernels."""

from pytorch_lightning import Callback, LightningModule, Trainer
from torch import nn

from tailmatch.datamodules.arguments import SettingsError
from tailmatch.lightning_modules.bases.image_module import ImageModule
from tailmatch.lightning_modules.networks import Network


class CompiledBackbone(Callback):
    """Compiles the backbone of the network with `torch.compile` for the time of a fit.

    The numbers are the same up to rounding, and a checkpoint does not show it. The first steps, the first validation
    and a batch of another size each take some time for the compiler. What it gains is in docs/performance.md.

    Args:
        backend: Backend of `torch.compile`; its default needs a compiler of C++ on a CPU.
        mode: Mode of `torch.compile`, such as `max-autotune`; None is its default.

    Raises:
        SettingsError: At the start of a fit, the features of the network are not the output of one module.
    """

    def __init__(self, backend: str = "inductor", mode: str | None = None) -> None:
        self.backend = backend
        self.mode = mode
        self._backbone: nn.Module | None = None

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Let the compiler take over at the next pass."""
        if not isinstance(pl_module, ImageModule):
            raise SettingsError(f"CompiledBackbone needs a method of this package, not {type(pl_module).__name__}")
        network: nn.Module = pl_module.network
        while isinstance(backbone := getattr(network, "backbone", None), Network):  # of images with categories
            network = backbone
        if not (isinstance(network, Network) and isinstance(backbone, nn.Module) and network.calls_backbone):
            raise SettingsError(
                f"CompiledBackbone cannot compile the backbone of {type(network).__name__}, which calls parts of it "
                "and not the whole: leave the callback out"
            )
        self._backbone = backbone
        backbone.compile(backend=self.backend, mode=self.mode)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Return to the module as it is."""
        if self._backbone is not None:
            self._backbone._compiled_call_impl = None  # as `nn.Module.compile` sets it; there is no way back in public
            self._backbone = None

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Return to the module as it is."""
        self.on_fit_end(trainer, pl_module)
