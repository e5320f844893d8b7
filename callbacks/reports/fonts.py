"""Find fonts for text that matplotlib's own font lacks, such as Korean, Chinese or Thai class names."""

import unicodedata
from collections.abc import Iterator
from functools import lru_cache

from lightning_utilities.core.rank_zero import rank_zero_warn
from matplotlib import font_manager, rcParams
from matplotlib.ft2font import FT2Font

PLACEHOLDERS = ("lastresort", "adobeblank", "notdef")
"""Parts of the names of fonts that have a box or nothing for every character."""

CJK = ("CJK", "HANGUL", "HIRAGANA", "KATAKANA", "BOPOMOFO", "FULLWIDTH")
"""How the Unicode names of characters begin that the package `fonts-noto-cjk` has."""

SHOWN = 10
"""The number of characters that a message names."""


def font_families(text: str) -> list[str]:
    """Name the font families that draw a text: those of matplotlib's settings, and if necessary fonts of the system.

    One warning names the characters that no font has.

    Args:
        text: Everything that is written in a figure.
    """
    needed = {c for c in text if unicodedata.category(c)[0] not in "CZ"}  # no spaces, and nothing invisible
    family = rcParams["font.family"]
    own = FT2Font(font_manager.findfont(font_manager.FontProperties(family=family)))
    return [*family, *_fallbacks(frozenset(c for c in needed if not own.get_char_index(ord(c))))]


@lru_cache(maxsize=64)
def _fallbacks(missing: frozenset[str]) -> tuple[str, ...]:
    """Choose fonts of the system for characters: those that have the most of them."""
    if not missing:
        return ()
    having: dict[str, frozenset[str]] = {}
    for path, font in _system_fonts():
        having[path] = frozenset(c for c in missing if font.get_char_index(ord(c)))
        if having[path] == missing:
            break
    families, left = [], set(missing)
    while left and having:
        path = max(having, key=lambda each: len(having[each] & left))
        if not having[path] & left:
            break
        left -= having.pop(path)
        font_manager.fontManager.addfont(path)  # also if it was installed after matplotlib listed the fonts
        families.append(FT2Font(path).family_name)
    if left:
        _warn_of(left)
    return tuple(families)


def _system_fonts() -> Iterator[tuple[str, FT2Font]]:
    """Open the fonts of the system, upright sans-serif ones of normal weight first."""

    def rank(path: str) -> tuple[bool, bool, str]:
        name = path.lower()
        slanted = any(word in name for word in ("bold", "italic", "oblique", "light", "thin", "black"))
        return slanted, any(word in name for word in ("serif", "mono")), path

    for path in sorted(font_manager.findSystemFonts(), key=rank):
        try:
            font = FT2Font(path)
        except (OSError, RuntimeError, ValueError):  # a format that matplotlib does not read, or a damaged file
            continue
        name = font.family_name.lower().replace(" ", "")
        if font.scalable and not any(word in name for word in PLACEHOLDERS):
            yield path, font


def _warn_of(characters: set[str]) -> None:
    shown = "".join(sorted(characters)[:SHOWN]) + (" ..." if len(characters) > SHOWN else "")
    of_cjk = {unicodedata.name(c, "").startswith(CJK) for c in characters}
    packages = [name for name, cjk in (("fonts-noto-cjk", True), ("fonts-noto-core", False)) if cjk in of_cjk]
    rank_zero_warn(
        f"no font of this machine has the characters {shown}: figures show boxes in their place; install a font, such "
        f"as Noto Sans (on Debian and Ubuntu: {' and '.join(packages)})"
    )
