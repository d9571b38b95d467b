"""Graph -> Plan of the C++ class.

In three parts: kernels and schedules (choice.py), what lies in whose memory (views.py), live ranges
and offsets (arena.py). What is no view is computed by a kernel's step into a buffer of its own, or
over an input that no one reads afterwards.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from mdlc.codegen.frame.text import pad_bytes
from mdlc.codegen.isa.base import Isa
from mdlc.codegen.kernel import Schedule, Step, View, kernels, seen_by
from mdlc.codegen.plan.arena import place_plan
from mdlc.codegen.plan.choice import choose
from mdlc.codegen.plan.layer_names import layer_names
from mdlc.codegen.plan.plan import (
    ALIGNMENT,
    CLASS_MEMBERS,
    FrameInput,
    Names,
    Plan,
    Port,
    State,
    identifier,
)
from mdlc.codegen.plan.row_fusion import (
    RowGroup,
    band_node,
    find_row_groups,
    parts_of,
    window_floats,
    window_rows,
)
from mdlc.codegen.plan.schedule_table import Tuned
from mdlc.codegen.plan.views import Buffers, assign_views, is_alias, views_its_inputs
from mdlc.compiler.errors import MdlcError
from mdlc.compiler.ir import Graph, Node
from mdlc.compiler.ops.constant import Constant
from mdlc.compiler.ops.input import Input
from mdlc.compiler.types import DType, TensorType


def lower(
    graph: Graph,
    isa: Isa,
    name: str,
    *,
    schedules: Mapping[str, Schedule] | None = None,
    tuned: Tuned | None = None,
    threads: int = 1,
    room: Mapping[str, float] | None = None,
    row_groups: Sequence[RowGroup] | None = None,
    alike: Plan | None = None,
    frame: FrameInput | None = None,
    answer_bytes: int = 0,
) -> Plan:
    """Plans a graph whose layouts are assigned.

    Args:
        name: the emitted class.
        schedules: schedules to use instead of the cheapest, by node name.
        tuned: measured tables, which decide for the layers that they know.
        threads: the most that the emitted class computes on.
        room: by node name, how much larger than inputs and sums a layer's values inside may
            become; any where it is not given.
        row_groups: steps to compute in bands of rows; None: those where that pays.
        alike: the network at another size, with which the class shares packed weights.
        frame: the input that the class reads camera frames into.
        answer_bytes: of working memory behind the last layer.

    Raises:
        MdlcError: a node has no kernel on this ISA, or no such schedule, or a table that the
            user named has schedules that are no more.
    """
    outputs = set(graph.outputs)
    order = [n for n in graph.order() if not isinstance(n.op, Constant) or n in outputs]
    others = {(s.node.name, type(s.node.op)): s for s in (alike.steps if alike else ())}
    choice = {
        node: choose(
            node,
            isa,
            (schedules or {}).get(node.name),
            tuned or Tuned(),
            room=(room or {}).get(node.name, math.inf),
            alike=others.get((node.name, type(node.op))),
        )
        for node in order
        if not isinstance(node.op, Input) and not is_alias(node)
    }
    labels = labels_of(order)
    memory = Buffers(graph, choice, labels)
    views, sizes = assign_views(order, choice, memory), memory.sizes
    structs = {kernel.layer for kernel in kernels()}
    reserved = CLASS_MEMBERS | structs | {name}
    # Inputs and outputs are parameters of infer, and several inputs are members, too.
    ports, arguments = Names(), graph.arguments
    kept = {result for result, _ in graph.states}
    inputs = tuple(
        Port(node.name, ports.unique(_input_name(node, len(arguments), reserved)), views[node])
        for node in arguments
    )
    outputs_ = tuple(
        Port(onnx_name, ports.unique(identifier(onnx_name)), views[node])
        for onnx_name, node in zip(graph.output_names, graph.outputs, strict=True)
        if onnx_name not in kept
    )
    reserved |= {f"{port.identifier}_mat" for port in (*inputs, *outputs_)}
    reserved |= {port.identifier for port in inputs} if len(inputs) > 1 else {"input"}
    names = Names.of_layers(reserved)
    steps: list[Step] = []
    for node in order:
        if node not in choice or views_its_inputs(node, views):
            continue
        if not node.type.size:  # an output without elements: a Mat of 0 bytes
            continue
        kernel, schedule, own = choice[node].kernel, choice[node].schedule, seen_by(node, isa)
        steps.append(
            Step(
                names.unique(labels[node]),
                node,
                kernel,
                schedule,
                tuple(views[source] for source in node.inputs if source.constant is None),
                views[node],
                kernel.pack(node, schedule, own),
                _scratch(
                    kernel.scratch(node, schedule, own)
                    + (threads - 1) * kernel.thread_scratch(node, schedule, own),
                    sizes,
                ),
            )
        )
    if row_groups is None:
        row_groups = _row_groups(steps, views, graph, isa, threads)
    for group in row_groups:
        _shrink(group, steps, sizes, isa)
    if frame is not None:
        port = next(port for port in inputs if port.name == frame.port)
        height, width, _ = port.dims
        if port.type.physical_shape != port.type.shape:
            raise MdlcError(
                f"nothing in the network says how the pixels of {port.name} lie in memory",
                node="--frame",
                hint="leave it out",
            )
        frame = replace(frame, scratch=_scratch(pad_bytes(frame.spec, height, width), sizes))
    plan = Plan(
        name, isa, graph, inputs, outputs_, tuple(steps), (), 0, threads, 
        row_groups=tuple(row_groups),
        states=_states(graph, views, sizes),
        frame=frame,
        answer_scratch=_scratch(answer_bytes, sizes),
    )  # fmt: skip
    return place_plan(plan, sizes)


def labels_of(order: Sequence[Node]) -> dict[Node, str]:
    """What layers and inputs are called in emitted text, not yet unique."""
    layers = [node for node in order if not isinstance(node.op, Input)]
    inputs = [node for node in order if isinstance(node.op, Input)]
    labels = dict(zip(layers, layer_names(layers), strict=True))
    return labels | {node: identifier(node.name or "input") for node in inputs}


def _input_name(node: Node, inputs: int, reserved: Collection[str]) -> str:
    name = identifier(node.name or "input")
    return f"{name}_input" if inputs > 1 and name in reserved else name


def _row_groups(
    steps: Sequence[Step], views: Mapping[Node, View], graph: Graph, isa: Isa, threads: int
) -> list[RowGroup]:
    users = graph.users()
    tensors = Counter(view.buffer for view in views.values())
    whole = [
        step.node in graph.outputs
        or len(users[step.node]) != 1
        or tensors[step.output.buffer] != 1
        or step.output.offset != 0
        for step in steps
    ]
    return find_row_groups(steps, whole, isa, threads)


def _shrink(group: RowGroup, steps: list[Step], sizes: list[tuple[str, int]], isa: Isa) -> None:
    """Makes the group's windows of their tensors' buffers, and its scratch memory that of bands."""
    nodes = [steps[i].node for i in group.indices]
    for i, rows in zip(group.indices, window_rows(nodes, group), strict=False):
        name, _ = sizes[steps[i].output.buffer]
        sizes[steps[i].output.buffer] = name, 4 * group.strips * window_floats(steps[i], rows)
    for i, parts in zip(group.indices, parts_of(nodes, group), strict=True):
        step = steps[i]
        if step.scratch is None:
            continue
        most = max(
            step.kernel.scratch(band_node(step.node, part), step.schedule, step.seen(isa))
            for part in parts
        )
        nbytes = group.strips * -(-most // ALIGNMENT) * ALIGNMENT
        sizes[step.scratch.buffer] = sizes[step.scratch.buffer][0], nbytes
        steps[i] = replace(
            step, scratch=View.of(TensorType((nbytes,), DType.U8), step.scratch.buffer)
        )


def _states(
    graph: Graph, views: Mapping[Node, View], sizes: list[tuple[str, int]]
) -> tuple[State, ...]:
    """The states, with memory for those whose next value lies in the memory of one."""
    found = []
    memory = {views[source].buffer for _, source in graph.state_pairs}
    for (result, name), (made, source) in zip(graph.states, graph.state_pairs, strict=True):
        staged = None
        if views[made].buffer in memory and views[made] != views[source]:
            sizes.append(("staged", made.type.nbytes))
            staged = View.of(made.type, len(sizes) - 1)
        found.append(State(name, result, views[source], views[made], staged))
    return tuple(found)


def _scratch(nbytes: int, sizes: list[tuple[str, int]]) -> View | None:
    if not nbytes:
        return None
    sizes.append(("scratch", nbytes))
    return View.of(TensorType((nbytes,), DType.U8), len(sizes) - 1)
