"""Files by URL: fetched once and whole, read as tensors alone, and one message where that fails."""

import http.server
import pickle
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
import torch

from tailmatch.command_line.resume import resolve_checkpoint
from tailmatch.command_line.run_folder import run_dir_of
from tailmatch.command_line.typed import Typed
from tailmatch.datamodules.arguments import SettingsError
from tailmatch.lightning_modules.checkpoints import remote_files
from tailmatch.lightning_modules.checkpoints.checkpoint_io import AtomicCheckpointIO
from tailmatch.lightning_modules.checkpoints.remote_files import fetched_dir, local_file
from tailmatch.lightning_modules.checkpoints.weights import read_file


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


class Server(http.server.BaseHTTPRequestHandler):
    """Answers with what `files` has; counts what is fetched."""

    files: dict[str, bytes] = {}
    promised: dict[str, int] = {}
    fetched: list[str] = []

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        content = self.answer()
        self.fetched.append(self.path)
        self.wfile.write(content)

    def answer(self) -> bytes:
        path = self.path.partition("?")[0]
        content = self.files.get(path)
        self.send_response(404 if content is None else 200)
        if content is not None:
            self.send_header("Content-Length", str(self.promised.get(path, len(content))))
            self.send_header("ETag", str(hash(content)))
        self.end_headers()
        return content or b""

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    """Its address."""
    Server.files, Server.promised, Server.fetched = {}, {}, []
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_address[1]}"
        running.shutdown()


def files_in_the_cache() -> list[str]:
    return sorted(path.name for path in fetched_dir().rglob("*") if path.is_file() and path.suffix != ".lock")


def test_a_path_is_itself() -> None:
    assert local_file("runs/a/best.ckpt") == Path("runs/a/best.ckpt") and not fetched_dir().exists()


def test_http_is_fetched_once_and_again_when_it_changed(server: str) -> None:
    Server.files["/runs/best.ckpt"] = b"one"
    url = f"{server}/runs/best.ckpt"
    first = local_file(url)
    assert first.name == "best.ckpt" and first.read_bytes() == b"one" and first.is_relative_to(fetched_dir())
    assert local_file(url) == first and len(Server.fetched) == 1
    Server.files["/runs/best.ckpt"] = b"two"  # of the same size
    assert local_file(url).read_bytes() == b"two" and first.read_bytes() == b"one"


def test_other_file_systems(tmp_path: Path) -> None:
    (tmp_path / "a.ckpt").write_bytes(b"local")
    assert local_file(f"file://{tmp_path}/a.ckpt").read_bytes() == b"local"
    fsspec.filesystem("memory").pipe_file("/bucket/b.ckpt", b"memory")
    assert local_file("memory://bucket/b.ckpt").read_bytes() == b"memory"
    assert files_in_the_cache() == ["a.ckpt", "b.ckpt"]


def test_a_command_line_takes_a_url_which_has_no_run_folder(tmp_path: Path) -> None:
    folder = tmp_path / "run" / "checkpoints"
    folder.mkdir(parents=True)
    (folder / "best.ckpt").write_bytes(b"x")
    copy = resolve_checkpoint(Typed.read(["test", f"--ckpt_path=file://{folder}/best.ckpt"]))
    assert copy is not None and copy.read_bytes() == b"x" and run_dir_of(copy) is None
    assert run_dir_of(folder / "best.ckpt") == tmp_path / "run"


def test_what_comes_incomplete_is_not_used(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    Server.files["/a.ckpt"], Server.promised["/a.ckpt"] = b"half", 8
    with pytest.raises(ValueError, match=r"/a.ckpt could not be fetched \(\w+: .*8"):
        local_file(f"{server}/a.ckpt")  # HTTP notices by itself
    assert files_in_the_cache() == []
    files = fsspec.filesystem("memory")
    files.pipe_file("/b.ckpt", b"whole")
    monkeypatch.setattr(type(files), "get_file", lambda self, there, here: Path(here).write_bytes(b"who"))
    with pytest.raises(ValueError, match=r"memory://b.ckpt arrived incomplete, 3 of 5 bytes: try again"):
        local_file("memory://b.ckpt")
    assert files_in_the_cache() == []


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("{server}/none.ckpt?key=secret", r"/none.ckpt could not be fetched \(ClientResponseError: 404"),
        ("http://127.0.0.1:9/a.ckpt", r"http://127.0.0.1:9/a.ckpt could not be fetched \(ClientConnectorError"),
        ("nothing://a.ckpt", r"nothing://a.ckpt could not be fetched \(ValueError: Protocol not known"),
        ("memory://none.ckpt", r"memory://none.ckpt could not be fetched \(FileNotFoundError"),
        ("file:///tmp", "file:///tmp is a folder: give the address of a file"),
    ],
)
def test_what_cannot_be_fetched_is_one_message(url: str, message: str, server: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        local_file(url.format(server=server))
    assert "secret" not in str(error.value)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(url: str) -> None:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(remote_files.fsspec.core, "url_to_fs", missing)
    with pytest.raises(ValueError, match=r"s3://b/a.ckpt needs a package .*s3fs.*: pip install 'tailmatch\[s3\]'"):
        local_file("s3://b/a.ckpt")


class Code:
    """Leaves a file where it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> Any:
        return Path.touch, (self.trace,)


@pytest.mark.parametrize("write", [torch.save, lambda content, path: path.write_bytes(pickle.dumps(content))])
def test_code_in_a_file_is_never_executed(write: Any, tmp_path: Path) -> None:
    write({"state_dict": {}, "config": Code(tmp_path / "executed")}, tmp_path / "a.ckpt")
    path = str(local_file(f"file://{tmp_path}/a.ckpt"))
    for read in (read_file, lambda path: read_file(path, mapped=True), AtomicCheckpointIO().load_checkpoint):
        with pytest.raises(ValueError, match="cannot be read as a state dict"):
            read(path)
    with pytest.raises(ValueError, match="weights_only is false, and files with code in them are never read"):
        AtomicCheckpointIO().load_checkpoint(path, weights_only=False)
    assert not (tmp_path / "executed").exists()


def test_a_damaged_copy_is_named_and_fetched_again(server: str) -> None:
    Server.files["/best.ckpt"] = b"<!doctype html><title>Log in</title>"
    for _ in range(2):
        with pytest.raises(SettingsError, match=rf"from {server}/best.ckpt is not a checkpoint: .* an HTML page"):
            read_file(f"{server}/best.ckpt?secret")
    assert len(Server.fetched) == 2 and not files_in_the_cache()
