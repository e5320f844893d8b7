"""BatchNorm over parts of a batch, as if each part were on its own device."""

from torch import Tensor, nn
from torch.nn import functional

from tailmatch.datamodules.arguments import SettingsError


class SplitBatchNorm2d(nn.BatchNorm2d):
    """A BatchNorm that normalizes each of several parts of a training batch by its own statistics.

    A part consists of every `splits`-th sample. One device thus behaves as several do: facebookresearch/moco
    `colab/moco_cifar10_demo.ipynb` (branch colab-notebook), where 8 parts simulate 8 GPUs. All parts share the weights,
    and the running statistics are updated by the mean over the parts. Evaluation and the names in the state dict are
    those of BatchNorm.

    Args:
        norm: BatchNorm to replace; its weights and statistics are copied.
        splits: Number of parts, which must divide the batch size in training.

    Raises:
        SettingsError: The BatchNorm's momentum is None, so that it averages its statistics cumulatively.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, norm: nn.BatchNorm2d, splits: int) -> None:
        if norm.momentum is None:
            raise SettingsError("a BatchNorm of momentum None cannot be split; give it a momentum such as 0.1")
        super().__init__(norm.num_features, norm.eps, norm.momentum)
        self.load_state_dict(norm.state_dict())
        self.requires_grad_(norm.weight.requires_grad)
        self.splits = splits
        self.share = norm.momentum

    def forward(self, input: Tensor) -> Tensor:
        """Normalize activations `[B, C, H, W]`.

        Raises:
            SettingsError: In training, `splits` does not divide B.
        """
        if not self.training:
            return super().forward(input)
        batch_size, channels, height, width = input.shape
        if batch_size % self.splits:
            raise SettingsError(f"norm_splits is {self.splits}; it must divide the batch of {batch_size} images")
        mean, var = self.running_mean.repeat(self.splits), self.running_var.repeat(self.splits)
        parts = input.reshape(batch_size // self.splits, self.splits * channels, height, width)
        normalized = functional.batch_norm(
            parts,
            mean,
            var,
            self.weight.repeat(self.splits),
            self.bias.repeat(self.splits),
            training=True,
            momentum=self.share,
            eps=self.eps,
        )
        self.running_mean.copy_(mean.view(self.splits, channels).mean(dim=0))
        self.running_var.copy_(var.view(self.splits, channels).mean(dim=0))
        return normalized.reshape(input.shape)


def split_batch_norm(network: nn.Module, splits: int) -> None:
    """Replace every BatchNorm2d of a network by a `SplitBatchNorm2d`.

    Raises:
        SettingsError: The network has no BatchNorm2d.
    """
    norms = {name: module for name, module in network.named_modules() if isinstance(module, nn.BatchNorm2d)}
    if not norms:
        raise SettingsError(f"norm_splits is {splits}, and {type(network).__name__} has no BatchNorm2d; leave it at 1")
    for name, norm in norms.items():
        network.set_submodule(name, SplitBatchNorm2d(norm, splits))
