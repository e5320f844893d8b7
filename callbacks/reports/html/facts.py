"""How the result of a run was reached: its settings, its data, its time, and how the training went."""

import json
import math
import platform
from collections.abc import Iterator
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
import yaml

from tailmatch import __version__
from tailmatch.callbacks.reports.durations import duration
from tailmatch.callbacks.reports.html.charts import Chart, line_chart
from tailmatch.callbacks.reports.html.material import Material
from tailmatch.callbacks.reports.html.templates import shown
from tailmatch.callbacks.reports.metrics_rows import number, read_metrics
from tailmatch.callbacks.reports.pseudo_label_totals import FILE, SHARES
from tailmatch.callbacks.reports.run_settings import main_settings
from tailmatch.datamodules.class_names import printable
from tailmatch.lightning_modules.metrics import third_groups

YAML_LENGTH = 60_000
"""The number of characters of a configuration that a page shows."""

MOST_ROWS = 2000
"""The number of classes in a table; of more, it has the first and the last half of that."""

CURVES = {
    "evaluation": ("validation", ("val/balanced_accuracy", "val/top1", "val/macro_f1"), True),
    "groups": ("recall of groups, validation", ("val/many", "val/medium", "val/few"), True),
    "loss": ("loss", ("train/loss", "val/loss"), False),
}
"""Charts of `metrics.csv`: their titles, their columns, and whether they are shares."""


def facts_table(material: Material) -> list[tuple[str, str]]:
    """List what one asks first of a run, as names and values."""
    model, rows = material.model, read_metrics(material.folder)
    found: list[tuple[str, str]] = []
    if model is not None:
        parameters = sum(each.numel() for each in model.parameters())
        found.append(("method", type(model).__name__))
        found.append(("network", f"{type(model.network).__name__}, {parameters:,} parameters"))
    if material.data is not None:
        found.append(("data", type(material.data).__name__))
        height, width = material.data.height_and_width
        found.append(("image size", f"{height} × {width} pixels"))
    if "seed_everything" in material.settings:
        found.append(("seed", str(material.settings["seed_everything"])))
    found += [("checkpoint", text) for text in _checkpoint(material)]
    if rows:
        last = rows[-1]
        epochs = int(last["epoch"])
        found.append(("trained", f"{int(last['step']):,} steps, {epochs:,} epoch{'s' * (epochs != 1)}"))
        found += _duration(last)
    found.append(("versions", _versions(material)))
    found.append(("report written", datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z")))
    return [(name, shown(value)) for name, value in found]


def _checkpoint(material: Material) -> Iterator[str]:
    named = material.checkpoint if isinstance(material.checkpoint, list) else [material.checkpoint]
    for path in named:
        if path is not None:
            trained, text = material.trained, Path(path).name
            if isinstance(trained.get("epoch"), int) and isinstance(trained.get("global_step"), int):
                text += f", epoch {trained['epoch'] + 1:,}, step {trained['global_step']:,}"
            yield text


def _duration(last: dict[str, str]) -> Iterator[tuple[str, str]]:
    """Say how long the training took; nothing if its `metrics.csv` does not say."""
    try:
        seconds = float(last.get("seconds") or "nan")
    except ValueError:
        return
    if math.isfinite(seconds) and seconds > 0:
        text = duration(seconds)
        yield "time of training", f"{text}, {int(last['step']) / seconds:.3g} steps a second, validations included"


def _versions(material: Material) -> str:
    lightning = material.trained.get("pytorch-lightning_version")
    parts = [f"tailmatch {__version__}", f"torch {torch.__version__}", f"Python {platform.python_version()}"]
    try:
        parts.insert(2, f"Lightning {version('pytorch-lightning')}")
    except PackageNotFoundError:
        pass
    return ", ".join(parts) + (f" (trained with Lightning {lightning})" if isinstance(lightning, str) else "")


def settings_in(folder: Path) -> dict[str, Any]:
    """Read `config.yaml` of a run; empty if there is none, or if it is not as it was written."""
    try:
        content = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return content if isinstance(content, dict) else {}


def settings_tables(settings: dict[str, Any]) -> dict[str, Any] | str:
    """Give the settings that are no defaults, and all of them as YAML; a text if there are none."""
    if not settings:
        return "neither the run folder nor the checkpoint has the configuration of the run"
    text = yaml.safe_dump(settings, sort_keys=False, allow_unicode=True)
    if len(text) > YAML_LENGTH:
        text = text[:YAML_LENGTH] + "\n... (config.yaml has the rest)"
    return {"main": [(shown(name), shown(value)) for name, value in main_settings(settings)], "all": text}


def data_tables(material: Material) -> dict[str, Any] | str:
    """Give the images of each set, and their numbers from the most frequent class to the rarest."""
    if material.data is None:
        return "the data of the run was not read"
    table, labeled = material.data.class_count_table(), material.data.class_counts
    order = sorted(range(len(labeled)), key=lambda k: -labeled[k])
    sets = []
    for name, counts in table.items():
        unknown = len(material.data.unlabeled) - sum(counts) if name == "unlabeled" else 0
        seen = [count for count in counts if count]
        sets.append(
            {
                "name": name,
                "images": sum(counts) + unknown,
                "unknown": unknown,
                "classes": len(seen),
                "most": max(seen, default=0),
                "fewest": min(seen, default=0),
            }
        )
    lines = {
        name: [(rank + 1, float(counts[k])) for rank, k in enumerate(order)]
        for name, counts in table.items()
        if sum(counts)
    }
    axis = "classes, the one with the most labels first"
    return {
        "sets": sets,
        "chart": line_chart("images of each class (logarithmic)", lines, axis, log=True, dots=True),
        "warnings": [printable(text) for text in material.data.warnings()],
        "ratio": max(labeled) / max(1, min(count for count in labeled if count)),
        "classes": len(labeled),
    }


def training_charts(folder: Path) -> list[Chart] | str:
    """Draw what `metrics.csv` has of the training; a text if it has nothing."""
    rows = read_metrics(folder)
    charts = []
    for title, columns, share in CURVES.values():
        lines = {column: [(float(row["step"]), number(row.get(column))) for row in rows] for column in columns}
        charts.append(line_chart(title, lines, "step", share=share))
    drawn = [chart for chart in charts if chart is not None]
    return drawn or "the run folder has no metrics.csv with validations"


def pseudo_label_charts(material: Material) -> dict[str, Any] | str:
    """Draw the pseudo-labels against their target, over the epochs and of each class; a text if none were kept."""
    file = material.folder / FILE
    if not file.is_file():
        return (
            "no class totals of pseudo-labels were kept: they are by SelfTraining, and by a method that makes "
            "pseudo-labels in each step if the fit has --trainer.callbacks+=PseudoLabelMonitor"
        )
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        rows, last = content["epochs"], content["last"]
        charts = [chart for chart in _over_epochs(rows) if chart is not None]
        classes, left_out = middle_left_out(_last(last, content["class_names"], material))
        most = max(max(values) for values in last.values()) or 1.0
        return {
            "charts": charts,
            "groups": _groups(rows[-1]),
            "classes": classes,
            "left_out": left_out,
            "most": most,
        }
    except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
        return f"{FILE} is not as it was written: {type(error).__name__}"


def _over_epochs(rows: list[dict[str, Any]]) -> Iterator[Chart | None]:
    def lines(*names: str) -> dict[str, list[tuple[float, float | None]]]:
        return {name.replace("_", " "): [(row["epoch"], row.get(name)) for row in rows] for name in names}

    yield line_chart("divergence from the target (KL, nats)", lines("kl_raw", "kl_refined"), "epoch")
    shares = ("selected", "accuracy_raw", "accuracy_refined", "accuracy_selected")
    yield line_chart("selected, and right where the truth is known", lines(*shares), "epoch", share=True)
    few = {name: [(row["epoch"], row["few"].get(name)) for row in rows] for name in SHARES}
    yield line_chart("share of the rarest third of the classes", few, "epoch")


def _groups(row: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"name": group} | _shares(row[group]) for group in ("many", "medium", "few")]


def _shares(values: dict[str, Any]) -> dict[str, float | None]:
    """Give each of `SHARES` as a number; None for one that is not there."""
    return {name: None if values.get(name) is None else float(values[name]) for name in SHARES}


def _last(last: dict[str, list[float]], names: list[str], material: Material) -> list[dict[str, Any]]:
    """Give the shares of each class in the last epoch, the most labels first."""
    counts = None if material.data is None else torch.tensor(material.data.class_counts)
    order = list(range(len(names))) if counts is None or len(counts) != len(names) else _by_frequency(counts)
    shares = [_shares({"refined": last["refined"][k]} | {name: last[name][k] for name in last}) for k in order]
    return [{"name": shown(names[k])} | each for k, each in zip(order, shares, strict=True)]


def middle_left_out(rows: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], int]:
    """Leave out the middle of the rows of very many classes; return the rest, and the number that is left out."""
    left_out = max(0, len(rows) - MOST_ROWS)
    return (rows if not left_out else [*rows[: MOST_ROWS // 2], *rows[-(MOST_ROWS // 2) :]]), left_out


def _by_frequency(counts: torch.Tensor) -> list[int]:
    return counts.argsort(descending=True, stable=True).tolist()


def groups_of(class_counts: torch.Tensor) -> list[str]:
    """Name the group of each class: `many`, `medium` or `few` labels."""
    groups = third_groups(class_counts)
    return [next(name for name, members in groups.items() if members[k]) for k in range(len(class_counts))]
