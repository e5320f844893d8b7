"""tailmatch: semi-supervised learning on long-tailed image data.

Commands:
  fit       train a method on a data set
  validate  evaluate a checkpoint on the validation images
  test      evaluate a checkpoint on the test images
  predict   write the predictions of a checkpoint, or its pseudo-labels, into a file
  export    write the network of a checkpoint as an ONNX file or a torch.export program
  configs   list the YAML files of this package, or copy one to edit

`tailmatch COMMAND --help` lists the options of a command, `tailmatch fit --model.help FixMatch` those of a class, and
`tailmatch --version` prints the version. A first run, of a minute: `tailmatch fit --config demo.yaml`.
"""

import difflib
import os
import sys
from collections.abc import Sequence

from tailmatch import __version__
from tailmatch.command_line import configs

COMMANDS = ("fit", "validate", "test", "predict", "export", "configs")


def main(args: Sequence[str] | None = None) -> None:
    """Run a command; an error that the user can mend is one message and exit code 1 (2 while parsing)."""
    words = list(sys.argv[1:] if args is None else args)
    command = words[0] if words else "--help"
    if command in ("--help", "-h"):
        print((__doc__ or "").strip())
    elif command == "--version":
        print(f"tailmatch {__version__}")
    elif command == "configs":
        configs.main(words[1:])
    elif command in COMMANDS or command.startswith("-"):
        _run(words)
    else:
        near = difflib.get_close_matches(command, COMMANDS, n=1)
        hint = f"\n  Did you mean: {near[0]}?" if near else ""
        sys.stderr.write(f"tailmatch: error: {command} is no command; there are {', '.join(COMMANDS)}{hint}\n")
        sys.exit(2)


def _run(words: list[str]) -> None:
    """Run a command that needs torch, whose import takes seconds that the others do without."""
    from tailmatch.command_line.errors import end_with
    from tailmatch.command_line.lightning_cli import TailmatchCLI
    from tailmatch.lightning_modules.inference import export
    from tailmatch.lightning_modules.training.quiet import quiet_known_noise

    quiet_known_noise()
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # where a user's own classes lie; last, so that no file there hides a package
    try:
        if words[0] == "export":
            export.main(words[1:])
        else:
            TailmatchCLI(words)
    except Exception as error:
        end_with(error)


if __name__ == "__main__":
    main()
