"""Does `verify` find a fault in one weight, bias, tap or epilogue of any layer, at that layer?

    python -m benchmarks.injected_faults --count 1000
    python -m benchmarks.injected_faults --count 200 --target arm-neon model.onnx

Without models: small networks of the shared folder, on several targets in turn. Prints how many
faults of each kind were found, were found elsewhere, and were not.
"""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

import mdlc
from mdlc.checks.verification import Judge
from mdlc.compiler.interpreter import evaluate
from mdlc.inputs.pictures import random_inputs
from tests.injected_faults import drawn, played
from tests.shared_data import SHARED

NETWORKS = (
    "resnet8_cifar10", "mobilenet_vww", "kwt1", "cifar10_winml_tutorial", "mnist_cntk", "pfld",
    "resnet20_cifar10", "dtln_2",
)  # fmt: skip
TARGETS = ("x86-avx2", "generic", "arm-neon", "x86-avx512")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("models", nargs="*", type=Path)
    parser.add_argument("--target", action="append")
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    models = given.models or [SHARED / "models" / f"{name}.onnx" for name in NETWORKS]
    targets = given.target or TARGETS
    generator = np.random.default_rng(given.seed)
    outcome: Counter[tuple[str, str]] = Counter()
    for index, path in enumerate(models):
        target = targets[index % len(targets)]
        compiled = mdlc.compile(path, target)
        inputs = random_inputs(compiled.graph, compiled.how)
        values = evaluate(compiled.graph, inputs)
        judge = Judge(compiled)
        missed = 0
        count = given.count * (index + 1) // len(models) - given.count * index // len(models)
        with threadpool_limits(1, "blas"):
            for _ in range(count):
                fault = drawn(compiled, values, generator)
                first = judge([played(compiled, inputs, fault)]).first_off
                right = first is not None and first.step == fault.step
                told = "found" if right else "not found" if first is None else "elsewhere"
                outcome[fault.kind, told] += 1
                missed += not right
                if not right:
                    print(fault.kind, fault.step, told, "" if first is None else first.step)
        print(f"{path.stem} on {target}: {count - missed} of {count}", flush=True)
    for (kind, told), count in sorted(outcome.items()):
        print(f"{kind:10} {told:10} {count}")


if __name__ == "__main__":
    main()
