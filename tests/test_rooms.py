"""The structure: rooms whose imports point downwards only, and no circles among files."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import networkx as nx
import pytest

ROOT = Path(__file__).parent.parent
# From the ground up; a file may import from its own room and from those below it.
ROOMS = (
    "compiler",
    "passes",
    "quantization",
    "codegen.code",
    "codegen.templates",
    "codegen.threads",
    "codegen.frame",
    "codegen.isa",
    "codegen.kernel",
    "codegen.tiles",
    "codegen.gemm",
    "codegen.kernels",
    "codegen.weights",
    "codegen.answer",
    "codegen.plan",
    "codegen.cpp",
    "codegen.run",
    "codegen.metal",
    "codegen.target",
    "mdlc",
    "training",
)
FOLDERS = ("compiler", "passes", "quantization", "codegen", "training", "mdlc")


def _module(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
    return name if parts[0] == "mdlc" else f"mdlc.{name}"


def _imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("mdlc"):
            yield node.module
            yield from (f"{node.module}.{name.name}" for name in node.names)


def _graph() -> nx.DiGraph:
    files = {_module(path): path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")}
    graph = nx.DiGraph()
    graph.add_nodes_from(files)
    for module, path in files.items():
        graph.add_edges_from((module, name) for name in _imports(path) if name in files)
    return graph


def _room(module: str) -> int:
    name = module.removeprefix("mdlc.")
    found = [i for i, room in enumerate(ROOMS) if name == room or name.startswith(f"{room}.")]
    return found[0] if found else ROOMS.index("mdlc")


def test_imports_point_downwards() -> None:
    graph = _graph()
    package = "mdlc.codegen", "mdlc"
    upwards = [
        f"{one} -> {two}"
        for one, two in graph.edges
        if one not in package and two not in package and _room(one) < _room(two)
    ]
    assert not upwards


@pytest.mark.parametrize("folder", ["codegen", "passes", "quantization"])
def test_no_circles(folder: str) -> None:
    graph = _graph()
    inside = [module for module in graph if module.startswith(f"mdlc.{folder}")]
    circles = nx.strongly_connected_components(graph.subgraph(inside))
    assert [sorted(circle) for circle in circles if len(circle) > 1] == []


def test_a_checkout_runs_without_an_editable_install() -> None:
    # `python -m` puts the checkout first; what an editable install adds is taken away.
    program = (
        "import sys; sys.meta_path[:] = [f for f in sys.meta_path if 'ditable' not in repr(f)]; "
        "import mdlc.codegen.target, mdlc.passes.layout; print(mdlc.codegen.target.__file__)"
    )
    found = subprocess.check_output([sys.executable, "-c", program], cwd=ROOT, text=True)
    assert Path(found.strip()) == ROOT / "codegen" / "target.py"


def test_a_wheel_holds_every_package_and_template() -> None:
    tools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    folders = tools["package-dir"].values()
    packages = {
        _module(path) for folder in folders for path in (ROOT / folder).rglob("__init__.py")
    }
    assert packages - {"mdlc.runtime_templates"} == {*tools["packages"]} - {
        "mdlc.runtime_templates"
    }
    templates = ROOT / "runtime_templates"
    shipped = {
        path
        for pattern in tools["package-data"]["mdlc.runtime_templates"]
        for path in templates.glob(pattern)
    }
    files = {p for p in templates.rglob("*") if p.is_file() and p.suffix not in (".py", ".pyc")}
    assert files == shipped


INTRINSIC = re.compile(
    r"\b_mm\d*_|\b__m\d+|\bv(ld|st|dup|get|set|cvt)\w*_[a-z{]"
    r"|\bv[a-z0-9]+q?_[suf](8|16|32|64)\b|\b(u?int|float)\d+x\d+_t\b"
)


def test_only_instruction_sets_name_intrinsics() -> None:
    """Templates and kernels ask a dialect how it spells what they mean."""
    places = [ROOT / "runtime_templates/cpp"]
    places += [ROOT / "codegen" / room for room in ("kernels", "tiles", "gemm", "plan", "cpp")]
    files = [p for place in places for p in place.rglob("*") if p.suffix in (".py", ".j2")]
    assert len(files) > 60
    found = [
        f"{path.relative_to(ROOT)}: {match.group()}"
        for path in files
        if (match := INTRINSIC.search(path.read_text()))
    ]
    assert not found


def test_nothing_asks_for_an_instruction_set_by_name() -> None:
    asked = re.compile(r"\b(isa|backend|target)\.name (==|!=|in)\b")
    files = [p for folder in ("codegen", "mdlc") for p in (ROOT / folder).rglob("*.py")]
    assert not [str(p.relative_to(ROOT)) for p in files if asked.search(p.read_text())]
