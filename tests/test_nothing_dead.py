"""Emitted text holds nothing that a reader has to skip: dead arithmetic, loops of one trip, reprs.

Every operator's samples are emitted for every target, and a network of the usual layers.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

import mdlc
from mdlc.codegen.cpp import emit
from mdlc.codegen.cpp.emit import Info
from mdlc.codegen.isa.base import Isa
from mdlc.codegen.isa.registry import isas
from mdlc.codegen.metal import emit_metal
from mdlc.codegen.target import Target, find_target, targets
from mdlc.compiler.errors import MdlcError
from mdlc.passes.canonicalise import lower_batch_norm
from mdlc.passes.layout import assign_layout
from tests.emitted_code import block_model
from tests.op_samples import sampled_ops
from tests.targets import NEWEST, OTHERS
from tests.test_kernels import narrowed, network_of

INFO = Info("model.onnx", "0" * 64, "mdlc", "0")
_NOUNS = "pixel|row|channel|value|vector|column|plane|image|byte|element|tap|layer|accumulator|unit"
DEAD = {
    "a term of 0": r"[+-] 0(?![.\w])|(?<![\w.])0 [*+] ",
    "a factor of 1": r"(?<![\w.])1 \* |\* 1(?![.\w])",
    "a quotient by 1": r"^(?!\s*//).*(?<!/)[/%] 1(?![.\w])",
    "a factor of 0": r"(?<![\w.])0 \* |\* 0(?![.\w])",
    "a negative summand": r"\+ -\d(?![\w.]*F)",
    "an assertion without a text": r'static_assert\([^;]*""\)',
    "a plural of one": rf"//.*\b1 ({_NOUNS}|multiply-add|step|sequence)s\b",
    "a repr of Python": r"\bNone\b|\bTrue\b|\bFalse\b|<\w+\.\w+: |//[^\"\[]* (?!-)\w+=[\w(]",
    "a tuple of Python": r"//[^\"]*(?<![\w>)])\(\d+(\.\d+)?, (\d+(\.\d+)?(, )?)*\)",
}
_LOOP = re.compile(
    r"for \((?:u?int|auto|std::\w+) (\w+) = (\d+); \1 < (\d+); (?:\+\+\1|\1 \+= (\d+))"
)


def findings(text: str) -> Iterator[str]:
    """What should not be there, with the line that has it."""
    for line in text.splitlines():
        for what, pattern in DEAD.items():
            if re.search(pattern, line):
                yield f"{what}: {line.strip()}"
        for _, start, end, step in _LOOP.findall(line):
            if int(end) - int(start) <= int(step or 1):
                yield f"a loop of one trip: {line.strip()}"


def _computes_floats_like_another(target: Target) -> bool:
    """Whether an instruction set before it differs in 8-bit integers only."""
    names = list(isas())
    before = names[: names.index(target.name)] if target.name in names else []
    return any(isas()[name].dialects == target.backend.dialects for name in before)


def texts(target: Target) -> Iterator[tuple[str, str]]:
    """Every operator's samples, and a network, as emitted for a target; with what it is of."""
    for cls in sampled_ops():
        if "Quantized" not in cls.__name__ and _computes_floats_like_another(target):
            continue
        graph = assign_layout(lower_batch_norm(network_of(cls)[0]))
        if isinstance(target.backend, Isa):
            graph = narrowed(graph, target.backend)
        try:
            plan = target.lower(graph, target.backend, "Samples")
        except MdlcError:
            assert not isinstance(target.backend, Isa), cls
            continue
        for name, content in target.emit(plan, INFO).items():
            yield f"{cls.__name__} {name}", content.decode(errors="ignore")
    for name, content in mdlc.compile(block_model(), target.name, name="Block").files().items():
        yield name, content.decode(errors="ignore")


@pytest.mark.parametrize("name", [name for name in targets() if name not in (*OTHERS, *NEWEST)])
def test_nothing_is_dead(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for emitter in (emit, emit_metal):  # which takes longer than all else here
        monkeypatch.setattr(emitter, "format_cpp", lambda text, **_: text)
    found, seen = [], 0
    for where, text in texts(find_target(name)):
        if where.endswith((".h", ".cpp", ".metal", ".swift")):
            seen += 1
            found += [f"{where}: {each}" for each in findings(text)]
    assert seen > 10
    assert not found, "\n".join(found[:60])


@pytest.mark.parametrize(
    "line",
    [
        "x = load(b + 0);", "y = load(x + 1 * kStep);", "y = x[0 * kStep];", "// 1 pixels wide",
        "for (int i = 0; i < 1; ++i) {", "for (int i = 4; i < 8; i += 4) {",
        'static_assert(kX == 1, "");', "// MaxPool2D, window Window(kernel=(1, 1))",
        "// sum + -128", "// axes (2, 3)", "// keepdims=True",
        "i = i0 % 1;", "i = i0 / 1 % 4;",
    ],
)  # fmt: skip
def test_dead_text_is_found(line: str) -> None:
    assert list(findings(line))


@pytest.mark.parametrize(
    "line",
    [
        "x = load(b + 10);", "y = 0.5F * x + 0.0F;", "// 11 pixels, 1 pixel", "z = x1 * kStep;",
        "for (int i = 0; i < 8; i += 4) {", "y = clip(0, 6);", 'Tensor "a=b (1, 2)"', "p[i] = 1;",
        "i = i0 / 12;", "kY,  // 1 x 3 slices",
    ],
)  # fmt: skip
def test_live_text_is_not(line: str) -> None:
    assert not list(findings(line))
