"""Write a DataFrame of pseudo-labels as a folder of Parquet files that appears whole or not at all."""

import uuid
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tailmatch.datamodules.arguments import SettingsError
from tailmatch.datamodules.locks import sole_output
from tailmatch.datamodules.output_files import check_writable, json_bytes
from tailmatch.datamodules.pseudo_labels.parquet import SIDECAR

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

PARTIAL, REPLACED = "partial", "replaced"


@contextmanager
def whole_folder(session: "SparkSession", output: str, overwrite: bool) -> Iterator[str]:
    """Yield the path of a folder beside `output`; it is renamed to it at the end, or removed after an error.

    Paths and renames are those of Hadoop's file systems, so that `output` may be a URL of the cluster. On one of this
    machine, a second command that writes it is refused. What a killed command has left is removed by the next one.

    Raises:
        SettingsError: The folder exists and `overwrite` is false, or another process writes it.
        OSError: The system refuses to write it.
    """
    with ExitStack() as held:
        local = None if "://" in output else Path(output).resolve()
        if local is not None:
            held.enter_context(sole_output(local))
        folder = _Folder(session, output if local is None else str(local))
        folder.clear()
        if folder.exists() and not overwrite:
            raise _exists(output)
        partial, context = folder.beside(PARTIAL), session.sparkContext
        context.setJobGroup(partial, f"write {output}", interruptOnCancel=True)
        try:
            yield partial
            folder.replace_by(partial)
        finally:
            context.cancelJobGroup(partial)  # after a signal or an error, tasks would go on writing
            context.setLocalProperty("spark.jobGroup.id", None)  # which removes it
            folder.remove(partial)


def check_folder(output: str, overwrite: bool) -> None:
    """Refuse, before Spark starts, a folder of this machine that could not be written at the end.

    Raises:
        SettingsError: The folder exists and `overwrite` is false, or has other files than pseudo-labels; or it is a
            file.
        OSError: The system refuses to write it.
    """
    path = Path(output)
    if not output:
        raise SettingsError("output is empty; give the folder to write")
    if "://" in output:
        return
    if path.exists() and not path.is_dir():
        raise SettingsError(f"output is {output}, which is a file; it must be a folder, which the command makes")
    if path.exists() and not overwrite:
        raise _exists(output)
    if not path.exists():
        check_writable(path)
    elif any(path.iterdir()) and not (path / SIDECAR).is_file():
        raise SettingsError(
            f"output is {output}, a folder of other files than pseudo-labels, and it is not replaced: name another one"
        )


def _exists(output: str) -> SettingsError:
    return SettingsError(f"{output} exists: remove it, name another output, or set overwrite (--overwrite true)")


class _Folder:
    """A folder in one of Hadoop's file systems."""

    def __init__(self, session: "SparkSession", path: str) -> None:
        jvm: Any = session.sparkContext._jvm
        self._path = jvm.org.apache.hadoop.fs.Path
        self.path = path
        self._files: Any = self._path(path).getFileSystem(session.sparkContext._jsc.hadoopConfiguration())

    def exists(self) -> bool:
        return bool(self._files.exists(self._path(self.path)))

    def beside(self, what: str) -> str:
        return f"{self.path}.{uuid.uuid4().hex}.{what}"

    def remove(self, path: str) -> None:
        self._files.delete(self._path(path), True)

    def rename(self, old: str, new: str) -> None:
        if not self._files.rename(self._path(old), self._path(new)):
            raise OSError(None, f"{old} could not be renamed to {new}")

    def left(self, what: str) -> list[str]:
        found = self._files.globStatus(self._path(f"{literal(self.path)}.{'[0-9a-f]' * 32}.{what}"))
        return [str(status.getPath()) for status in found or ()]

    def clear(self) -> None:
        """Remove what killed commands have left, and bring back a folder that one was about to replace."""
        for replaced in self.left(REPLACED):
            if self.exists():
                self.remove(replaced)
            else:
                self.rename(replaced, self.path)
        for partial in self.left(PARTIAL):
            self.remove(partial)

    def replace_by(self, partial: str) -> None:
        """Rename the new folder; the one that it replaces is removed after that."""
        old = None
        if self.exists():
            old = self.beside(REPLACED)
            self.rename(self.path, old)
        self.rename(partial, self.path)
        if old is not None:
            self.remove(old)


def literal(path: str) -> str:
    """Quote what Hadoop's patterns take for more than a letter: Spark takes every path that it reads for a pattern."""
    return "".join(f"\\{letter}" if letter in "*?[]{}^\\" else letter for letter in path)


def write_parts(frame: "DataFrame", folder: str, facts: Mapping[str, Any], mode: str = "errorifexists") -> None:
    """Write the rows as Parquet files, and then the facts of all of them beside these, in `_tailmatch.json`.

    Args:
        frame: The rows.
        folder: The folder, a path of Hadoop's.
        facts: What `facts_in_file` gives of an `Origin`.
        mode: What happens to a folder that exists, one of Spark's modes.
    """
    frame.write.mode(mode).parquet(folder)
    write_facts(frame.sparkSession, folder, facts)


def write_facts(session: "SparkSession", folder: str, facts: Mapping[str, Any]) -> None:
    """Write the facts of the Parquet files of a folder."""
    jvm: Any = session.sparkContext._jvm
    path = jvm.org.apache.hadoop.fs.Path(f"{folder}/{SIDECAR}")
    stream = path.getFileSystem(session.sparkContext._jsc.hadoopConfiguration()).create(path, True)
    try:
        stream.write(bytearray(json_bytes(dict(facts))))
    finally:
        stream.close()
