"""The Spark session of a command, and what must be installed for it."""

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from shutil import which
from types import MappingProxyType
from typing import TYPE_CHECKING

from tailmatch.datamodules.arguments import SettingsError

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

PACKAGES = {"pyspark": ("4.1", None), "pandas": ("2.2", "3"), "pyarrow": ("18", None)}
"""The least version of each package, and the first one that is too new. `repartitionById` came with pyspark 4.1;
pyspark 4.3 itself asks for these pandas and pyarrow, and its Arrow functions were tested below pandas 3 alone."""

JAVA = 17
"""The least version of Java: that of Spark 4."""

INSTALL = "pip install 'tailmatch[spark]' (Python 3.11 or newer)"

LOG = f"-Dlog4j2.configurationFile={Path(__file__).with_name('log4j2.properties').as_uri()}"
"""Without a configuration, Spark says at the start which one it takes instead, and its warnings of the machine."""

UTF8 = "-Dfile.encoding=UTF-8 -Dsun.jnu.encoding=UTF-8"
"""Java 17 takes the encoding of paths from the locale, which is ASCII in many containers."""


def spark_session(app_name: str, settings: Mapping[str, str] = MappingProxyType({})) -> "SparkSession":
    """Return the session of this program: the present one, that of `spark-submit`, or a new one on this machine.

    Without `spark-submit` and without a session, Spark runs in this process's own Java, on all cores (`local[*]`).

    Args:
        app_name: The name of a new session.
        settings: Settings of a new session. Those of Java do not change one that is there.

    Raises:
        SettingsError: A package is missing or of a wrong version; or Java is, and no session is there yet.
    """
    check_installed()
    from pyspark.sql import SparkSession

    present = SparkSession.getActiveSession()
    if present is not None:
        return present
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)  # or Spark would take any `python3`
    builder = SparkSession.builder.appName(app_name).config("spark.ui.showConsoleProgress", "false")
    java = " ".join(filter(None, (UTF8, LOG, settings.get("spark.driver.extraJavaOptions"))))
    for name, value in {**settings, "spark.driver.extraJavaOptions": java}.items():
        builder = builder.config(name, value)
    with _signals_kept():
        session = builder.getOrCreate()
    context = session.sparkContext
    context.setLogLevel("ERROR")
    print(f"Spark {session.version} on {context.master}" + (f", UI: {context.uiWebUrl}" if context.uiWebUrl else ""))
    return session


@contextmanager
def _signals_kept() -> Iterator[None]:
    """Put back the handler of Ctrl-C, which Spark replaces by one that ends its jobs with errors of its own."""
    before = signal.getsignal(signal.SIGINT)
    yield
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, before)


def check_installed() -> None:
    """Refuse to begin without what `spark_session` needs; see there."""
    check_packages()
    home = os.environ.get("SPARK_HOME")
    if home and not Path(home, "bin", "spark-submit").is_file():
        raise SettingsError(
            f"SPARK_HOME is {home}, and there is no bin/spark-submit in it: unset it, and the package pyspark is taken"
        )
    if "PYSPARK_GATEWAY_PORT" not in os.environ:  # set by spark-submit, which has started Java
        check_java()


def check_packages() -> None:
    """Refuse packages that are missing or of a version that does not fit.

    Raises:
        SettingsError: A package is missing, too old or too new.
    """
    for name, (least, below) in PACKAGES.items():
        try:
            found = version(name)
        except PackageNotFoundError:
            raise SettingsError(f"{name} is not installed, and Spark needs it: {INSTALL}") from None
        if _numbers(found) < _numbers(least) or (below is not None and _numbers(found) >= _numbers(below)):
            wanted = f"{least} or newer" + (f", below {below}" if below else "")
            raise SettingsError(f"{name} is {found}; Spark needs {wanted}: {INSTALL}")


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", text)[:2])


def check_java() -> None:
    """Refuse a machine without Java, or with one that is too old for Spark.

    Raises:
        SettingsError: There is no Java, or it is too old.
    """
    home = os.environ.get("JAVA_HOME")
    java = str(Path(home, "bin", "java")) if home else which("java")
    advice = f"install Java {JAVA} or newer (such as openjdk-{JAVA}-jre-headless), or set JAVA_HOME to its folder"
    if java is None or not os.access(java, os.X_OK):
        where = f"JAVA_HOME is {home}, and there is no bin/java in it" if home else "there is no java on the PATH"
        raise SettingsError(f"Spark needs Java, and {where}: {advice}")
    try:
        said = subprocess.run([java, "-version"], capture_output=True, text=True, check=False).stderr
    except OSError as error:
        raise SettingsError(f"{java} cannot be run ({error.strerror}): {advice}") from error
    found = re.search(r'version "(\d+)(?:\.(\d+))?', said)
    if found is None:
        raise SettingsError(f"{java} does not say its version ({said.strip()[:200]!r}): {advice}")
    number = int(found[2] or 0) if found[1] == "1" else int(found[1])  # Java 8 called itself 1.8
    if number < JAVA:
        raise SettingsError(f"{java} is Java {number}; Spark needs Java {JAVA} or newer: {advice}")


def slots(session: "SparkSession") -> int:
    """Return how many tasks run at once: the number that a barrier stage may have."""
    context = session.sparkContext._jsc.sc()
    return int(context.maxNumConcurrentTasks(context.resourceProfileManager().defaultResourceProfile()))


@contextmanager
def sql_settings(session: "SparkSession", settings: Mapping[str, str]) -> Iterator[None]:
    """Within a `with` block, change settings of a session, which may be the user's."""
    before = {name: session.conf.get(name, None) for name in settings}
    try:
        for name, value in settings.items():
            session.conf.set(name, value)
        yield
    finally:
        for name, old in before.items():
            if old is None:
                session.conf.unset(name)
            else:
                session.conf.set(name, old)
