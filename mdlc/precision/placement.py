"""What layers cost in integers and in float on a target, for quantization/placement.py."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from mdlc.codegen.isa.base import Backend
from mdlc.codegen.kernel import candidates
from mdlc.compiler.errors import MdlcError
from mdlc.compiler.ir import Graph, Node, make
from mdlc.compiler.ops.clip import Clip
from mdlc.compiler.ops.dequantize_linear import DequantizeLinear
from mdlc.compiler.ops.quantize_linear import QuantizeLinear
from mdlc.compiler.ops.relu import Relu
from mdlc.compiler.types import DType, Layout
from mdlc.passes.fuse_activation import fuse_residual
from mdlc.passes.fuse_quantized_sum import fuse_quantized_sum
from mdlc.passes.pipeline import run_passes
from mdlc.passes.quant_params import QuantParams
from mdlc.pipeline import AFTER_QUANTIZATION
from mdlc.quantization.layers import Assignment
from mdlc.quantization.placement import LayerCycles, Placement, place
from mdlc.quantization.quantize import quantize

# More than any layer costs: there is no kernel for it.
IMPOSSIBLE = 1e15


def cheapest(assignment: Assignment, backend: Backend) -> Placement:
    """The placement with the fewest estimated cycles on a target."""
    integer = _by_name(quantize(assignment).graph, backend)
    in_float = _by_name(assignment.graph, backend)
    users = assignment.graph.users()
    cycles = {}
    for node, key in assignment.keys.items():
        if node.name and node in assignment.integer and node not in assignment.inner:
            names = [node.name]
            if node in assignment.wide:
                # In float the activation is fused, and the layer is called after it.
                names += [user.name for user in users[node] if isinstance(user.op, Relu | Clip)]
            both = (sum(found.get(name, 0.0) for name in names) for found in (integer, in_float))
            cycles[key] = LayerCycles(*both)
    return place(assignment, cycles, _transition(assignment, backend))


def _by_name(graph: Graph, backend: Backend) -> Mapping[str, float]:
    """Cycles by the tensor that a layer ends in, transitions left out.

    Sums stay layers of their own here, so that a convolution's cost is its own.
    """
    apart = fuse_residual, fuse_quantized_sum
    passes = [p for p in AFTER_QUANTIZATION if p not in apart]
    found: dict[str, float] = {}
    for node in run_passes(graph, passes)[-1].graph.order():
        if node.constant is None and node.inputs and not _converts(node):
            found[node.name] = found.get(node.name, 0.0) + _cycles(node, backend)
    return found


def _converts(node: Node) -> bool:
    """Whether a node is a transition; sums of 32 bits made floats are part of their layer."""
    if isinstance(node.op, DequantizeLinear):
        return node.inputs[0].type.dtype is not DType.I32
    return isinstance(node.op, QuantizeLinear)


def _cycles(node: Node, backend: Backend) -> float:
    try:
        return candidates(node, backend)[0].cycles
    except MdlcError:
        # A movement without a kernel is a view.
        return 0.0 if node.op.moves([source.type for source in node.inputs]) else IMPOSSIBLE


def _transition(assignment: Assignment, backend: Backend) -> Callable[[Node], tuple[float, float]]:
    def cycles(node: Node) -> tuple[float, float]:
        params: QuantParams | None = assignment.params.get(node)
        if params is None:
            return 0.0, 0.0
        layout = Layout.NHWC if node.type.rank == 4 else Layout.PLAIN
        x = Node(node.op, node.inputs, node.type.with_layout(layout), node.name)
        q = make(QuantizeLinear(), x, *params.constants(), layout_of=x)
        wide = make(DequantizeLinear(), q, *params.constants(), layout_of=q)
        return _cycles(q, backend), _cycles(wide, backend)

    return cycles
