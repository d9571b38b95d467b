"""Does `verify` find a fault in one weight, bias, tap or epilogue of any layer, at that layer?

    python -m benchmarks.injected_faults model.onnx --target x86-avx2 --count 1000

Prints how many faults of each kind were found, were found elsewhere, and were not.
"""

from __future__ import annotations

import argparse
from collections import Counter

import numpy as np

import mdlc
from mdlc.checks.verification import judge
from mdlc.compiler.interpreter import evaluate
from mdlc.inputs.pictures import random_inputs
from tests.injected_faults import drawn, played


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("model")
    parser.add_argument("--target", default="x86-avx2")
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    compiled = mdlc.compile(given.model, given.target)
    inputs = random_inputs(compiled.graph, compiled.how)
    values = evaluate(compiled.graph, inputs)
    generator = np.random.default_rng(given.seed)
    outcome: Counter[tuple[str, str]] = Counter()
    for _ in range(given.count):
        fault = drawn(compiled, values, generator)
        first = judge(compiled, [played(compiled, inputs, fault)]).first_off
        right = first is not None and first.step == fault.step
        told = "found" if right else "not found" if first is None else "elsewhere"
        outcome[fault.kind, told] += 1
        if not right:
            print(fault.kind, fault.step, told, "" if first is None else first.step)
    for (kind, told), count in sorted(outcome.items()):
        print(f"{kind:10} {told:10} {count}")


if __name__ == "__main__":
    main()
