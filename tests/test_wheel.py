"""What is installed from the wheel: the three packages and nothing else, and a program that runs."""

import email
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from cidm_cli import __version__

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built here from what is installed: nothing is downloaded."""
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)],
        check=True,
        capture_output=True,
        timeout=120,
    )
    (built,) = folder.glob("*.whl")
    return built


def test_top_level_names(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names} == {
        "cidm_cli",
        "cidm_registry",
        "cidm_templates",
        f"cidm-{__version__}.dist-info",
    }


def test_everything_the_packages_hold_is_in_the_wheel(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    for folder in (ROOT, ROOT / "registry", ROOT / "templates"):
        for package in folder.glob("cidm_*"):
            for path in (
                *package.rglob("*.py"),
                *package.glob("bases/**/*.json"),
                *package.glob("bases/**/*.txt"),
                *package.glob("studio/page/*"),
            ):
                assert path.relative_to(folder).as_posix() in names
    assert f"cidm-{__version__}.dist-info/licenses/LICENSE" in names


def test_metadata(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        metadata = email.message_from_bytes(archive.read(f"cidm-{__version__}.dist-info/METADATA"))
    assert metadata["Version"] == __version__
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["License-Expression"] == "Apache-2.0"
    required = {
        line.split(";")[0].strip() for line in metadata.get_all("Requires-Dist", []) if "extra" not in line
    }
    assert all(">=" in line for line in required), "every direct dependency has a floor"
    assert "torch>=2.10" in required


def test_the_installed_program_runs(wheel: Path, tmp_path: Path) -> None:
    target = tmp_path / "site"
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--no-compile"),
            *("--target", str(target), str(wheel)),
        ],
        check=True,
        capture_output=True,
        timeout=120,
    )
    environment = {**os.environ, "PYTHONPATH": str(target)}
    script = target / "bin" / "cidm"
    for command in ([sys.executable, str(script)], [sys.executable, "-m", "cidm_cli"]):
        ran = subprocess.run(
            [*command, "--version"],
            capture_output=True,
            check=False,
            text=True,
            env=environment,
            cwd=tmp_path,
            timeout=60,
        )
        assert (ran.returncode, ran.stdout, ran.stderr) == (0, f"cidm {__version__}\n", "")
    where = subprocess.run(
        [
            sys.executable,
            "-c",
            "import cidm_cli, cidm_registry, cidm_templates; print(cidm_registry.__file__)",
        ],
        capture_output=True,
        check=True,
        text=True,
        env=environment,
        cwd=tmp_path,
        timeout=60,
    )
    assert where.stdout.startswith(str(target)), "the wheel's own files, not the working copy's"
