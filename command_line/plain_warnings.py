"""Print warnings of this package and of Lightning as one line each, without the line of code that raised them."""

import warnings
from pathlib import Path

import pytorch_lightning

import tailmatch

_ROOT = Path(tailmatch.__file__).resolve().parent
_OWN = ("callbacks", "command_line", "datamodules", "lightning_modules", "spark")
_FOLDERS = (Path(pytorch_lightning.__file__).resolve().parent, *(_ROOT / name for name in _OWN))
"""The packages themselves: in a clone, an environment with everything else lies in the same folder."""


def plain_warnings() -> None:
    """Replace how `warnings` lays out a warning; calling it again changes nothing."""
    usual = warnings.formatwarning
    if getattr(usual, "is_plain", False):
        return

    def laid_out(
        message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
    ) -> str:
        file = Path(filename).resolve()
        if issubclass(category, UserWarning) and any(folder in file.parents for folder in _FOLDERS):
            return f"warning: {message}\n"
        return usual(message, category, filename, lineno, line)

    laid_out.is_plain = True  # type: ignore[attr-defined]
    warnings.formatwarning = laid_out
