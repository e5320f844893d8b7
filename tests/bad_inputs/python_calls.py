"""Wrong calls from Python."""

from tests.bad_inputs.engine import Row, call
from tests.bad_inputs.prepared import BEST, CLASSES
from tests.bad_inputs.spoil import cut, html, make, rights, write

MODEL = f"import tailmatch, numpy, torch\nmodel = tailmatch.load({BEST!r})\n"
METHODS = "from tailmatch.lightning_modules import *\nfrom functools import partial\n"
DATA = "import numpy, torch\nfrom tailmatch.datamodules import *\n"
CALLBACKS = "from tailmatch.callbacks import *\n"
IMAGES = "numpy.zeros((12, 8, 8, 3), numpy.uint8)"
TARGETS = "[0, 1, 2] * 4"
FOLDER = "ImageFolder('images', image_size=8, class_counts=LabeledFraction(1.0), labeled_batch_size=4, unlabeled_ratio=1, steps_per_epoch=1)"
TRAINER = "from pytorch_lightning import Trainer\ntrainer = Trainer(max_epochs=1, accelerator='cpu', logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False)\n"


def predict(name: str, images: str, *says: str, **more: object) -> Row:
    """Make a row of a prediction."""
    return call(f"predict: {name}", f"{MODEL}model.predict({images})", *says, **more)


def make_one(name: str, code: str, *says: str, **more: object) -> Row:
    """Make a row of an object that cannot be made."""
    return call(name, f"{METHODS}{DATA}{CALLBACKS}{code}", *says, **more)


def fit(name: str, model: str, *says: str, data: str = FOLDER, **more: object) -> Row:
    """Make a row of a training."""
    return call(
        name, f"{METHODS}{DATA}{CALLBACKS}{TRAINER}trainer.fit({model}, {data})", *says, **{"lines": 12, **more}
    )


ROWS = [
    call("load: no such file", "import tailmatch; tailmatch.load('nowhere.ckpt')", "nowhere.ckpt"),
    call("load: a checkpoint cut in the middle", f"import tailmatch; tailmatch.load({BEST!r})", "best.ckpt", given=[cut(BEST)]),
    call("load: a file that may not be read", f"import tailmatch; tailmatch.load({BEST!r})", "best.ckpt", "ermission", given=[rights(BEST, 0)]),
    call("load: another method", f"from tailmatch.lightning_modules import MixMatch; MixMatch.load_from_checkpoint({BEST!r})", "FixMatch", "MixMatch", "tailmatch.load"),
    call("load: another network", f"from tailmatch.lightning_modules import FixMatch\nfrom tailmatch.lightning_modules.networks import WideResNet\nFixMatch.load_from_checkpoint({BEST!r}, network=WideResNet)", "best.ckpt"),
    predict("no such file", "'nowhere.png'", "nowhere.png"),
    predict("no such file in a list", "['photos/0.png', 'nowhere.png']", "nowhere.png"),
    predict("an empty folder", "'empty'", "empty", given=[make("empty")]),
    predict("a folder without images", "'runs'", "runs"),
    predict("a web page", "'photos/0.png'", "photos/0.png", given=[html("photos/0.png")]),
    predict("a table", "'table.csv'", "table.csv"),
    predict("nothing", "[]", "images"),
    predict("None", "None", "None"),
    predict("a number", "5", "int"),
    predict("numbers", "[1, 2]", "int"),
    predict("floats", "numpy.zeros((8, 8, 3))", "float64", "uint8"),
    predict("two channels", "numpy.zeros((8, 8, 2), numpy.uint8)", "[8, 8, 2]"),
    predict("a vector", "numpy.zeros(8, numpy.uint8)", "8"),
    predict("five dimensions", "numpy.zeros((1, 1, 8, 8, 3), numpy.uint8)", "[1, 1, 8, 8, 3]"),
    predict("no pixels", "numpy.zeros((0, 0, 3), numpy.uint8)", "[0, 0, 3]"),
    predict("a batch size of 0", "'photos', batch_size=0", "batch_size is 0"),
    predict("categories of a network without", "'photos', categories={'color': ['red'] * 3}", "color"),
    make_one("no classes", "FixMatch(0)", "num_classes is 0"),
    make_one("a negative number of classes", "FixMatch(-3)", "num_classes is -3"),
    make_one("a text for the number of classes", "FixMatch('3')", "num_classes is '3'"),
    make_one("a threshold above 1", "FixMatch(3, threshold=7)", "threshold is 7"),
    make_one("a text for the threshold", "FixMatch(3, threshold='high')", "threshold is 'high'"),
    make_one("a NaN for the weight", "FixMatch(3, lambda_u=float('nan'))", "lambda_u is nan"),
    make_one("a network that is a text", "FixMatch(3, network='resnet50')", "network", "resnet50"),
    make_one("a network of another number of classes", "FixMatch(3, network=torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 5)))", "network", "3"),
    make_one("an optimizer that was made already", "FixMatch(3, optimizer=torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], 0.1))", "optimizer"),
    make_one("a callback's wrong value", "DARP(alpha=-1)", "alpha is -1"),
    make_one("a callback's wrong type", "DARP(alpha='much')", "alpha is 'much'"),
    make_one("an ensemble of nothing", "Ensemble(3, [])", "checkpoints"),
    make_one("an ensemble of one text", f"Ensemble(3, {BEST!r})", "checkpoints", "list"),
    make_one("an ensemble of missing files", "Ensemble(3, ['nowhere.ckpt'])", "nowhere.ckpt"),
    fit("a new head on a missing file", "ClassifierRetraining(3, 'nowhere.ckpt')", "nowhere.ckpt"),
    make_one("class counts with a wrong value", "DARPCounts(labeled_gamma=0)", "labeled_gamma is 0"),
    make_one("class counts that are a list", "ImageFolder('images', class_counts=[1, 1, 1])", "class_counts"),
    make_one("a folder that is missing", "ImageFolder('nowhere')", "nowhere"),
    make_one("a table that is missing", "ImageTable('nowhere.csv')", "nowhere.csv"),
    make_one("a batch size that is a text", f"InMemory({IMAGES}, {TARGETS}, labeled_batch_size='4')", "labeled_batch_size is '4'"),
    make_one("a batch size that is a float", f"InMemory({IMAGES}, {TARGETS}, labeled_batch_size=4.5)", "labeled_batch_size is 4.5"),
    make_one("fewer targets than images", f"InMemory({IMAGES}, [0, 1])", "12", "2"),
    make_one("float images", f"InMemory({IMAGES} / 255, {TARGETS})", "float64", "uint8"),
    make_one("targets of -5", f"InMemory({IMAGES}, [-5, 1, 2] * 4)", "-5"),
    make_one("targets of 0.5", f"InMemory({IMAGES}, [0.5, 1, 2] * 4)", "0.5"),
    make_one("targets that are NaN", f"InMemory({IMAGES}, [float('nan'), 1, 2] * 4)", "nan"),
    make_one("names and numbers as targets", f"InMemory({IMAGES}, ['cat', 1, 2] * 4)", "cat"),
    make_one("no images", "InMemory([], [])", "images"),
    make_one("images of different sizes", "InMemory([numpy.zeros((8, 8, 3), numpy.uint8), numpy.zeros((9, 9, 3), numpy.uint8)], [0, 1])", "image_size"),
    make_one("names of fewer classes", f"InMemory({IMAGES}, {TARGETS}, class_names=['a', 'b'])", "2", "a, b"),
    make_one("images without labels and without class names", "UnlabeledImages('photos', image_size=8)", "class_names"),
    fit("a model of another number of classes", "FixMatch(10)", "10", "3"),
    fit("a test of images without labels", "FixMatch(3)", "UnlabeledImages", data=f"UnlabeledImages('photos', {CLASSES}, image_size=8)"),
    fit("an ensemble that is trained", f"Ensemble(3, [{BEST!r}])", "Ensemble"),
    fit("self-training without pseudo-labels", "SelfTraining(3)", "pseudo_labels"),
    fit("a network of another number of outputs", "FixMatch(3, network=torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 5)))", "5", "3"),
    call("export: another suffix", f"{MODEL}from tailmatch.lightning_modules.inference.export import export\nexport(model, 'out.bin')", "out.bin", ".onnx"),
    call("export: onto a file", f"{MODEL}from tailmatch.lightning_modules.inference.export import export\nexport(model, 'table.pt2')", "table.pt2", "exists", given=[write("table.pt2", "mine")]),
    call("export: no such checkpoint", "from tailmatch.lightning_modules.inference.export import export\nexport('nowhere.ckpt', 'out.pt2')", "nowhere.ckpt"),
    call("export: a wrong size", f"{MODEL}from tailmatch.lightning_modules.inference.export import export\nexport(model, 'out.pt2', (0, 8))", "image_size"),
]  # fmt: skip
