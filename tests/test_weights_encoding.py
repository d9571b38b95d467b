"""Encoded weights: codes, files, the emitted decoder, and what it makes of damaged input."""

from __future__ import annotations

import re
import subprocess
import zlib
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper

import mdlc
from mdlc.api import CompiledModel
from mdlc.checks.verification import verify
from mdlc.cli import invoke
from mdlc.codegen.cpp.emit import Info, emit
from mdlc.codegen.cpp.weights_decoder import weights_decoder
from mdlc.codegen.isa.registry import isas
from mdlc.codegen.plan.encoding_choice import encode_plan
from mdlc.codegen.plan.plan import CLASS_MEMBERS, SOURCE_NAMES, Plan
from mdlc.codegen.plan.weights_file import HEADER_BYTES, payload_of
from mdlc.codegen.run.toolchain import find_toolchain
from mdlc.codegen.weights.encoding import Encoding, grid_step, kmeans, parse_encoding, quantise
from mdlc.codegen.weights.huffman import (
    LONGEST,
    STREAMS,
    canonical_codes,
    code_lengths,
    coded,
    coded_bytes,
)
from mdlc.codegen.weights.packing_order import has_weights, output_channels, trace_layout
from mdlc.codegen.weights.sections import MAX_GAP, split_gaps
from mdlc.compiler.errors import MdlcError
from mdlc.compiler.types import Array
from tests.emitted_code import DRIVERS, NO_RUNTIME, WARNINGS, build, require, run, sources
from tests.targets import TARGETS
from tests.targets import require as require_target

ENCODINGS = [
    f"{values}{huffman}"
    for values in ("raw", "fp16", "bf16", "int8", "clustered:2", "clustered:5", "clustered:8")
    for huffman in ("", "+huffman")
] + ["int6+huffman", "int4+huffman"]
SANITIZED = ("-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")


def small_model(seed: int = 0, sparse: float = 0.0) -> onnx.ModelProto:
    """Every kind of layer with weights, of awkward numbers of channels: 3x16x16 -> 10."""
    rng = np.random.default_rng(seed)
    weights: list[onnx.TensorProto] = []

    def weight(name: str, *shape: int) -> str:
        values = rng.standard_normal(shape) / np.sqrt(np.prod(shape[1:]) or 1)
        values[rng.random(shape) < sparse] = 0
        weights.append(numpy_helper.from_array(values.astype(np.float32), name))
        return name

    def conv(source: str, name: str, *shape: int, **attributes: object) -> onnx.NodeProto:
        inputs = [source, weight(f"{name}_w", *shape), weight(f"{name}_b", shape[0])]
        return helper.make_node("Conv", inputs, [name], name=name, **attributes)

    nodes = [
        conv("image", "stem", 16, 3, 3, 3, strides=[2, 2], pads=[1, 1, 1, 1]),
        conv("stem", "five", 16, 16, 5, 5, pads=[2, 2, 2, 2]),
        conv("five", "wide", 32, 16, 3, 3, pads=[1, 1, 1, 1]),
        conv("wide", "depthwise", 32, 1, 3, 3, pads=[1, 1, 1, 1], group=32),
        conv("depthwise", "point", 77, 32, 1, 1),
        conv("point", "odd", 6, 77, 3, 2, dilations=[2, 1]),
        conv("odd", "grouped", 15, 2, 1, 1, group=3),
        helper.make_node(
            "ConvTranspose",
            ["grouped", weight("up_w", 15, 4, 3, 3), weight("up_b", 12)],
            ["up"],
            name="up",
            group=3,
            strides=[2, 2],
        ),
        helper.make_node("Relu", ["up"], ["active"], name="active"),
        helper.make_node("GlobalAveragePool", ["active"], ["pooled"], name="pooled"),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node(
            "Gemm", ["flat", weight("fc_w", 10, 12), weight("fc_b", 10)], ["logits"], transB=1
        ),
    ]
    graph = helper.make_graph(
        nodes,
        "block",
        [helper.make_tensor_value_info("image", onnx.TensorProto.FLOAT, (1, 3, 16, 16))],
        [helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, (1, 10))],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return model


def _compiled(encoding: str, target: str = "host", sparse: float = 0.0) -> CompiledModel:
    return mdlc.compile(small_model(sparse=sparse), target, name="Block", weights_encoding=encoding)


def mixed_plan(plan: Plan) -> Plan:
    """A plan with every encoding on some layer, sparse ones among them."""
    names = [step.name for step in plan.steps if has_weights(step)]
    cycle = ("clustered:4+huffman", "int6+huffman", "fp16+huffman", "bf16+huffman",
             "raw+huffman", "int8+huffman",
             "clustered:3", "fp16", "clustered:8+huffman")  # fmt: skip
    return encode_plan(
        plan, {name: parse_encoding(cycle[i % len(cycle)]) for i, name in enumerate(names)}
    )


# --- Huffman codes


def _decoded(data: bytes, lengths: Array, count: int) -> list[int]:
    """Written for the test, bit by bit."""
    by_code = {
        (int(length), int(code)): symbol
        for symbol, (length, code) in enumerate(zip(lengths, canonical_codes(lengths), strict=True))
        if length
    }
    sizes = np.frombuffer(data, "<u4", STREAMS)
    at = 4 * STREAMS
    streams = []
    for size in sizes:
        bits = "".join(f"{byte:08b}"[::-1] for byte in data[at : at + size])
        at += int(size)
        symbols, position = [], 0
        for length in range(len(bits) + 1):
            key = (length - position, int(bits[position:length][::-1] or "0", 2))
            if key in by_code:
                symbols.append(by_code[key])
                position = length
        streams.append(symbols)
    return [streams[i % STREAMS][i // STREAMS] for i in range(count)]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 255), min_size=1, max_size=300), st.integers(1, 256))
def test_codes_come_back(values: list[int], modulus: int) -> None:
    symbols = np.array([v % modulus for v in values], np.uint8)
    lengths = code_lengths(np.bincount(symbols, minlength=256))
    assert sum(2.0**-length for length in lengths if length) == 1
    data = coded(symbols, lengths)
    assert len(data) == coded_bytes(symbols, lengths)
    assert _decoded(data, lengths, len(symbols)) == symbols.tolist()


def test_code_lengths_are_optimal_and_limited() -> None:
    # Fibonacci counts make an unlimited Huffman code as deep as it has symbols.
    counts = np.zeros(256, np.int64)
    counts[:20] = [1, 1, *(int(1.618**i) for i in range(2, 20))]
    lengths = code_lengths(counts)
    assert lengths.max() == LONGEST
    even = code_lengths(np.full(256, 7))
    assert set(even.tolist()) == {8}
    skewed = code_lengths(np.array([90, 5, 3, 2] + [0] * 252))
    assert skewed[:4].tolist() == [1, 2, 3, 3]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 700), min_size=1, max_size=12), st.integers(0, 600))
def test_gaps_come_back(zeros: list[int], tail: int) -> None:
    codes = np.concatenate([*(np.append(np.zeros(z), 9) for z in zeros), np.zeros(tail)])
    gaps, kept = split_gaps(codes[None].astype(np.uint8))
    positions = np.cumsum(gaps.astype(np.int64) + 1) - 1
    assert positions.tolist() == kept.tolist()
    assert gaps.max(initial=0) <= MAX_GAP
    assert np.flatnonzero(codes).tolist() == [p for p in kept if codes[p]]


# --- values


def test_half_precision_rounds_to_nearest_even() -> None:
    tie = np.array([1 + 2.0**-11, 1 + 3 * 2.0**-11, 2.0**-25, 65504.0], np.float32)
    found = quantise(tie, np.zeros(4, np.int64), Encoding("fp16"), "layer")
    assert found.decoded.tolist() == [1.0, 1 + 2 * 2.0**-10, 0.0, 65504.0]
    with pytest.raises(MdlcError, match="beyond half precision"):
        quantise(np.array([7e4], np.float32), np.zeros(1, np.int64), Encoding("fp16"), "layer")
    with pytest.raises(MdlcError, match="not finite"):
        quantise(np.array([np.nan], np.float32), np.zeros(1, np.int64), Encoding("int8"), "layer")


def test_int8_is_within_half_a_step_of_every_channel() -> None:
    rng = np.random.default_rng(0)
    weights = rng.standard_normal((7, 5, 3, 3)) * 10.0 ** rng.integers(-3, 3, (7, 1, 1, 1))
    weights = weights.astype(np.float32)
    channels = np.broadcast_to(np.arange(7).reshape(7, 1, 1, 1), weights.shape)
    found = quantise(weights, channels, Encoding("int8"), "layer")
    step = np.abs(weights).max(axis=(1, 2, 3), keepdims=True) / 127
    assert np.all(np.abs(found.decoded - weights) <= step * 0.5001)


def test_clusters_keep_zeros_and_few_values_exactly() -> None:
    rng = np.random.default_rng(0)
    weights = rng.standard_normal(4000).astype(np.float32)
    weights[rng.random(4000) < 0.5] = 0
    found = quantise(weights, np.zeros(4000, np.int64), Encoding("clustered", 4), "layer")
    assert not found.decoded[weights == 0].any()
    assert len(np.unique(found.decoded)) == 16
    few = rng.choice(np.float32([-1.5, 0.25, 0, 3]), 100)
    exact = quantise(few, np.zeros(100, np.int64), Encoding("clustered", 2), "layer")
    assert np.array_equal(exact.decoded, few)


def test_kmeans_agrees_with_scikit_learn() -> None:
    cluster = pytest.importorskip("sklearn.cluster")
    values = np.random.default_rng(3).standard_normal(3000).astype(np.float32)
    start = np.linspace(values.min(), values.max(), 8).reshape(-1, 1)
    other = cluster.KMeans(8, init=start, n_init=1, max_iter=60, tol=0).fit(values.reshape(-1, 1))
    mine = kmeans(values, 8)
    np.testing.assert_allclose(mine, np.sort(other.cluster_centers_[:, 0]), atol=1e-3)


# --- layouts


@pytest.mark.parametrize("target", sorted(isas()))
def test_layouts_cover_every_weight_once(target: str) -> None:
    plan = mdlc.compile(small_model(), target, name="Block", weights_encoding="int8").plan
    kinds = set()
    for step in filter(has_weights, plan.steps):
        kinds.add(step.kernel.name)
        for by_channel in (False, True):
            layout = trace_layout(step, plan.isa, by_channel=by_channel)
            assert layout is not None, step.name
            assert len(layout.rows) <= 40
            size = step.node.inputs[1].type.size
            assert sorted(layout.order.tolist()) == list(range(size))
            taps = 1 if layout.filters is None else layout.filters.kernel**2
            assert sum(r.weights for r in layout.rows) * taps == size
            if by_channel and layout.filters is None:
                owner = output_channels(step.node).reshape(-1)[layout.order]
                assert owner.tolist() == [
                    r.first + panel * r.values + value
                    for r in layout.rows
                    for panel in range(r.panels)
                    for _ in range(r.blocks * r.rows)
                    for value in range(r.values)
                ]
    assert {"conv_direct", "conv_depthwise", "conv_transpose"} <= kinds


# --- emitted code


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_decoded_networks_agree_with_onnxruntime(encoding: str) -> None:
    compiled = _compiled(encoding)
    inputs = np.random.default_rng(0).standard_normal((1, 3, 16, 16)).astype(np.float32)
    found = verify(compiled, [{"image": inputs}])
    assert found.ok, found.first_off


@pytest.mark.parametrize("sparse", [0.0, 0.85])
@pytest.mark.parametrize("target", sorted(TARGETS))
def test_all_encodings_in_one_file_on_every_target(target: str, sparse: float) -> None:
    compiled = mdlc.compile(small_model(sparse=sparse), target, name="Block")
    plan = mixed_plan(compiled.plan)
    assert any(weights.sparse for weights in plan.encoded.values()) == (sparse > 0)
    try:
        find_toolchain(plan.isa)
    except MdlcError as error:
        pytest.skip(str(error))
    inputs = np.random.default_rng(0).standard_normal((1, 3, 16, 16)).astype(np.float32)
    found = verify(replace(compiled, plan=plan, graph=plan.graph), [{"image": inputs}])
    assert found.ok, found.first_off


def _write(folder: Path, plan: Plan, **options: bool) -> dict[str, bytes]:
    files = emit(plan, Info("model", "0" * 64, "mdlc", "0"), **options)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return files


@pytest.mark.parametrize("compiler", ["g++", "clang++"])
@pytest.mark.parametrize("encoding", [*ENCODINGS, "mixed"])
def test_emitted_decoders_compile_without_warnings(
    encoding: str, compiler: str, tmp_path: Path
) -> None:
    plan = _compiled("raw" if encoding == "mixed" else encoding, "generic", 0.85).plan
    _write(tmp_path, mixed_plan(plan) if encoding == "mixed" else plan)
    command = [require(compiler), "-std=c++17", *WARNINGS, *NO_RUNTIME, "-fsyntax-only"]
    done = subprocess.run(
        [*command, *map(str, sources(tmp_path))], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_no_layer_takes_a_name_of_the_decoder() -> None:
    text = weights_decoder(mixed_plan(_compiled("raw", "generic", 0.85).plan))
    declared = (
        r"^(?:constexpr .*?|struct |class |enum |int |inline \w+ )(\w+)(?:\[.*)?(?:\(| [={]|;)"
    )
    names = set(re.findall(declared, text, re.M)) | set(re.findall(r"\bk[A-Z]\w+", text))
    assert {"Rows", "kRows", "Decoder", "DecodeWeights", "WeightFromHalf", "kInteger"} <= names
    assert not names - SOURCE_NAMES - CLASS_MEMBERS - {"kSize", "kTaps"}  # parameters of templates


def test_embedded_weights_are_decoded_as_well(tmp_path: Path) -> None:
    plan = mixed_plan(_compiled("raw", "generic", 0.5).plan)
    results = []
    for embed in (False, True):
        folder = tmp_path / str(embed)
        folder.mkdir()
        _write(folder, plan, embed_weights=embed)
        argument = "nullptr" if embed else f'"{folder}/Block.weights"'
        main = f"""#include <cstdio>
#include <vector>
#include "Block.h"
int main() {{
  std::vector<float> image(3 * 16 * 16, 0.5F), logits(10);
  Block::Mat in(image.data(), 16, 16, 3), out(logits.data(), 1, 1, 10);
  Block block;
  if (block.Init({argument}) != Block::kOk || block.infer(in, out) != Block::kOk) return 1;
  for (float value : logits) std::printf("%a ", static_cast<double>(value));
}}
"""
        (folder / "try.cpp").write_text(main)
        program = build(folder, require("g++"), [*sources(folder), folder / "try.cpp"], ["-O1"])
        results.append(run(program))
    assert results[0] == results[1]


def test_mutated_payloads_never_leave_their_bounds(tmp_path: Path) -> None:
    plan = mixed_plan(_compiled("raw", "generic", 0.85).plan)
    used = {(w.encoding.values, w.encoding.huffman, w.sparse) for w in plan.encoded.values()}
    assert len(used) >= 6
    assert any(weights.numbers is not None for weights in plan.encoded.values())
    _write(tmp_path, plan)
    program = build(
        tmp_path,
        require("g++"),
        [DRIVERS / "fuzz_weights.cpp", tmp_path / "Block_generic.cpp"],
        SANITIZED,
    )
    found, decoded = map(int, run(program, tmp_path / "Block.weights", 4000, 1).split())
    assert found + decoded == 4000
    assert found > 1000  # sizes, tables and streams; a changed value alone cannot be told


def test_damaged_files_give_an_error_code(tmp_path: Path) -> None:
    plan = mixed_plan(_compiled("raw", "generic", 0.85).plan)
    good = _write(tmp_path, plan)["Block.weights"]
    rng = np.random.default_rng(0)
    contents = [good, good[:-1], good + b"\0", good[:HEADER_BYTES], b""]
    codes = [0, -2, -2, -2, -2]
    for _ in range(300):
        data = bytearray(good)
        data[int(rng.integers(HEADER_BYTES, len(good)))] ^= 1 << int(rng.integers(8))
        contents.append(bytes(data))
        codes.append(-7)
    for _ in range(100):  # the checksums are right, the tables of a section are not
        data = bytearray(good)
        coded = [
            s
            for s in payload_of(plan).sections
            if s.weights.encoding.huffman and (s.weights.sparse or not s.weights.plain & 1)
        ]  # the others' first plane is plain
        section = coded[int(rng.integers(len(coded)))]
        start = HEADER_BYTES + section.offset + 4 * section.weights.table
        data[start : start + 40] = rng.bytes(40)
        data[56:60] = zlib.crc32(bytes(data[HEADER_BYTES:])).to_bytes(4, "little")
        data[60:64] = zlib.crc32(bytes(data[:60])).to_bytes(4, "little")
        contents.append(bytes(data))
        codes.append(-7)
    paths = []
    for number, content in enumerate(contents):
        paths.append(tmp_path / f"{number}.bin")
        paths[-1].write_bytes(content)
    files = [*sources(tmp_path), DRIVERS / "init_files.cpp"]
    program = build(tmp_path, require("g++"), files, SANITIZED)
    done = subprocess.run(
        [str(program)],
        input="".join(f"{path}\n" for path in paths),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = [tuple(map(int, line.split())) for line in done.stdout.splitlines()]
    assert [fresh for fresh, _, _ in lines] == codes
    assert [kept for _, kept, _ in lines] == codes
    assert [infer for _, _, infer in lines] == [0 if code == 0 else -9 for code in codes]


# --- whole numbers


def test_weights_on_a_grid_lose_nothing_as_integers() -> None:
    rng = np.random.default_rng(0)
    channels = np.repeat(np.arange(6), 50)
    for lowest in (-255, -131, -20, 0):
        numbers = rng.integers(lowest, lowest + 256, 300)
        numbers[:3] = lowest, lowest + 1, lowest + 255
        weights = (numbers * 0.0123).astype(np.float32)
        found = quantise(weights, channels, parse_encoding("int8+huffman"), "layer")
        assert len(found.table) == 1
        np.testing.assert_allclose(found.decoded, weights, rtol=1e-5)
        byte = found.codes[0].astype(np.int64)
        whole = found.lowest + ((byte - found.lowest) & 0xFF)
        np.testing.assert_array_equal(whole.astype(np.float32) * found.table[0], found.decoded)
        assert (found.codes[0][weights == 0] == 0).all()
    off = weights + np.float32(1e-4) * rng.standard_normal(300).astype(np.float32)
    assert len(quantise(off, channels, parse_encoding("int8"), "layer").table) == 6
    assert grid_step(np.float32([1, 1.5, 2.7, -300])) is None


def test_fewer_bits_are_shorter_and_coarser() -> None:
    weights = np.random.default_rng(0).standard_normal((40, 300)).astype(np.float32)
    channels = np.broadcast_to(np.arange(40)[:, None], weights.shape)
    errors = []
    for bits in (8, 7, 6, 5, 4):
        found = quantise(weights, channels, parse_encoding(f"int{bits}+huffman"), "layer")
        assert len(np.unique(found.codes)) <= 2**bits - 1
        errors.append(found.error(weights))
    assert all(1.8 < b / a < 2.3 for a, b in pairwise(errors))


@pytest.mark.parametrize("target", ["generic", "host", "arm-neon"])
def test_networks_that_were_8_bit_once_come_back_exactly(target: str) -> None:
    require_target(target)
    model = small_model()
    for tensor in model.graph.initializer:
        if tensor.name.endswith("_w"):
            values = numpy_helper.to_array(tensor)
            step = np.float32(np.abs(values).max() / 100)
            rounded = np.clip(np.rint(values / step), -100, 155).astype(np.float32) * step
            tensor.CopyFrom(numpy_helper.from_array(rounded, tensor.name))
    raw = mdlc.compile(model, target, name="Block", weights_encoding="raw+huffman")
    image = {"image": np.random.default_rng(0).random((1, 3, 16, 16), np.float32)}
    compiled = mdlc.compile(model, target, name="Block", weights_encoding="int8+huffman")
    assert compiled.plan.encoded
    assert max(w.error for w in compiled.plan.encoded.values()) < 1e-6
    tables = [w.table for w in compiled.plan.encoded.values()]
    assert set(tables) == {1}
    found, expected = compiled.build()(image)["logits"], raw.build()(image)["logits"]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


# --- choosing


def test_raw_files_stay_as_they_were() -> None:
    plain = mdlc.compile(small_model(), "generic", name="Block").files()
    raw = _compiled("raw", "generic").files()
    assert plain == raw


def test_sizes_fall_with_bits() -> None:
    sizes = {e: len(_compiled(e, "generic").files()["Block.weights"]) for e in ENCODINGS}
    assert sizes["raw"] > sizes["fp16"] > sizes["int8"] > sizes["clustered:5"]
    assert sizes["clustered:5"] > sizes["clustered:2"]
    for values in ("raw", "fp16", "int8", "clustered:2", "clustered:5", "clustered:8"):
        assert sizes[f"{values}+huffman"] <= sizes[values] + 4


def test_auto_meets_the_size_with_less_error_where_there_is_room() -> None:
    errors = []
    for most in (30000, 12000, 8000):
        compiled = mdlc.compile(
            small_model(), "generic", name="Block", weights_encoding="auto", max_size=most
        )
        assert len(compiled.files()["Block.weights"]) <= most
        errors.append(sum(w.error**2 for w in compiled.plan.encoded.values()))
    assert errors == sorted(errors)
    assert errors[0] < errors[-1]
    with pytest.raises(MdlcError, match="in the smallest encoding"):
        mdlc.compile(small_model(), "generic", weights_encoding="auto", max_size=1000)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--weights-encoding", "int4"], "'int4' is not an encoding"),
        (["--weights-encoding", "clustered:9"], "'clustered:9' is not an encoding"),
        (["--weights-encoding", "auto"], "auto needs a size to fit into"),
        (["--max-size", "5000"], "only --weights-encoding auto uses it"),
        (["--weights-encoding", "auto", "--max-size", "100"], "in the smallest encoding"),
    ],
)
def test_bad_arguments_are_told_in_a_sentence(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "block.onnx"
    onnx.save(small_model(), path)
    out = tmp_path / "out"
    assert invoke([str(path), "-t", "generic", "-o", str(out), *arguments]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
    assert not out.exists()
