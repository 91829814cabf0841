"""The house rules that a machine can hold: who may import whom, and how long a page may be."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("engine", "scheduler", "model_executor", "server", "benchmarks")
MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60

PLAIN_ENGINE = {
    "stretto.engine.errors",
    "stretto.engine.request",
    "stretto.engine.output",
    "stretto.engine.interface",
}
PLAIN_SCHEDULER = {"stretto.scheduler.interfaces"}


def sources() -> list[Path]:
    files = [path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))]
    return [*files, ROOT / "__init__.py", ROOT / "__main__.py"]


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(("stretto", *(part for part in parts if part != "__init__")))


def imports(path: Path) -> Iterator[str]:
    """Absolute names of everything a file imports, however deep in a function."""
    package = module_name(path).split(".")
    if path.name != "__init__.py":
        package = package[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            stem = ".".join([*base, *([node.module] if node.module else [])])
            yield stem
            yield from (f"{stem}.{alias.name}" for alias in node.names)


def stretto_imports(room: str) -> list[tuple[str, str]]:
    found = []
    for path in sorted((ROOT / room).rglob("*.py")):
        found += [
            (module_name(path), name) for name in imports(path) if name.startswith("stretto.")
        ]
    return found


def within(name: str, modules: set[str]) -> bool:
    return any(name == module or name.startswith(module + ".") for module in modules)


def test_scheduler_knows_no_torch_and_no_model() -> None:
    for path in sorted((ROOT / "scheduler").rglob("*.py")):
        for name in imports(path):
            top = name.split(".")[0]
            assert top not in {"torch", "numpy", "time", "asyncio"}, f"{path} imports {name}"
    for module, name in stretto_imports("scheduler"):
        allowed = within(name, {"stretto.scheduler", "stretto.engine.errors"}) or name in {
            "stretto.engine"
        }
        assert allowed, f"{module} imports {name}"


def test_model_executor_takes_only_plain_types_from_above() -> None:
    for module, name in stretto_imports("model_executor"):
        room = name.split(".")[1] if "." in name else ""
        if room == "engine":
            assert name == "stretto.engine" or within(name, PLAIN_ENGINE), f"{module}: {name}"
        elif room == "scheduler":
            assert name == "stretto.scheduler" or within(name, PLAIN_SCHEDULER), f"{module}: {name}"
        else:
            assert room == "model_executor", f"{module} imports {name}"


def test_engine_does_not_know_the_server() -> None:
    for module, name in stretto_imports("engine"):
        assert not within(name, {"stretto.server", "stretto.benchmarks"}), f"{module}: {name}"


def test_server_reaches_only_the_engine() -> None:
    for module, name in stretto_imports("server"):
        room = name.split(".")[1]
        assert room in {"server", "engine"}, f"{module} imports {name}"


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(ROOT)))
def test_a_person_can_read_it(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.count("\n") <= MAX_FILE_LINES
    tree = ast.parse(text)
    assert ast.get_docstring(tree), "a module says why it exists"
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            assert (node.end_lineno or 0) - node.lineno < MAX_FUNCTION_LINES, node.name


def test_only_runners_wait_for_the_device() -> None:
    """`.item()`, `.cpu()`, `.cuda()` and synchronize stall a CUDA stream where nobody sees it."""
    waits = {"item", "cpu", "cuda", "synchronize"}
    allowed = ROOT / "model_executor"
    for path in sources():
        if allowed in path.parents or "benchmarks" in path.parts:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                assert node.func.attr not in waits, f"{path}:{node.lineno} .{node.func.attr}()"


def test_the_root_holds_two_modules() -> None:
    assert sorted(path.name for path in ROOT.glob("*.py")) == ["__init__.py", "__main__.py"]
