"""Wrong words on the command line, and values that are out of their domain."""

from tests.bad_inputs.engine import Row, row
from tests.bad_inputs.prepared import EXPORT, FIT, NETWORK

SUPERVISED = f"{FIT} --model Supervised {NETWORK}"

WORDS = [
    row("an unknown command", "trian --config small.yaml", "unknown command trian", "fit", code=2),
    row("an option before the command", "--config small.yaml fit", "before", "fit", code=2),
    row("a typo in an option", f"{FIT} --model.treshold 0.9", "treshold", "threshold", code=2),
    row("a typo in the run folder's option", f"{FIT} --rundir x", "--rundir", "run_dir", code=2),
    row("a typo in a network's option", f"{FIT} --model.network.dept 8", "dept", "depth", code=2),
    row("a typo in a method", f"{FIT} --model FixMacth", "FixMacth", "FixMatch", code=2),
    row("a typo in a data set", f"{FIT} --data Digitz", "Digitz", "Digits", code=2),
    row("a typo in a network", f"{FIT} --model.network CifarResnet", "CifarResnet", "CifarResNet", code=2),
    row("a typo in a callback", f"{FIT} --trainer.callbacks+=DRAP", "DRAP", "DARP", code=2),
    row("a typo in class counts", f"{FIT} --data.class_counts DARPCount", "DARPCount", "DARPCounts", code=2),
    row("a typo in an optimizer", f"{FIT} --model.optimizer torch.optim.Adamm", "Adamm", "Adam", code=2),
    row("a typo in a callback's option", f"{FIT} --trainer.callbacks+=DARP --trainer.callbacks.alhpa 1", "alhpa", "alpha", code=2),
    row("a typo in a checkpoint option", f"{FIT} --checkpoint.monitor val/top1", "checkpoint.monitor", "monitors", code=2),
    row("an option of another method", f"{SUPERVISED} --model.threshold 0.9", "threshold", code=2),
    row("an option of predict in fit", f"{FIT} --output out.csv", "--output", code=2),
    row("an option of fit in export", f"{EXPORT} --config small.yaml", "--config", code=2, lines=4),
    row("an option without its value", "fit --config small.yaml --run_dir", "run_dir", "needs one argument", code=2),
    row("a file without --config", "fit small.yaml", "small.yaml", code=2),
    row("a value with a space", f"{FIT} --trainer.max_epochs 1 2", "2", code=2),
    row("no model", "fit --data Digits --run_dir new", "model", "--config", code=2),
    row("no data", "fit --model FixMatch --run_dir new", "data", "--config", code=2),
    row("nothing but the command", "fit", "model", "--config", code=2),
    row("a test without a checkpoint", "test", "--ckpt_path", code=2),
    row("last without a run folder", "test --ckpt_path last", "last", "--run_dir"),
    row("an unknown module", f"{FIT} --model mymodels.Mine", "mymodels", "PYTHONPATH", code=2),
    row("a class that is no network", f"{FIT} --model.network torch.nn.Linear", "Linear", "network", code=2),
    row("a class that is no optimizer", f"{FIT} --model.optimizer torch.nn.Linear", "Linear", "optimizer", code=2),
    row("a method as callback", f"{FIT} --trainer.callbacks+=FixMatch", "FixMatch", "callbacks", code=2),
    row("a callback's option without a callback", f"{FIT} --trainer.callbacks.alpha 1", "alpha", "callbacks", code=2),
    row("the number of classes typed", f"{FIT} --model.num_classes 4", "num_classes"),
    row("an argument that a method needs", f"{FIT} --model ClassifierRetraining", "checkpoint", code=2),
    row("no name of a configuration to copy", "configs copy", "name", code=2),
    row("an unknown configuration to copy", "configs copy demmo.yaml", "demmo.yaml", "demo.yaml", code=2, lines=4),
    row("copy onto a file that exists", "configs copy demo.yaml small.yaml", "small.yaml", "exists", code=2),
    row("an unknown command of configs", "configs list", "list", "copy", code=2),
]  # fmt: skip


def typed(option: str, value: str, *says: str, command: str = FIT, **more: object) -> Row:
    """Make a row of one option, whose name (its last part) and value the message must show."""
    name = option.rsplit(".", 1)[-1].lstrip("-")
    return row(f"{option} {value}", f"{command} {option}={value}", name, *says, **more)


TYPES = [
    typed("--model.threshold", "abc", "abc", code=2),
    typed("--model.threshold", "0,95", "0,95", code=2),
    typed("--model.strong_views", "1.5", "1.5", code=2),
    typed("--model.network.depth", "deep", "deep", code=2),
    typed("--data.labeled_batch_size", "4.5", "4.5", code=2),
    typed("--data.labeled_batch_size", "null", code=2),
    typed("--data.image_size", "8x8", "8x8", code=2),
    typed("--data.predict_set", "everything", "everything", "unlabeled", code=2),
    typed("--data.val_holdout", "ten", "ten", code=2),
    typed("--trainer.max_epochs", "ten", "ten", code=2),
    typed("--trainer.max_epochs", "1e3", "1000", code=2),
    typed("--trainer.enable_progress_bar", "off-ish", "off-ish", code=2),
    typed("--seed_everything", "abc", "abc", code=2),
    typed("--overwrite", "perhaps", "perhaps", code=2),
    typed("--checkpoint.mode", "best", "best", "max", code=2),
    typed("--model.optimizer.lr", "fast", "fast", code=2),
    typed("--image_size", "0", command=EXPORT, code=2, lines=5),
]  # fmt: skip

DOMAINS = [
    typed("--model.threshold", "7", "7.0", "[0, 1]"),
    typed("--model.threshold", "-0.1", "-0.1", "[0, 1]"),
    typed("--model.threshold", "nan", "nan", code=2),
    typed("--model.lambda_u", "-1", "-1", "at least 0"),
    typed("--model.temperature", "-2", "-2"),
    typed("--model.ema_decay", "1.5", "1.5"),
    typed("--model.strong_views", "0", "0", "at least 1"),
    typed("--model.network.depth", "9", "9", "6n + 2"),
    row("--model.optimizer.lr -1", f"{FIT} --model.optimizer.lr=-1", "lr is -1"),
    typed("--model.optimizer.lr", "nan", "nan", code=2),
    typed("--model.optimizer.momentum", "2", "2"),
    typed("--model.mixup", "-1", "-1", command=SUPERVISED),
    typed("--data.labeled_batch_size", "0", "0", "at least 1"),
    typed("--data.labeled_holdout", "-2", "-2"),
    typed("--data.labeled_holdout", "1000", "1000"),
    typed("--data.seed", "-1", "-1"),
    typed("--data.image_size", "0", "0"),
    typed("--data.image_size", "10000000", "10000000"),
    typed("--data.val_holdout", "1000", "1000"),
    typed("--data.test_holdout", "6", "6"),
    typed("--data.cache_budget_gb", "-1", "-1"),
    typed("--data.class_counts.fraction", "1.5", "1.5"),
    typed("--data.mean", "[1, 2]", code=2, command=FIT),
    typed("--seed_everything", "-5", "-5"),
    typed("--seed_everything", "99999999999", "99999999999"),
    typed("--trainer.max_epochs", "-5", "-5"),
    typed("--trainer.limit_train_batches", "0", "0"),
    typed("--trainer.limit_val_batches", "-1", "-1"),
    typed("--trainer.accumulate_grad_batches", "0", "0"),
    typed("--trainer.gradient_clip_val", "-1", "-1"),
    typed("--trainer.log_every_n_steps", "-1", "-1"),
    typed("--trainer.check_val_every_n_epoch", "0", "0"),
    typed("--trainer.val_check_interval", "2.5", "2.5"),
    typed("--trainer.precision", "17", "17", code=2),
    typed("--trainer.accelerator", "tpuu", "tpuu"),
    typed("--trainer.devices", "0", "0"),
    row("--trainer.devices -3", f"{FIT} --trainer.devices=-3", "devices"),
    row("--trainer.devices two", f"{FIT} --trainer.devices=two", "devices"),
    typed("--trainer.strategy", "dpp", "dpp"),
    typed("--trainer.default_root_dir", "there", "there", "--run_dir"),
    typed("--trainer.barebones", "true", "true", "loggers"),
    typed("--checkpoint.monitors", "[val/nothing]", "val/nothing", "val/balanced_accuracy"),
    typed("--checkpoint.every_n_epochs", "-1", "-1"),
    typed("--checkpoint.last_every_n_steps", "-2", "-2"),
    typed("--run_dir", "", command="fit --config small.yaml"),
    typed("--ckpt_path", "", command="test --run_dir runs/good"),
]  # fmt: skip

ROWS = [*WORDS, *TYPES, *DOMAINS]
