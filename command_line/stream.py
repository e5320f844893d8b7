"""`tailmatch stream`: label images as they arrive, and watch their predicted classes."""

import argparse
from collections.abc import Sequence
from dataclasses import fields

from tailmatch.command_line.signals import SIGNALS, Stop
from tailmatch.spark.session import check_installed
from tailmatch.spark.stream_settings import StreamSettings

DRIFTED = 3
"""The exit code of `--until_drift true` after an alarm."""

_DEFAULTS = {field.name: field.default for field in fields(StreamSettings)}


def parser() -> argparse.ArgumentParser:
    """Make the parser of the command."""
    made = argparse.ArgumentParser(
        prog="tailmatch stream",
        description="Label images as they arrive in a folder, on Apache Spark, and compare the predicted classes of "
        "each window of time with those of a reference. The output is a folder with a file of labels for each "
        "micro-batch, which refine and select read, and a table of windows. The same command continues it.",
    )
    made.add_argument(
        "--input",
        required=True,
        help="Folder in which images arrive, at any depth. Write a file under a name that begins with . or _, or "
        "elsewhere on the same disk, and rename it when it is whole. Its modification time is the time of the image.",
    )
    made.add_argument("--model", required=True, help="Checkpoint (path or URL), or program of tailmatch export (.pt2).")
    made.add_argument(
        "--reference",
        required=True,
        help="Pseudo-labels of the same checkpoint for images without drift, as of tailmatch predict "
        "--data.predict_set val --output reference.npz.",
    )
    made.add_argument("--output", required=True, help="Folder to write, or to continue.")
    _add(made, "window", "Width of a window: 30s, 1m, 1h, 1d.")
    _add(made, "late", "How long after the end of a window its images may come; later ones are labeled alone.")
    _add(made, "every", "Time between two looks into the folder.")
    _add(made, "max_files", "Largest number of images in a micro-batch.")
    _add_choice(made, "once", "Label the images that are there, and end.")
    made.add_argument("--prices", help="Prices of tailmatch refine (darp.json), by which the labels are refined.")
    _add_choice(made, "probs", "Write the probabilities of all classes.")
    _add(made, "alarm", "A window has drifted if its p is below this.")
    _add(made, "least_distance", "And if its distance from the reference is at least this, in [0, 1).")
    made.add_argument(
        "--on_drift",
        help="Command to run for each window with drift, without a shell; the window is on its input, as JSON.",
    )
    _add_choice(made, "until_drift", f"End at the first window with drift, with exit code {DRIFTED}.")
    made.add_argument(
        "--archive", help="Folder to move images to when they are labeled, so that the input stays small."
    )
    _add(made, "remember", "How long it is known which images were seen; older ones than this are not read.")
    made.add_argument(
        "--image_size", type=int, help="Height and width of the images in pixels, for a model that does not say them."
    )
    made.add_argument(
        "--trust_checkpoint",
        choices=("true", "false"),
        default="false",
        help="Let the model run code that is not of this package: only if you trust its maker. A .pt2 file is code.",
    )
    return made


def _add(made: argparse.ArgumentParser, name: str, text: str) -> None:
    default = _DEFAULTS[name]
    made.add_argument(f"--{name}", type=type(default), default=default, help=f"{text[:-1]} (default: %(default)s).")


def _add_choice(made: argparse.ArgumentParser, name: str, text: str) -> None:
    made.add_argument(
        f"--{name}", choices=("true", "false"), default="false", help=f"{text[:-1]} (default: %(default)s)."
    )


def main(args: Sequence[str]) -> None:
    """Run `tailmatch stream`. A signal ends it after the micro-batch of that moment; a second one ends it at once.

    Raises:
        Stop: A signal ended it.
    """
    asked = vars(parser().parse_args(args))
    asked["trust"] = asked.pop("trust_checkpoint")
    for name in ("once", "probs", "until_drift", "trust"):
        asked[name] = asked[name] == "true"
    settings = StreamSettings(**asked)
    settings.check()
    check_installed()
    from tailmatch.spark.stream import stream

    SIGNALS.deferred = True
    try:
        done = stream(settings, lambda: SIGNALS.received is not None)
    finally:
        SIGNALS.deferred = False
    print(f"{done.images:,} images are labeled: {settings.output}", flush=True)
    if SIGNALS.received is not None:
        stop = Stop(SIGNALS.received)
        stop.hint = "; the same command continues"
        raise stop
    if settings.until_drift and done.alarms:
        raise SystemExit(DRIFTED)
