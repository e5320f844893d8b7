"""Public names: each is on a page of the reference, and code that names one leads there."""

import re
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.transforms import SphinxTransform
from sphinx.util import logging

ROOT = Path(__file__).parent.parent.parent
CLASS = re.compile(r"[A-Z]\w+")
KINDS = {"class", "data", "exception", "function"}
NO_LINKS = (nodes.title, nodes.reference, addnodes.pending_xref, addnodes.download_reference)
"""Parents of code that stays as it is: titles, which the navigation repeats, and links."""

logger = logging.getLogger(__name__)


@cache
def packages() -> list[str]:
    """List the packages that have public names, by their `__all__`."""
    inits = [ROOT / "__init__.py", *ROOT.glob("[a-z]*/**/__init__.py")]
    with_names = [init.parent.relative_to(ROOT) for init in inits if "\n__all__ = " in init.read_text()]
    return sorted(".".join(("tailmatch", *folder.parts)) for folder in with_names)


@cache
def public_names() -> dict[str, str]:
    """Return the full name of each public name; of two that are the same, that of the first package."""
    names = {package: package for package in packages()}
    for package in packages():
        for name in import_module(package).__all__:
            if name.startswith("__"):
                continue
            names.setdefault(name, f"{package}.{name}")
            names.setdefault(f"{package}.{name}", f"{package}.{name}")
    return names


def exists(name: str) -> bool:
    """Whether a dotted name is that of a module, or of something in one."""
    try:
        import_module(name)
    except ImportError:
        home, _, last = name.rpartition(".")
        return bool(home) and exists(home) and hasattr(import_module(home), last)
    return True


class LinkNames(SphinxTransform):
    """Turns code that is the name of a class or a public name into a link, where the reference has it.

    It warns of names in the package that do not exist.
    """

    default_priority = 700

    def apply(self, **kwargs: Any) -> None:
        """Change the code of a document."""
        for code in list(self.document.findall(nodes.literal)):
            text = code.astext()
            if text.startswith("tailmatch.") and text.replace(".", "").isidentifier() and not exists(text):
                logger.warning("there is no %s", text, location=code, type="public_names")
            elif not isinstance(code.parent, NO_LINKS) and (text in public_names() or CLASS.fullmatch(text)):
                link = _link(public_names().get(text, text), self.env.current_document.docname)
                code.replace_self(link)
                link += code


def _link(name: str, docname: str) -> addnodes.pending_xref:
    kind = "mod" if name in packages() else "obj"
    return addnodes.pending_xref("", refdomain="py", reftype=kind, reftarget=name, refdoc=docname)


def find_by_last_part(app: Sphinx, env: BuildEnvironment, node: addnodes.pending_xref, contents: nodes.Node) -> Any:
    """Resolve a class that a signature names by its own module, or code by its name alone."""
    domain = env.domains.python_domain
    last = str(node.get("reftarget", "")).rpartition(".")[2]
    if node.get("refdomain") != "py" or not CLASS.fullmatch(last):
        return None
    found = [name for name, entry in domain.objects.items() if name.endswith(f".{last}") and entry.objtype in KINDS]
    return domain.resolve_xref(env, node["refdoc"], app.builder, "obj", found[0], node, contents) if found else None


def check_complete(app: Sphinx, env: BuildEnvironment) -> None:
    """Warn of public names that no page of the reference has."""
    shown = {*env.domains.python_domain.objects, *env.domains.python_domain.modules}
    for name in sorted({*public_names().values()} - shown):
        logger.warning("%s is on no page of docs/reference", name, type="public_names")


def setup(app: Sphinx) -> dict[str, Any]:
    """Add the links and the checks."""
    app.add_transform(LinkNames)
    app.connect("missing-reference", find_by_last_part)
    app.connect("env-check-consistency", check_complete)
    return {"parallel_read_safe": True}
