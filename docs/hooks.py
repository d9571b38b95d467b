"""Pages of the documentation that are made of the code: options, operators, targets, Python.

mkdocs calls on_files and on_page_markdown (mkdocs.yml names this file under `hooks`).
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

import click  # noqa: E402
from mkdocs.structure.files import File, Files  # noqa: E402

import mdlc.compiler.ops  # noqa: E402, F401
from mdlc.cli import cli  # noqa: E402
from mdlc.codegen.isa.base import Isa  # noqa: E402
from mdlc.codegen.isa.registry import cores_of  # noqa: E402
from mdlc.codegen.kernel import candidates  # noqa: E402
from mdlc.codegen.target import SETS, Target, targets  # noqa: E402
from mdlc.compiler.errors import MdlcError  # noqa: E402
from mdlc.compiler.ir import Graph, make  # noqa: E402
from mdlc.compiler.op import Op, Sample  # noqa: E402
from mdlc.compiler.ops.constant import constant  # noqa: E402
from mdlc.compiler.ops.input import graph_input  # noqa: E402
from mdlc.compiler.types import DType  # noqa: E402
from mdlc.pipeline import optimise  # noqa: E402

SAMPLES = 3
# The package as it is installed: mkdocs.yml names this folder to the reader of docstrings.
PACKAGE = ROOT / "build" / "docs" / "mdlc"


def _lay_out_package() -> None:
    """In a checkout the folders of the package lie beside each other."""
    PACKAGE.mkdir(parents=True, exist_ok=True)
    folders = ("codegen", "compiler", "passes", "quantization")
    for source in (*(ROOT / "mdlc").iterdir(), *(ROOT / name for name in folders)):
        link = PACKAGE / source.name
        if not link.exists() and source.name != "__main__.py":
            link.symlink_to(source)


_lay_out_package()
PYTHON = """# Python reference
What `import mdlc` gives, from its docstrings; [The library](../library.md) tells how to use it.

::: mdlc.api.compile
::: mdlc.api.CompiledModel
::: mdlc.options.CompileOptions
::: mdlc.precision.quantize.Quantize
::: mdlc.codegen.run.executable.Executable
::: mdlc.codegen.run.executable.Timing
::: mdlc.report.Report
::: mdlc.report.LayerReport
::: mdlc.compiler.errors.MdlcError
"""


def on_files(files: Files, config: Any) -> Files:
    """Adds the pages."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    pages = {
        "index.md": _outside(readme.replace("](docs/", "](").replace("CHANGELOG.md", "changes.md")),
        "changes.md": changes.replace("](docs/", "]("),
        "reference/options.md": options_page(),
        "reference/operators.md": operators_page(),
        "reference/targets.md": targets_page(),
        "reference/python.md": PYTHON,
    }
    for path, text in pages.items():
        files.append(File.generated(config, path, content=text))
    return files


def _outside(text: str) -> str:
    """A page of the repository's root without the links to others there."""
    return re.sub(r"\[([^\]]*)\]\([A-Z][A-Z_]*\.md[^)]*\)", r"\1", text)


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Links out of the documentation name the file instead: the site has no sources."""
    return re.sub(r"\[([^\]]*)\]\(\.\./(?!library|reference)[^)]*\)", r"`\1`", markdown)


def options_page() -> str:
    """Every command with all of its options, from click."""
    lines = ["# Options", "Every command and option, as `mdlc COMMAND --help-all` has them.", ""]
    for name, command in sorted(cli.commands.items()):
        help_ = (command.help or "").split("\n\n")
        lines += [f"## {name}", "", " ".join(help_[0].split()), ""]
        lines += ["| option | |", "|---|---|"]
        lines += [f"| {flags} | {text} |" for flags, text in _options(command)]
        lines.append("")
    return "\n".join(lines)


def _options(command: click.Command) -> Iterator[tuple[str, str]]:
    context = click.Context(command)
    for parameter in command.params:
        record = parameter.get_help_record(context)
        if isinstance(parameter, click.Option) and record is not None:
            flags, text = (part.replace("|", "\\|") for part in record)
            yield f"`{flags}`".replace("\\|", " or "), " ".join(text.split())


@cache
def operator_rows() -> list[tuple[str, tuple[str, ...], dict[str, str]]]:
    """Operators of mdlc: class, names in ONNX, and by target yes, partly or no.

    Every operator's own samples are asked: they go through the passes, and every node that is left
    must have a kernel.
    """
    found = []
    for name, cls in sorted(Op.registry.items()):
        samples = list(cls.samples())[:SAMPLES]
        if not cls.onnx or not samples:
            continue
        graphs = [graph for graph in map(_graph, samples) if graph is not None]
        row = {t.name: _known([_computed(graph, t) for graph in graphs]) for t in _targets()}
        found.append((name, tuple(cls.onnx), row))
    return found


def _targets() -> list[Target]:
    return list(targets().values())


def _known(found: list[bool]) -> str:
    return "yes" if found and all(found) else "partly" if any(found) else "no"


def _graph(sample: Sample) -> Graph | None:
    """A network of the one operator, after the passes."""
    sources = []
    for index, value in enumerate(sample.inputs):
        fixed = index in sample.constant
        dtype = DType.from_numpy(value.dtype)
        made = constant(value) if fixed else graph_input(f"x{index}", value.shape, dtype)
        sources.append(made)
    node = make(sample.op, *sources, name="y")
    given = tuple(source for source in sources if source.constant is None)
    try:
        return optimise(Graph(given, (node,), ("y",), "sample"))
    except MdlcError:
        return None


def _computed(graph: Graph, target: Target) -> bool:
    try:
        for node in graph.order():
            if node.inputs and node.constant is None:
                candidates(node, target.backend)
    except MdlcError:
        return False
    return True


def operators_page() -> str:
    """The table of operators and targets."""
    names = [target.name for target in _targets()]
    lines = [
        "# Operators",
        "Which operators have kernels on which targets. The table is made of the code: every "
        "operator's own samples go through the passes, and what is left must have a kernel. "
        "*partly*: with some element types, shapes or attributes; `mdlc doctor MODEL` says which "
        "nodes of a model are in the way. Operators of ONNX that are functions of these are taken "
        "apart by the importer and need no row.",
        "",
        f"| operator | in ONNX | {' | '.join(names)} |",
        f"|---|---|{'---|' * len(names)}",
    ]
    for name, onnx, row in operator_rows():
        shown = [{"yes": "yes", "partly": "*partly*", "no": ""}[row[target]] for target in names]
        lines.append(f"| {name} | {', '.join(onnx)} | {' | '.join(shown)} |")
    return "\n".join(lines) + "\n"


def targets_page() -> str:
    """Targets, sets of them, and their cores."""
    lines = ["# Targets", "", "| target | |", "|---|---|"]
    lines += [f"| `{t.name}` | {t.backend.description} |" for t in _targets()]
    lines += ["", "Sets, for one class that takes the fastest that the device has:", ""]
    lines += [f"- `{name}`: {', '.join(listed)}" for name, listed in SETS.items()]
    for target in _targets():
        if not isinstance(target.backend, Isa) or target.backend.tuned_as:
            continue
        lines += ["", f"## Cores of {target.name}", ""]
        lines += ["| core | L1 | L2 | source |", "|---|---|---|---|"]
        for core in cores_of(target.backend).values():
            caches = f"{core.l1_bytes >> 10} KiB | {core.l2_bytes >> 10} KiB"
            lines.append(f"| `{core.name}` | {caches} | {core.source} |")
    return "\n".join(lines) + "\n"
