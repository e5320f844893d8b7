"""Exported files give what the network gives: in onnxruntime, and loaded by torch alone."""

import errno
import hashlib
import json
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
import torch
from torch import Tensor

from tailmatch.command_line.export import main
from tailmatch.datamodules.arguments import SettingsError
from tailmatch.lightning_modules.inference.export import export, exported, write_onnx, write_program
from tailmatch.lightning_modules.networks import (
    CifarResNet,
    EfficientNet,
    Network,
    TimmNetwork,
    TorchvisionNetwork,
    WideResNet,
)
from tests.trained_files import NAMES, shaken, trained_file

NETWORKS: list[tuple[type[Network], dict[str, Any]]] = [
    (WideResNet, {"depth": 10, "widen": 1}),
    (CifarResNet, {"depth": 8}),
    (CifarResNet, {"depth": 8, "cosine_scale": 10.0, "channels_last": False}),
    (EfficientNet, {}),
    (TimmNetwork, {"name": "test_efficientnet"}),
    (TorchvisionNetwork, {"name": "resnet18"}),
]
SIZE = (32, 24)


def pixels(batch: int, height: int, width: int) -> Tensor:
    generator = torch.Generator().manual_seed(batch)
    return torch.randint(0, 256, (batch, 3, height, width), dtype=torch.uint8, generator=generator)


def in_onnxruntime(file: Path, images: Tensor) -> dict[str, Tensor]:
    session = onnxruntime.InferenceSession(file)
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, map(torch.from_numpy, session.run(names, {"images": images.numpy()})), strict=True))


def in_torch(file: Path, images: Tensor) -> dict[str, Tensor]:
    return dict(zip(("probs", "logits"), torch.export.load(file).module()(images), strict=True))


LARGE = (EfficientNet, TorchvisionNetwork)


@pytest.mark.parametrize(
    ("kind", "arguments"),
    [
        pytest.param(kind, arguments, id=kind.__name__, marks=[pytest.mark.exhaustive] if kind in LARGE else [])
        for kind, arguments in NETWORKS
    ],
)
def test_both_formats_equal_the_network(kind: type[Network], arguments: dict[str, Any], tmp_path: Path) -> None:
    network = shaken(kind(3, **arguments))
    program = exported(network, SIZE)
    write_onnx(program, {}, tmp_path / "a.onnx")
    write_program(program, {}, tmp_path / "a.pt2")
    for batch in (1, 2, 5):
        images = pixels(batch, *SIZE)
        with torch.no_grad():
            logits = network(images.float() / 255)
        assert logits.std() > 1e-3  # something to compare
        for found in (in_onnxruntime(tmp_path / "a.onnx", images), in_torch(tmp_path / "a.pt2", images)):
            torch.testing.assert_close(found["logits"], logits, atol=1e-4, rtol=0)
            torch.testing.assert_close(found["probs"], logits.softmax(dim=1), atol=1e-4, rtol=0)


def test_a_checkpoint_becomes_files_that_say_their_classes_and_shapes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network = shaken(CifarResNet(3, depth=8))
    path = trained_file(tmp_path / "a.ckpt", network, {"depth": 8})
    main([path, str(tmp_path / "new" / "a.onnx"), "--image_size", "16", "12"])
    main([path, str(tmp_path / "a.pt2")])
    probs = in_onnxruntime(tmp_path / "new" / "a.onnx", pixels(3, 16, 12))["probs"]
    with torch.no_grad():
        torch.testing.assert_close(probs, network(pixels(3, 16, 12) / 255).softmax(dim=1), atol=1e-4, rtol=0)
    session = onnxruntime.InferenceSession(tmp_path / "new" / "a.onnx")
    facts = session.get_modelmeta().custom_metadata_map
    assert json.loads(facts["class_names"]) == NAMES and json.loads(facts["image_size"]) == [16, 12]
    [images] = session.get_inputs()
    assert (images.name, images.type, images.shape[1:]) == ("images", "tensor(uint8)", [3, 16, 12])
    assert isinstance(images.shape[0], str)  # free; torch 2.6 gives it another name than "batch"
    digest = hashlib.sha256(Path(path).read_bytes()).hexdigest()
    assert json.loads(facts["checkpoint"]) == digest
    extra = {"class_names": "", "image_size": "", "checkpoint": ""}
    torch.export.load(tmp_path / "a.pt2", extra_files=extra)
    assert json.loads(extra["checkpoint"]) == digest
    assert json.loads(extra["class_names"]) == NAMES and json.loads(extra["image_size"]) == [8, 8]
    assert f"exported: {tmp_path / 'a.pt2'}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("out", "size", "message"),
    [
        ("a.tflite", [8, 8], r"must end in \.onnx \(ONNX\) or \.pt2"),
        ("a.onnx", None, "image_size is None: give height and width"),
        ("a.onnx", [0, 8], r"image_size is \[0, 8\]: give height and width"),
    ],
)
def test_what_cannot_be_exported_is_said(out: str, size: list[int] | None, message: str, tmp_path: Path) -> None:
    path = trained_file(tmp_path / "a.ckpt", CifarResNet(3, depth=8), {"depth": 8}, size=None)
    with pytest.raises(ValueError, match=message):
        export(path, tmp_path / out, size)
    assert not (tmp_path / out).exists()


def test_onnx_without_its_packages_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = trained_file(tmp_path / "a.ckpt", CifarResNet(3, depth=8), {"depth": 8})
    monkeypatch.setattr("tailmatch.lightning_modules.inference.export.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"needs onnx and onnxscript: pip install 'tailmatch\[export\]'"):
        export(path, tmp_path / "a.onnx")


@pytest.mark.parametrize("name", ["a.pt2", "a.onnx"])
def test_nothing_is_replaced_unasked_and_a_failure_leaves_nothing(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full_disk(path: Path, content: bytes) -> None:
        path.open("wb").write(content[:1000])
        raise OSError(errno.ENOSPC, "No space left on device")

    checkpoint = trained_file(tmp_path / "a.ckpt", shaken(CifarResNet(3, depth=8)), {"depth": 8})
    out = tmp_path / "out" / name
    monkeypatch.setattr(Path, "write_bytes", full_disk)
    monkeypatch.setattr("onnx_ir.save", lambda model, path: full_disk(Path(path), b"onnx"))
    with pytest.raises(OSError) as caught:
        export(checkpoint, out)
    assert caught.value.filename == str(out) and not list(out.parent.iterdir())
    monkeypatch.undo()
    out.write_text("mine")
    with pytest.raises(SettingsError, match=f"{name} exists: remove it, name another output, or set overwrite"):
        export(checkpoint, out)
    assert out.read_text() == "mine"
    main([checkpoint, str(out), "--overwrite", "true"])
    assert out.stat().st_size > 10_000 and [file.name for file in out.parent.iterdir()] == [name]
