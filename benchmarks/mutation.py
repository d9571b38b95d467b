"""Does the suite notice a compiler that is a little wrong? Mutants of passes, tiles and lowering.

    python -m benchmarks.mutation --count 100 passes
    python -m benchmarks.mutation --count 30 --seed 1 codegen/tiles/gemm.py codegen/plan

A mutant has one sign, offset, bound, comparison or connective changed; its tests are the fast ones
of TESTS, run in a copy of the repository until one fails. Prints the survivors with their lines,
and the share that was caught.
"""

from __future__ import annotations

import argparse
import ast
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
# Tests by the beginning of a file's path; {stem} is the file's name. Those that are there are run.
RANDOM = "tests/passes/test_random_graphs.py::test_all_passes_one_after_the_other"
TESTS: dict[str, tuple[str, ...]] = {
    "passes/": (
        "tests/passes/test_{stem}.py", "tests/passes/test_cleanup.py",
        *(f"{RANDOM}[{seed}]" for seed in range(100, 106)),
    ),
    "codegen/tiles/": ("tests/test_golden.py", "tests/test_{stem}.py", "tests/test_schedules.py"),
    "codegen/gemm/": ("tests/test_golden.py", "tests/test_{stem}.py", "tests/test_schedules.py"),
    "codegen/plan/": (
        "tests/test_memory.py", "tests/test_golden.py", "tests/test_layer_names.py",
        "tests/test_row_fusion.py", "tests/test_{stem}.py",
    ),
}  # fmt: skip
MOST_SECONDS = 240
SWAPS: dict[type[ast.AST], str] = {
    ast.Add: "-", ast.Sub: "+", ast.Mult: "+", ast.FloorDiv: "*", ast.Mod: "+",
    ast.Lt: "<=", ast.LtE: "<", ast.Gt: ">=", ast.GtE: ">", ast.Eq: "!=", ast.NotEq: "==",
    ast.And: "or", ast.Or: "and",
}  # fmt: skip
WORDS: dict[type[ast.AST], str] = {
    ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.FloorDiv: "//", ast.Mod: "%", ast.Lt: "<",
    ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=", ast.Eq: "==", ast.NotEq: "!=", ast.And: "and",
    ast.Or: "or",
}  # fmt: skip


@dataclass(frozen=True)
class Mutant:
    """One change of a file: characters [start, end) become `text`."""

    path: str
    line: int
    start: int
    end: int
    text: str
    kind: str


def mutants(path: str) -> list[Mutant]:
    """All mutants of a file."""
    source = (ROOT / path).read_text()
    starts = [0]
    for line in source.splitlines(keepends=True):
        starts.append(starts[-1] + len(line.encode()))
    data = source.encode()

    def at(line: int, column: int) -> int:
        return starts[line - 1] + column

    def between(left: ast.expr, right: ast.expr, words: tuple[str, ...]) -> tuple[int, int] | None:
        """Where an operator stands between two expressions."""
        begin = at(left.end_lineno or 0, left.end_col_offset or 0)
        gap = data[begin : at(right.lineno, right.col_offset)].decode()
        for word in words:
            if word in gap:
                found = begin + gap.index(word)
                return found, found + len(word)
        return None

    def found(tree: ast.AST) -> Iterator[Mutant]:
        skipped = {
            id(inner)
            for node in ast.walk(tree)
            if isinstance(node, ast.arg | ast.AnnAssign | ast.FunctionDef | ast.JoinedStr)
            for part in (
                [node.annotation] if isinstance(node, ast.arg | ast.AnnAssign)
                else [node.returns] if isinstance(node, ast.FunctionDef) else [node]
            )
            if part is not None
            for inner in ast.walk(part)
        }  # fmt: skip
        for node in ast.walk(tree):
            if id(node) in skipped:
                continue
            pairs: list[tuple[ast.expr, ast.AST, ast.expr]] = []
            if isinstance(node, ast.BinOp):
                pairs = [(node.left, node.op, node.right)]
            elif isinstance(node, ast.Compare):
                pairs = [(node.left, node.ops[0], node.comparators[0])]
            elif isinstance(node, ast.BoolOp):
                pairs = [(node.values[0], node.op, node.values[1])]
            for left, op, right in pairs:
                if type(op) not in SWAPS:
                    continue
                word = WORDS[type(op)]
                place = between(left, right, (word,))
                if place and not (isinstance(left, ast.Constant) and isinstance(left.value, str)):
                    yield Mutant(path, left.lineno, *place, SWAPS[type(op)], type(op).__name__)
            if isinstance(node, ast.Constant) and type(node.value) is int:
                place = at(node.lineno, node.col_offset), at(node.lineno, node.end_col_offset or 0)
                yield Mutant(path, node.lineno, *place, str(node.value + 1), "offset")
            if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.Not):
                start = at(node.lineno, node.col_offset)
                word = "not " if isinstance(node.op, ast.Not) else "-"
                yield Mutant(path, node.lineno, start, start + len(word), "", "sign")
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Name)
                and node.func.id in ("min", "max", "any", "all")
            ):
                other = {"min": "max", "max": "min", "any": "all", "all": "any"}[node.func.id]
                start = at(node.func.lineno, node.func.col_offset)
                yield Mutant(path, node.lineno, start, start + 3, other, "bound")

    return list(found(ast.parse(source)))


def tests_of(path: str) -> list[str]:
    """The test files of a file that there are."""
    listed = next(tests for start, tests in TESTS.items() if path.startswith(start))
    names = [each.format(stem=Path(path).stem) for each in listed]
    return [name for name in dict.fromkeys(names) if (ROOT / name.partition("::")[0]).exists()]


def failing(tests: list[str], copy: Path, seconds: float = MOST_SECONDS) -> str:
    """The first test that fails in the copy, "time" if they do not end, or ""."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests]
    try:
        done = subprocess.run(
            command, cwd=copy, capture_output=True, text=True, timeout=seconds, check=False
        )
    except subprocess.TimeoutExpired:
        return "time"
    if not done.returncode:
        return ""
    failed = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    return failed[0].split(" - ")[0] if failed else "error"


def caught(mutant: Mutant, copy: Path) -> str:
    """What `failing` says of a mutant; "no Python" of one that is none."""
    original = (ROOT / mutant.path).read_bytes()
    changed = original[: mutant.start] + mutant.text.encode() + original[mutant.end :]
    try:
        compile(changed, mutant.path, "exec")
    except SyntaxError:
        return "no Python"
    (copy / mutant.path).write_bytes(changed)
    try:
        return failing(tests_of(mutant.path), copy)
    finally:
        (copy / mutant.path).write_bytes(original)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("paths", nargs="+", help="files or folders of the compiler")
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    files = sorted(
        str(path.relative_to(ROOT))
        for name in given.paths
        for path in ([ROOT / name] if name.endswith(".py") else (ROOT / name).rglob("*.py"))
        if path.name != "__init__.py"
    )
    every = [each for path in files for each in mutants(path)]
    chosen = np.random.default_rng(given.seed).permutation(len(every))[: given.count]
    outcome: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch) / "mdlc"
        skip = shutil.ignore_patterns(".git", ".venv", "__pycache__", "*.compress")
        shutil.copytree(ROOT, copy, ignore=skip)
        tests = sorted({test for number in chosen for test in tests_of(every[number].path)})
        if by := failing(tests, copy, 4 * MOST_SECONDS):
            sys.exit(f"without a mutant: {by}")
        for number in sorted(chosen):
            mutant = every[number]
            start = time.perf_counter()
            by = caught(mutant, copy)
            if by == "no Python":
                continue
            outcome["caught" if by else "survived"] += 1
            where = f"{mutant.path}:{mutant.line} {mutant.kind}"
            if by:
                print(f"caught: {where} by {by} ({time.perf_counter() - start:.0f} s)")
            else:
                line = (ROOT / mutant.path).read_text().splitlines()[mutant.line - 1].strip()
                print(f"survived: {where} -> {mutant.text!r}: {line}")
            sys.stdout.flush()
    total = sum(outcome.values())
    print(f"{outcome['caught']} of {total} caught, of {len(every)} mutants in {len(files)} files")


if __name__ == "__main__":
    main()
