"""Embeddings of categories: features by hand, mixtures, vocabularies, and what goes on without categories."""

import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
import torch
import yaml
from pytorch_lightning import Trainer
from torch import Tensor
from torch.nn import functional

from tailmatch.callbacks.remedies.pseudo_label_generator import load_teacher
from tailmatch.callbacks.reports.run import ViewGrid
from tailmatch.datamodules import ListedCounts
from tailmatch.lightning_modules import Ensemble, PostHocClassifier, Supervised
from tailmatch.lightning_modules.checkpoints.trained_checkpoint import read_checkpoint
from tailmatch.lightning_modules.heads import NCM
from tailmatch.lightning_modules.inference.export import export, exported
from tailmatch.lightning_modules.inference.loading import settings_to_rebuild
from tailmatch.lightning_modules.inference.trained_network import trained_network
from tailmatch.lightning_modules.methods.ensemble import MeanNetwork, mean_logits
from tailmatch.lightning_modules.networks import (
    CategoryNetwork,
    CifarResNet,
    TorchvisionNetwork,
    WideResNet,
    load_pretrained,
)
from tailmatch.lightning_modules.networks.inputs import network_input, views_with_categories
from tailmatch.lightning_modules.networks.network import NormalizedLinear
from tailmatch.lightning_modules.networks.tagged_images import TaggedImages
from tailmatch.lightning_modules.views.mixup import mixup
from tests.contract import TaggedDigits, at_epoch_ends, category_network, plain_network, run, saved
from tests.contract import source_checkpoint as category_checkpoint
from tests.trained_files import NAMES, shaken

VALUES = {"color": ["blue", "green", "red"], "season": ["fall", "spring"]}
TRAINING = torch.tensor([[0, 1], [2, -1], [2, 0], [0, 1]])  # no green, and one image of unknown season
IMAGES = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(3))
CATEGORIES = torch.tensor([[0, 1], [2, 0], [1, -1], [-1, 0]])
ROWS = torch.tensor([[1, 5], [2, 4], [0, 3], [0, 4]])  # of unknown, blue, red; unknown, fall, spring


def small(levels: Sequence[str] = ("color", "season"), **arguments: Any) -> CategoryNetwork:
    """In evaluation mode, adapted to `VALUES` and `TRAINING`, with other embeddings of unknown values than zeros."""
    network = CategoryNetwork(3, levels, partial(CifarResNet, depth=8), **{"embedding_dim": 2, **arguments})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network.adapt_categories(VALUES, TRAINING)
    shaken(network)
    with torch.no_grad():
        network.category_embeddings.table.normal_()
    return network


def image_features(network: CategoryNetwork, images: Tensor) -> Tensor:
    normalized = (images - network.mean) / network.std
    return network.backbone.backbone(normalized).mean(dim=(2, 3))


def test_features_by_hand() -> None:
    network = small()
    table = network.category_embeddings.table
    assert table.shape == (6, 2) and network.feature_dim == 64 + 2 * 2
    expected = torch.cat([image_features(network, IMAGES), functional.embedding(ROWS, table).flatten(1)], dim=1)
    tagged = network.with_categories(IMAGES, CATEGORIES)
    torch.testing.assert_close(network.features(tagged), expected)
    torch.testing.assert_close(network(tagged), network.head(expected))
    unknown = torch.cat([image_features(network, IMAGES), table[[0, 3]].flatten().expand(4, -1)], dim=1)
    torch.testing.assert_close(network.features(IMAGES), unknown)
    network(tagged).sum().backward()
    assert all(p.grad is not None for p in network.parameters())  # none is left over for DDP to wait for


def test_mixup_mixes_embeddings() -> None:
    network = small()
    weight, partner = torch.tensor([1.0, 0.75, 0.6, 0.5]), torch.tensor([1, 0, 3, 2])
    mixed = mixup(network.with_categories(IMAGES, CATEGORIES), weight, partner)
    vectors = functional.embedding(ROWS, network.category_embeddings.table).flatten(1)
    expected = weight[:, None] * vectors + (1 - weight[:, None]) * vectors[partner]
    torch.testing.assert_close(network.features(mixed)[:, 64:], expected)
    torch.testing.assert_close(network.features(mixed)[:, :64], image_features(network, mixup(IMAGES, weight, partner)))


def test_values_are_those_of_the_training_images_and_unknown_begins_in_the_middle() -> None:
    network = CategoryNetwork(3, ["season", "color"], partial(CifarResNet, depth=8))
    with pytest.warns(UserWarning, match=r"1 value of color that no training image has \(green\)"):
        network.adapt_categories(VALUES, TRAINING)
    assert network.vocabulary == [
        {"name": "season", "values": ["fall", "spring"], "unknown_trained": True},
        {"name": "color", "values": ["blue", "red"], "unknown_trained": False},
    ]
    table = network.category_embeddings.table
    assert table.shape == (6, 18) and not table[[0, 3]].any() and table[[1, 2, 4, 5]].all()


def test_other_data_is_translated_by_name() -> None:
    network = small()
    theirs: Mapping[str, Sequence[str]] = {"shop": ["a"], "color": ["red", "pink", "blue"]}
    network.adapt_categories(theirs)
    found = network.category_embeddings.rows(torch.tensor([[0, 0], [0, 1], [-1, 2], [0, -1]]))
    assert found.tolist() == [[2, 3], [0, 3], [1, 3], [0, 3]]
    network.adapt_categories({})
    assert network.category_embeddings.rows(torch.empty(2, 0, dtype=torch.long)).tolist() == [[0, 3]] * 2
    with pytest.raises(ValueError, match=r"categories are \[4, 2\]; they must be \[B, 0\]"):
        network.with_categories(IMAGES, CATEGORIES)


@pytest.mark.parametrize(
    ("level_dropout", "values", "message"),
    [
        (0.0, {"season": ["fall"]}, "unknown: color, which the data lacks. Every training image had a known color,"),
        (0.1, {"season": ["fall"]}, "unknown: color, which the data lacks$"),
        (0.0, {"color": ["red"]}, "unknown: season, which the data lacks$"),
        (
            0.0,
            {**VALUES, "season": ["may", "fall"]},
            r"\(green\); 1 value of season that no training image has \(may\)",
        ),
    ],
)
def test_what_is_unknown_is_said_once(level_dropout: float, values: Any, message: str) -> None:
    network = small(level_dropout=level_dropout)
    with pytest.warns(UserWarning, match=message) as found:
        network.adapt_categories(values)
    assert len(found) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        network.adapt_categories({"season": ["spring", "fall"], "color": ["red"]})


def test_empty_cells_are_told_of_where_training_had_none() -> None:
    def warned(network: CategoryNetwork, cells: list[list[int]]) -> list[str]:
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always")
            network.adapt_categories({"season": ["spring", "fall"], "color": ["red"]}, evaluated=torch.tensor(cells))
        return [str(warning.message) for warning in found]

    [text] = warned(small(), [[0, 0], [1, -1]])
    assert "unknown: empty cells of color. Every training image had a known color, so that the network never" in text
    assert not warned(small(), [[-1, 0], [1, 0]])  # images of unknown season taught it
    assert not warned(small(), [[0, 0], [1, 0]])
    assert not warned(small(level_dropout=0.1), [[-1, -1]])


@pytest.mark.parametrize("stage", ["fit", "validate", "test", "predict"])
@pytest.mark.parametrize("level_dropout", [0.0, 0.1])
def test_a_run_on_images_with_empty_cells_warns(stage: str, level_dropout: float, tmp_path: Path) -> None:
    class Complete(TaggedDigits):
        def setup(self, stage: str) -> None:
            super().setup(stage)
            categories = self.labeled.images.categories
            assert categories is not None
            categories.clamp_(min=0)  # no cell is empty ...
            if with_gap:
                rows = {"test": self.test, "predict": self.unlabeled}.get(stage, self.val)
                assert rows is not None
                categories[rows.rows[-1], 1] = -1  # ... but one, of an image that does not train

    def run_stage(name: str) -> list[str]:
        model = Supervised(num_classes=10, network=network)
        if name != "fit":
            model.on_load_checkpoint(checkpoint)
        data = Complete(image_size=8, class_counts=ListedCounts([4] * 10, [6] * 10), val_holdout=2, test_holdout=3,
                        labeled_batch_size=6, steps_per_epoch=1)  # fmt: skip
        made = Trainer(
            accelerator="cpu", logger=False, default_root_dir=tmp_path, enable_progress_bar=False, max_epochs=1,
            enable_model_summary=False, enable_checkpointing=False, use_distributed_sampler=False,
        )  # fmt: skip
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always")
            getattr(made, name)(model, data)
        model.on_save_checkpoint(checkpoint)
        return [str(warning.message) for warning in found if "count as unknown" in str(warning.message)]

    network = partial(CategoryNetwork, levels=["shade", "side"], network=plain_network, level_dropout=level_dropout)
    checkpoint: dict[str, Any] = {}
    with_gap = False
    assert not run_stage("fit")
    with_gap = True
    found = run_stage(stage)
    assert found == [] if level_dropout else "empty cells of shade. Every training image" in found[0]


def test_levels_drop_out_in_training_alone_and_follow_the_seed() -> None:
    network = small(level_dropout=0.3)
    many = torch.tensor([[0, 0]]).expand(4000, -1)
    images = torch.zeros(4000, 3, 1, 1)

    def chosen() -> Tensor:
        tags = network.with_categories(images, many).tags.flatten(1)
        assert torch.equal(tags.sum(dim=1), torch.full((4000,), 2.0))  # one row of each level
        return tags

    assert torch.equal(chosen()[:, [1, 4]], torch.ones(4000, 2))
    network.train()
    torch.manual_seed(5)
    first, second = chosen(), chosen()
    torch.manual_seed(5)
    assert torch.equal(chosen(), first) and not torch.equal(first, second)
    shares = first[:, [0, 3]].mean(dim=0)
    assert ((shares - 0.3).abs() < 4 * (0.3 * 0.7 / 4000) ** 0.5).all()
    both = (first[:, 0] * first[:, 3]).mean()  # levels drop independently
    assert abs(float(both) - 0.09) < 4 * (0.09 * 0.91 / 4000) ** 0.5


def test_all_views_of_a_stream_get_its_categories() -> None:
    network = small()
    stream = {"image": IMAGES.byte(), "index": torch.arange(4), "categories": CATEGORIES, "turns": torch.arange(4)}
    batch = views_with_categories(network, {"unlabeled": {**stream, "weak": IMAGES, "strong": [IMAGES, IMAGES]}})
    found = batch["unlabeled"]
    for view in (found["weak"], *found["strong"]):
        assert torch.equal(view.tags, network.with_categories(IMAGES, CATEGORIES).tags)
    assert all(found[name] is stream[name] for name in stream)
    shown = ViewGrid(images=2)._views(found)
    assert list(shown) == ["image", "weak", "strong 1", "strong 2"] and torch.equal(shown["weak"], IMAGES[:2])


def test_the_head_is_the_backbones_made_wider() -> None:
    torch.manual_seed(0)
    alone = WideResNet(3, depth=10, widen=1, dropout=0.2)
    wide = CategoryNetwork(3, ["color"], lambda k: alone, embedding_dim=1000)
    torch.manual_seed(0)
    head = WideResNet(3, depth=10, widen=1).head
    assert torch.equal(wide.head.weight[:, :64], head.weight) and torch.equal(wide.head.bias, head.bias)
    assert wide.head.dropout == 0.2
    torch.testing.assert_close(wide.head.weight[:, 64:].std(), head.weight.std(), rtol=0.1, atol=0)
    cosine = CategoryNetwork(3, ["color"], partial(CifarResNet, depth=8, cosine_scale=7.0)).head
    assert isinstance(cosine, NormalizedLinear) and cosine.scale == 7 and cosine.weight.shape == (3, 64 + 18)


def test_images_are_normalized_as_by_the_backbone() -> None:
    free = CategoryNetwork(3, ["color"], plain_network)
    free.adapt_normalization((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    assert free.mean.flatten().tolist() == pytest.approx([0.1, 0.2, 0.3])
    fixed = CategoryNetwork(3, ["color"], partial(CifarResNet, depth=8, mean=(0.5,) * 3, std=(0.2,) * 3))
    fixed.adapt_normalization((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    assert fixed.mean.flatten().tolist() == [0.5] * 3 and fixed.std.flatten().tolist() == pytest.approx([0.2] * 3)
    assert [name for name in fixed.state_dict() if name.endswith(("mean", "std")) and "running" not in name] == [
        "mean",
        "std",
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"levels": []}, r"levels are \[\]; they must be one or more different names"),
        ({"levels": ["a", "a"]}, r"levels are \['a', 'a'\]"),
        ({"levels": "color"}, "levels are 'color'"),
        ({"embedding_dim": 0}, "embedding_dim is 0; it must be at least 1"),
        ({"level_dropout": 1.0}, r"level_dropout is 1.0; it must be in \[0, 1\)"),
        ({"network": category_network}, "network is a CategoryNetwork; it must be a network of images alone"),
    ],
)
def test_bad_arguments_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CategoryNetwork(3, **{"levels": ["color"], "network": plain_network, **arguments})


def test_data_and_checkpoints_without_the_levels_are_refused() -> None:
    network = CategoryNetwork(3, ["color", "season"], plain_network)
    with pytest.raises(ValueError, match=r"the data has \['color'\]: give the data's category_columns \['season'\]"):
        network.adapt_categories({"color": ["red"]}, torch.tensor([[0]]))
    with pytest.raises(ValueError, match="no training image has a known season"):
        network.adapt_categories(VALUES, torch.tensor([[0, -1], [1, -1]]))
    with pytest.raises(ValueError, match="the checkpoint's none: train its `pretrained` backbone with categories"):
        network.take_vocabulary(None)
    with pytest.raises(ValueError, match=r"levels \['color', 'season'\], and the checkpoint's \['season', 'color'\]"):
        network.take_vocabulary(small(("season", "color")).vocabulary)


# Files


def written(path: Path, network: CategoryNetwork) -> str:
    """A checkpoint as a run of the command line leaves it."""
    inner = {"class_path": "tailmatch.lightning_modules.networks.CifarResNet", "init_args": {"depth": 8}}
    levels = [level["name"] for level in network.vocabulary]
    arguments = {"levels": levels, "network": inner, "embedding_dim": 2}
    settings = {"class_path": "tailmatch.lightning_modules.networks.CategoryNetwork", "init_args": arguments}
    model = {"class_path": "tailmatch.lightning_modules.Supervised", "init_args": {"network": settings}}
    content = {
        "state_dict": {f"network.{name}": tensor for name, tensor in network.state_dict().items()},
        "class_names": NAMES,
        "image_size": [8, 8],
        "categories": network.vocabulary,
        "config": yaml.safe_dump({"model": model}),
    }
    torch.save(content, path)
    return str(path)


def test_a_checkpoints_network_is_rebuilt_with_its_values(tmp_path: Path) -> None:
    network = small()
    path = written(tmp_path / "a.ckpt", network)
    found = trained_network(read_checkpoint(path), path)
    assert found.vocabulary == network.vocabulary
    own = torch.tensor([[0, 1], [1, 0], [-1, -1], [-1, 0]])  # `CATEGORIES` in the network's own values
    expected = network(network.with_categories(IMAGES, CATEGORIES))
    assert torch.equal(found(found.with_categories(IMAGES, own)), expected)
    with pytest.warns(UserWarning, match="green"):
        found.adapt_categories(VALUES)
    pixels = (255 * IMAGES).byte()
    theirs = network_input(found, {"image": pixels, "categories": CATEGORIES})
    assert torch.equal(found(theirs), network(network.with_categories(pixels / 255, CATEGORIES)))


def test_weights_of_the_network_inside_are_not_fetched_again() -> None:
    inner = {
        "class_path": "tailmatch.lightning_modules.networks.TorchvisionNetwork",
        "init_args": {"weights": "DEFAULT"},
    }
    settings = {"class_path": "tailmatch.lightning_modules.networks.CategoryNetwork", "init_args": {"network": inner}}
    assert settings_to_rebuild(settings)["init_args"]["network"]["init_args"] == {"weights": None}


@pytest.mark.parametrize(
    "inner", [partial(CifarResNet, depth=8), partial(TorchvisionNetwork, name="resnet18")], ids=["cifar", "torchvision"]
)
def test_backbones_begin_with_each_others_weights(inner: Any, tmp_path: Path) -> None:
    torch.manual_seed(1)
    plain, tagged = shaken(inner(3)), shaken(CategoryNetwork(3, ["color"], inner))
    for source, target in ((plain, tagged), (tagged, plain), (tagged, CategoryNetwork(3, ["season"], inner).eval())):
        state = {f"network.{name}": tensor for name, tensor in source.state_dict().items()}
        torch.save({"state_dict": state}, tmp_path / "a.ckpt")
        with torch.no_grad():
            next(iter(target.backbone.parameters())).zero_()
        said = load_pretrained(target, str(tmp_path / "a.ckpt"))
        normalized = IMAGES - 0.5
        expected, found = (
            (network.backbone if isinstance(network, CategoryNetwork) else network)._features(normalized)
            for network in (source, target)
        )
        assert torch.equal(found, expected)
        assert ("the embeddings start from random weights" in said) == isinstance(target, CategoryNetwork)


def test_an_ensembles_members_read_the_categories_in_their_own_values(tmp_path: Path) -> None:
    first, second, plain = small(), small(("season",)), shaken(CifarResNet(3, depth=8), 2)
    mean = MeanNetwork([first, second, plain], [None, (4, 4), None], [0.5, 0.25, 0.25], mean_logits)
    theirs = {"season": ["spring", "fall"], "color": ["red", "blue"]}
    mean.adapt_categories(theirs)
    batch = {"image": (255 * IMAGES).byte(), "categories": torch.tensor([[0, 0], [1, 1], [-1, 0], [1, -1]])}
    found = mean(network_input(mean, batch))
    pixels = batch["image"] / 255
    halved = functional.interpolate(pixels, (4, 4), mode="bilinear", antialias=True)
    expected = 0.5 * first(tagged_rows(first, pixels, [[2, 5], [1, 4], [2, 3], [0, 4]]))
    expected += 0.25 * second(tagged_rows(second, halved, [[2], [1], [0], [1]])) + 0.25 * plain(pixels)
    torch.testing.assert_close(found, expected)
    unknown = {**batch, "categories": torch.full((4, 2), -1)}
    torch.testing.assert_close(mean(pixels), mean(network_input(mean, unknown)))

    path = written(tmp_path / "a.ckpt", first)
    ensemble = Ensemble(3, [path], flip=True, mean_of="logits").eval()
    ensemble.network.adapt_categories(theirs)
    tagged = network_input(ensemble.network, batch)
    mirrored = first(tagged_rows(first, pixels.flip(-1), [[2, 5], [1, 4], [2, 3], [0, 4]]))
    straight = first(tagged_rows(first, pixels, [[2, 5], [1, 4], [2, 3], [0, 4]]))
    torch.testing.assert_close(ensemble(tagged), (straight + mirrored) / 2)


def tagged_rows(network: CategoryNetwork, images: Tensor, rows: list[list[int]]) -> TaggedImages:
    return TaggedImages(images, network.category_embeddings.weights(torch.tensor(rows)))


def test_exported_files_take_categories(tmp_path: Path) -> None:
    network = small()
    path = written(tmp_path / "a.ckpt", network)
    export(path, tmp_path / "a.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "a.onnx")
    assert [(i.name, i.type, i.shape[1:]) for i in session.get_inputs()] == [
        ("images", "tensor(uint8)", [3, 8, 8]),
        ("categories", "tensor(int64)", [2]),
    ]
    facts = session.get_modelmeta().custom_metadata_map["categories"]
    assert yaml.safe_load(facts) == {"color": ["blue", "red"], "season": ["fall", "spring"]}
    program = exported(trained_network(read_checkpoint(path), path), (8, 8)).module()
    own = torch.tensor([[0, 1], [1, 0], [-1, -1], [-1, 0]])
    for size in (1, 4):
        pixels = (255 * IMAGES[:size]).byte()
        expected = network(network.with_categories(pixels / 255, CATEGORIES[:size])).detach()
        logits = session.run(["logits"], {"images": pixels.numpy(), "categories": own[:size].numpy()})[0]
        torch.testing.assert_close(torch.from_numpy(logits), expected, atol=1e-4, rtol=0)
        torch.testing.assert_close(program(pixels, own[:size])[1], expected, atol=1e-4, rtol=0)


def test_a_teacher_reads_its_own_values(tmp_path: Path) -> None:
    teacher, student = small(), small()
    shuffled = {"season": ["spring", "fall"], "color": ["red", "green", "blue"]}
    student.adapt_categories(shuffled)
    student.take_vocabulary([{**level, "values": ["red"]} for level in teacher.vocabulary])  # any other
    load_teacher(student, written(tmp_path / "a.ckpt", teacher), NAMES)
    theirs = student.with_categories(IMAGES, torch.tensor([[0, 2], [1, 0], [-1, 1], [1, -1]]))
    assert torch.equal(student(theirs), teacher(teacher.with_categories(IMAGES, CATEGORIES)))
    torch.save({**torch.load(tmp_path / "a.ckpt", weights_only=True), "categories": None}, tmp_path / "b.ckpt")
    with pytest.raises(ValueError, match="has another network .*: set teacher_network"):
        load_teacher(student, str(tmp_path / "b.ckpt"), NAMES)


# Runs


def test_a_trained_network_predicts_on_images_without_categories(tmp_path: Path) -> None:
    trainer = run(Supervised, tmp_path, at_epoch_ends(tmp_path), network=category_network)
    model = trainer.lightning_module
    plain = run(Supervised, tmp_path / "plain").datamodule  # the same images
    file = str(tmp_path / "last.ckpt")
    with pytest.warns(UserWarning, match="unknown: shade, which the data lacks; side, which the data lacks$"):
        found = trainer.predict(model, plain, ckpt_path=file)
    batch = next(iter(plain.predict_dataloader()))
    expected = model.network.eval()(batch["image"] / 255).softmax(dim=1)
    torch.testing.assert_close(found[0]["probs"], expected)
    tagged = trainer.predict(model, TaggedDigits(**_arguments(plain)), ckpt_path=file)
    assert (tagged[0]["probs"] - found[0]["probs"]).abs().max() > 1e-3


def _arguments(data: Any) -> dict[str, Any]:
    return {"class_counts": data.class_counts_rule, "val_holdout": 2, "test_holdout": 3}


def test_a_computed_head_knows_the_categories(tmp_path: Path) -> None:
    def made(num_classes: int, network: Any, ema_decay: float) -> PostHocClassifier:
        return PostHocClassifier(num_classes, category_checkpoint(tmp_path, category_network), NCM(), network=network)

    trainer = run(made, tmp_path, at_epoch_ends(tmp_path), network=category_network)
    network, data = trainer.lightning_module.network, trainer.datamodule
    assert saved(tmp_path)["categories"] == network.vocabulary
    assert [level["values"] for level in network.vocabulary] == [["light", "dark"], ["right"]]
    features = network.features(network_input(network, data.labeled.__getitems__(list(range(len(data.labeled))))))
    torch.testing.assert_close(network.head.center, features.mean(dim=0))
    assert features[:, 64:].std(dim=0).min() > 0
