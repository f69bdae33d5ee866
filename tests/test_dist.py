"""``make dist``: what is released is exactly the package and the repository."""

from __future__ import annotations

import tarfile
import zipfile
from pathlib import Path

import pytest
from tools import dist

METADATA = [f"python_reverb-1.0.dist-info/{name}" for name in dist.METADATA]
PACKAGE = sorted(dist.package_files())


def wheel_of(folder: Path, names: list[str]) -> Path:
    path = folder / "python_reverb-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, "")
    return path


def test_a_wheel_with_the_package_is_right(tmp_path: Path) -> None:
    assert "reverb/py.typed" in PACKAGE
    dist.check_wheel(wheel_of(tmp_path, PACKAGE + METADATA))


@pytest.mark.parametrize(
    "name", ["reverb/notes.txt", "tests/test_dist.py", "python_reverb-1.0.dist-info/notes.txt"]
)
def test_a_wheel_with_a_file_too_many(tmp_path: Path, name: str) -> None:
    with pytest.raises(SystemExit, match=name.rpartition("/")[2]):
        dist.check_wheel(wheel_of(tmp_path, [*PACKAGE, *METADATA, name]))


@pytest.mark.parametrize("name", ["reverb/py.typed", "reverb/client.py", "python_reverb-1.0.dist-info/RECORD"])
def test_a_wheel_with_a_file_too_few(tmp_path: Path, name: str) -> None:
    with pytest.raises(SystemExit, match=name.rpartition("/")[2]):
        dist.check_wheel(wheel_of(tmp_path, [each for each in PACKAGE + METADATA if each != name]))


def test_the_tag_is_the_version(tmp_path: Path) -> None:
    wheel = wheel_of(tmp_path, [])
    dist.check_tag(wheel, "v1.0")
    for tag in ("v1.1", "1.0", "v1.0.0", ""):
        with pytest.raises(SystemExit, match=rf"^the tag is {tag}, and the package's version is 1\.0$"):
            dist.check_tag(wheel, tag)


def test_an_sdist_whose_tests_fail(tmp_path: Path) -> None:
    sdist = tmp_path / "python_reverb-1.0.tar.gz"
    for body in ("pass", "open('missing.txt')"):
        folder = tmp_path / "python_reverb-1.0"
        folder.mkdir(exist_ok=True)
        (folder / "test_package.py").write_text(f"def test(): {body}\n")
        with tarfile.open(sdist, "w:gz") as archive:
            archive.add(folder, folder.name)
        if body == "pass":
            dist.check_tests(sdist)
        else:
            with pytest.raises(
                SystemExit, match=r"missing\.txt(?s:.*)the tests in python_reverb-1\.0\.tar\.gz fail"
            ):
                dist.check_tests(sdist)


def test_a_machine_without_git(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert dist.epoch() == "1577836800"


def test_the_build(tmp_path: Path) -> None:
    """Its size is bounded, packed and installed, so that nothing large gets in unseen."""
    wheel, sdist = dist.build(tmp_path)
    dist.check_wheel(wheel)
    assert wheel.stat().st_size < 500_000
    files = zipfile.ZipFile(wheel).infolist()
    assert sum(each.file_size for each in files) < 1_500_000
    assert len(files) < 170
    assert max(each.file_size for each in files) < 100_000
    assert sdist.name.endswith(".tar.gz")
