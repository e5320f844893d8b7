"""tailmatch: semi-supervised learning on long-tailed image data.

Commands:
  init      look at your images, and propose the settings of a first training
  fit       train a method on a data set
  validate  evaluate a checkpoint on the validation images
  test      evaluate a checkpoint on the test images
  sweep     train and test all combinations that the file of a study names
  report    write one page about a run: its result, mistakes, and images to label next
  compare   lay out runs as a table: mean and deviation over seeds, as text, Markdown, CSV, LaTeX or a page
  predict   write predictions or pseudo-labels of a checkpoint to a file
  label     label the images of a folder, a table or Parquet files on Apache Spark
  refine    refine pseudo-labels to given class totals, by DARP; also on Spark
  select    keep the most confident pseudo-labels of each class; also on Spark
  stream    label images as they arrive, and watch their predicted classes, on Apache Spark
  export    write the network of a checkpoint as an ONNX file or a torch.export program
  configs   list the configurations of this package, or copy one to edit it

Help:
  tailmatch COMMAND --help                     the options of a command
  tailmatch fit --model.help FixMatch          the options of a method
  tailmatch fit --data.help ImageFolder        the options of a data set
  tailmatch fit --trainer.callbacks.help DARP  the options of a remedy or a report
  tailmatch --version                          the version

For a first run, which takes a minute: tailmatch fit --config demo.yaml
"""

import difflib
import io
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module

from tailmatch import __version__
from tailmatch.command_line import configs
from tailmatch.command_line.signals import SIGNALS, Stop, end_stopped

COMMANDS = (
    "init", "fit", "validate", "test", "sweep", "report", "compare", "predict", "label", "refine", "select", "stream",
    "export", "configs",
)  # fmt: skip


def main(args: Sequence[str] | None = None) -> None:
    """Run a command; an error that the user can mend prints one message, with exit code 1 (2 while parsing).

    SIGTERM ends it with exit code 143, and Ctrl-C with 130.
    """
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")  # names that the terminal's encoding does not have
    words = list(sys.argv[1:] if args is None else args)
    command = words[0] if words else "--help"
    if command in ("--help", "-h"):
        print((__doc__ or "").strip())
    elif command == "--version":
        print(f"tailmatch {__version__}")
    elif command == "configs":
        _run_configs(words[1:])
    elif command.startswith("-"):
        _refuse_options_first(words)
    elif command in COMMANDS:
        with SIGNALS.handled():
            try:
                _run(words)
            except Stop as stop:
                end_stopped(stop)
    else:
        near = difflib.get_close_matches(command, COMMANDS, n=1)
        hint = f"\n  Did you mean: {near[0]}?" if near else ""
        sys.stderr.write(f"tailmatch: error: unknown command {command}; the commands are {', '.join(COMMANDS)}{hint}\n")
        sys.exit(2)


def _refuse_options_first(words: list[str]) -> None:
    """End with a message that the command comes first, as the options mean nothing without it."""
    found = next((word for word in words if word in COMMANDS), None)
    typed = [found or "COMMAND", *words]
    if found:
        typed.pop(typed.index(found, 1))
    sys.stderr.write(
        f"tailmatch: error: the option {words[0]} is before the command; the command comes first: "
        f"tailmatch {shlex.join(typed)}" + ("\n" if found else f"\n  The commands are {', '.join(COMMANDS)}\n")
    )
    sys.exit(2)


def _run_configs(words: list[str]) -> None:
    """Run `tailmatch configs`, which takes no time as long as nothing of torch is imported."""
    try:
        configs.main(words)
    except Exception as error:
        from tailmatch.command_line.errors import end_with

        end_with(error)


def _run(words: list[str]) -> None:
    """Run a command that needs torch, which takes seconds to import."""
    with SIGNALS.while_importing():
        from tailmatch.command_line.errors import end_with
    try:
        run = _imported(words)
        if os.getcwd() not in sys.path:
            sys.path.append(os.getcwd())  # for the user's own classes; last, so that no file there hides a package
        run()
    except Exception as error:
        stop = SIGNALS.behind(error)
        if stop is not None:
            raise stop from error
        end_with(error)


def _imported(words: list[str]) -> Callable[[], object]:
    """Import what a command needs, and nothing else.

    Raises:
        SettingsError: A file of `--config` does not exist. It is found before Lightning is imported.
    """
    if words[0] in ("init", "sweep", "label", "refine", "select", "stream", "export", "report", "compare"):
        with SIGNALS.while_importing():
            own = import_module(f"tailmatch.command_line.{words[0]}")
        return partial(own.main, words[1:])
    with SIGNALS.while_importing():
        from tailmatch.command_line.typed import Typed, misspelled_option
    typed = Typed.read(words)
    misspelled = misspelled_option(typed)
    if misspelled is not None:
        sys.stderr.write(f"tailmatch: error: {misspelled}\n")
        sys.exit(2)
    with SIGNALS.while_importing():
        from tailmatch.command_line.lightning_cli import TailmatchCLI
        from tailmatch.command_line.plain_warnings import plain_warnings
        from tailmatch.lightning_modules.training.quiet import quiet_known_noise
    quiet_known_noise()
    plain_warnings()
    return partial(TailmatchCLI, typed.words)


if __name__ == "__main__":
    main()
