"""The navigation of the site: the lists of links on its first page.

So that page is read in the same way on a code host. A page that is on no list fails the build, as Sphinx warns of it.
"""

from pathlib import PurePosixPath
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx


def add_navigation(app: Sphinx, doctree: nodes.document) -> None:
    """Add to each section of the first page the entries that its list of links names."""
    if app.env.current_document.docname != app.config.root_doc:
        return
    for section in doctree.findall(nodes.section):
        entries = [entry for item in _items_of(section) if (entry := _entry(app, item))]
        if entries:
            section += _toctree(app.config.root_doc, section[0].astext(), entries)


def _items_of(section: nodes.section) -> list[nodes.Node]:
    lists = [child for child in section.children if isinstance(child, nodes.bullet_list)]
    return [item for listed in lists for item in listed.children]


def _entry(app: Sphinx, item: nodes.Node) -> tuple[str, str] | None:
    """Return title and document of the link with which an item begins, None if it begins otherwise."""
    link = next(item.findall(addnodes.pending_xref), None)
    if link is None or link.get("refdomain") != "doc":
        return None
    target = str(PurePosixPath(link["reftarget"]))
    return (link.astext(), target) if target in app.env.found_docs else None


def _toctree(parent: str, caption: str, entries: list[tuple[str, str]]) -> nodes.Node:
    tree = addnodes.toctree(
        parent=parent, entries=entries, includefiles=[target for _, target in entries], caption=caption,
        rawcaption=caption, maxdepth=1, hidden=True, titlesonly=True, glob=False, includehidden=False, numbered=0,
    )  # fmt: skip
    return nodes.compound("", tree, classes=["toctree-wrapper"])


def setup(app: Sphinx) -> dict[str, Any]:
    """Make the navigation of what is read, before Sphinx collects it."""
    app.connect("doctree-read", add_navigation, priority=100)
    return {"parallel_read_safe": True}
