"""The loss scale of `precision: 16-mixed`."""

from pytorch_lightning import Trainer

from tailmatch.lightning_modules.training.finite import training_error

LEAST_SCALE = 1e-4
"""Smallest loss scale that is accepted: below it, the scale is not what makes gradients overflow.
facebookresearch/fairseq stops at the same value (`fairseq/optim/dynamic_loss_scaler.py`, `min_loss_scale`). From
torch's initial 65536, it takes 30 skipped steps to get there."""


def loss_scale(trainer: Trainer) -> float | None:
    """Return the factor by which the loss is multiplied, None without scaling. Waits for the device.

    The scaler skips the optimizer's step where a gradient is infinite or NaN, and halves the scale. Gradients that are
    always NaN would thus leave the weights unchanged forever, while in float32 the loss would become NaN.

    Raises:
        NotFiniteError: The scale is below `LEAST_SCALE`.
    """
    scaler = getattr(trainer.precision_plugin, "scaler", None)
    if scaler is None:
        return None
    scale = float(scaler.get_scale())
    if scale < LEAST_SCALE:
        raise training_error(
            trainer,
            f"gradients are NaN or infinite, step after step, and the weights no longer move (loss scale {scale:.1e})",
        )
    return scale
