"""Public names have docstrings: complete, in Google's style, and with references that lead somewhere."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path

import griffe
from tools import docstrings

import reverb

SRC = Path(reverb.__file__).parents[1]
MADE_BY_THE_PACKAGE = {
    "reverb.Binding",
    "reverb.Channel",
    "reverb.Discovery",
    "reverb.EventStream",
    "reverb.User",
    "reverb.echo.EchoChannel",
}
"""Classes that programs get and don't make. Their docstrings and the reference have no arguments."""
DESCRIBED_ELSEWHERE = {
    "reverb.Binding.": "for the package itself, but for unbind()",
    "reverb.config.Settings.": "the fields of ReverbConfig",
    "reverb.ConfigurationError.args": "Python's",
    "reverb.relay.NatsSource.": "the members of Source",
    "reverb.relay.RedisSource.": "the members of Source",
}


@cache
def package() -> griffe.Module:
    found = griffe.load("reverb", search_paths=[SRC], docstring_parser="google")
    assert isinstance(found, griffe.Module)
    return found


def public_modules() -> Iterator[griffe.Module]:
    yield package()
    for name, module in package().modules.items():
        if not name.startswith("_") and name != "cli":
            yield module


@cache
def public_objects() -> dict[str, griffe.Object]:
    """All that a program can name without an underscore, by its path. What has several names is there once."""
    found: dict[int, tuple[str, griffe.Object]] = {}
    for module in public_modules():
        found[id(module)] = module.path, module
        for name in module.exports or ():
            _add(found, f"{module.path}.{name}", module[str(name)])
    return dict(found.values())


def _add(found: dict[int, tuple[str, griffe.Object]], path: str, member: griffe.Object | griffe.Alias) -> None:
    target = member.final_target if isinstance(member, griffe.Alias) else member
    if id(target) in found or path == "reverb.__version__" or path.startswith(tuple(DESCRIBED_ELSEWHERE)):
        return
    found[id(target)] = path, target
    if isinstance(target, griffe.Class):
        for name, each in {**target.inherited_members, **target.members}.items():
            if not name.startswith("_") and each.canonical_path.startswith("reverb."):
                _add(found, f"{path}.{name}", each)


def docstring_of(each: griffe.Object) -> griffe.Docstring | None:
    if not each.docstring and isinstance(each.parent, griffe.Class):
        return docstrings.inherited_docstring(each)
    return each.docstring


def sections(each: griffe.Object, kind: griffe.DocstringSectionKind) -> list[griffe.DocstringSection]:
    docstring = docstring_of(each)
    return [section for section in docstring.parsed if section.kind is kind] if docstring else []


def test_every_public_name_has_a_docstring() -> None:
    assert [path for path, each in public_objects().items() if docstring_of(each) is None] == []


def test_the_first_line_is_a_sentence() -> None:
    wrong = []
    for path, each in public_objects().items():
        docstring = docstring_of(each)
        first = docstring.value.partition("\n\n")[0] if docstring else "."
        if not first.rstrip().endswith((".", ":")):
            wrong.append(path)
    assert wrong == []


def arguments_of(each: griffe.Object) -> list[str]:
    """The arguments that a caller passes. Fields of dataclasses and exceptions have docstrings of their own."""
    if isinstance(each, griffe.Class):
        init = each.members.get("__init__")
        is_data = "dataclass" in each.labels or any(base.name.endswith("Error") for base in each.mro())
        return [] if init is None or is_data or each.name.endswith("Error") else arguments_of(init)  # type: ignore[arg-type]
    if not isinstance(each, griffe.Function) or any("fixture" in str(d.value) for d in each.decorators):
        return []
    prefix = {griffe.ParameterKind.var_positional: "*", griffe.ParameterKind.var_keyword: "**"}
    return [
        prefix.get(parameter.kind, "") + parameter.name
        for parameter in each.parameters
        if parameter.name not in ("self", "cls")
    ]


def described_in(each: griffe.Object) -> list[str]:
    """The arguments that a docstring describes: in ``Args:``; without that, those that its text names; or those of
    the method that it refers to."""
    described = [
        parameter.name
        for section in sections(each, griffe.DocstringSectionKind.parameters)
        for parameter in section.value
    ]
    docstring = docstring_of(each)
    if described or docstring is None:
        return described
    expected = arguments_of(each)
    if all(f"``{name}" in docstring.value for name in expected):
        return expected
    for role in docstrings.ROLE.finditer(docstring.value):
        path = docstrings.find(each, role["name"])
        other = path and package().modules_collection[path]
        if (
            other
            and other.is_function
            and arguments_of(other.final_target if other.is_alias else other) == expected
        ):
            return expected
    return []


def test_every_argument_is_described() -> None:
    wrong = [
        f"{path}: described {described_in(each)}, expected {arguments_of(each)}"
        for path, each in public_objects().items()
        if path not in MADE_BY_THE_PACKAGE and described_in(each) != arguments_of(each)
    ]
    assert wrong == []


def test_what_is_raised_exists() -> None:
    wrong = []
    for path, each in public_objects().items():
        for section in sections(each, griffe.DocstringSectionKind.raises):
            for raised in section.value:
                name = str(raised.annotation)
                if docstrings.find(each, name) is None and not docstrings.is_of_others(name):
                    wrong.append(f"{path}: {name}")
    assert wrong == []


def test_references_lead_somewhere() -> None:
    """In all docstrings, those of private objects included, which no page shows."""
    wrong = []
    for each in docstrings.objects_of(package()):
        for role in docstrings.ROLE.finditer(each.docstring.value if each.docstring else ""):
            name = role["name"]
            if docstrings.find(each, name) is None and not docstrings.is_of_others(name):
                wrong.append(f"{each.path}: {role[0]}")
    assert wrong == []
