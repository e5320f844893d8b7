"""`tailmatch report`: write the report of a run, `report.html` in its folder, from one of its checkpoints."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from tailmatch.command_line.run_folder import has_checkpoints
from tailmatch.command_line.signals import SIGNALS
from tailmatch.command_line.typed import Typed, misspelled_option
from tailmatch.datamodules.arguments import MissingFileError, SettingsError

EPILOG = """\
examples:
  tailmatch report runs/first
  tailmatch report runs/first --unlabeled_images 20000     look for images to label among more of them
  tailmatch report runs/first --data.root elsewhere        options of `tailmatch test` may follow
"""


UNLABELED_IMAGES = (
    "The largest number of unlabeled images that are predicted, to find those to label next; of more, a random sample "
    "is (default: 5,000 for report; for test a tenth of the number of test images, at least 200 and at most 5,000)."
)
"""The help of the option of that name."""

PARTS = ("config.yaml", "metrics.csv", "test_metrics.json")
"""Files by which a folder without a checkpoint is known as that of a run."""


def parser() -> argparse.ArgumentParser:
    """Make the parser of the command."""
    made = argparse.ArgumentParser(
        prog="tailmatch report",
        usage="tailmatch report RUN [--ckpt_path CHECKPOINT] [--unlabeled_images N] [option of `tailmatch test` ...]",
        description="Write report.html and label_next.csv into the folder of a run. The test images are evaluated, or "
        "the validation images if there are none. Nothing else in the folder changes.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    made.add_argument("run", metavar="RUN", type=Path, help="Folder of the run, such as runs/first.")
    made.add_argument(
        "--ckpt_path",
        metavar="CHECKPOINT",
        help="Path of a checkpoint, or best or last: those of the run (default: best, or last if there is no best).",
    )
    made.add_argument("--unlabeled_images", metavar="N", default="5000", help=UNLABELED_IMAGES)
    return made


def main(args: Sequence[str]) -> None:
    """Run `tailmatch report`."""
    asked, others = parser().parse_known_args(args)
    checkpoint = asked.ckpt_path or checkpoint_to_evaluate(asked.run)
    with SIGNALS.while_importing():  # only here, so that the help and a wrong argument take no seconds
        from tailmatch.command_line.plain_warnings import plain_warnings
        from tailmatch.command_line.report_cli import ReportCLI, report_without_checkpoint
        from tailmatch.lightning_modules.training.quiet import quiet_known_noise
    quiet_known_noise()
    plain_warnings()
    if checkpoint is None:
        print(f"report: {report_without_checkpoint(asked.run)}", flush=True)
        return
    ReportCLI(words_of_test(asked.run, checkpoint, asked.unlabeled_images, others))


def checkpoint_to_evaluate(run: Path) -> str | None:
    """Choose a checkpoint of a run: best, else last, else the newest; None if the run has none.

    Raises:
        MissingFileError: There is no such folder.
        SettingsError: It is not the folder of a run.
    """
    if not run.exists():
        raise MissingFileError(f"no run {run}: there is no such folder")
    if not run.is_dir():
        raise SettingsError(f"{run} is a file; give the folder of the run, such as runs/first")
    for name in ("best", "last"):
        if (run / "checkpoints" / f"{name}.ckpt").is_file():
            return name
    if has_checkpoints(run):
        return str(max((run / "checkpoints").glob("*.ckpt"), key=lambda file: file.stat().st_mtime))
    if not any((run / name).is_file() for name in PARTS):
        raise SettingsError(f"{run} has no run in it: there is no checkpoints/*.ckpt and no {' or '.join(PARTS)}")
    return None


def words_of_test(run: Path, checkpoint: str, unlabeled_images: str, others: Sequence[str]) -> list[str]:
    """Make the command line of the test that writes the report, on one device and without logs.

    Raises:
        SettingsError: An option is misspelled, or is one that `report` sets.
    """
    for word in others:
        if word.split("=")[0] in ("--run_dir", "--report", "--overwrite", "--config", "-c"):
            raise SettingsError(f"report takes no {word.split('=')[0]}: it reads the run {run}, and writes there")
    words = ["test", f"--run_dir={run}", f"--ckpt_path={checkpoint}", "--report=true", "--verbose=false"]
    words += ["--trainer.logger=false", "--trainer.devices=1", "--trainer.num_nodes=1", "--trainer.strategy=auto"]
    words += [f"--unlabeled_images={unlabeled_images}"]
    typed = Typed.read([*words, *others])
    misspelled = misspelled_option(typed)
    if misspelled is not None:
        raise SettingsError(misspelled)
    return typed.words
