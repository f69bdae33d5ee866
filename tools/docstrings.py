"""Links in docstrings: turns roles, such as ``:class:`ReverbClient```, into links of the site.

A Griffe extension, which ``zensical.toml`` names. A name that Python doesn't find, or that is on no page of the
reference, leads nowhere, and the strict build fails and says where.
"""

from __future__ import annotations

import pkgutil
import re
import textwrap
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from typing import Any

import griffe

ROLE = re.compile(r":(?:class|meth|attr|func|exc|mod|data):`(?P<short>~?)(?P<name>[\w.]+)`")
_LITERAL = re.compile(r"(?P<before>^|\S)::\n\n(?P<code>(?: {4}.*\n|\n)* {4}.*)", re.M)
_OBVIOUS = {"class-attribute", "instance-attribute", "module-attribute"}


class Docstrings(griffe.Extension):
    """Make Markdown of all docstrings of a package, and let methods inherit them."""

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        for each in objects_of(pkg):
            each.labels -= _OBVIOUS
            if each.docstring:
                text = _LITERAL.sub(fence, each.docstring.value)
                each.docstring.value = ROLE.sub(partial(link, each), text)
        for each in list(objects_of(pkg)):
            if isinstance(each, griffe.Class) and not is_made_by_programs(each):
                each.members.pop("__init__", None)
            if not each.docstring and each.parent is not None and each.parent.is_class:
                each.docstring = inherited_docstring(each)


def objects_of(parent: griffe.Object) -> Iterator[griffe.Object]:
    """Yield an object and all that is defined in it."""
    yield parent
    for member in parent.members.values():
        if isinstance(member, griffe.Object):
            yield from objects_of(member)


def is_made_by_programs(class_: griffe.Class) -> bool:
    """Whether programs call a class: then its docstring describes the arguments, or it is a dataclass."""
    return "dataclass" in class_.labels or (class_.docstring is not None and "\nArgs:\n" in class_.docstring.value)


def fence(literal: re.Match[str]) -> str:
    """Write a literal block, the lines after ``::``, as a block of Python."""
    before = f"{literal['before']}:" if literal["before"] else ""
    return f"{before}\n\n```python\n{textwrap.dedent(literal['code'])}\n```"


def inherited_docstring(member: griffe.Object) -> griffe.Docstring | None:
    """Return the docstring that Python's :func:`inspect.getdoc` finds for a member that has none."""
    assert isinstance(member.parent, griffe.Class)
    for base in member.parent.mro():
        inherited = base.members.get(member.name)
        if inherited is not None and inherited.docstring:
            return inherited.docstring
    return None


def link(place: griffe.Object, role: re.Match[str]) -> str:
    """Write a reference to what the docstring of ``place`` names in a role."""
    name = role["name"]
    shown = name.rpartition(".")[2] if role["short"] else name
    target = find(place, name)
    if target is None and is_of_others(name):
        return f"`{shown}`"
    return f"[`{shown}`][{target or name}]"


def find(place: griffe.Object, name: str) -> str | None:
    """Return the path of what a docstring calls ``name``, as the reference has it; None if there is no such thing.

    Names are looked for as Python does, from the docstring's own object outwards, then among the names that
    ``reverb`` exports, then as whole paths.
    """
    for path in candidates(place, name):
        with suppress(KeyError, griffe.AliasResolutionError, griffe.CyclicAliasError):
            return public_path(place.package, place.modules_collection[path])
    return None


def candidates(place: griffe.Object, name: str) -> Iterator[str]:
    scope: griffe.Object | None = place
    while scope is not None:
        if name.partition(".")[0] in scope.all_members:
            yield f"{scope.path}.{name}"
        scope = scope.parent if not scope.is_module else None
    yield f"{place.package.path}.{name}"
    yield name


def public_path(package: griffe.Module, found: griffe.Object | griffe.Alias) -> str:
    """Return ``reverb.Channel.bind`` for ``reverb.channel.Channel.bind``, as that is what a page shows."""
    if found.parent is not None and found.parent.is_class:
        return f"{public_path(package, found.parent)}.{found.name}"
    final = found.final_target if isinstance(found, griffe.Alias) else found
    exported = package.members.get(final.name)
    if exported is not None and isinstance(exported, griffe.Alias) and exported.final_target is final:
        return exported.path
    return final.path


def is_of_others(name: str) -> bool:
    """Whether a name is one of Python's or of another package, which this site has no page for."""
    for each in (name, f"builtins.{name}"):
        with suppress(ImportError, AttributeError):
            pkgutil.resolve_name(each)
            return not name.startswith("reverb.")
    return False
