"""`tailmatch export`: write a checkpoint's network to a file that runs without this package."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from tailmatch.command_line.signals import SIGNALS
from tailmatch.datamodules.locks import sole_output


def parser() -> argparse.ArgumentParser:
    """Make the parser of the command."""
    made = argparse.ArgumentParser(
        prog="tailmatch export",
        description="Write the network of a checkpoint, with its preprocessing, as ONNX or as a torch.export program. "
        "Input: images, uint8 [B, 3, H, W], red, green and blue, of any batch size. Outputs: probs and logits, "
        "float32 [B, K]. Metadata: class_names and image_size, as JSON. A network that uses categories has a second "
        "input categories, int64 [B, L] and -1 where unknown, and their values in the metadata.",
    )
    made.add_argument("checkpoint", help="Path or URL of a checkpoint, such as runs/demo/checkpoints/best.ckpt.")
    made.add_argument("out", type=Path, help="File to write, *.onnx or *.pt2.")
    made.add_argument(
        "--image_size",
        type=int,
        nargs=2,
        metavar=("H", "W"),
        help="Height and width of the images in pixels (default: those of the checkpoint's data).",
    )
    made.add_argument(
        "--overwrite", choices=("true", "false"), default="false", help="Replace an existing file (default: false)."
    )
    made.add_argument(
        "--trust_checkpoint",
        choices=("true", "false"),
        default="false",
        help="Let the checkpoint name code that is not of this package, which then runs: only if you trust its maker.",
    )
    return made


def main(args: Sequence[str]) -> None:
    """Run `tailmatch export`."""
    asked = parser().parse_args(args)
    with SIGNALS.while_importing():  # only here, so that the help and a wrong argument take no seconds
        from tailmatch.lightning_modules.inference.export import export
        from tailmatch.lightning_modules.inference.trust import trust_checkpoints

    with trust_checkpoints(asked.trust_checkpoint == "true"), sole_output(asked.out):
        export(asked.checkpoint, asked.out, asked.image_size, asked.overwrite == "true")
    print(f"exported: {asked.out}", flush=True)
