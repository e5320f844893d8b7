"""Architectures of timm: sizes of images, weights of files, and what is refused."""

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file

from tailmatch.datamodules.arguments import SettingsError
from tailmatch.lightning_modules.checkpoints.weights import refuse_weights
from tailmatch.lightning_modules.networks import TimmNetwork, load_pretrained, timm_network


def images(size: int = 32) -> torch.Tensor:
    return torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(3))


@pytest.fixture(scope="module")
def classifier() -> Any:
    torch.manual_seed(1)
    made: Any = timm.create_model("test_vit", img_size=32)  # 1000 classes
    return made.eval()


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_weights_of_a_file_give_the_features_of_the_original(suffix: str, classifier: Any, tmp_path: Path) -> None:
    file = tmp_path / f"weights{suffix}"
    state = classifier.state_dict()
    save_file(state, file) if suffix == ".safetensors" else torch.save({"state_dict": state}, file)
    network = TimmNetwork(5, "test_vit", pretrained=str(file), image_size=32).eval()
    x = (images() - 0.5) / 0.5  # the mean and std that timm names for it
    expected = classifier.forward_head(classifier.forward_features(x), pre_logits=True)
    torch.testing.assert_close(network.features(images()), expected)
    assert network.normalization_is_fixed and network.begins_trained
    assert "state_dict" not in {key for key, value in network.backbone.pretrained_cfg.items() if value}
    rebuilt = TimmNetwork(5, **TimmNetwork.arguments_to_rebuild(network.description()["init_args"])).eval()
    assert not rebuilt.begins_trained
    rebuilt.load_state_dict(network.state_dict())
    assert torch.equal(rebuilt(images()), network(images()))


def test_position_embeddings_of_a_file_are_resampled_to_the_size_of_the_images(classifier: Any, tmp_path: Path) -> None:
    torch.save(classifier.state_dict(), tmp_path / "weights.pth")
    once = TimmNetwork(5, "test_vit", pretrained=str(tmp_path / "weights.pth"), image_size=64).eval()
    each_time = TimmNetwork(5, "test_vit", pretrained=str(tmp_path / "weights.pth")).eval()
    assert once.backbone.pos_embed.shape[1] == 4 * 4 + 1
    torch.testing.assert_close(once.features(images(32 + 32)), each_time.features(images(64)), atol=0.02, rtol=0.02)


def test_a_checkpoint_of_the_network_loads_into_another_one(tmp_path: Path) -> None:
    network = TimmNetwork(5, "test_resnet")
    torch.save({f"network.{key}": value for key, value in network.state_dict().items()}, tmp_path / "last.ckpt")
    other = TimmNetwork(3, "test_resnet")
    load_pretrained(other, str(tmp_path / "last.ckpt"))
    assert torch.equal(other.features(images()), network.features(images()))


def test_published_normalization_is_that_of_timm_on_request() -> None:
    network = TimmNetwork(5, "test_efficientnet", published_normalization=True)
    network.adapt_normalization([0.9] * 3, [0.9] * 3)
    torch.testing.assert_close(network.mean.flatten(), torch.tensor([0.485, 0.456, 0.406]))
    assert not TimmNetwork(5, "test_efficientnet").normalization_is_fixed


def test_each_kind_of_architecture_says_which_sizes_it_takes() -> None:
    with pytest.raises(SettingsError, match=r"images are 40 x 40, .*test_vit does not take .*divisible by patch size"):
        TimmNetwork(5, "test_vit")(images(40))
    with pytest.raises(SettingsError, match=r"images are 64 x 64, .*it is built for 32 x 32\): change the data's"):
        TimmNetwork(5, "test_vit", image_size=32)(images(64))
    with pytest.raises(SettingsError, match="image_size is 32, and test_resnet takes images of any size: leave it out"):
        TimmNetwork(5, "test_resnet", image_size=32)
    mixer = {"name": "mixer_s32_224"}  # has no position embeddings that it could resample
    with pytest.raises(SettingsError, match="it is built for 224 x 224"):
        TimmNetwork(5, **mixer)(images(64))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "test_vitt"}, "name 'test_vitt' is no architecture of timm; did you mean test_vit"),
        ({"name": "hf-hub:someone/net"}, "is no architecture of timm"),
        ({"name": "test_vit.mine"}, "timm has no weights 'mine' of test_vit; it has r160_in1k"),
        ({"name": "test_vit", "image_size": 40}, "test_vit cannot be built|does not take"),
        ({"name": "mixer_s32_224", "drop_path": 1.0}, r"drop_path is 1.0; it must be in \[0, 1\)"),
        ({"name": "vgg11", "drop_path": 0.1}, "vgg11 has none of drop_path_rate .*: leave it out"),
        ({"name": "test_vit", "pretrained": "no.pth"}, "weights file 'no.pth' does not exist"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        TimmNetwork(5, **arguments)(images(40))


def test_weights_that_do_not_fit_are_refused(classifier: Any, tmp_path: Path) -> None:
    state = classifier.state_dict()
    torch.save({key: value for key, value in state.items() if "blocks.1" not in key}, tmp_path / "part.pth")
    with pytest.raises(SettingsError, match="part.pth' of test_vit do not fit .*Missing key.*blocks.1.norm1.weight"):
        TimmNetwork(5, "test_vit", pretrained=str(tmp_path / "part.pth"), image_size=32)
    state = {key: value / 0 if key == "norm.bias" else value for key, value in state.items()}
    torch.save(state, tmp_path / "broken.pth")
    with pytest.raises(SettingsError, match="broken.pth' of test_vit.*norm.bias"):
        TimmNetwork(5, "test_vit", pretrained=str(tmp_path / "broken.pth"), image_size=32)
    (tmp_path / "cut.safetensors").write_bytes(b"\x10\0\0")
    with pytest.raises(SettingsError, match="cut.safetensors' cannot be read as safetensors"):
        TimmNetwork(5, "test_vit", pretrained=str(tmp_path / "cut.safetensors"))


def test_published_weights_are_fetched_by_timm_or_the_message_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    published = timm.create_model("test_resnet").state_dict()
    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", lambda *args, **kwargs: dict(published))
    network = TimmNetwork(5, "test_resnet.r160_in1k", pretrained=True)
    assert torch.equal(network.backbone.state_dict()["conv1.0.weight"], published["conv1.0.weight"])
    with refuse_weights("for a test"), pytest.raises(SettingsError, match="weights 'test_resnet' are not read"):
        TimmNetwork(5, "test_resnet", pretrained=True)

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", refuse)
    with pytest.raises(SettingsError, match=r"test_resnet could not be fetched or read \(OSError: no route.*FILE"):
        TimmNetwork(5, "test_resnet", pretrained=True)


def test_without_timm_the_message_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timm_network, "find_spec", lambda name: None)
    with pytest.raises(SettingsError, match=r"TimmNetwork needs timm and safetensors: pip install 'tailmatch\[timm\]'"):
        TimmNetwork(5)
