"""Draw figures, and give them to the loggers as arrays."""

import gc
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
from lightning_utilities.core.rank_zero import rank_zero_warn
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from numpy.typing import NDArray
from pytorch_lightning import Trainer
from pytorch_lightning.loggers import TensorBoardLogger, WandbLogger
from torch import Tensor

from tailmatch.callbacks.reports.fonts import font_families
from tailmatch.datamodules.class_names import short_name

TICK_LIMIT = 30
"""The largest number of classes whose names are written along an axis."""


def new_figure(
    width: float, height: float, rows: int = 1, columns: Sequence[float] = (1,)
) -> tuple[Figure, list[Axes]]:
    """Make a figure, in inches and outside the global state of pyplot, with rows of axes in columns of some widths."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, list(np.atleast_1d(figure.subplots(rows, len(columns), width_ratios=columns)).flat)


@contextmanager
def plain_text(figure: Figure) -> Iterator[None]:
    """Let a figure be drawn with all text as it is: `$` begins no formula, and fonts have the characters of names."""
    texts = [part for part in figure.findobj(Text) if isinstance(part, Text)]
    families = font_families("".join(text.get_text() for text in texts))
    for text in texts:
        text.set_parse_math(False)
        text.set_fontfamily(families)
    # The settings are for ticks that only the drawing makes.
    with rc_context({"text.parse_math": False, "font.family": families}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)  # fonts.py warns once
        yield


def to_array(figure: Figure) -> NDArray[np.uint8]:
    """Draw a figure as pixels, `uint8 [H, W, 3]`."""
    canvas = FigureCanvasAgg(figure)
    with plain_text(figure):
        canvas.draw()  # type: ignore[no-untyped-call]
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()  # type: ignore[no-untyped-call]


@contextmanager
def freed_at_end() -> Iterator[None]:
    """Free, at the end, what is made in this context and has parts that refer to each other, such as figures.

    By itself, the garbage collector may do so tens of figures later, and each takes megabytes. It looks at what is new
    alone, in milliseconds: all objects of a program that has imported PyTorch take it half a second.
    """
    is_frozen = gc.get_freeze_count() > 0  # by the program around, whose objects are to stay so
    if not is_frozen:
        gc.freeze()
    try:
        yield
    finally:
        gc.collect()
        if not is_frozen:
            gc.unfreeze()


def log_figure(trainer: Trainer, tag: str, draw: Callable[[], Figure]) -> None:
    """Draw a figure, and log it with every logger that takes images (TensorBoard, Weights & Biases), on process 0."""
    if not trainer.is_global_zero or not trainer.loggers:
        return
    with freed_at_end():
        image = to_array(draw())
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            logger.experiment.add_image(tag, image, trainer.global_step, dataformats="HWC")
        elif isinstance(logger, WandbLogger):
            logger.log_image(key=tag, images=[image], step=trainer.global_step)
        else:
            rank_zero_warn(f"{type(logger).__name__} cannot log images: the figure {tag!r} is not logged there")


def class_axis(axis: Axes, class_names: Sequence[str]) -> None:
    """Label the x axis with class names, or with their numbers if there are more than 30."""
    if len(class_names) <= TICK_LIMIT:
        names = list(map(short_name, class_names))
        long = max(map(len, names)) > 3
        axis.set_xticks(range(len(names)), names, rotation=45 if long else 0, ha="right" if long else "center")
    axis.set_xlabel("class")
    axis.set_xlim(-0.6, len(class_names) - 0.4)


def views_figure(rows: dict[str, Tensor]) -> Figure:
    """Draw views below each other, the same n images in each row: name of a view to `[n, 3, H, W]` in [0, 1]."""
    figure, axes = new_figure(10, 1.35 * len(rows), rows=len(rows))
    for axis, (name, images) in zip(axes, rows.items(), strict=True):
        strip = images.float().cpu().clamp(0, 1).permute(2, 0, 3, 1).flatten(1, 2)
        axis.imshow(strip.numpy(), interpolation="nearest")
        axis.set_ylabel(name, rotation=0, ha="right", va="center")
        axis.set_xticks([])
        axis.set_yticks([])
    return figure
