"""Time in WebAssembly against onnxruntime-web, one thread each, in turns in one process of Node.

Usage: python -m benchmarks.web PACKAGES [--target wasm-simd128] [--rounds 30] MODEL...

PACKAGES is a folder in which `npm install onnxruntime-web` was run. Inputs are zero.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import tempfile
from pathlib import Path

import mdlc
from mdlc.codegen.code import C_TYPES
from mdlc.codegen.cpp.class_text import MAT_TYPES
from mdlc.codegen.cpp.kernels_file import source_files
from mdlc.codegen.isa.registry import find_isa
from mdlc.codegen.plan.plan import Plan
from mdlc.codegen.run.toolchain import BUILD_FLAGS, find_toolchain

SCRIPT = Path(__file__).with_suffix(".mjs")


def driver(plan: Plan) -> str:
    """Functions that a module exports: net_init and net_infer, on inputs that are zero."""
    lines = ['#include "Net.h"', "static Net network;"]
    ports = (*plan.inputs, *plan.outputs)
    for number, port in enumerate(ports):
        kind = f"Net::Mat::{MAT_TYPES[port.type.dtype]}"
        dims = ", ".join(map(str, port.dims))
        lines.append(f"static {C_TYPES[port.type.dtype]} data{number}[{port.type.size}];")
        lines.append(f"static Net::Mat mat{number}(data{number}, {dims}, {kind});")
    mats = ", ".join(f"mat{number}" for number in range(len(ports)))
    init, infer = ('extern "C" __attribute__((export_name("net_' + name + '"))) int net_' + name
                   for name in ("init", "infer"))  # fmt: skip
    lines.append(init + '() { return network.Init("/net/Net.weights"); }')
    lines.append(infer + f"() {{ return network.infer({mats}); }}")
    return "\n".join(lines) + "\n"


def measure(model: Path, target: str, packages: Path, rounds: int) -> tuple[float, float, int]:
    """Median milliseconds of mdlc and of onnxruntime-web, and the module's bytes."""
    compiled = mdlc.compile(model, target, name="Net")
    plan = compiled.plan
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        compiled.write(folder)
        (folder / "driver.cpp").write_text(driver(plan))
        names = [*source_files(plan), "driver.cpp"]
        module = folder / "net.wasm"
        flags = (*BUILD_FLAGS, "-mexec-model=reactor", "-Wl,--strip-debug")
        find_toolchain(find_isa(target)).compile([folder / n for n in names], module, flags)
        ports = [
            {"name": port.name, "type": str(port.type.dtype.numpy), "shape": port.type.shape}
            for port in plan.inputs
        ]
        (folder / "ports.json").write_text(json.dumps(ports))
        node = shutil.which("node") or "node"
        words = [str(SCRIPT), str(folder), str(model.resolve()), str(packages), str(rounds)]
        done = subprocess.run(
            [node, "--no-warnings", *words], capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise SystemExit(f"{model.stem}: {done.stderr.strip()[-2000:]}")
        times = json.loads(done.stdout.strip().splitlines()[-1])
        medians = [statistics.median(times[name]) for name in ("mdlc", "onnxruntime")]
        return medians[0], medians[1], module.stat().st_size


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("packages", type=Path)
    parser.add_argument("models", type=Path, nargs="+")
    parser.add_argument("--target", default="wasm-simd128")
    parser.add_argument("--rounds", type=int, default=30)
    asked = parser.parse_args()
    print("| model | mdlc ms | onnxruntime-web ms | ratio | module KB |")
    print("|---|---|---|---|---|")
    for model in asked.models:
        own, other, size = measure(model, asked.target, asked.packages.resolve(), asked.rounds)
        row = f"| {model.stem} | {own:.1f} | {other:.1f} | {own / other:.2f} | {size / 1000:.0f} |"
        print(row, flush=True)


if __name__ == "__main__":
    main()
