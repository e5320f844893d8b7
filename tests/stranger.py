"""Checkpoints as a stranger could make them, whose settings would run code or write files, and a watch over both."""

import os
import pickle
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import yaml

MODULE = "strangers_module"
CODE = """
from pathlib import Path
from tailmatch.lightning_modules.views import View, WeakView
Path({marker!r}).touch()
def make() -> View:
    Path({called!r}).touch()
    return WeakView()
class Part(View):
    def __init__(self) -> None:
        Path({called!r}).touch()
"""
"""A module that leaves a file when it is imported and one when something of it is called."""


_seen: list[str] | None = None
_IMPORTS = (MODULE, "this", "antigravity")
_OUTSIDE = (
    "socket.connect", "socket.getaddrinfo", "subprocess.Popen", "os.system", "os.exec", "os.posix_spawn",
    "urllib.Request", "webbrowser.open",
)  # fmt: skip


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    """Note an import of a stranger's module, and what reaches other programs or the network, while it is watched."""
    if _seen is not None and (event in _OUTSIDE or (event == "import" and arguments[0] in _IMPORTS)):
        _seen.append(f"{event} {arguments[:1]}")


sys.addaudithook(_audit)


class Watch:
    """A folder in which nothing may change, with a module on `sys.path` that would change it.

    Args:
        folder: An empty folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.marker, self.called = folder / "imported", folder / "called"
        (folder / "code").mkdir()
        text = CODE.format(marker=str(self.marker), called=str(self.called))
        (folder / "code" / f"{MODULE}.py").write_text(text)
        (folder / "thesis.csv").write_text("years of work\n")

    def files(self) -> dict[str, bytes]:
        """All files below the folder."""
        return {
            str(path): path.read_bytes()
            for path in self.folder.rglob("*")
            if path.is_file() and "__py" not in str(path)
        }

    @contextmanager
    def nothing_happens(self) -> Iterator[None]:
        """Check that no file changes, the module is not imported, and no program or address is called."""
        global _seen
        sys.path.insert(0, str(self.folder / "code"))
        before, _seen = self.files(), []
        try:
            yield
            assert self.files() == before
            assert _seen == [], _seen
        finally:
            _seen = None
            sys.path.remove(str(self.folder / "code"))
            sys.modules.pop(MODULE, None)


def with_settings(file: Path, source: Path, change: Callable[[dict[str, Any]], Any] | str) -> Path:
    """A copy of a checkpoint with a changed configuration, or with another text in its place."""
    content = torch.load(source, weights_only=True)
    if isinstance(change, str):
        content["config"] = change
    else:
        settings = yaml.safe_load(content["config"])
        change(settings)
        content["config"] = yaml.safe_dump(settings)
    torch.save(content, file)
    return file


class Calls:
    """Pickles to a call."""

    def __init__(self, called: str) -> None:
        self.called = called

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.called,)


def pickles(called: str) -> dict[str, Callable[[Path, Path], Path]]:
    """By name, functions that write a checkpoint whose pickle calls something: in the formats that torch reads."""

    def with_pickle(file: Path, source: Path, **options: Any) -> Path:
        torch.save({**torch.load(source, weights_only=True), "more": Calls(called)}, file, **options)
        return file

    def alone(file: Path, source: Path) -> Path:
        file.write_bytes(pickle.dumps(Calls(called)))
        return file

    return {
        "a pickle that calls": with_pickle,
        "an old pickle that calls": lambda file, source: with_pickle(
            file, source, _use_new_zipfile_serialization=False
        ),
        "a pickle alone": alone,
    }


def payloads(called: str) -> dict[str, Callable[[Path, Path], Path]]:
    """By name, functions that write a checkpoint of every kind that must be refused, given a good one."""

    def changed(change: Callable[[dict[str, Any]], Any] | str) -> Callable[[Path, Path], Path]:
        return lambda file, source: with_settings(file, source, change)

    some = {name: text for name, text in texts().items() if name in ("a tag that calls", "an alias bomb", "no class")}
    return {name: changed(change) for name, change in (code(called) | some).items()} | pickles(called)


def argument(name: str, value: Any) -> Callable[[dict[str, Any]], None]:
    """A change of an argument of the method."""

    def change(settings: dict[str, Any]) -> None:
        settings["model"]["init_args"][name] = value

    return change


def graph_module(called: str) -> dict[str, Any]:
    """A function of torch that executes the text in its arguments."""
    text = f"def forward(self):\n    pass\nopen({called!r}, 'w')\n"
    return {
        "class_path": "torch.fx.graph_module.reduce_graph_module",
        "init_args": {"body": {"_code": text}, "import_block": f"open({called!r}, 'w')"},
    }


def code(called: str) -> dict[str, Callable[[dict[str, Any]], Any]]:
    """By name, changes of a run's settings that name code."""
    function, part = {"class_path": f"{MODULE}.make"}, {"class_path": f"{MODULE}.Part", "init_args": {}}
    inside = {"levels": ["a"], "network": {"class_path": f"{MODULE}.Part"}}
    categories = {"class_path": "tailmatch.lightning_modules.networks.CategoryNetwork", "init_args": inside}
    published = {"class_path": "tailmatch.lightning_modules.networks.TorchvisionNetwork"}
    weights_too = {"name": "resnet18", "weights": "DEFAULT"}
    weights = {"class_path": "tailmatch.lightning_modules.losses.DeferredReweighting", "init_args": {"weights": [part]}}
    rotating = {"class_path": "tailmatch.lightning_modules.views.WeakView", "init_args": {"other": {"a": [function]}}}
    return {
        "function": argument("view", function),
        "function as text": argument("view", f"{MODULE}.make"),
        "class": argument("view", part),
        "class as text": argument("loss", f"{MODULE}.Part"),
        "module alone": argument("view", "antigravity.webbrowser"),
        "a function of torch": argument("view", graph_module(called)),
        "a function of ours": argument("network", "tailmatch.lightning_modules.networks.load_pretrained"),
        "a class below ours": argument("view", "tailmatch.lightning_modules.views.View.__subclasses__"),
        "a module below ours": argument("view", "tailmatch.lightning_modules.views.base.nn.Module"),
        "a method of ours": argument(
            "view",
            {
                "class_path": "tailmatch.lightning_modules.Ensemble",
                "init_args": {"num_classes": 2, "checkpoints": ["x"]},
            },
        ),
        "a writer of ours": argument("view", {"class_path": "tailmatch.callbacks.PredictionWriter"}),
        "network": argument("network", function),
        "network as text": argument("network", f"{MODULE}.make"),
        "network in a network": argument("network", categories),
        "in a list": argument("class_weights", weights),
        "in an argument of an argument": argument("view", rotating),
        "a list": argument("view", [part]),
        "hidden in a text": argument("network", yaml.safe_dump(categories, default_flow_style=True)),
        "hidden in dict_kwargs": argument("network", {**categories, "init_args": {}, "dict_kwargs": inside}),
        "a name with dots": argument("network", {**categories, "init_args": {"levels": ["a"], "network.x": function}}),
        "published weights": argument("network", {**published, "dict_kwargs": {"weights": "DEFAULT"}}),
        "published weights in a text": argument("network", yaml.safe_dump({**published, "init_args": weights_too})),
        "method": lambda settings: settings["model"].update(class_path=f"{MODULE}.Part"),
        "a method that is a function": lambda settings: settings["model"].update(class_path=f"{MODULE}.make"),
    }


def texts() -> dict[str, str]:
    """By name, configurations that are no plain data, or too much of it."""
    bomb = "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12))
    model = "model: {class_path: tailmatch.lightning_modules.Supervised}\n"
    return {
        "a tag that calls": f"{model}x: !!python/object/apply:{MODULE}.make []\n",
        "a tag that imports": f"{model}x: !!python/module:{MODULE}\n",
        "a tag that does not fit": f"{model}x: !!timestamp never\n",
        "an alias bomb": f"a0: &a0 [x, x]\n{bomb}{model}",
        "a merging bomb": "a0: &a0 {x: 1}\n"
        + "".join(f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}\n" for n in range(1, 12)),
        "an alias in itself": f"{model}x: &x [*x]\n",
        "deep": f"{model}x: {'[' * 3000}{']' * 3000}\n",
        "long": model + "x: " + "y" * 2_000_000,
        "a number too long to print": f"{model}x: 0x{'f' * 9000}\n",
        "a number that takes minutes": f"{model}x: 1{':0' * 400_000}\n",
        "no settings": "- 1\n",
        "no class": "model: 3\n",
    }


def writes(outside: Path) -> dict[str, Any]:
    """Settings of a trainer that write outside of the run's folder."""
    thesis = str(outside / "thesis.csv")
    lightning = "pytorch_lightning"
    return {
        "logger": {"class_path": f"{lightning}.loggers.CSVLogger", "init_args": {"save_dir": str(outside / "logs")}},
        "profiler": {
            "class_path": f"{lightning}.profilers.AdvancedProfiler",
            "init_args": {"dirpath": str(outside), "filename": "p"},
        },
        "plugins": [{"class_path": f"{MODULE}.Part"}],
        "default_root_dir": str(outside / "root"),
        "callbacks": [
            {"class_path": "tailmatch.callbacks.PredictionWriter", "init_args": {"output": thesis, "overwrite": True}},
            {
                "class_path": f"{lightning}.callbacks.ModelCheckpoint",
                "init_args": {"dirpath": str(outside / "checkpoints")},
            },
            {"class_path": f"{lightning}.callbacks.DeviceStatsMonitor"},
            {"class_path": f"{MODULE}.Part"},
        ],
    }
