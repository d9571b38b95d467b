"""Three answers to every network: mdlc's class, emx-onnx-cgen's C, ONNX Runtime; the odd one named.

    pip install emx-onnx-cgen
    python -m benchmarks.second_opinion --count 100
    python -m benchmarks.second_opinion model.onnx

Networks are random (tests/passes/test_random_graphs.py) where none are given. Each answer is
compared with double precision; one that is off by more than TOLERANCE of the output's largest value
while the two others agree is the odd one.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import onnx
import onnxruntime

import mdlc
from mdlc.compiler.interpreter import evaluate
from mdlc.compiler.onnx_export import export_onnx
from mdlc.compiler.onnx_import import import_model
from mdlc.compiler.types import Array
from mdlc.inputs.pictures import random_inputs
from tests.passes.test_random_graphs import Grower

# Of the largest value of an output.
TOLERANCE = 1e-4
Values = dict[str, Array]


def by_mdlc(model: bytes, inputs: Mapping[str, Array]) -> Values:
    """The emitted class."""
    return mdlc.compile(model, "host").build()(inputs)


def by_onnxruntime(model: bytes, inputs: Mapping[str, Array]) -> Values:
    """ONNX Runtime, on one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, map(np.asarray, session.run(names, dict(inputs))), strict=True))


def by_emx(model: bytes, inputs: Mapping[str, Array]) -> Values:
    """emx-onnx-cgen's C, built by gcc; its parameters are the model's inputs, then its outputs."""
    proto = onnx.load_from_string(model)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / "net.onnx").write_bytes(model)
        command = [sys.executable, "-m", "emx_onnx_cgen", "compile", "--model-name", "net",
                   str(folder / "net.onnx"), str(folder / "net.c")]  # fmt: skip
        _run(command)
        text = (folder / "net.c").read_text()
        found = re.search(r"^void net\((.*)\) \{", text, re.MULTILINE)
        assert found is not None
        ports = [*(proto.graph.input), *(proto.graph.output)]
        declared, calls = [], []
        for number, (parameter, port) in enumerate(zip(found[1].split(", "), ports, strict=True)):
            kind = re.sub(r"^const ", "", parameter).split(" ")[0]
            size = int(np.prod([d.dim_value for d in port.type.tensor_type.shape.dim]))
            declared.append(f"static {kind} port{number}[{size}];")
            calls.append(f"(void*)port{number}")
        count = len(proto.graph.input)
        reads = [f"fread(port{i}, sizeof(port{i}), 1, stdin);" for i in range(count)]
        writes = [f"fwrite(port{i}, sizeof(port{i}), 1, stdout);" for i in range(count, len(ports))]
        lines = ["#include <stdio.h>", '#include "net.c"', *declared, "int main(void) {", *reads]
        main_c = "\n".join([*lines, f"net({', '.join(calls)});", *writes, "return 0;", "}"])
        (folder / "main.c").write_text(main_c)
        _run(["gcc", "-O1", "-w", str(folder / "main.c"), "-o", str(folder / "main"), "-lm"])
        given = b"".join(
            np.ascontiguousarray(inputs[port.name]).tobytes() for port in proto.graph.input
        )
        done = subprocess.run([str(folder / "main")], input=given, capture_output=True, check=True)
    values: Values = {}
    at = 0
    for port in proto.graph.output:
        dtype = onnx.helper.tensor_dtype_to_np_dtype(port.type.tensor_type.elem_type)
        shape = [d.dim_value for d in port.type.tensor_type.shape.dim]
        end = at + int(np.prod(shape)) * np.dtype(dtype).itemsize
        values[port.name] = np.frombuffer(done.stdout[at:end], dtype).reshape(shape)
        at = end
    return values


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError((done.stderr.strip().splitlines() or ["no message"])[-1])


ANSWERS: dict[str, Callable[[bytes, Mapping[str, Array]], Values]] = {
    "mdlc": by_mdlc,
    "emx-onnx-cgen": by_emx,
    "ONNX Runtime": by_onnxruntime,
}


def distance(found: Values, exact: Values) -> float:
    """The largest difference, of the largest value of its output."""
    worst = 0.0
    for name, expected in exact.items():
        value = found[name].astype(np.float64)
        finite = np.isfinite(expected)
        if not np.array_equal(finite, np.isfinite(value)):
            return float("inf")
        scale = max(float(np.abs(expected[finite]).max(initial=0.0)), 1e-6)
        worst = max(worst, float(np.abs(value - expected)[finite].max(initial=0.0)) / scale)
    return worst


def verdict(distances: Mapping[str, float]) -> str:
    """The odd one of three, "all agree", or "none agree"."""
    off = [name for name, value in distances.items() if not value <= TOLERANCE]
    if not off:
        return "all agree"
    return off[0] if len(off) == 1 else "more than one is off"


def asked(model: bytes, seed: int = 0) -> tuple[str, dict[str, float], dict[str, str]]:
    """The verdict on a model, how far each is from double precision, and who refused it."""
    graph = import_model(onnx.load_from_string(model))
    compiled = mdlc.compile(model, "generic")
    inputs = random_inputs(compiled.graph, compiled.how, seed)
    values = evaluate(graph, inputs, double=True)
    exact = {n: values[o] for n, o in zip(graph.output_names, graph.outputs, strict=True)}
    distances, refused = {}, {}
    for name, answer in ANSWERS.items():
        try:
            distances[name] = distance(answer(model, inputs), exact)
        except Exception as error:
            refused[name] = str(error).splitlines()[0] if str(error) else type(error).__name__
    return verdict(distances), distances, refused


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("models", nargs="*", type=Path)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--first", type=int, default=1000, help="the first seed")
    given = parser.parse_args()
    models = {path.stem: path.read_bytes() for path in given.models} or {
        f"seed {seed}": export_onnx(Grower(seed).grow(16)).SerializeToString()
        for seed in range(given.first, given.first + given.count)
    }
    outcome: Counter[str] = Counter()
    for name, model in models.items():
        told, distances, refused = asked(model)
        outcome[told] += 1
        outcome.update(f"refused by {each}" for each in refused)
        if told != "all agree" or refused:
            shown = ", ".join(f"{who} {value:.2g}" for who, value in distances.items())
            why = "; ".join(f"{who}: {text}" for who, text in refused.items())
            print(f"{name}: {told} ({shown}) {why}", flush=True)
    print(f"{len(models)} networks: {dict(outcome)}")


if __name__ == "__main__":
    main()
