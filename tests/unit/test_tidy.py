"""The shape of the code itself: who imports whom, how long functions are, what may not appear."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from common.config import Settings

ROOT = Path(__file__).parents[2]
OURS = ("common", "daemons", "gateway", "exchange", "exchange_client", "tests", "bench")
CLIENT = "clients/python"
MOST_LINES = 70

# What may be imported from where, longest prefix first; a package may always import itself.
INWARD = {
    "common.core": (),
    "common": ("common", "exchange"),
    "daemons.order_service": ("common", "exchange"),
    "daemons.matching": ("common", "exchange"),
    "daemons.market_data": ("common", "exchange"),
    "daemons.local": ("common", "exchange"),
    "gateway": ("common", "exchange"),
}
# Pure means: nothing but the standard library's values, the sorted containers, and what mypyc compiles well.
PURE_FROM_OUTSIDE = {"sortedcontainers", "mypy_extensions", "librt"}
PURE_NEVER = {"asyncio", "socket", "time", "random", "threading", "os", "subprocess"}


def sources(*folders: str) -> Iterator[Path]:
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*.py")):
            if "_pb2" not in path.name:
                yield path


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{name.name}" for name in node.names)


def package_of(path: Path) -> str:
    module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    return next((package for package in INWARD if module == package or module.startswith(package + ".")), "")


def within(module: str, packages: tuple[str, ...]) -> bool:
    return any(module == package or module.startswith(package + ".") for package in packages)


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", [*sources("common", "daemons", "gateway")], ids=named)
def test_imports_point_inward(path: Path) -> None:
    package = package_of(path)
    if not package:
        assert path.name == "__init__.py"
        return
    for module in imports(path):
        if module.split(".")[0] in OURS:
            assert within(module, (package, *INWARD[package])), f"{package} imports {module}"


@pytest.mark.parametrize("path", [*sources(CLIENT)], ids=named)
def test_the_client_depends_on_nothing_of_the_exchange(path: Path) -> None:
    for module in imports(path):
        assert module.split(".")[0] not in {*OURS} - {"exchange_client"}


@pytest.mark.parametrize("path", [*sources("common/core")], ids=named)
def test_the_core_is_pure(path: Path) -> None:
    for module in imports(path):
        top = module.split(".")[0]
        assert top not in PURE_NEVER
        assert top == "common" or top in PURE_FROM_OUTSIDE or top in stdlib()


def stdlib() -> frozenset[str]:
    import sys

    return sys.stdlib_module_names


@pytest.mark.parametrize("path", [*sources(*OURS[:3], CLIENT, "tests", "bench")], ids=named)
def test_functions_fit_on_a_screen(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno:
            assert node.end_lineno - node.lineno < MOST_LINES, f"{node.name} is too long"


@pytest.mark.parametrize("path", [*sources("common", "daemons", "gateway", CLIENT, "bench")], ids=named)
def test_every_task_belongs_to_a_group(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            assert node.func.attr not in ("create_task", "ensure_future", "get_event_loop", "run_forever")


@pytest.mark.parametrize("path", [*sources("common", "daemons", "gateway")], ids=named)
def test_only_the_start_reads_the_environment(path: Path) -> None:
    roots = ("__main__.py", "daemons/local/", "common/config.py", "common/supervise.py")
    text = path.read_text()
    if not any(root in named(path) for root in roots):
        assert not re.search(r"\bos\.environ|\bgetenv\(|\bload_settings\(", text)


@pytest.mark.parametrize("path", [*sources("common", "daemons", "gateway", CLIENT)], ids=named)
def test_modules_say_what_they_are(path: Path) -> None:
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree) or not tree.body


def test_the_generated_code_is_not_older_than_its_protos() -> None:
    for proto in (ROOT / "proto/exchange/v1").glob("*.proto"):
        generated = proto.with_name(f"{proto.stem}_pb2.py")
        assert generated.stat().st_mtime >= proto.stat().st_mtime, f"run `make setup`: {proto.name} is newer"


def test_the_readme_lists_every_setting_with_its_default() -> None:
    readme = (ROOT / "README.md").read_text()
    for name, field in Settings.model_fields.items():
        row = next((line for line in readme.splitlines() if f"`EXCHANGE_{name.upper()}`" in line), "")
        assert row, f"EXCHANGE_{name.upper()} is not in the README"
        assert f"| `{field.default}` |" in row or (field.default == "" and "|  |" in row), row
        assert str(field.description) in row


def test_the_promises_of_security_name_tests_that_exist() -> None:
    """`tests/FILE.py::NAME`, or `::NAME` of the file that was named last. Two name a tool instead."""
    promised = (ROOT / "SECURITY.md").read_text().split("## What is promised")[1].split("\n## ")[0]
    path = ROOT
    for promise in promised.split("\n- ")[1:]:
        names = re.findall(r"`(tests/[\w/]+\.py)?::(\w+)`", promise)
        assert names or "`make lint`" in promise or "`requirements.lock`" in promise, promise
        for file, name in names:
            path = ROOT / file if file else path
            assert f"def {name}(" in path.read_text(), f"{path.name} has no {name}"
