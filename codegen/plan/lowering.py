"""Graph -> Plan: kernels and schedules chosen, aliases resolved, memory placed.

A tensor is a view of a buffer. Reshapes, layout conversions and transposes that move no bytes
are views of their input; the inputs of a concat are views of its output; channel slices are
views of their input. What is no view is computed by a kernel's step into a buffer of its own,
or over an input that no one reads afterwards.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace

from mdlc.codegen.isa.base import Isa
from mdlc.codegen.kernel import (
    Candidate,
    Schedule,
    Step,
    View,
    candidates,
    kernels,
    row_length,
    seen_by,
)
from mdlc.codegen.plan.arena import place
from mdlc.codegen.plan.layer_names import layer_names
from mdlc.codegen.plan.plan import (
    ALIGNMENT,
    CLASS_MEMBERS,
    Buffer,
    Names,
    Plan,
    Port,
    identifier,
)
from mdlc.codegen.plan.row_fusion import (
    Chain,
    band_node,
    find_chains,
    parts_of,
    window_floats,
    window_rows,
)
from mdlc.codegen.plan.schedule_table import Tuned
from mdlc.compiler.errors import MdlcError
from mdlc.compiler.ir import Graph, Node
from mdlc.compiler.ops.concat import Concat
from mdlc.compiler.ops.constant import Constant
from mdlc.compiler.ops.convert_layout import ConvertLayout
from mdlc.compiler.ops.input import Input
from mdlc.compiler.ops.reshape import Reshape
from mdlc.compiler.ops.slice import Slice
from mdlc.compiler.ops.transpose import Transpose
from mdlc.compiler.types import DType, TensorType


def lower(
    graph: Graph,
    isa: Isa,
    name: str,
    *,
    schedules: Mapping[str, Schedule] | None = None,
    tuned: Tuned | None = None,
    threads: int = 1,
    decodable: bool = False,
    chains: Sequence[Chain] | None = None,
) -> Plan:
    """Plans a graph whose layouts are assigned.

    Args:
        name: the emitted class.
        schedules: schedules to use instead of the cheapest, by node name.
        tuned: measured tables, which decide for the layers that they know.
        threads: the most that the emitted class computes on.
        decodable: choose only kernels whose weights can be decoded where they are packed.
        chains: steps to compute in bands of rows; None: those where that pays.

    Raises:
        MdlcError: a node has no kernel on this ISA, or no such schedule, or a table that the
            user named has schedules that are no more.
    """
    outputs = set(graph.outputs)
    order = [n for n in graph.order() if not isinstance(n.op, Constant) or n in outputs]
    choice = {
        node: _choose(
            node, isa, (schedules or {}).get(node.name), tuned or Tuned(), decodable=decodable
        )
        for node in order
        if not isinstance(node.op, Input) and not is_alias(node)
    }
    labels = labels_of(order)
    views, sizes = _assign_views(graph, order, choice, labels)
    structs = {kernel.layer for kernel in kernels()}
    reserved = CLASS_MEMBERS | structs | {name}
    # Inputs and outputs are parameters of infer, and several inputs are members, too.
    ports = Names()
    inputs = tuple(
        Port(node.name, ports.unique(_input_name(node, len(graph.inputs), reserved)), views[node])
        for node in graph.inputs
    )
    outputs_ = tuple(
        Port(onnx_name, ports.unique(identifier(onnx_name)), views[node])
        for onnx_name, node in zip(graph.output_names, graph.outputs, strict=True)
    )
    reserved |= {f"{port.identifier}_mat" for port in (*inputs, *outputs_)}
    reserved |= {port.identifier for port in inputs} if len(inputs) > 1 else {"input"}
    names = Names.of_layers(reserved)
    steps: list[Step] = []
    for node in order:
        if node not in choice or views_its_inputs(node, views):
            continue
        kernel, schedule, own = choice[node].kernel, choice[node].schedule, seen_by(node, isa)
        steps.append(
            Step(
                names.unique(labels[node]),
                node,
                kernel,
                schedule,
                tuple(views[source] for source in node.inputs if source in views),
                views[node],
                kernel.pack(node, schedule, own),
                _scratch(
                    kernel.scratch(node, schedule, own)
                    + (threads - 1) * kernel.thread_scratch(node, schedule, own),
                    sizes,
                ),
            )
        )
    if chains is None:
        chains = _chains(steps, views, graph, isa, threads)
    for chain in chains:
        _shrink(chain, steps, sizes, isa)
    plan = Plan(
        name, isa, graph, inputs, outputs_, tuple(steps), (), 0, threads, chains=tuple(chains)
    )
    return _place(plan, sizes)


def labels_of(order: Sequence[Node]) -> dict[Node, str]:
    """What layers and inputs are called in emitted text, not yet unique."""
    layers = [node for node in order if not isinstance(node.op, Input)]
    inputs = [node for node in order if isinstance(node.op, Input)]
    labels = dict(zip(layers, layer_names(layers), strict=True))
    return labels | {node: identifier(node.name or "input") for node in inputs}


def _input_name(node: Node, inputs: int, reserved: Collection[str]) -> str:
    name = identifier(node.name or "input")
    return f"{name}_input" if inputs > 1 and name in reserved else name


def _chains(
    steps: Sequence[Step], views: Mapping[Node, View], graph: Graph, isa: Isa, threads: int
) -> list[Chain]:
    users = graph.users()
    tensors = Counter(view.buffer for view in views.values())
    whole = [
        step.node in graph.outputs
        or len(users[step.node]) != 1
        or tensors[step.output.buffer] != 1
        or step.output.offset != 0
        for step in steps
    ]
    return find_chains(steps, whole, isa, threads)


def _shrink(chain: Chain, steps: list[Step], sizes: list[tuple[str, int]], isa: Isa) -> None:
    """Makes the chain's windows of their tensors' buffers, and its scratch memory that of bands."""
    nodes = [steps[i].node for i in chain.indices]
    for i, rows in zip(chain.indices, window_rows(nodes, chain), strict=False):
        name, _ = sizes[steps[i].output.buffer]
        sizes[steps[i].output.buffer] = name, 4 * chain.strips * window_floats(steps[i], rows)
    for i, parts in zip(chain.indices, parts_of(nodes, chain), strict=True):
        step = steps[i]
        if step.scratch is None:
            continue
        most = max(
            step.kernel.scratch(band_node(step.node, part), step.schedule, step.seen(isa))
            for part in parts
        )
        nbytes = chain.strips * -(-most // ALIGNMENT) * ALIGNMENT
        sizes[step.scratch.buffer] = sizes[step.scratch.buffer][0], nbytes
        steps[i] = replace(
            step, scratch=View.of(TensorType((nbytes,), DType.U8), step.scratch.buffer)
        )


def is_alias(node: Node) -> bool:
    """Whether the output has the very bytes of the first input, so that no code is needed."""
    if isinstance(node.op, Reshape):
        return _row_major(node.inputs[0].type) and _row_major(node.type)
    if isinstance(node.op, ConvertLayout):
        return _memory_axes(node.inputs[0].type) == _memory_axes(node.type)
    if isinstance(node.op, Transpose):
        return _memory_axes(node.inputs[0].type) == _memory_axes(node.type, node.op.perm)
    return False


def _memory_axes(tensor: TensorType, perm: Sequence[int] | None = None) -> list[int]:
    """Axes in memory order, those of length 1 left out; `perm` renames them."""
    axes = [a for a in tensor.layout.axes(tensor.rank) if tensor.shape[a] != 1]
    return axes if perm is None else [perm[a] for a in axes]


def _row_major(tensor: TensorType) -> bool:
    """Whether memory order is the logical order."""
    axes = _memory_axes(tensor)
    return axes == sorted(axes)


def _choose(
    node: Node, isa: Isa, wanted: Schedule | None, tuned: Tuned, *, decodable: bool
) -> Candidate:
    found = candidates(node, isa)
    if wanted is None:
        best = tuned.choose(node, found)
        if decodable and not best.kernel.decodable(node, best.schedule):
            return next(c for c in found if c.kernel.decodable(node, c.schedule))
        return best
    for candidate in found:
        if candidate.schedule == wanted:
            return candidate
    raise MdlcError(f"no kernel has the schedule {wanted}", node=f"node {node.name!r}")


def _assign_views(
    graph: Graph,
    order: Sequence[Node],
    choice: Mapping[Node, Candidate],
    labels: Mapping[Node, str],
) -> tuple[dict[Node, View], list[tuple[str, int]]]:
    """A view for every node but the constants, and name and bytes of every buffer."""
    users = graph.users()
    inside = _inside_concats(order, users, set(graph.outputs), choice)
    sizes: list[tuple[str, int]] = []
    views: dict[Node, View] = {}

    def fresh(node: Node, pitch: int = 0) -> View:
        view = View.of(node.type, len(sizes))
        if pitch:
            view = replace(view, pitch=pitch)
        nbytes = view.rows * view.pitch * node.type.dtype.size
        sizes.append((labels[node], nbytes))
        return view

    for node in order:
        if node in views:  # a concat whose buffer was made for its first input
            continue
        if node in inside:
            concat, offset = inside[node]
            if concat not in views:
                views[concat] = fresh(concat)
            whole = views[concat]
            outer = math.prod(concat.type.physical_shape[: _concat_axis(concat)])
            pitch = row_length(node.type) if outer == 1 else whole.pitch
            views[node] = View(whole.buffer, offset, node.type, pitch)
        elif node in choice:
            part = _slice_view(node, views, users, set(graph.outputs), choice)
            if part is None:
                part = fresh(node, _spread_pitch(node, users, set(graph.outputs), choice))
            views[node] = part
        elif is_alias(node):
            source = views[node.inputs[0]]
            views[node] = replace(source, type=node.type, pitch=row_length(node.type))
        else:
            views[node] = fresh(node)
    return views, sizes


# Pixels this many bytes apart, or a multiple, meet in a few sets of a first-level cache (32 KiB in
# 8 ways has 4 KiB a way, and in 4 ways 8 KiB), where a tile's pixels drive each other out.
_CONFLICT_BYTES = 2048


def _spread_pitch(
    node: Node,
    users: Mapping[Node, Sequence[Node]],
    outputs: set[Node],
    choice: Mapping[Node, Candidate],
) -> int:
    """The pitch of a tensor whose pixels had better lie a cache line further apart, or 0."""
    length, size = row_length(node.type), node.type.dtype.size
    honoured = choice[node].kernel.pitched_output and all(
        user in choice
        and choice[user].kernel.pitched_input
        and not isinstance(user.op, Concat | Slice)
        for user in users[node]
    )
    if length * size % _CONFLICT_BYTES or node.type.rank != 4 or node in outputs or not honoured:
        return 0
    return length + ALIGNMENT // size if math.prod(node.type.physical_shape[:-1]) > 1 else 0


def _concat_axis(node: Node) -> int:
    assert isinstance(node.op, Concat)
    return node.type.physical_axis(node.op.axis)


def _inside_concats(
    order: Sequence[Node],
    users: Mapping[Node, Sequence[Node]],
    outputs: set[Node],
    choice: Mapping[Node, Candidate],
) -> dict[Node, tuple[Node, int]]:
    """Nodes that write straight into a concat's buffer: the concat and the offset in bytes.

    A concat is a view only if all its inputs are: each computed by a step of its own and part
    of no other concat, and, unless the pieces are contiguous, written and read by kernels that
    honour a pitch.
    """
    inside: dict[Node, tuple[Node, int]] = {}
    for concat in order:
        if not isinstance(concat.op, Concat) or len(set(concat.inputs)) < len(concat.inputs):
            continue
        axis = _concat_axis(concat)
        shape = concat.type.physical_shape
        contiguous = math.prod(shape[:axis]) == 1
        if not contiguous and axis != len(shape) - 1:
            continue

        def fits(source: Node, contiguous: bool = contiguous, concat: Node = concat) -> bool:
            if source not in choice or source in inside or isinstance(source.op, Concat | Slice):
                return False
            if contiguous:
                return True
            readers = [user for user in users[source] if user is not concat]
            return (
                source not in outputs
                and choice[source].kernel.pitched_output
                and all(user in choice and choice[user].kernel.pitched_input for user in readers)
                and not any(isinstance(user.op, Concat | Slice) for user in readers)
            )

        if not all(fits(source) for source in concat.inputs):
            continue
        offset = 0
        for source in concat.inputs:
            inside[source] = (concat, offset)
            length = source.type.physical_shape[axis]
            offset += length * math.prod(shape[axis + 1 :]) * concat.type.dtype.size
    return inside


def _slice_view(
    node: Node,
    views: Mapping[Node, View],
    users: Mapping[Node, Sequence[Node]],
    outputs: set[Node],
    choice: Mapping[Node, Candidate],
) -> View | None:
    """The view of a Slice that reads a contiguous or a channel range of its input, or None."""
    if not isinstance(node.op, Slice) or node.inputs[0] not in views:
        return None
    found = node.op.single_range(node.inputs[0].shape)
    if found is None:
        return None
    logical_axis, start = found
    source, whole = node.inputs[0].type, views[node.inputs[0]]
    axis = source.physical_axis(logical_axis)
    shape = source.physical_shape
    size = source.dtype.size
    if math.prod(shape[:axis]) == 1 and whole.dense:
        inner = math.prod(shape[axis + 1 :])
        return View(
            whole.buffer, whole.offset + start * inner * size, node.type, row_length(node.type)
        )
    readable = node not in outputs and all(
        user in choice
        and choice[user].kernel.pitched_input
        and not isinstance(user.op, Concat | Slice)
        for user in users[node]
    )
    if axis != len(shape) - 1 or not readable:
        return None
    return View(whole.buffer, whole.offset + start * size, node.type, whole.pitch)


def views_its_inputs(node: Node, views: Mapping[Node, View]) -> bool:
    """Whether a Concat or Slice shares its input's buffer, so that there is nothing to compute."""
    return (
        isinstance(node.op, Concat | Slice)
        and node.inputs[0] in views
        and views[node].buffer == views[node.inputs[0]].buffer
    )


def _scratch(nbytes: int, sizes: list[tuple[str, int]]) -> View | None:
    if not nbytes:
        return None
    sizes.append(("scratch", nbytes))
    return View.of(TensorType((nbytes,), DType.U8), len(sizes) - 1)


def _ranges(plan: Plan, count: int) -> list[tuple[int, int]]:
    """First and last step that touch each buffer; -1 and len(steps) are the copies in and out."""
    touched: list[list[int]] = [[] for _ in range(count)]
    for port in plan.inputs:
        touched[port.view.buffer].append(-1)
    for unit in plan.units():  # all memory of a chain is used until its last band
        for step in (plan.steps[index] for index in unit):
            for view in (*step.inputs, step.output, *([step.scratch] if step.scratch else [])):
                touched[view.buffer] += (unit[0], unit[-1])
    for port in plan.outputs:
        touched[port.view.buffer].append(len(plan.steps))
    return [(min(at), max(at)) if at else (0, -1) for at in touched]


def _share_in_place(plan: Plan, sizes: Sequence[tuple[str, int]]) -> dict[int, int]:
    """Buffers that take over the memory of an input that dies in the step that writes them."""
    ranges = _ranges(plan, len(sizes))
    owner = list(range(len(sizes)))
    last = [r[1] for r in ranges]
    for number, step in enumerate(plan.steps):
        out = step.output
        if ranges[out.buffer][0] != number or out.offset or not out.dense:
            continue
        runtime = [i for i in step.node.inputs if i.constant is None]
        for index in step.kernel.in_place(step.node):
            source_node = step.node.inputs[index]
            if source_node.constant is not None:
                continue
            source = step.inputs[runtime.index(source_node)]
            root = owner[source.buffer]
            others = [
                owner[view.buffer]
                for view, node in zip(step.inputs, runtime, strict=True)
                if node is not source_node
            ]
            if (
                last[root] == number
                and root not in others
                and not source.offset
                and source.dense
                and sizes[root][1] >= sizes[out.buffer][1]
                and root != owner[out.buffer]
            ):
                owner[out.buffer] = root
                last[root] = ranges[out.buffer][1]
                break
    return {index: root for index, root in enumerate(owner) if index != root}


def _place(plan: Plan, sizes: Sequence[tuple[str, int]]) -> Plan:
    """Shares buffers in place, drops those that nothing touches, and sets offsets."""
    shared = _share_in_place(plan, sizes)

    def move(view: View) -> View:
        return replace(view, buffer=shared.get(view.buffer, view.buffer))

    plan = _map_views(plan, move)
    ranges = _ranges(plan, len(sizes))
    kept = [index for index, (first, last) in enumerate(ranges) if first <= last]
    offsets, total = place([sizes[i][1] for i in kept], [ranges[i] for i in kept])
    names = Names()
    buffers = tuple(
        Buffer(names.unique(sizes[i][0]), sizes[i][1], offset, *ranges[i])
        for i, offset in zip(kept, offsets, strict=True)
    )
    past = max((step.kernel.reads_past for step in plan.steps), default=0)
    total += -(-past // ALIGNMENT) * ALIGNMENT
    number = {index: position for position, index in enumerate(kept)}
    plan = _map_views(plan, lambda view: replace(view, buffer=number[view.buffer]))
    return replace(plan, buffers=buffers, arena_bytes=total)


def _map_views(plan: Plan, change: Callable[[View], View]) -> Plan:
    steps = tuple(
        replace(
            step,
            inputs=tuple(change(view) for view in step.inputs),
            output=change(step.output),
            scratch=change(step.scratch) if step.scratch else None,
        )
        for step in plan.steps
    )
    inputs = tuple(replace(port, view=change(port.view)) for port in plan.inputs)
    outputs = tuple(replace(port, view=change(port.view)) for port in plan.outputs)
    return replace(plan, steps=steps, inputs=inputs, outputs=outputs)
