"""Builds what is released into ``dist/``, twice, and inspects it: ``make dist``.

Both builds have to be the same, byte for byte; whoever has the source can check so what was published. With
``--tag v1.2.3`` the version has to be that of the tag.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "reverb"
AROUND = "test_dist or test_layers or test_package or test_repository"
"""Tests that look at files around the package."""
METADATA = {"METADATA", "WHEEL", "RECORD", "entry_points.txt", "licenses/LICENSE"}


def build(folder: Path) -> list[Path]:
    """Build an sdist, and a wheel from it, into ``folder``; return the wheel and the sdist."""
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    environment = {**os.environ, "SOURCE_DATE_EPOCH": epoch()}
    # Times in archives are those of the last commit, or a fixed one, never those of the checkout's files.
    done = subprocess.run(command, env=environment, capture_output=True, text=True)  # noqa: S603
    if done.returncode:
        sys.exit(f"{done.stdout}{done.stderr}the build failed")
    return [*folder.glob("*.whl"), *folder.glob("*.tar.gz")]


def epoch() -> str:
    git = ["git", "log", "-1", "--format=%ct"]
    try:
        found = subprocess.run(git, cwd=ROOT, capture_output=True, text=True).stdout.strip()  # noqa: S603
    except FileNotFoundError:  # git is not installed
        found = ""
    return found or "1577836800"


def hash_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def package_files() -> set[str]:
    """Return the files of the package as a wheel names them."""
    return {
        f"reverb/{path.relative_to(PACKAGE).as_posix()}"
        for path in PACKAGE.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def check_wheel(path: Path) -> None:
    """Fail if the wheel has not exactly the package's files, and its metadata."""
    names = set(zipfile.ZipFile(path).namelist())
    package = {name for name in names if name.startswith("reverb/")}
    expected = package_files()
    if package != expected:
        sys.exit(f"{path.name} is not the package, the difference is {sorted(package ^ expected)}")
    rest = {name.partition("/")[2] for name in names - package}
    if rest != METADATA:
        sys.exit(f"{path.name} has other metadata than it should, the difference is {sorted(rest ^ METADATA)}")


def check_tag(wheel: Path, tag: str) -> None:
    """Fail if the tag that is released is not the wheel's version."""
    version = wheel.name.split("-")[1]
    if tag != f"v{version}":
        sys.exit(f"the tag is {tag}, and the package's version is {version}")


def check_sdist(path: Path) -> None:
    """Fail if the sdist lacks a file of the repository that it should have, or has another."""
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    git = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(git, cwd=ROOT, capture_output=True, text=True, check=True)  # noqa: S603
    left_out = (".ci/", ".github/", ".pre-commit-config.yaml")
    expected = {name for name in listed.stdout.splitlines() if not name.startswith(left_out)} | {"PKG-INFO"}
    if names != expected:
        sys.exit(f"{path.name} is not the repository, the difference is {sorted(names ^ expected)}")


def check_tests(sdist: Path) -> None:
    """Fail if the tests of the unpacked sdist can't be collected, or if those fail that look at files around them.

    Those who package this for a distribution run the tests there.
    """
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(sdist) as archive:
            archive.extractall(folder, filter="data")
        (unpacked,) = Path(folder).iterdir()
        command = [sys.executable, "-m", "pytest", "-q", "-n0", "-k", AROUND]
        environment = {**os.environ, "PYTHONPATH": str(unpacked / "src")}
        done = subprocess.run(command, cwd=unpacked, env=environment, capture_output=True, text=True)  # noqa: S603
    if done.returncode:
        sys.exit(f"{done.stdout}{done.stderr}the tests in {sdist.name} fail where it is unpacked")


def main() -> None:
    parser = argparse.ArgumentParser(prog="make dist", description="Build what is released, and inspect it.")
    parser.add_argument("--tag", help="the tag that is released; its version has to be the package's")
    parser.add_argument("--folder", type=Path, default=ROOT / "dist", help="where it goes")
    options = parser.parse_args()
    shutil.rmtree(options.folder, ignore_errors=True)
    wheel, sdist = build(options.folder)
    with tempfile.TemporaryDirectory() as again:
        for path in build(Path(again)):
            if hash_of(path) != hash_of(options.folder / path.name):
                sys.exit(f"{path.name} is another one when it is built again")
    if options.tag is not None:
        check_tag(wheel, options.tag)
    check_wheel(wheel)
    check_sdist(sdist)
    check_tests(sdist)
    scripts = Path(sys.executable).parent
    subprocess.run([scripts / "check-wheel-contents", wheel], check=True)  # noqa: S603
    subprocess.run([scripts / "twine", "check", "--strict", wheel, sdist], check=True)  # noqa: S603
    for path in (wheel, sdist):
        print(f"{path.name}  {path.stat().st_size:,} bytes  sha256 {hash_of(path)}")


if __name__ == "__main__":
    main()
