"""The site of `make docs`, which then runs these tests: what fails its build, and what it loads."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
pytestmark = pytest.mark.skipif(os.environ.get("TAILMATCH_DOCS_TESTS") != "required", reason="`make docs` runs it")
FAULTS = {
    "[dead](nowhere.md)": "target not found: 'nowhere.md'",
    "[no such part](index.md#nowhere)": "local id not found in doc 'docs/index': 'nowhere'",
    "[no such file](../configs/nowhere.yaml)": "target not found: '../configs/nowhere.yaml'",
    "![no such picture](nowhere.png)": "image file not readable: docs/nowhere.png",
    "`tailmatch.callbacks.Nothing`": "there is no tailmatch.callbacks.Nothing",
    "```{eval-rst}\n.. automodule:: tailmatch.nowhere\n```": "failed to import 'nowhere' from module 'tailmatch'",
}


@pytest.fixture(scope="module")
def warnings(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What a build says of pages with faults."""
    folder = tmp_path_factory.mktemp("repository")
    (folder / "docs").mkdir()
    (folder / "docs" / "index.md").write_text("# Site\n\n## Pages\n\n* [Faults](faults.md)\n")
    (folder / "docs" / "faults.md").write_text("# Faults\n\n" + "\n\n".join(FAULTS))
    (folder / "docs" / "lost.md").write_text("# On no list\n")
    options = ["--quiet", "--fail-on-warning", "--keep-going", "--conf-dir", str(ROOT / "docs")]
    command = [sys.executable, "-m", "sphinx", *options, str(folder), str(folder / "site")]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    assert built.returncode == 1, built.stderr
    return built.stderr


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_of_a_page_fails_the_build(fault: str, warnings: str) -> None:
    assert FAULTS[fault] in warnings


def test_a_page_that_no_list_names_fails_the_build(warnings: str) -> None:
    assert re.search(r"lost\.md: WARNING: document isn't included in any toctree", warnings)
    assert "faults.md: WARNING: document isn't" not in warnings


def test_a_public_name_that_no_page_has_fails_the_build(warnings: str) -> None:
    assert "tailmatch.callbacks.DARP is on no page of docs/reference" in warnings


def test_the_site_loads_nothing_from_elsewhere() -> None:
    pages = list((ROOT / "build" / "site").rglob("*.html"))
    assert (ROOT / "build" / "site" / "docs" / "index.html") in pages
    loaded = re.compile(r"<(?:script|link|img|iframe|source)\b[^>]*?(?:src|href)=[\"'](?:https?:)?//[^\"']*")
    assert not [found for page in pages for found in loaded.findall(page.read_text())]
    styles = "".join(style.read_text() for style in (ROOT / "build" / "site" / "_static").rglob("*.css"))
    assert not re.findall(r"(?:@import|url\()\s*[\"']?(?:https?:)?//[^)\"']*", styles)
