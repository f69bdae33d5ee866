"""What ``reverb`` exports, though it imports nothing until it is asked for."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest

import reverb
from reverb.server import ReverbServer


def test_everything_exported_is_there() -> None:
    assert reverb.__version__ == metadata.version("python-reverb")
    for name in reverb.__all__:
        assert hasattr(reverb, name)
        assert name in dir(reverb)


def test_what_is_not_exported_is_not_there() -> None:
    with pytest.raises(AttributeError, match="module 'reverb' has no attribute 'nothing'"):
        reverb.nothing  # type: ignore[attr-defined]  # noqa: B018


def test_importing_it_imports_nothing() -> None:
    code = "import sys, reverb; print(sorted(name for name in sys.modules if name.startswith('reverb')))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert run.stdout == "['reverb']\n"


def test_the_client_does_without_what_others_need(reverb_server: ReverbServer) -> None:
    """Each takes time and memory, which a small machine has little of."""
    code = (
        "import asyncio, sys\n"
        "from reverb import ReverbClient\n"
        "async def main():\n"
        "    async with ReverbClient() as client:\n"
        "        (await client.subscribe('private-news')).bind('published', print)\n"
        "asyncio.run(main())\n"
        "print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    imported = set(run.stdout.split())
    assert {"reverb", "picows"} <= imported
    assert imported.isdisjoint({"aiohttp", "dotenv", "email", "json", "pydantic", "pytest", "rich", "typer"})


def test_publishing_without_asyncio_does_without_it(tmp_path: Path) -> None:
    """What is imported costs each process of a server that forks for every request, and each script."""
    code = (
        "import sys\n"
        "from reverb import BatchEvent, ConnectionError, SyncReverbAPI\n"
        "api = SyncReverbAPI(host='127.0.0.1', port=1, scheme='ws', app_id='1', app_key='k', app_secret='s')\n"
        "try:\n"
        "    api.trigger('news', 'e', {})\n"
        "except ConnectionError:\n"
        "    pass\n"
        "print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True
    )
    imported = set(run.stdout.split())
    assert {"reverb", "msgspec"} <= imported
    assert imported.isdisjoint({"aiohttp", "asyncio", "email", "http", "json", "picows", "urllib3"})


def test_everything_public_has_a_docstring() -> None:
    """All names in the ``__all__`` of a public module, and their members: the reference shows them."""
    modules = [path for path in PACKAGE.rglob("*.py") if is_public(path)]
    assert len(modules) > 10
    assert {f"{path.name}: {name}" for path in modules for name in undocumented_in(path)} == set()


PACKAGE = Path(reverb.__file__).parent


def is_public(path: Path) -> bool:
    """Whether programs may import this module, but for commands, which have a help, and parts of the relay."""
    parts = path.relative_to(PACKAGE).parts
    return parts[0] not in ("cli", "relay") and not any(
        part.startswith("_") for part in parts if part != "__init__.py"
    )


def undocumented_in(path: Path) -> Iterator[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    exported = next(
        (node.value for node in tree.body if isinstance(node, ast.Assign) and is_of(node, "__all__")), None
    )
    for name in [] if exported is None else ast.literal_eval(exported):
        if not name.startswith("__"):
            yield from undocumented([definition_of(name, path)])


def definition_of(name: str, path: Path) -> tuple[ast.stmt, ast.stmt | None]:
    """The statement that defines a name, in this module or in that from which it is imported, and the next one."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for pair in zip(tree.body, [*tree.body[1:], None], strict=True):
        if is_of(pair[0], name):
            return pair
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level == 1 and name in [each.name for each in node.names]:
            return definition_of(name, path.parent / f"{node.module}.py")
    raise AssertionError(f"{path} does not define {name}")


def undocumented(statements: list[tuple[ast.stmt, ast.stmt | None]], prefix: str = "") -> Iterator[str]:
    """``statements`` are definitions, each with the statement after it, which may be its docstring."""
    for node, after in statements:
        name = next((each for each in names_in(node) if not each.startswith("_")), None)
        if name is None or is_overload(node):
            continue
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            is_documented = ast.get_docstring(node) is not None
        else:
            is_documented = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
        if not is_documented:
            yield prefix + name
        if isinstance(node, ast.ClassDef) and not is_typed_dict(node):
            yield from undocumented(list(zip(node.body, [*node.body[1:], None], strict=True)), f"{prefix}{name}.")


def names_in(node: ast.AST) -> list[str]:
    """The names that a statement defines."""
    if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        return [node.name]
    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
    return [each.id for each in targets if isinstance(each, ast.Name)]


def is_of(node: ast.AST, name: str) -> bool:
    return name in names_in(node)


def is_typed_dict(node: ast.ClassDef) -> bool:
    """Its keys are settings, which :class:`reverb.ReverbConfig` documents."""
    return any(each.arg == "total" for each in node.keywords)


def is_overload(node: ast.stmt) -> bool:
    decorators = getattr(node, "decorator_list", [])
    return any(ast.unparse(each) == "overload" or ast.unparse(each).endswith(".setter") for each in decorators)
