"""The page: every name is text, it loads nothing, it stays small, and it fits a phone."""

import csv
import html
import os
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tailmatch.callbacks.reports.html.material import Material
from tailmatch.callbacks.reports.html.page import write_report
from tailmatch.callbacks.reports.html.templates import percent
from tailmatch.callbacks.reports.html.thumbnails import Thumbnails
from tests.callbacks.reports.html.pages import Page, material

STRANGE = [
    "<b>&\"'$_^[/x]", "모자와 가방", "حذاء رياضي", "x" * 200, "{{ 1 }}", "</script><script>alert(1)</script>",
    "a\x1b\nb", os.fsdecode(b"caf\xe9"), "=1+1", "`code`",
]  # fmt: skip
PARTS = ("result", "run", "classes", "confusions", "mistakes", "calibration", "pseudo", "next")


@pytest.fixture(scope="module")
def strange(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of classes with strange names."""
    folder = tmp_path_factory.mktemp("runs") / "<i>run"
    return write_report(material(folder, STRANGE))


def test_names_are_text(strange: Path) -> None:
    content = strange.read_text(encoding="utf-8")
    page = Page(content)
    text = "".join(page.text)
    for name in (*STRANGE[:6], r"a\x1b\nb", r"caf\udce9", *STRANGE[8:]):
        assert name in text, name
    assert not {"b", "i"} & {tag for tag, attributes in page.elements if not attributes} - {"b"}
    assert content.count("<script>") == 1 and "alert(1)</script>" not in content
    assert "<i>run" in text and page.tags("title") == [{}]


def test_it_needs_nothing_else_and_has_every_part(strange: Path) -> None:
    content = strange.read_text(encoding="utf-8")
    page = Page(content)
    assert tuple(page.sections) == PARTS
    assert re.findall(r"https?:|//\w+\.|url\(|@import|<link|<iframe", content) == []
    references = [attributes[key] for _, attributes in page.elements for key in ("src", "href") if key in attributes]
    assert {str(each)[:11] for each in references if not str(each).startswith("#")} == {"data:image/"}
    policy = next(each for each in page.tags("meta") if each.get("http-equiv") == "Content-Security-Policy")
    assert str(policy["content"]).startswith("default-src 'none'; img-src data:")
    lacking = {name for name, text in page.sections.items() if "Left out:" in text}
    assert lacking == {"run", "pseudo"}  # it has no metrics.csv and no totals of pseudo-labels


def test_the_images_to_label_are_a_table_too(strange: Path) -> None:
    with (strange.parent / "label_next.csv").open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 20 and {row["predicted"] for row in rows} <= set(STRANGE)
    assert all(float(row["margin"]) >= 0 for row in rows) and len({row["key"] for row in rows}) == 20


def test_a_thousand_classes_fit_into_the_page(tmp_path: Path) -> None:
    found = material(tmp_path, [f"{'class' * 20} {k}" for k in range(1000)], size=33)
    content = write_report(found).read_text(encoding="utf-8")
    page = Page(content)
    assert len(content.encode()) < 5_000_000
    assert "980 more" in page.sections["classes"] and len(page.tags("details")) >= 2
    assert found.model is not None and all(name in content for name in found.model.class_names[::100])


def test_two_classes_that_are_all_recognized(tmp_path: Path) -> None:
    found = material(tmp_path, ["yes", "no"])
    assert found.outcomes is not None
    found.outcomes = replace(found.outcomes, predicted=found.outcomes.target)
    page = Page(write_report(found).read_text(encoding="utf-8"))
    assert "every one of the test images is recognized" in page.sections["confusions"]
    assert "every one of the test images is recognized" in page.sections["mistakes"]


def test_what_a_run_lacks_is_left_out_with_a_line(tmp_path: Path) -> None:
    for name, text in (("metrics.csv", "broken"), ("pseudo_label_totals.json", '{"epochs": []}')):
        (tmp_path / name).write_text(text)
    page = Page(write_report(Material(tmp_path)).read_text(encoding="utf-8"))
    assert tuple(page.sections) == PARTS and page.sections["run"].count("Left out:") == 3
    assert all("Left out:" in text for text in page.sections.values())
    assert "pseudo_label_totals.json is not as it was written" in page.sections["pseudo"]
    assert not (tmp_path / "label_next.csv").exists()


@pytest.mark.parametrize(
    "row", ["²,1,1", f"{'9' * 5000},1,1", f"1,{'9' * 5000},1", "1,1,inf", f'1,1,"{"x" * 140_000}"'], ids=range(5)
)
def test_metrics_that_nobody_wrote_end_no_report(tmp_path: Path, row: str) -> None:
    (tmp_path / "metrics.csv").write_text(f"step,epoch,seconds\n{row}\n", encoding="utf-8")
    assert tuple(Page(write_report(Material(tmp_path)).read_text(encoding="utf-8")).sections) == PARTS


@pytest.mark.parametrize(
    "last",
    ['{"raw": [1], "refined": ["x"]}', '{"raw": [1], "refined": [null]}', '{"raw": [1]}', "[" * 100_000],
    ids=["text", "null", "none", "deep"],
)
def test_totals_that_nobody_wrote_end_no_report(tmp_path: Path, last: str) -> None:
    row = '{"epoch": 1, "kl_raw": 1, "many": {}, "medium": {}, "few": {}}'
    text = f'{{"epochs": [{row}], "last": {last}, "class_names": ["a"]}}'
    (tmp_path / "pseudo_label_totals.json").write_text(text)
    page = Page(write_report(Material(tmp_path)).read_text(encoding="utf-8"))
    assert "pseudo_label_totals.json is not as it was written" in page.sections["pseudo"]


def test_pictures_stay_within_their_bytes() -> None:
    image = torch.randint(0, 256, (3, 200, 100), dtype=torch.uint8)
    pictures = Thumbnails(budget=20_000)
    made = [pictures.uri(image) for _ in range(10)]
    kept = [uri for uri in made if uri is not None]
    assert 0 < len(kept) < 10 and sum(map(len, kept)) <= 20_000 and kept[0].startswith("data:image/jpeg;base64,")
    small = Thumbnails().uri(image[:, :8, :8])
    assert small is not None and small.startswith("data:image/png;base64,")


def test_shares_in_percent() -> None:
    assert [percent(share) for share in (0.5, 0, None, float("nan"))] == ["50.0 %", "0.0 %", "–", "–"]
    assert percent(0.004, 0) == "<1 %" and percent(0.0004) == "<0.1 %"


BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)


@pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed")
def test_a_browser_shows_it_at_the_width_of_a_phone(strange: Path, tmp_path: Path) -> None:
    escaped = html.escape(strange.read_text(encoding="utf-8"), quote=True)
    (tmp_path / "phone.html").write_text(
        f"""<!DOCTYPE html><iframe id="page" style="width:390px;height:800px;border:0" srcdoc="{escaped}"></iframe>
        <script>page.onload = () => {{
          const shown = page.contentDocument, pictures = [...shown.images];
          for (const each of shown.querySelectorAll("details")) each.open = true;
          document.title = [shown.documentElement.scrollWidth - shown.documentElement.clientWidth, pictures.length,
            pictures.filter(each => !each.naturalWidth).length, shown.querySelectorAll("script").length];
        }}</script>""",
        encoding="utf-8",
    )
    words = ["--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    words += ["--virtual-time-budget=2000", "--dump-dom", f"file://{tmp_path / 'phone.html'}"]
    shown = subprocess.run([str(BROWSER), *words], capture_output=True, text=True, timeout=60, check=False).stdout
    title = re.search(r"<title>([\d,]+)</title>", shown)
    assert title is not None, shown[:500]
    beyond, pictures, broken, scripts = map(int, title[1].split(","))
    assert beyond == 0, "the page scrolls sideways on a phone"
    assert pictures > 20 and broken == 0 and scripts == 1
