"""Tell what is often found in place of a file: web pages, pointers of git-lfs, zeros."""

_FOREIGN = {
    b"version https://git-lfs": "is a git-lfs pointer, not the file itself (git lfs pull fetches it)",
    b"<!doctype html": "is an HTML page, such as one of a login or an error",
    b"<html": "is an HTML page, such as one of a login or an error",
    bytes(64): "begins with zeros, as after a crash of the machine while it was written",
}
"""What files that should be of ours often are, by their first bytes in lower case."""


def foreign_file(head: bytes) -> str | None:
    """Say what a file is instead, as a clause without its subject; None if its first bytes are none of these.

    Args:
        head: The first bytes of the file, 64 or more if it has them.
    """
    start = (head.lstrip() or head).lower()
    return next((what for begin, what in _FOREIGN.items() if start.startswith(begin)), None)
