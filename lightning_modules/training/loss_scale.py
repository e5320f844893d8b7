"""The loss scaling of `precision: 16-mixed`, as a training sees it."""

from pytorch_lightning import Trainer

from tailmatch.datamodules.arguments import SettingsError

LEAST_SCALE = 1e-4
"""Below this, it is not the scale that makes gradients overflow: facebookresearch/fairseq gives up there
(`fairseq/optim/dynamic_loss_scaler.py`, `min_loss_scale`). From torch's first, 65536, it takes 30 skipped steps."""


def loss_scale(trainer: Trainer) -> float | None:
    """What the loss is multiplied by, None where nothing is scaled. Waits for the device.

    The scaler skips the optimizer's step where a gradient is infinite or NaN, and halves the scale. So gradients that
    are always NaN would leave the weights as they are for ever, where in float32 the loss would tell.

    Raises:
        SettingsError: That has happened.
    """
    scaler = getattr(trainer.precision_plugin, "scaler", None)
    if scaler is None:
        return None
    scale = float(scaler.get_scale())
    if scale < LEAST_SCALE:
        raise SettingsError(
            f"gradients are NaN or infinite, step after step, and the weights no longer move (loss scale {scale:.1e} "
            f"before step {trainer.global_step + 1}): lower the learning rate, or set trainer.precision to bf16-mixed "
            "or 32-true"
        )
    return scale
