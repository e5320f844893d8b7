"""Write the report of a run: one HTML file that needs nothing else."""

from pathlib import Path
from typing import Any

from tailmatch.callbacks.reports.html.classes import calibration, class_table, metric_cards
from tailmatch.callbacks.reports.html.facts import (
    data_tables,
    facts_table,
    pseudo_label_charts,
    settings_tables,
    training_charts,
)
from tailmatch.callbacks.reports.html.material import Material, Pool
from tailmatch.callbacks.reports.html.pictures import LABEL_NEXT, confusions, mistakes, to_label, write_label_next
from tailmatch.callbacks.reports.html.templates import environment, shown
from tailmatch.callbacks.reports.html.thumbnails import Thumbnails
from tailmatch.datamodules.output_files import whole_file

FILE = "report.html"
"""The name of the report in the run folder."""


def write_report(material: Material) -> Path:
    """Write `report.html` and, if there are unlabeled images, `label_next.csv` into the run folder; return the former.

    Each replaces a former one, and is whole at any time.
    """
    path = material.folder / FILE
    if isinstance(material.pool, Pool):
        write_label_next(material, material.folder / LABEL_NEXT)
    text = report_text(material)
    with whole_file(path) as partial:
        partial.write_bytes(text.encode("utf-8"))
    return path


def report_text(material: Material) -> str:
    """Make the page. Every text in it is escaped; what the run lacks is left out, with a line that says why."""
    pictures = Thumbnails()
    parts: dict[str, Any] = {
        "title": shown(material.folder.resolve().name),
        "images": material.images,
        "metrics": metric_cards(material),
        "facts": facts_table(material),
        "settings": settings_tables(material.settings),
        "data": data_tables(material),
        "charts": training_charts(material.folder),
        "classes": class_table(material),
        "mistakes": mistakes(material, pictures),
        "to_label": to_label(material, pictures),
        "confusions": confusions(material, pictures),
        "pseudo": pseudo_label_charts(material),
        "calibration": calibration(material),
    }
    return environment().get_template("report.html.j2").render(parts)
