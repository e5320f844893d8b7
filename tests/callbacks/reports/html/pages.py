"""A page as a parser sees it, and pages of runs that were never trained."""

from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import torch

from tailmatch.callbacks.reports.html.callback import without_labeled
from tailmatch.callbacks.reports.html.material import Material, Pool
from tailmatch.callbacks.reports.html.outcomes import Collector, Outcomes
from tailmatch.datamodules import InMemory, LabeledFraction
from tailmatch.lightning_modules import Supervised
from tailmatch.lightning_modules.networks import CifarResNet

VOID = {"meta", "img", "input", "br", "line", "polyline", "path", "rect"}


class Page(HTMLParser):
    """Collects elements and text, and refuses elements that are not closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text: list[str] = []
        self.sections: dict[str, str] = {}
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "section":
            self.sections[str(dict(attrs)["id"])] = ""

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] not in (["style"], ["script"]):
            self.text.append(data)
            if "section" in self.open:
                last = list(self.sections)[-1]
                self.sections[last] += data

    def tags(self, name: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.elements if tag == name]


def material(folder: Path, names: list[str], seed: int = 0, size: int = 8) -> Material:
    """The material of a page whose images, labels and predictions are drawn at random: two test images a class."""
    torch.manual_seed(seed)
    classes = len(names)
    targets = torch.arange(classes).repeat(4)
    data = InMemory(
        _images(4 * classes, size), targets, test=(_images(2 * classes, size), torch.arange(classes).repeat(2)),
        class_names=names, class_counts=LabeledFraction(0.5),
    )  # fmt: skip
    data.setup("test")
    assert data.test is not None
    model = Supervised(num_classes=classes, network=CifarResNet(classes, depth=8))
    model.class_names, model.class_counts = list(data.class_names), torch.tensor(data.class_counts)
    found = Material(folder, {"seed_everything": 0, "data": {"class_path": "x.Mine", "init_args": {"a": names[0]}}})
    found.model, found.data, found.rows = model, data, data.test
    logits = torch.randn(len(data.test), classes)
    model.test_metrics.update(logits, data.test.targets)
    found.evaluation = model.test_metrics.compute(model.class_counts)
    found.outcomes = outcomes(logits, data.test.targets)
    pool = without_labeled(data)
    found.pool = Pool(pool, len(pool), outcomes(torch.randn(len(pool), classes), None))
    return found


def outcomes(logits: torch.Tensor, target: torch.Tensor | None) -> Outcomes:
    """Outcomes of logits `[N, K]`."""
    collector = Collector(len(logits))
    collector.add(logits.softmax(dim=1), torch.arange(len(logits)), target)
    return collector.gathered()


def _images(number: int, size: int) -> Any:
    return torch.randint(0, 256, (number, 3, size, size), dtype=torch.uint8)
