"""Options of the command line beside those of trainer, method and data."""

from pytorch_lightning.cli import LightningArgumentParser

from tailmatch.command_line.report import UNLABELED_IMAGES


def add_run_options(parser: LightningArgumentParser) -> None:
    """Add what every command has: the folder of the run, and what it may do with a run and a file that are there."""
    parser.add_argument(
        "--run_dir",
        type=str | None,
        default=None,
        help="Folder of the run, for logs, config.yaml, checkpoints/ and test_metrics.json "
        "(default: the folder of --ckpt_path, otherwise a new folder in runs/).",
    )
    parser.add_argument(
        "--overwrite",
        type=bool,
        default=False,
        help="Start a new run in a run_dir that holds another one, which is moved aside, not deleted. "
        "With predict: replace an existing output.",
    )
    parser.add_argument(
        "--trust_checkpoint",
        type=bool,
        default=False,
        help="Take all settings of the checkpoints named, which may name any code and write anywhere: only for "
        "files whose maker you trust (a run of yours is trusted where its --run_dir is named).",
    )


def add_subcommand_options(parser: LightningArgumentParser, subcommand: str) -> None:
    """Add `--output` to `predict`, and the report to `test`."""
    if subcommand == "predict":
        parser.add_argument(
            "--output",
            type=str | None,
            default=None,
            help="File to write: .csv, .tsv, .txt or .parquet for a table (PredictionWriter), .npz for "
            "pseudo-labels (PseudoLabelWriter). Default: pseudo_labels.npz in run_dir, or predictions.csv in "
            "run_dir for images without labels (UnlabeledImages, UnlabeledTable).",
        )
    if subcommand == "test":
        parser.add_argument(
            "--report",
            type=bool,
            default=True,
            help="Write report.html and label_next.csv into run_dir (`tailmatch report` does so later).",
        )
        parser.add_argument("--unlabeled_images", type=int | None, default=None, help=UNLABELED_IMAGES)
