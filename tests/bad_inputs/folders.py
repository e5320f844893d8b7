"""Faults of run folders and outputs: what exists, what may not be read or written, and a full disk."""

from tests.bad_inputs.engine import row
from tests.bad_inputs.prepared import BEST, EXPORT, FIT, LAST, NETWORK, PREDICT, RESUME, TEST
from tests.bad_inputs.spoil import make, rights, write

INTO = "fit --config small.yaml --run_dir"
CLOSED = [make("closed"), rights("closed", 0o555)]
LABELS = "predict --run_dir runs/good --ckpt_path best"
LONG = "a" * 300

ROWS = [
    # run folders
    row("a run folder that holds a run", f"{INTO} runs/good", "runs/good", "--ckpt_path last", "--overwrite true"),
    row("a run folder that is a file", f"{INTO} table.csv", "table.csv", "file"),
    row("a run folder in a closed folder", f"{INTO} closed/new", "closed", "ermission", given=CLOSED),
    row("a closed run folder", f"{INTO} closed", "closed", "ermission", given=CLOSED),
    row("a run folder of too long a name", f"{INTO} {LONG}", "aaa", "too long"),
    row("an old run in a closed folder", f"{INTO} runs/good --overwrite true", "runs", "ermission", given=[rights("runs", 0o555)]),
    row("a run folder in a root of others", f"{INTO} /proc/new", "/proc/new"),
    row("a run without a run folder in a closed folder", "fit --config small.yaml", "runs", "ermission", given=[rights("runs", 0o555)]),
    row("a resume in closed checkpoints", f"{RESUME} --trainer.max_epochs 2", "checkpoints", "ermission", given=[rights("runs/good/checkpoints", 0o555)]),
    row("a resume in a closed run", f"{RESUME} --trainer.max_epochs 2", "runs/good", "ermission", given=[rights("runs/good", 0o555)]),
    row("a resume of a closed checkpoint", f"{RESUME} --trainer.max_epochs 2", "last.ckpt", "ermission", given=[rights(LAST, 0)]),
    row("a test in a closed run", TEST, "runs/good", "ermission", given=[rights("runs/good", 0o555)]),
    row("metrics that are a folder", TEST, "test_metrics.json", given=[make("runs/good/test_metrics.json")], creates="runs/good/*"),
    row("metrics that are closed", TEST, "test_metrics.json", given=[write("runs/good/test_metrics.json", "{}"), rights("runs/good/test_metrics.json", 0o444), rights("runs/good", 0o555)]),
    row("checkpoints that are a file", f"{INTO} new", "new/checkpoints", given=[write("new/checkpoints")], creates="new/*"),
    # outputs of predict
    row("an output that exists", PREDICT, "out.csv", "exists", "--overwrite true", given=[write("out.csv", "mine\n")]),
    row("an output that is a folder", PREDICT, "out.csv", given=[make("out.csv")]),
    row("an output that is a folder, to be replaced", f"{PREDICT} --overwrite true", "out.csv", given=[make("out.csv")]),
    row("an output in a closed folder", f"{PREDICT} --output closed/out.csv", "closed", "ermission", given=CLOSED),
    row("an output below a file", f"{PREDICT} --output table.csv/out.csv", "table.csv"),
    row("an output of another suffix", f"{PREDICT} --output out.xlsx", "out.xlsx", ".csv"),
    row("an empty output", f"{PREDICT} --output=", "output"),
    row("pseudo-labels that exist", f"{LABELS} --output pseudo_labels.npz", "pseudo_labels.npz", "exists", "--overwrite true"),
    row("pseudo-labels in a closed run", LABELS, "runs/good", "ermission", given=[rights("runs/good", 0o555)]),
    row("an output and a writer", f"{PREDICT} --trainer.callbacks+=PredictionWriter --trainer.callbacks.output a.csv", "output", "PredictionWriter"),
    # outputs of others
    row("an export onto a file", EXPORT, "out.pt2", "exists", given=[write("out.pt2", "mine\n")]),
    row("an export onto a checkpoint", f"export {BEST} {LAST}", "last.ckpt", ".onnx"),
    row("an export onto a folder", EXPORT, "out.pt2", given=[make("out.pt2")]),
    row("an export into a closed folder", f"export {BEST} closed/out.pt2", "closed", "ermission", given=CLOSED),
    row("an export of another format", f"export {BEST} out.tflite", "out.tflite", ".onnx", ".pt2"),
    row("an export without a file", f"export {BEST}", "out", code=2, lines=6),
    row("an export of one number as size", f"{EXPORT} --image_size 8", "image_size", "2", code=2, lines=6),
    row("an export of size 0", f"{EXPORT} --image_size 0 8", "image_size", "0"),
    row("a prior onto a file", f"{FIT} --model Supervised {NETWORK} --data.labeled_holdout 1 --trainer.callbacks+=UnlabeledPriorEstimator --trainer.callbacks.output prior.json", "prior.json", "exists"),
    row("a prior in a closed folder", f"{FIT} --model Supervised {NETWORK} --data.labeled_holdout 1 --trainer.callbacks+=UnlabeledPriorEstimator --trainer.callbacks.output closed/prior.json", "closed", "ermission", given=CLOSED),
    row("a copied configuration in a closed folder", "configs copy demo.yaml closed", "closed", "ermission", given=CLOSED),
    # disk full
    row("a full disk while a checkpoint is saved", FIT, "checkpoints", "large", largest_file=100_000, creates="new*"),
    row("a full disk while images are decoded", f"{FIT} --data.image_size 64", "cache", "large", largest_file=100_000),
    row("a full disk while an export is saved", EXPORT, "out.pt2", "large", largest_file=100_000),
    row("a full disk while an ONNX file is saved", EXPORT.replace(".pt2", ".onnx"), "out.onnx", "large", largest_file=100_000),
    row("a full disk while a resume saves", f"{RESUME} --trainer.max_epochs 2", "checkpoints", "large", largest_file=100_000, creates="runs/good/*"),
]  # fmt: skip
