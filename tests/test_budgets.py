"""What a class takes of a device: measured, bounded, and the layer that is to blame named."""

from __future__ import annotations

import subprocess
from pathlib import Path

import onnx
import pytest

import mdlc
from mdlc.checks import budgets
from mdlc.checks.benchmark import code_bytes
from mdlc.checks.footprint import Footprint, footprint
from mdlc.cli import invoke
from mdlc.codegen.run.call_graph import ENDING, FLAG, CallGraph
from mdlc.codegen.run.toolchain import find_toolchain
from tests.emitted_code import DRIVERS, block_model, build, compile_to, require, run, sources
from tests.test_api import DIGITS

NATIVE = "x86-avx2"


@pytest.fixture(scope="module")
def block() -> mdlc.CompiledModel:
    return mdlc.compile(block_model(), "generic", name="Block")


@pytest.fixture(scope="module")
def measured(block: mdlc.CompiledModel) -> Footprint:
    require("g++")
    return footprint(block)


@pytest.mark.parametrize(
    ("budget", "used", "blame"),
    [
        ("macs", 687488, "multiply-adds, 147456 of them in layer 'blocks_2_3'"),
        ("weights", 143360, "bytes, 49664 of them in layer 'blocks_5_3'"),
        ("arena", 36864, "bytes, the most at layer 'blocks_0_3', which needs "
         "blocks_0_3 (24576) and blocks_0_0_dw (12288)"),
    ],
)  # fmt: skip
def test_budgets_of_the_plan(budget: str, used: int, blame: str) -> None:
    mdlc.compile(DIGITS, NATIVE, **{f"max_{budget}": used})
    with pytest.raises(mdlc.MdlcError) as error:
        mdlc.compile(DIGITS, NATIVE, **{f"max_{budget}": used - 1})
    assert error.value.node == f"--max-{budget}"
    assert blame in error.value.reason
    assert error.value.hint == f"{used - 1} were allowed"


def test_the_weights_budget_is_the_file() -> None:
    for options in ({}, {"weights_encoding": "int8+huffman"}):
        compiled = mdlc.compile(block_model(), "generic", name="Block", **options)
        size = len(compiled.files()["Block.weights"])
        mdlc.compile(block_model(), "generic", max_weights=size, **options)
        with pytest.raises(mdlc.MdlcError, match="--max-weights: weights take"):
            mdlc.compile(block_model(), "generic", max_weights=size - 1, **options)


def test_budgets_of_what_is_built(
    block: mdlc.CompiledModel,
    measured: Footprint,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert measured.code_bytes == code_bytes(block, find_toolchain(block.plan.isa))
    monkeypatch.setattr(budgets, "footprint", lambda compiled: measured)
    model = tmp_path / "block.onnx"
    onnx.save(block_model(), model)
    for name, used, sentence in (
        ("code", measured.code_bytes, "code takes"),
        ("stack", measured.infer_stack, "infer's stack takes"),
    ):
        assert used is not None
        out = tmp_path / name
        line = [str(model), "-t", "generic", "-o", str(out), f"--max-{name}"]
        assert invoke([*line, str(used - 1)]) == 2
        told = capsys.readouterr().err
        assert told.startswith(f"mdlc: --max-{name}: {sentence} {used} bytes, ")
        assert "layer '" in told
        assert not out.exists()
        assert invoke([*line, str(used)]) == 0


def test_metal_has_no_stack_to_bound() -> None:
    with pytest.raises(mdlc.MdlcError, match="--max-stack: the code of target metal"):
        mdlc.compile(DIGITS, "metal", max_stack=1)


def test_infer_asks_for_no_memory(measured: Footprint) -> None:
    assert measured.heap == ()
    assert set(measured.outside) <= {"memcpy", "memset", "memmove"}
    assert measured.unbounded == ()
    assert measured.deepest[0].startswith("int Block::infer(")
    assert measured.layers
    assert measured.largest[1] > 0


def test_only_gcc_says_what_calls_what(
    monkeypatch: pytest.MonkeyPatch, block: mdlc.CompiledModel
) -> None:
    monkeypatch.setenv("MDLC_CXX", require("clang++"))
    with pytest.raises(mdlc.MdlcError, match="gcc 10 or newer"):
        footprint(block)


SNIPPET = """
#include <cstdlib>
struct Net { int infer(int); int Init(); };
#define KEPT __attribute__((noinline)) int
namespace {
KEPT leaf(int x) { volatile char frame[1000]; frame[x] = 1; return frame[0]; }
KEPT again(int x) {
  volatile char frame[100];
  frame[0] = 1;
  return x ? again(x - 1) + frame[0] : leaf(x);
}
KEPT grows(int x) {
  char* p = static_cast<char*>(__builtin_alloca(x));
  p[0] = 1;
  return p[x - 1];
}
int (*volatile call)(int) = [](int x) { return again(x) + 1; };
}
int Net::infer(int x) { return call(x); }
int Net::Init() { return grows(std::rand()) + (std::malloc(7) != nullptr); }
"""


def test_call_graph(tmp_path: Path) -> None:
    source = tmp_path / "net.cpp"
    source.write_text(SNIPPET)
    output = tmp_path / "net.o"
    subprocess.run([require("g++"), "-O2", "-c", FLAG, str(source), "-o", str(output)], check=True)
    graph = CallGraph([output.with_suffix(ENDING).read_text()])
    (infer,) = graph.named(lambda f: "Net::infer" in f.text)
    depth, path = graph.deepest(infer)
    names = [each.text.partition("(")[0].split()[-1] for each in path]
    # Through the pointer, and a recursion counted once.
    assert names[0] == "Net::infer"
    assert names[-2:] == ["{anonymous}::again", "{anonymous}::leaf"]
    assert 1100 <= depth < 1400
    (init,) = graph.named(lambda f: "Net::Init" in f.text)
    reached = [graph.functions[title] for title in graph.reached([init])]
    assert {each.symbol for each in reached if each.frame is None} == {"malloc", "rand"}
    assert [each.unbounded for each in reached if "grows" in each.text] == [True]


def test_stack_is_what_a_thread_touches(tmp_path: Path) -> None:
    """Measured on a painted stack: what is reported bounds it, but for memcpy's own frames."""
    compile_to(tmp_path, block_model(), NATIVE)
    files = [*sources(tmp_path), DRIVERS / "stack.cpp"]
    program = build(tmp_path, require("g++"), files, ["-O2", "-ffp-contract=off", "-pthread"])
    infer, nothing = map(int, run(program, tmp_path / "Block.weights").split())
    found = footprint(mdlc.compile(block_model(), NATIVE, name="Block")).infer_stack
    assert infer - nothing <= found + 256
    assert found <= infer - nothing + 512
