"""A checkpoint that names code: nothing of it is imported or called where a method is built from Python."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from jsonargparse import _instantiation

from tailmatch import load, trust_checkpoints
from tailmatch.callbacks.remedies.pseudo_label_generator import load_teacher
from tailmatch.datamodules.arguments import SettingsError
from tailmatch.lightning_modules import Ensemble, Supervised, views
from tailmatch.lightning_modules.checkpoints.checkpoint_io import AtomicCheckpointIO
from tailmatch.lightning_modules.checkpoints.trained_checkpoint import read_checkpoint
from tailmatch.lightning_modules.inference import trust
from tailmatch.lightning_modules.inference.class_paths import public_class, public_names, public_path
from tailmatch.lightning_modules.inference.export import export
from tailmatch.lightning_modules.inference.trust import Stranger, names_in, settings_from
from tailmatch.lightning_modules.losses import ClassificationLoss
from tailmatch.lightning_modules.networks import CifarResNet, Network, load_pretrained
from tailmatch.lightning_modules.views import View
from tests.stranger import MODULE, Watch, argument, code, payloads, texts, with_settings
from tests.trained_files import NAMES, trained_file

ENTRIES: dict[str, Callable[[str], Any]] = {
    "load": load,
    "load_from_checkpoint": Supervised.load_from_checkpoint,
    "Ensemble": lambda path: Ensemble(len(NAMES), [path]),
    "export": lambda path: export(path, "out.pt2"),
}


@pytest.fixture
def watch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Watch:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "outside").mkdir()
    return Watch(tmp_path / "outside")


@pytest.fixture
def good(tmp_path: Path) -> Path:
    """A checkpoint that can be loaded."""
    file = Path(trained_file(tmp_path / "good.ckpt", CifarResNet(3, depth=8), {"depth": 8}))
    content = torch.load(file, weights_only=True)
    content["state_dict"]["class_counts"] = torch.tensor([3, 2, 1])
    torch.save(content, file)
    assert isinstance(load(file), Supervised)
    return file


@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.parametrize("payload", payloads(""))
def test_code_is_neither_imported_nor_called(
    payload: str, entry: str, watch: Watch, good: Path, tmp_path: Path
) -> None:
    file = payloads(str(watch.called))[payload](tmp_path / "bad.ckpt", good)
    with watch.nothing_happens(), pytest.raises(SettingsError, match="bad.ckpt"):
        ENTRIES[entry](str(file))
    assert not (tmp_path / "out.pt2").exists()


@pytest.mark.parametrize("text", texts())
def test_a_configuration_is_plain_data_of_bounded_size(text: str, watch: Watch, good: Path, tmp_path: Path) -> None:
    file = with_settings(tmp_path / "bad.ckpt", good, texts()[text])
    with watch.nothing_happens(), pytest.raises(SettingsError, match="configuration in checkpoint .*bad.ckpt"):
        load(file)


@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("class_names", 5),
        ("class_names", [0, 1, 2]),
        ("class_names", "abc"),
        ("image_size", 8),
        ("image_size", "ab"),
        ("image_size", [8]),
        ("image_size", [8.5, float("nan")]),
        ("image_size", [-1, -1]),
        ("image_size", [10**7, 10**7]),
        ("blank", 1),
        ("categories", "x"),
        ("categories", [{"name": "color", "values": None}]),
        ("state_dict", [1]),
        ("state_dict", {5: torch.zeros(1)}),
    ],
)
def test_facts_that_no_run_saves_are_refused(entry: str, key: str, value: object, good: Path, tmp_path: Path) -> None:
    file = tmp_path / "bad.ckpt"
    torch.save({**torch.load(good, weights_only=True), key: value}, file)
    with pytest.raises(SettingsError, match="checkpoint .*bad.ckpt' has "):
        ENTRIES[entry](str(file))


@pytest.mark.parametrize("entry", [*ENTRIES, "load_pretrained", "a trainer"])
@pytest.mark.parametrize("kind", ["text", "sparse", "quantized", "meta", "a number as its name"])
def test_what_is_no_dense_tensor_is_refused(kind: str, entry: str, good: Path, tmp_path: Path) -> None:
    content = torch.load(good, weights_only=True)
    state, name, file = content["state_dict"], "network.head.weight", tmp_path / "bad.ckpt"
    weight = state.pop(name)
    made: dict[str, Callable[[], Any]] = {
        "text": lambda: "x",
        "sparse": weight.to_sparse,
        "quantized": lambda: torch.quantize_per_tensor(weight, 0.1, 0, torch.qint8),
        "meta": lambda: weight.to("meta"),
        "a number as its name": lambda: weight,
    }
    state[5 if kind == "a number as its name" else name] = made[kind]()
    torch.save(content, file)
    more: dict[str, Callable[[str], Any]] = {
        "load_pretrained": lambda path: load_pretrained(CifarResNet(3, depth=8), path),
        "a trainer": AtomicCheckpointIO().load_checkpoint,
    }
    with pytest.raises(SettingsError, match="bad.ckpt"):
        (ENTRIES | more)[entry](str(file))


@pytest.mark.parametrize("payload", payloads(""))
def test_a_file_of_weights_gives_its_weights_alone(payload: str, watch: Watch, good: Path, tmp_path: Path) -> None:
    """A teacher, `pretrained` weights, and the network of a file below a new head."""
    file = str(payloads(str(watch.called))[payload](tmp_path / "bad.ckpt", good))
    entries: dict[str, Callable[[Network], Any]] = {
        "teacher": lambda network: load_teacher(network, file, NAMES),
        "pretrained": lambda network: load_pretrained(network, file),
        "head": lambda network: read_checkpoint(file),
    }
    for name, read in entries.items():
        with watch.nothing_happens():
            try:
                read(CifarResNet(3, depth=8))
            except SettingsError as error:
                assert "bad.ckpt" in str(error), name


def test_with_trust_a_file_may_name_anything(watch: Watch, good: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.syspath_prepend(watch.folder / "code")
    file = str(with_settings(tmp_path / "mine.ckpt", good, code("")["function"]))
    with pytest.raises(SettingsError, match=rf"{MODULE}.make is no public class .* trust=True"):
        load(file)
    assert not watch.marker.exists()
    assert isinstance(load(file, trust=True), Supervised) and watch.called.exists()
    assert isinstance(Supervised.load_from_checkpoint(file, trust=True), Supervised)
    with trust_checkpoints():
        assert isinstance(load(file), Supervised)
    with pytest.raises(SettingsError, match="is no public class"):
        load(file)


def test_what_is_given_in_python_takes_the_place_of_what_is_named(good: Path, tmp_path: Path, watch: Watch) -> None:
    file = str(with_settings(tmp_path / "mine.ckpt", good, argument("network", f"{MODULE}.make")))
    with watch.nothing_happens():
        assert isinstance(load(file, network=CifarResNet(3, depth=8)), Supervised)


def test_networks_at_any_depth_fetch_no_weights(good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("weights are fetched")

    monkeypatch.setattr("tailmatch.lightning_modules.networks.torchvision_network.download_state_dict", refuse)
    network = {
        "class_path": "tailmatch.lightning_modules.networks.TorchvisionNetwork",
        "init_args": {"name": "resnet18", "weights": "DEFAULT"},
    }
    file = with_settings(tmp_path / "bad.ckpt", good, argument("view", network))
    with pytest.raises(SettingsError, match="cannot be built"):
        load(file)


@pytest.mark.parametrize(("name", "kind"), [("view", View), ("loss", ClassificationLoss), ("network", Network)])
def test_an_argument_takes_its_kind_alone(
    name: str, kind: type, good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Public classes of another kind are refused before an object of theirs is made."""
    made: list[type] = []
    make = _instantiation.default_class_instantiator

    def record(found: type, *args: Any, **kwargs: Any) -> Any:
        made.append(found)
        return make(found, *args, **kwargs)

    monkeypatch.setattr(_instantiation, "default_class_instantiator", record)
    packages = ("callbacks", "datamodules", "lightning_modules")
    paths = {public_path(f"{package}.{each}") for package in packages for each in public_names()}
    others = [path for path in sorted(paths) if not issubclass(public_class(path) or kind, kind)]
    assert len(others) > 40
    for path in others[:: 1 if name == "view" else 5]:
        file = with_settings(tmp_path / "bad.ckpt", good, argument(name, {"class_path": path}))
        with pytest.raises(SettingsError, match="bad.ckpt"):
            load(file)
        assert [found for found in made if found in (public_class(path),)] == [], path
    load(with_settings(tmp_path / "fine.ckpt", good, argument("view", {"class_path": f"{views.__name__}.WeakView"})))
    assert views.WeakView in made


def test_optimizers_and_schedules_of_torch_may_be_named_and_no_other_name_of_it() -> None:
    stranger = Stranger("a.ckpt")
    allowed = ["torch.optim.AdamW", "torch.optim.lr_scheduler.StepLR", "tailmatch.lightning_modules.views.WeakView"]
    assert all(stranger.may_name(name) for name in allowed)
    refused = ["torch.optim.sgd.SGD", "torch.optim.lr_scheduler.partial", "torch.nn.Identity", "torch.optim.swa_utils"]
    assert not any(stranger.may_name(name) for name in [*refused, "tailmatch.lightning_modules.FixMatch", "torch.load"])
    assert Stranger("a.ckpt", roots=frozenset({"tailmatch.lightning_modules.FixMatch"})).may_name(
        "lightning_modules.FixMatch"
    )
    assert Stranger("a.ckpt", typed=names_in(["--x", "[mine.Network, 3]"])).may_name("mine.Network")


def test_mutated_names_import_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    imported = []
    monkeypatch.setitem(trust.UPSTREAM, "import_object", lambda name, *args, **kwargs: imported.append(name))
    draw = random.Random(0)
    parts = "tailmatch lightning_modules networks views torch optim nn os system subprocess Popen WeakView SGD".split()
    seeds = ["tailmatch.lightning_modules.views.WeakView", "torch.optim.SGD", "lightning_modules.views.WeakView"]
    for _ in range(2000):
        name = draw.choice(seeds) if draw.random() < 0.5 else ".".join(draw.choices(parts, k=draw.randint(2, 5)))
        for _ in range(draw.randint(0, 2)):
            place = draw.randrange(len(name))
            name = name[:place] + draw.choice(["", ".", "_", "x", " ", "\n", "/"]) + name[place + draw.randint(0, 1) :]
        try:
            with settings_from(Stranger("a.ckpt")):
                trust.import_object(name)
        except SettingsError:
            continue
    views = {f"tailmatch.lightning_modules.views.{name}" for name in ("View", "WeakView")}
    assert {name for name in imported if "." in name} == views | {"torch.optim.SGD"}


def test_the_context_ends_with_it() -> None:
    with (
        settings_from(Stranger("a.ckpt")),
        trust_checkpoints(False),
        pytest.raises(BaseException, match="may be there"),
    ):
        trust.check_name("torch.nn.Identity")
    trust.check_name("torch.nn.Identity")
