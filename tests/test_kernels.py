"""Derived from every operator's samples: generated code against the reference, on every target.

All samples of an operator are parts of one network, so that each (operator, target) is one
compilation.
"""

from __future__ import annotations

import numpy as np
import pytest

from mdlc.codegen.isa.base import Isa
from mdlc.codegen.isa.registry import find_isa
from mdlc.codegen.kernel import candidates
from mdlc.codegen.plan.lowering import lower
from mdlc.codegen.plan.views import is_alias
from mdlc.codegen.run.executable import Executable
from mdlc.compiler.interpreter import run
from mdlc.compiler.ir import Graph, Node, make
from mdlc.compiler.op import Op
from mdlc.compiler.ops.constant import constant
from mdlc.compiler.ops.input import graph_input
from mdlc.compiler.types import Array, DType
from mdlc.passes.canonicalise import lower_batch_norm
from mdlc.passes.fp32_to_fp16 import fp32_to_fp16
from mdlc.passes.layout import assign_layout
from mdlc.precision.fp16 import computes
from tests.op_samples import sampled_ops
from tests.targets import FLOAT_TARGETS, HALF_TARGETS, TARGETS, require

# Scalar and vector forms of functions round differently.
RTOL, ATOL = 1e-4, 2e-5


# In half precision, every operation rounds to 11 bits, and sums to those of their largest part;
# Winograd's F(4, 3) may lose a hundredth of it (WinogradConv.loss).
HALF_RTOL, HALF_OF_LARGEST = 2e-3, 1e-2


def half_atol(expected: Array) -> float:
    finite = expected[np.isfinite(expected)]
    return HALF_OF_LARGEST * float(np.abs(finite).max(initial=1e-6))


def narrowed(graph: Graph, isa: Isa) -> Graph:
    """In half precision, all that can be, where the target computes in it."""
    if isa.half is None:
        return graph
    return fp32_to_fp16(graph, lambda n: computes(n, isa), lambda n: "", lone=True).graph


def network_of(*classes: type[Op]) -> tuple[Graph, dict[str, Array]]:
    """A network whose outputs are the operators' samples, and its inputs' values."""
    inputs: list[Node] = []
    outputs: list[Node] = []
    values: dict[str, Array] = {}
    samples = [(cls.__name__, sample) for cls in classes for sample in cls.samples()]
    for number, (operator, sample) in enumerate(samples):
        operands = []
        for index, value in enumerate(sample.inputs):
            if index in sample.constant:
                operands.append(constant(value))
                continue
            name = f"{operator}_{number}_{index}"
            node = graph_input(name, value.shape, DType.from_numpy(value.dtype))
            values[node.name] = value
            inputs.append(node)
            operands.append(node)
        outputs.append(make(sample.op, *operands, name=f"y{number}"))
    names = tuple(f"y{number}" for number in range(len(outputs)))
    return Graph(tuple(inputs), tuple(outputs), names, classes[0].__name__), values


# Operators with fewer samples share a network: most of a test's time is a program's, not theirs.
_FEW, _TOGETHER = 8, 6


def _cases() -> list[object]:
    """Operators and targets: of those in float, targets with float or half kernels of their own."""
    found = []
    for target in TARGETS:
        own = target in FLOAT_TARGETS or target in HALF_TARGETS
        ops = [cls for cls in sampled_ops() if own or _in_bytes(cls)]
        few = [cls for cls in ops if len(cls.samples()) <= _FEW]
        groups = [few[i : i + _TOGETHER] for i in range(0, len(few), _TOGETHER)]
        groups += [[cls] for cls in ops if cls not in few]
        for group in groups:
            name = "+".join(cls.__name__ for cls in group)
            found.append(pytest.param(group, target, id=f"{name}-{target}"))
    return found


def _in_bytes(cls: type[Op]) -> bool:
    return any(v.dtype in (np.int8, np.uint8) for sample in cls.samples() for v in sample.inputs)


@pytest.mark.parametrize(("ops", "target"), _cases())
def test_generated_code_agrees_with_reference(ops: list[type[Op]], target: str) -> None:
    require(target)
    graph, values = network_of(*ops)
    expected = run(graph, values)
    isa = find_isa(target)
    ready = narrowed(assign_layout(lower_batch_norm(graph)), isa)
    half = any(node.type.dtype is DType.F16 for node in ready.order())
    plan = lower(ready, isa, "Samples")
    actual = Executable(plan, flags=("-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Werror"))(
        values
    )
    samples = [sample for cls in ops for sample in cls.samples()]
    for number, sample in enumerate(samples):
        name = f"y{number}"
        label = f"{sample.op} {sample.label}"
        assert actual[name].dtype == expected[name].dtype, label
        if expected[name].dtype.kind == "f":
            np.testing.assert_allclose(
                actual[name].astype(np.float64),
                expected[name].astype(np.float64),
                rtol=max(sample.rtol, HALF_RTOL if half else RTOL),
                atol=half_atol(expected[name]) if half else max(sample.atol, ATOL),
                err_msg=label,
            )
        else:
            np.testing.assert_array_equal(actual[name], expected[name], err_msg=label)


def test_every_operator_has_a_kernel_on_every_target() -> None:
    for target in TARGETS:
        isa = find_isa(target)
        for cls in sampled_ops():
            graph, _ = network_of(cls)
            for node in assign_layout(lower_batch_norm(graph)).order():
                if node.inputs and node.constant is None and not is_alias(node):
                    assert candidates(node, isa), f"{node} on {target}"
