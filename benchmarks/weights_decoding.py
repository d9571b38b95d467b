"""How fast `Init` decodes weights, and a fuzzer that runs as long as is wanted.

    python -m benchmarks.weights_decoding MODEL.onnx [--target T]      bytes, and MB/s of float32
    python -m benchmarks.weights_decoding --fuzz 1000000               under ASan and UBSan

The time is that of the decoder alone, from a file in memory, one core, the best of several.
"""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

import click

import mdlc
from mdlc.codegen.cpp.emit import Info, emit
from mdlc.codegen.cpp.kernels_file import source_files
from mdlc.codegen.plan.plan import Plan
from mdlc.codegen.run.toolchain import BUILD_FLAGS, find_toolchain

ENCODINGS = (
    "fp16", "fp16+huffman", "int8", "int8+huffman", "int7+huffman", "int6+huffman",
    "clustered:8+huffman", "clustered:5", "clustered:4", "clustered:4+huffman", "raw+huffman",
)  # fmt: skip
TIMER = r"""
#include "@NAME@.cpp"
#include <chrono>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <vector>
int main(int, char** arguments) {
  std::ifstream file(arguments[1], std::ios::binary);
  const std::vector<char> whole{std::istreambuf_iterator<char>(file), {}};
  unsigned char* payload = static_cast<unsigned char*>(::operator new(whole.size()));
  std::memcpy(payload, whole.data() + kHeaderBytes, whole.size() - kHeaderBytes);
  unsigned char* decoded = static_cast<unsigned char*>(::operator new(@NAME@::kWeightBytes));
  double best = 1e9;
  for (int i = 0; i < 15; ++i) {
    const auto start = std::chrono::steady_clock::now();
    if (DecodeWeights(payload, decoded) != 0) return 1;
    const std::chrono::duration<double> passed = std::chrono::steady_clock::now() - start;
    if (passed.count() < best) best = passed.count();
  }
  std::printf("%.9f\n", best);
  ::operator delete(payload);
  ::operator delete(decoded);
}
"""


def decoding_seconds(plan: Plan) -> tuple[int, float]:
    """Bytes of the weights file, and seconds to decode it."""
    toolchain = find_toolchain(plan.isa)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        for name, data in emit(plan, Info("model", "0" * 64, "mdlc", "0")).items():
            (folder / name).write_bytes(data)
        (folder / "timer.cpp").write_text(TIMER.replace("@NAME@", plan.name))
        flags = [*BUILD_FLAGS, f"-I{folder}"]
        kernels = [folder / name for name in source_files(plan)[1:]]
        toolchain.compile([folder / "timer.cpp", *kernels], folder / "timer", flags)
        weights = folder / f"{plan.name}.weights"
        command = [*toolchain.runner, str(folder / "timer"), str(weights)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return weights.stat().st_size, float(done.stdout)


def fuzz(count: int, seed: int) -> str:
    """Runs the tests' fuzzer; a sanitizer's complaint raises CalledProcessError."""
    from tests.test_weights_encoding import SANITIZED, mixed_plan, small_model

    plan = mixed_plan(mdlc.compile(small_model(sparse=0.85), "generic", name="Block").plan)
    driver = Path(__file__).resolve().parents[1] / "tests" / "drivers" / "fuzz_weights.cpp"
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        for name, data in emit(plan, Info("model", "0" * 64, "mdlc", "0")).items():
            (folder / name).write_bytes(data)
        program = folder / "fuzz"
        command = ["g++", "-std=c++17", *SANITIZED, f"-I{folder}", str(driver)]
        command += [*(str(folder / name) for name in source_files(plan)[1:]), "-o", str(program)]
        subprocess.run(command, check=True)
        run = [str(program), str(folder / "Block.weights"), str(count), str(seed)]
        return subprocess.run(run, check=True, capture_output=True, text=True).stdout


@click.command()
@click.argument("model", required=False, type=click.Path(path_type=Path))
@click.option("--target", default="host", show_default=True)
@click.option("--fuzz", "mutations", type=int, help="Mutated payloads to decode instead.")
@click.option("--seed", type=int, default=0, show_default=True)
def main(model: Path | None, target: str, mutations: int | None, seed: int) -> None:
    if mutations:
        found, decoded = fuzz(mutations, seed).split()
        click.echo(f"{mutations} mutations: {found} told as kFileCorrupt, {decoded} decoded")
        return
    if model is None:
        raise click.UsageError("name a model, or --fuzz COUNT")
    for encoding in ENCODINGS:
        plan = mdlc.compile(model, target, weights_encoding=encoding).plan
        nbytes, seconds = decoding_seconds(plan)
        weights = 4 * sum(w.count for w in plan.encoded.values())
        click.echo(
            f"{encoding:22}{nbytes:10d} bytes {seconds * 1e3:8.2f} ms "
            f"{weights / seconds / 1e6:8.0f} MB/s of weights, "
            f"{plan.weight_bytes / seconds / 1e6:.0f} MB/s packed"
        )


if __name__ == "__main__":
    main()
