"""What a stream does, and what is wrong with it; this imports neither Spark nor pyarrow."""

import os
import shlex
from dataclasses import dataclass
from shutil import which

from tailmatch.datamodules.arguments import (
    MissingFileError,
    SettingsError,
    check_below_one,
    check_count,
    check_positive_share,
)
from tailmatch.datamodules.output_files import check_apart
from tailmatch.spark.windows import SECOND, microseconds


@dataclass(frozen=True)
class StreamSettings:
    """What a stream does; `tailmatch stream --help` says more.

    Args:
        input: The folder in which images arrive, at any depth.
        model: A checkpoint, or a `.pt2` file of `tailmatch export`.
        reference: Pseudo-labels that the same checkpoint predicted for images without drift.
        output: The folder to write, or to continue.
        window: The width of a window.
        late: How long after the end of a window its images may come.
        every: The time between two looks into the folder.
        max_files: The largest number of images in a micro-batch.
        prices: A file of prices by which labels are refined. None: they are not.
        probs: Whether to write the probabilities of all classes.
        alarm: The p below which a window is an alarm.
        least_distance: The least total variation of an alarm.
        on_drift: A command to run for each alarm, with the window as JSON on its standard input.
        until_drift: Whether to end at the first alarm.
        once: Whether to end when all images that are there are labeled.
        archive: A folder to which Spark moves images that are labeled. None: they stay.
        remember: How long Spark knows which images it has seen.
        image_size: The height and width of the images, for a model that does not say them.
        trust: Whether the model may run code outside this package; a `.pt2` file is such code.
    """

    input: str
    model: str
    reference: str
    output: str
    window: str = "1m"
    late: str = "1m"
    every: str = "10s"
    max_files: int = 2000
    prices: str | None = None
    probs: bool = False
    alarm: float = 0.001
    least_distance: float = 0.0
    on_drift: str | None = None
    until_drift: bool = False
    once: bool = False
    archive: str | None = None
    remember: str = "30d"
    image_size: int | None = None
    trust: bool = False

    def check(self) -> None:
        """Refuse values that mean nothing, and folders that are not there.

        Raises:
            SettingsError: A value lies outside its domain, or a folder or a program is missing.
        """
        microseconds("window", self.window, SECOND)
        microseconds("late", self.late)
        microseconds("every", self.every)
        microseconds("remember", self.remember, 60 * SECOND)
        check_count("max_files", self.max_files)
        check_positive_share("alarm", self.alarm)
        check_below_one("least_distance", self.least_distance)
        if self.on_drift is not None:
            command_of(self.on_drift)
        if "://" in self.input:
            raise SettingsError(f"input is {self.input}; it must be a folder of this machine, or one that all share")
        if not os.path.isdir(self.input):
            raise MissingFileError(f"there is no folder {os.path.abspath(self.input)}, in which images would arrive")
        check_apart("output", self.output, "the input", self.input)
        if self.archive is not None:
            check_apart("archive", self.archive, "the input", self.input)


def command_of(text: str) -> list[str]:
    """Split a command into words, as a shell would; no shell runs it.

    Raises:
        SettingsError: It has no words or an open quote, or its program is not there.
    """
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise SettingsError(f"on_drift is {text!r}: {error}") from error
    if not words:
        raise SettingsError("on_drift is empty; give a command, or leave it out")
    if which(words[0]) is None:
        raise SettingsError(
            f"on_drift is {text!r}, and there is no program {words[0]}; no shell runs it: for pipes and the like, give "
            "a script, or sh -c '...'"
        )
    return words
