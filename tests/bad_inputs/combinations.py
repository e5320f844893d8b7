"""Methods, data, callbacks and splits that are right by themselves and do not fit together."""

from tests.bad_inputs.engine import row
from tests.bad_inputs.prepared import BEST, FIT, NETWORK, TABLE, TEST
from tests.bad_inputs.spoil import remove

SUPERVISED = f"{FIT} --model Supervised {NETWORK}"
STUDENT = f"{FIT} --model SelfTraining {NETWORK}"


def adding(callback: str, *options: str, command: str = FIT) -> str:
    """Give a command with a callback and its options."""
    return " ".join([command, f"--trainer.callbacks+={callback}", *(f"--trainer.callbacks.{word}" for word in options)])


ROWS = [
    # callbacks and methods
    row("DARP without pseudo-labels", adding("DARP", command=SUPERVISED), "DARP", "Supervised"),
    row("alignment without pseudo-labels", adding("DistributionAlignment", command=SUPERVISED), "DistributionAlignment", "Supervised"),
    row("a generator for FixMatch", adding("PseudoLabelGenerator", "every_n_epochs=1"), "PseudoLabelGenerator", "FixMatch"),
    row("a generator without a teacher or an interval", adding("PseudoLabelGenerator", command=STUDENT), "teacher", "every_n_epochs"),
    row("an estimator without held-out images", adding("UnlabeledPriorEstimator", command=SUPERVISED), "labeled_holdout"),
    row("self-training without pseudo-labels", STUDENT, "pseudo_labels", "PseudoLabelGenerator"),
    row("relabeling without predictions", f"{STUDENT} --data.pseudo_labels pseudo_labels.npz --model.relabel_threshold 0.9", "relabel_threshold", "predict_set"),
    row("pseudo-labels for FixMatch", f"{FIT} --data.pseudo_labels pseudo_labels.npz", "pseudo_labels", "FixMatch", "SelfTraining"),
    row("DARP twice", f"{adding('DARP')} --trainer.callbacks+=DARP", "DARP"),
    row("a writer of predictions in a fit", adding("PredictionWriter"), "PredictionWriter", "predict"),
    row("adjustment in a pre-training", adding("LogitAdjustment", command=f"{FIT} --model RotationPretraining {NETWORK}"), "LogitAdjustment", "RotationPretraining"),
    row("an ensemble that is trained", f"{FIT} --model Ensemble --model.checkpoints [{BEST}]", "Ensemble"),
    row("a head without features", f"{FIT} --model PostHocClassifier --model.checkpoint {BEST}", "head", code=2),
    row("EarlyStopping on a number that no step has", adding("EarlyStopping", "monitor=train/los"), "EarlyStopping.monitor is 'train/los'", "train/loss"),
    row("a schedule that waits for a plateau", f"{FIT} --model.lr_scheduler ReduceLROnPlateau --model.lr_scheduler.monitor val/loss", "ReduceLROnPlateau", "CosineDecay", code=2),
    row("a schedule that waits for a plateau, by its path", f"{FIT} --model.lr_scheduler torch.optim.lr_scheduler.ReduceLROnPlateau", "ReduceLROnPlateau", "CosineDecay"),
    # callbacks and their values
    row("a negative alpha of DARP", adding("DARP", "alpha=-1"), "alpha is -1"),
    row("a negative warm-up", adding("DARP", "warmup_epochs=-1"), "warmup_epochs is -1"),
    row("a negative tau", adding("LogitAdjustment", "tau=-1"), "tau is -1"),
    row("a tau of NaN", adding("LogitAdjustment", "tau=nan"), "tau", "nan", code=2),
    row("a condition number of 0", adding("UnlabeledPriorEstimator", "max_condition=0", command=f"{SUPERVISED} --data.labeled_holdout 1"), "max_condition is 0"),
    row("an unknown column of predictions", adding("PredictionWriter", "columns=[id,lable]", command="predict --run_dir runs/good --ckpt_path best"), "lable", "label", code=2),
    # losses, weights, views, networks
    row("a negative gamma", f"{SUPERVISED} --model.loss Focal --model.loss.gamma -1", "gamma is -1"),
    row("LDAM without a normalized head", f"{SUPERVISED} --model.loss LDAM", "LDAM", "cosine_scale"),
    row("deferred weights without a start", f"{SUPERVISED} --model.class_weights DeferredReweighting", "start_epoch"),
    row("a cutout above 1", f"{FIT} --model.strong StrongView --model.strong.cutout 3", "cutout is 3"),
    row("a depth that does not exist", f"{FIT} --model.network WideResNet --model.network.depth 27", "depth is 27", "6n + 4"),
    row("an unknown network of torchvision", f"{FIT} --model.network TorchvisionNetwork --model.network.name resnet5000", "resnet5000", "resnet50"),
    row("an unknown network of timm", f"{FIT} --model.network TimmNetwork --model.network.name resnet5000", "resnet5000", "resnet50"),
    row("weights that do not exist", f"{FIT} --model.network TorchvisionNetwork --model.network.name resnet18 --model.network.weights IMAGENET", "IMAGENET", "IMAGENET1K_V1"),
    row("a pretrained file that is missing", f"{FIT} --model.network EfficientNet --model.network.pretrained nowhere.pth", "nowhere.pth"),
    row("categories that the data lacks", f"{FIT} --model.network CategoryNetwork --model.network.levels [color]", "color", "category_columns"),
    row("a category that the table lacks", f"{TABLE} --data.category_columns [size] --model.network CategoryNetwork --model.network.levels [size]", "size", "color"),
    row("a level twice", f"{TABLE} --data.category_columns [color] --model.network CategoryNetwork --model.network.levels [color,color]", "levels"),
    # splits
    row("more labeled images than there are", f"{FIT} --data.class_counts DARPCounts --data.class_counts.labeled_max 500", "500", "6"),
    row("no labeled image of any class", f"{FIT} --data.class_counts ListedCounts --data.class_counts.labeled [0,0,0]", "labeled"),
    row("counts of too few classes", f"{FIT} --data.class_counts ListedCounts --data.class_counts.labeled [1,1]", "[1, 1]", "3 classes"),
    row("a negative count", f"{FIT} --data.class_counts ListedCounts --data.class_counts.labeled [1,1,-1]", "labeled[2] is -1"),
    row("a gamma below 1", f"{FIT} --data.class_counts DARPCounts --data.class_counts.labeled_gamma 0.1", "labeled_gamma is 0.1"),
    row("all images held out", f"{FIT} --data.val_holdout 6", "val_holdout"),
    row("validation on the test and a holdout", f"{FIT} --data.validate_on_test true --data.val_holdout 1", "validate_on_test", "val_holdout"),
    row("a share of wrong labels above 1", f"{FIT} --data.label_noise SymmetricNoise --data.label_noise.share 1.5", "share is 1.5"),
    row("pairs of unknown classes", f"{FIT} --data.label_noise PairNoise --data.label_noise.share 0.5 --data.label_noise.pairs '{{cat: lynx}}'", "lynx", "cat"),
    row("no unlabeled images", f"{FIT} --data.class_counts ListedCounts --data.class_counts.labeled [6,6,6] --data.class_counts.unlabeled [0,0,0]", "no unlabeled images", "unlabeled/", "class_counts.fraction", "Supervised", given=[remove("images/unlabeled")]),
    # data and commands
    row("images without labels in a fit", f"{FIT} --data UnlabeledImages --data.root photos --data.image_size 8", "fit", "UnlabeledImages", "predict"),
    row("images without labels in a test", f"{TEST} --data UnlabeledImages --data.root photos", "test", "UnlabeledImages", "predict"),
    row("a test of data with other classes", f"{TEST} --data Digits", "other classes", "cat"),
    row("an ensemble of nothing", "test --config small.yaml --model Ensemble --model.checkpoints [] --run_dir new", "checkpoints"),
    row("an ensemble with a missing member", f"test --model Ensemble --model.checkpoints [{BEST},b.ckpt] --run_dir new", "b.ckpt"),
    row("too many weights of an ensemble", f"test --model Ensemble --model.checkpoints [{BEST}] --model.weights [1,2] --run_dir new", "weights", "1"),
    row("negative weights of an ensemble", f"test --model Ensemble --model.checkpoints [{BEST}] --model.weights [-1] --run_dir new", "weights", "-1"),
    row("an ensemble of other classes", f"test --model Ensemble --model.checkpoints [{BEST}] --data Digits --run_dir new", "cat"),
    row("an ensemble with a checkpoint", f"test --model Ensemble --model.checkpoints [{BEST}] --ckpt_path {BEST} --run_dir new", "Ensemble", "ckpt_path"),
]  # fmt: skip
