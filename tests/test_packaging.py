"""Test which files an installation contains, and that it works beside a user's own folders."""

import json
import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path
from shutil import copytree

import pytest

import tailmatch

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomli")

ROOT = Path(__file__).parent.parent
NOT_PACKAGED = {"tests", "benchmarks", "docs", "build", "dist", "runs", "data"}
SMALL = ["--trainer.max_epochs=1", "--data.steps_per_epoch=4", "--trainer.callbacks=null"]


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    left_out = NOT_PACKAGED | {"tailmatch.egg-info"}

    def ignored(where: str, names: list[str]) -> set[str]:
        return {name for name in names if name.startswith(".") or (Path(where) == ROOT and name in left_out)}

    sources = copytree(ROOT, folder / "any-name", ignore=ignored)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", str(folder)]
    made = subprocess.run([*command, str(sources)], capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr
    [path] = folder.glob("*.whl")
    return path


def folders_with_code() -> set[str]:
    """Packages below the root, by their `__init__.py`."""
    found = {path.parent.relative_to(ROOT) for path in ROOT.rglob("__init__.py")}
    kept = [path for path in found if path.parts[:1] not in {(name,) for name in NOT_PACKAGED}]
    return {
        ".".join(("tailmatch", *path.parts)) for path in kept if not any(part.startswith(".") for part in path.parts)
    }


def test_the_list_of_packages_is_that_of_the_folders() -> None:
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    assert listed == sorted(listed) and set(listed) == folders_with_code()


def test_every_python_file_lies_in_a_package() -> None:
    listed = {name.removeprefix("tailmatch").lstrip(".").replace(".", "/") or "." for name in folders_with_code()}
    tops = ("callbacks", "command_line", "datamodules", "lightning_modules", "spark")
    lost = {
        str(path.relative_to(ROOT))
        for top in tops
        for path in (ROOT / top).rglob("*.py")
        if str(path.parent.relative_to(ROOT)) not in listed
    }
    assert not lost


def test_a_wheel_has_one_name_and_all_that_belongs_to_it(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        [entry_points] = [name for name in names if name.endswith("entry_points.txt")]
        assert "tailmatch = tailmatch.cli:main" in archive.read(entry_points).decode()
    own = {name for name in names if ".dist-info/" not in name}
    assert {name.split("/")[0] for name in own} == {"tailmatch"}
    assert {name.split("/")[1] for name in own} == {
        "__init__.py", "cli.py", "lazy.py", "py.typed",
        "callbacks", "command_line", "configs", "datamodules", "lightning_modules",
        "spark",
    }  # fmt: skip
    files = {
        path.relative_to(ROOT)
        for top in ("callbacks", "command_line", "configs", "datamodules", "lightning_modules", "spark")
        for path in (ROOT / top).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert {f"tailmatch/{path}" for path in files} <= own
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_the_version_is_that_of_the_wheel_the_citation_and_the_changelog(wheel: Path) -> None:
    assert wheel.name.startswith(f"tailmatch-{tailmatch.__version__}-")
    assert f"\nversion: {tailmatch.__version__}\n" in (ROOT / "CITATION.cff").read_text()
    assert f"\n## {tailmatch.__version__}" in (ROOT / "CHANGELOG.md").read_text()


@pytest.mark.exhaustive
def test_a_wheel_works_in_a_folder_that_has_callbacks_and_datamodules_of_its_own(wheel: Path, tmp_path: Path) -> None:
    environment, work = tmp_path / "environment", tmp_path / "work"
    venv.create(environment, with_pip=False)
    python = environment / "bin" / "python"
    site = Path(sysconfig.get_path("purelib", vars={"base": str(environment), "platbase": str(environment)}))
    # The dependencies are those of this environment; its editable installation is not read, since a path file that
    # adds a folder does not read the path files in it.
    (site / "dependencies.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    install = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps", str(wheel)]
    subprocess.run(install, check=True, capture_output=True)
    for name in ("callbacks", "datamodules", "lightning_modules"):
        (work / name).mkdir(parents=True)
        (work / name / "__init__.py").write_text(f'raise RuntimeError("the user\'s {name} was imported")\n')
    (work / "cli.py").write_text('raise RuntimeError("the user\'s cli was imported")\n')

    def call(*args: str) -> str:
        command = [str(environment / "bin" / "tailmatch"), *args]
        environ = {**os.environ, "PYTHONPATH": str(work)}
        made = subprocess.run(command, cwd=work, env=environ, capture_output=True, text=True, check=False)
        assert made.returncode == 0, made.stderr
        return made.stdout

    call("fit", "--config=demo.yaml", *SMALL)
    call("test", "--run_dir=runs/demo", "--ckpt_path=best")
    call("predict", "--run_dir=runs/demo", "--ckpt_path=best", "--output=labels.csv")
    assert json.loads((work / "runs" / "demo" / "test_metrics.json").read_text())["step"] == 4
    assert (work / "labels.csv").read_text().count("\n") == 1 + 1000
    where = [str(python), "-c", "import tailmatch; print(tailmatch.__file__)"]
    assert subprocess.run(where, cwd=work, capture_output=True, text=True, check=True).stdout.startswith(str(site))
