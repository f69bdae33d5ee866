"""What is around the code: workflows, hooks and the files that GitHub reads."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from tools.lowest import lowest

from reverb.cli.app import load as load_command

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # which pytest needs there

ROOT = Path(__file__).parents[1]
GITHUB = ROOT / ".github"

pytestmark = pytest.mark.skipif(
    not GITHUB.exists(), reason="this is an sdist, without what only the repository needs"
)


def load(path: str) -> Any:
    return yaml.safe_load((ROOT / path).read_text(encoding="utf-8"))


def pyproject() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def targets() -> set[str]:
    (phony,) = re.findall(r"^\.PHONY: (\w+ .*)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)
    return set(phony.split())


def commands() -> list[str]:
    """What the workflows run, with the values of their matrix."""
    found = []
    for path in GITHUB.glob("workflows/*.yml"):
        for job in load(f".github/workflows/{path.name}")["jobs"].values():
            values = job.get("strategy", {}).get("matrix", {}).get("target", [""])
            for step in job["steps"]:
                command = step.get("run", "").replace('"', "")
                found += [command.replace("$TARGET", value) for value in values if command]
    return found


def test_workflows_run_what_developers_run() -> None:
    made = {command.split()[1] for command in commands() if command.startswith("make ")}
    assert {"check", "test", "docs", "dist"} <= made <= targets()
    assert {command for command in commands() if not command.startswith("make ")} == {
        "pip install --editable .[dev]",  # on Windows, as CONTRIBUTING.md says
        "pytest",
    }


def test_actions_are_pinned_by_hash() -> None:
    for path in GITHUB.glob("workflows/*.yml"):
        for use in re.findall(r"uses: (.*)", path.read_text(encoding="utf-8")):
            assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", use), use


def test_every_version_of_python_is_tested() -> None:
    classifiers = "\n".join(pyproject()["project"]["classifiers"])
    supported = set(re.findall(r"^Programming Language :: Python :: (3\.\d+)$", classifiers, re.M))
    assert supported < set(load(".github/workflows/ci.yml")["jobs"]["test"]["strategy"]["matrix"]["python"])


def test_dependabot_knows_all_package_files() -> None:
    git = ["git", "ls-files", "*package-lock.json"]
    locks = subprocess.run(git, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    (npm,) = (each for each in load(".github/dependabot.yml")["updates"] if each["package-ecosystem"] == "npm")
    assert sorted(npm["directories"]) == sorted(f"/{Path(each).parent.as_posix()}" for each in locks)
    assert all(each["cooldown"] for each in load(".github/dependabot.yml")["updates"])


def test_forms_have_what_github_wants() -> None:
    for path in GITHUB.glob("ISSUE_TEMPLATE/*.yml"):
        if path.name != "config.yml":
            form = load(f".github/ISSUE_TEMPLATE/{path.name}")
            assert form["name"]
            assert form["description"]
            ids = [each["id"] for each in form["body"] if each["type"] != "markdown"]
            assert len(ids) == len(set(ids))


def test_the_commands_of_the_dockerfile() -> None:
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    comment = re.sub(r"\\\n# +", "", "\n".join(re.findall("^# .*", text, re.M)))
    runs = re.findall(r"docker run .* python-reverb (.*)", comment)
    assert len(runs) == 2
    for name, *arguments in map(shlex.split, runs):
        assert load_command(name).make_context(name, arguments).params
    assert len(set(re.findall(r"^FROM python:(\d+\.\d+\.\d+-slim-\w+)", text, re.M))) == 1
    copied = set(re.findall(r"[\w./]+", " ".join(re.findall(r"^COPY ([^-].*) \S+$", text, re.M))))
    allowed = (ROOT / ".dockerignore").read_text(encoding="utf-8")
    assert {each.removeprefix("./") for each in copied} == set(re.findall("^!(.*)$", allowed, re.M))


def test_each_tool_of_developers_is_written_once() -> None:
    """pip installs the extra, ``uv sync`` the group of the same name, and make adds the other groups."""
    groups, extras = pyproject()["dependency-groups"], pyproject()["project"]["optional-dependencies"]
    assert groups.pop("dev") == ["python-reverb[dev]"]
    written = [each for tools in (extras["dev"], *groups.values()) for each in tools]
    names = [re.split("[<>=;]", each)[0] for each in written]
    assert len(names) == len(set(names))
    assert "ruff" in names
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert set(re.findall(r"\$\(GROUP\) (\w+)", makefile)) == groups.keys()


def test_types_are_checked_for_every_system() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert set(re.findall(r"mypy --platform (\w+) .* src$", makefile, re.M)) == {"win32", "darwin"}


def test_hooks_are_the_tools_of_make_check() -> None:
    (repository,) = load(".pre-commit-config.yaml")["repos"]
    programs = {hook["entry"].split()[0] for hook in repository["hooks"]}
    checked = set(re.findall(r"^\t\$\(BIN\)/([\w-]+)", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))
    assert programs == {f".venv/bin/{name}" for name in ("ruff", "typos", "end-of-file-fixer")}
    assert {"ruff", "typos"} <= checked
    assert all((Path(sys.executable).parent / Path(each).name).exists() for each in programs)


def test_mutants_are_made_of_files_that_exist() -> None:
    """mutmut ignores modules that do not exist."""
    settings = pyproject()["tool"]["mutmut"]
    paths = [*settings["only_mutate"], *settings["pytest_add_cli_args_test_selection"]]
    assert len(paths) > 2
    assert [path for path in paths if not (ROOT / path).is_file()] == []


def test_make_lowest_takes_the_lower_bounds_of_the_package() -> None:
    project = pyproject()["project"]
    extras = project["optional-dependencies"]
    del extras["dev"]
    written = [each for needed in (project["dependencies"], *extras.values()) for each in needed]
    pins = {each.lower().replace(">=", "==") for each in written if not each.startswith("python-reverb[")}
    assert lowest() == sorted(pins | {pin.replace("opentelemetry-api", "opentelemetry-sdk") for pin in pins})


def test_files_end_with_one_newline() -> None:
    """As the hook ``end-of-file`` has it."""
    git = ["git", "ls-files", "--eol", "--", ":!*/vendor/*"]
    listed = subprocess.run(git, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    texts = [line.partition("\t")[2] for line in listed.splitlines() if line.startswith("i/lf")]
    assert len(texts) > 300
    for path in texts:
        end = (ROOT / path).read_bytes()[-2:]
        assert end[-1:] == b"\n" and end != b"\n\n", path  # noqa: PT018
