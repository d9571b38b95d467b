"""Graph -> Plan for Metal: kernels chosen, tensors that share a texture found, live ranges set.

As in the C++ class, what moves no bytes is a view; here a view is of a texture and begins at one
of its slices. Concats on slice boundaries are written in place, slices of channels on such
boundaries read in place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from mdlc.codegen.kernel import Candidate, Schedule, Step, View, candidates, kernels
from mdlc.codegen.metal.backend import Metal
from mdlc.codegen.metal.image import MAX_SLICES, Image, element
from mdlc.codegen.metal.kernel import ComputeKernel, image_of
from mdlc.codegen.metal.split import (
    NOWHERE,
    CpuPart,
    MetalPlan,
    Split,
    Transfer,
    divide,
    on_processor,
)
from mdlc.codegen.metal.views import Textures, stored_in_float
from mdlc.codegen.plan.arena import live_range, placed
from mdlc.codegen.plan.choice import pick
from mdlc.codegen.plan.lowering import labels_of
from mdlc.codegen.plan.plan import CLASS_MEMBERS, SOURCE_NAMES, Names, Port, identifier
from mdlc.codegen.plan.schedule_table import Tuned
from mdlc.codegen.plan.views import assign_views, views_its_inputs
from mdlc.codegen.plan.views import is_alias as keeps_memory
from mdlc.compiler.errors import MdlcError
from mdlc.compiler.ir import Graph, Node
from mdlc.compiler.ops.cast import Cast
from mdlc.compiler.ops.constant import Constant
from mdlc.compiler.ops.dense import Dense
from mdlc.compiler.ops.input import Input
from mdlc.compiler.ops.reshape import Reshape
from mdlc.compiler.types import DType, Layout

# What a tensor's way to memory and a dispatch cost, in cycles of one core, as kernels estimate:
# the A15's bandwidth shared by its cores (metal/cost.py), and the time to start a dispatch.
BYTES_PER_CYCLE = 5.1
DISPATCH_CYCLES = 13e3

# Names that the host class and its source declare besides those of the C++ class.
HOST_NAMES = frozenset(
    """
    Compute Copy Dispatch Encode Encoder Fill OutputStage Interpolation Layer MTL NS Place Run
    Texture buffers_ commands device device_ encoder heap_ kGpuError kMatrixKernels kNoDevice
    kNoKernel kNoLibrary kPipelines kTextures library_ librarypath matrices_ pipelines_ queue_
    textures_ weights_ autoreleased
    """.split()  # noqa: SIM905
)


def lower(
    graph: Graph,
    metal: Metal,
    name: str,
    *,
    schedules: Mapping[str, Schedule] | None = None,
    tuned: Tuned | None = None,
    threads: int = 1,
    fallback: bool = False,
) -> MetalPlan:
    """Plans a graph whose layouts are assigned.

    Args:
        fallback: leave what Metal lacks to the processor (see codegen/metal/split.py).

    Raises:
        MdlcError: operators have no Metal kernel (all of them are named), or a tensor does not
            fit a texture; with `fallback`: nothing is left for Metal.
    """
    split = _split(graph, metal) if fallback else None
    # The plan tells of the whole graph; the folded one has no meaning but here.
    folded, aliases, stages = _fold_views(split.gpu if split else graph, split)
    outputs = set(folded.outputs)
    order = [n for n in folded.order() if not isinstance(n.op, Constant) or n in outputs]
    order.sort(key=lambda node: stages.get(node, -1))
    choice = _choices(order, aliases, metal, schedules or {}, tuned or Tuned(), folded)
    absorbed = {inner for node in choice if (inner := _absorbed(choice[node], node))}
    order = [node for node in order if node not in absorbed]
    for inner in absorbed:
        del choice[inner]
    wide = stored_in_float(order, metal)
    labels = labels_of(order)
    textures = Textures(aliases, wide, labels)
    views = assign_views(order, choice, textures)
    _check_sizes(order, views)
    names = _reserved_names(name, metal)
    sources = split.sources if split else graph.inputs
    results = split.results if split else graph.outputs
    made = dict(zip(sources, (views[node] for node in folded.inputs), strict=True))
    made.update(zip(results, (views[node] for node in folded.outputs), strict=True))

    def port(node: Node, label: str) -> Port:
        view = made.get(node) or View(NOWHERE, 0, node.type, Image.of(node.type).slices)
        return Port(label, names.unique(identifier(label or "input")), view)

    inputs = tuple(port(node, node.name) for node in graph.inputs)
    outputs_ = tuple(
        port(node, label) for label, node in zip(graph.output_names, graph.outputs, strict=True)
    )
    for each in (*inputs, *outputs_):
        names.unique(f"{each.identifier}_mat")
    steps: list[Step] = []
    at: list[int] = []  # the stage of every step
    for node in order:
        if node not in choice or views_its_inputs(node, views):
            continue
        kernel, schedule = choice[node].kernel, choice[node].schedule
        at.append(stages.get(node, 0))
        steps.append(
            Step(
                names.unique(labels[node]),
                node,
                kernel,
                schedule,
                tuple(views[s] for s in _operands(node, absorbed) if s.constant is None),
                views[node],
                kernel.pack(node, schedule, metal),
            )
        )
    plan = MetalPlan(
        name, metal, graph, inputs, outputs_, tuple(steps), (), 0, threads,
        absorbed=tuple(node for node in folded.order() if node in absorbed),
    )  # fmt: skip
    return _place(_with_transfers(plan, split, made, at), textures.made)


def _split(graph: Graph, metal: Metal) -> Split | None:
    """The graph divided between GPU and processor; None where the GPU computes all of it."""
    users = graph.users()
    kinds = kernels(metal.kernels)

    def lacks(node: Node) -> bool:
        flattening = [user for user in users[node] if _fold_flattening(user) is not user]
        if flattening and len(flattening) == len(users[node]):
            return False  # never made
        own = _fold_flattening(node)
        runtime = [source for source in own.inputs if source.constant is None]
        return not all(
            element(each.type.dtype) is not None and Image.of(each.type).fits
            for each in (own, *runtime)
        ) or not any(kernel.matches(own, metal) for kernel in kinds)

    processor = on_processor(graph, lacks, keeps_memory)
    if not processor:
        return None
    split = divide(graph, processor)
    if not any(stage % 2 == 0 for stage in split.stages.values()):
        raise MdlcError(
            f"target {metal.name} has none of the network's layers",
            node="--fallback",
            hint="compile for a C++ target, such as arm-neon",
        )
    return split


def _choices(
    order: Sequence[Node],
    aliases: set[Node],
    metal: Metal,
    schedules: Mapping[str, Schedule],
    tuned: Tuned,
    graph: Graph,
) -> dict[Node, Candidate]:
    """Kernel and schedule of every node that is computed.

    Where a kernel absorbs a node's input, that input has a choice, too.
    """
    users, outputs = graph.users(), set(graph.outputs)
    choice: dict[Node, Candidate] = {}
    missing: dict[str, list[str]] = {}
    for node in order:
        if isinstance(node.op, Input):
            if element(node.type.dtype) is None:
                kind = f"inputs of type {node.type.dtype.value}"
                missing.setdefault(kind, []).append(f"at {node.name!r}")
        elif node not in aliases:
            if not any(kernel.matches(node, metal) for kernel in kernels(metal.kernels)):
                operands = ", ".join(str(source.type) for source in node.inputs)
                where = f"({operands}) at {node.name!r}"
                missing.setdefault(type(node.op).__name__, []).append(where)
            else:
                source = node.inputs[0] if node.inputs else None
                alone = source in choice and source not in outputs and len(users[source]) == 1
                inner = choice[source] if source is not None and alone else None
                choice[node] = _choose(node, metal, schedules.get(node.name), tuned, inner)
    if missing:
        listed = [
            f"{kind} {places[0]}" + (f" and {len(places) - 1} more" if places[1:] else "")
            for kind, places in missing.items()
        ]
        raise MdlcError(
            f"target {metal.name} does not have {'; '.join(listed)}",
            hint="compile for a C++ target, such as arm-neon, or leave those layers to the "
            "processor with --fallback cpu",
        )
    return choice


def _reserved_names(name: str, metal: Metal) -> Names:
    structs = {kernel.layer for kernel in kernels(metal.kernels)}
    reserved = CLASS_MEMBERS | SOURCE_NAMES | HOST_NAMES | structs | {name}
    return Names({taken.lower(): 1 for taken in reserved})


def _with_transfers(
    plan: MetalPlan, split: Split | None, made: Mapping[Node, View], at: Sequence[int]
) -> MetalPlan:
    """The plan with its buffers, what is copied between them and textures, and when.

    Args:
        made: views by nodes of the whole graph; at: the stage of every step.
    """
    graph, count = plan.graph, len(plan.steps)
    shared = [node.type for node in graph.inputs]
    numbers = {node: number for number, node in enumerate(graph.inputs)}
    results: dict[Node, int] = {}
    for node in graph.outputs:
        if node not in results:
            results[node] = len(shared)
            shared.append(node.type)
            numbers.setdefault(node, results[node])
    for _, _, sources, ends in split.parts if split else ():
        for node in (*sources, *ends):
            if node not in numbers:
                numbers[node] = len(shared)
                shared.append(node.type)

    def behind(stage: int) -> int:
        return sum(each <= stage for each in at)

    def port(node: Node) -> Port:
        return Port(node.name, "", made[node])

    stages = split.whole if split else {}
    reads = [
        Transfer(port(node), numbers[node], behind(stages[node]) if node in stages else 0,
                 stages.get(node, -1))
        for node in (split.sources if split else graph.inputs)
    ]  # fmt: skip
    asked = {node for part in split.parts for node in part[2]} if split else set()
    last = max(stages.values(), default=0) + 1
    writes = []
    for node in dict.fromkeys(split.results if split else graph.outputs):
        if node in asked and node in stages:
            stage = stages[node]
            writes.append(Transfer(port(node), numbers[node], behind(stage), stage))
        else:
            writes.append(Transfer(port(node), results[node], count, last))
    parts = [
        CpuPart(
            f"{plan.name}Cpu{number}",
            part,
            tuple(numbers[node] for node in sources),
            tuple(numbers[node] for node in ends),
            behind(stage - 1),
            stage,
        )
        for number, (stage, part, sources, ends) in enumerate(split.parts if split else (), 1)
    ]
    return replace(
        plan,
        shared=tuple(shared),
        results=tuple(results[node] for node in graph.outputs),
        reads=tuple(reads),
        writes=tuple(writes),
        parts=tuple(parts),
    )


def _fold_views(graph: Graph, split: Split | None) -> tuple[Graph, set[Node], dict[Node, int]]:
    """The graph without the middle of chains that move no bytes, its aliases, and nodes' stages.

    Reshapes, transposes and layout conversions that leave memory as it is may still put other
    axes on width and channels; where a chain of them ends as it began, the end is a view of the
    beginning.
    """
    aliases: set[Node] = set()
    stages: dict[Node, int] = {}

    def visit(old: Node, fresh: Node) -> Node:
        fresh = folded(fresh)
        if split and old in split.stages:
            stages[fresh] = split.stages[old]
        return fresh

    def folded(fresh: Node) -> Node:
        if isinstance(fresh.op, Cast):
            if _is_exact_cast(fresh):
                aliases.add(fresh)
            return fresh
        fresh = _fold_flattening(fresh)
        source = fresh
        while keeps_memory(source):
            source = source.inputs[0]
            if Image.of(source.type).extent == Image.of(fresh.type).extent:
                fresh = replace(fresh, inputs=(source,))
                aliases.add(fresh)
                break
        return fresh

    return graph.rebuild(visit), aliases, stages


def _fold_flattening(node: Node) -> Node:
    """A Dense behind the flattening of one image reads the image: the weights' order is the same.

    So that flattened tensors of more channels than a texture has are never made.
    """
    if not isinstance(node.op, Dense) or not isinstance(node.inputs[0].op, Reshape):
        return node
    source = node.inputs[0].inputs[0]
    flat, image = node.inputs[0].type, Image.of(source.type)
    one_row = flat.rank == 2 and flat.shape[0] == 1
    plain = source.type.rank == 4 and source.type.layout is Layout.PLAIN
    if not one_row or not plain or image.images != 1 or image.channels == flat.shape[1]:
        return node
    return replace(node, inputs=(source, *node.inputs[1:]))


def _is_exact_cast(node: Node) -> bool:
    """Whether a texture holds the same values in either type."""
    source, target = node.inputs[0].type.dtype, node.type.dtype
    exact = {DType.U8, DType.I8, DType.BOOL, DType.F16, DType.F32}
    return source in exact and target in (DType.F16, DType.F32)


def _choose(
    node: Node, metal: Metal, wanted: Schedule | None, tuned: Tuned, inner: Candidate | None
) -> Candidate:
    """Args:
    inner: how the first input is computed, where this node alone reads it.
    """
    found = candidates(node, metal)
    fused = [each for each in found if _absorbed(each, node)]
    found = [each for each in found if each not in fused]
    if inner is not None and fused and not _absorbed(inner, node.inputs[0]):
        # What the other candidates need besides: the inner layer, and its tensor's way to memory.
        passed = 2 * Image.of(node.inputs[0].type).nbytes / BYTES_PER_CYCLE
        apart = found[0].cycles + inner.cycles + passed + DISPATCH_CYCLES
        explicit = [each for each in fused if each.schedule == wanted]
        if explicit or (wanted is None and fused[0].cycles < apart):
            return (explicit or fused)[0]
    return pick(node, found, wanted, tuned)


def _absorbed(candidate: Candidate, node: Node) -> Node | None:
    """The input that a candidate's kernel computes itself."""
    kernel = candidate.kernel
    return kernel.absorbs(node) if isinstance(kernel, ComputeKernel) else None


def _operands(node: Node, absorbed: set[Node]) -> list[Node]:
    """What a step reads: of an input that it computes itself, that one's input."""
    return [source.inputs[0] if source in absorbed else source for source in node.inputs]


def _check_sizes(order: Sequence[Node], views: Mapping[Node, View]) -> None:
    for node in order:
        image = Image.of(node.type)
        if node in views and not node.type.size:
            raise MdlcError(
                f"Metal has no texture for {node.type}, which has no elements",
                node=f"output {node.name!r}",
                hint="cut the output from the model, or compile for a C++ target",
            )
        if node in views and not image.fits:
            raise MdlcError(
                f"{node.type} makes a texture of {image.width} x {image.height} x {image.layers} "
                f"slices; Metal's limits are 16384 x 16384 x {MAX_SLICES}",
                node=f"node {node.name!r}",
                hint="compile for a C++ target, or reduce the input's size with --shape",
            )


def _place(plan: MetalPlan, textures: Sequence[tuple[str, View]]) -> MetalPlan:
    """Drops textures that nothing touches, and gives the others live ranges and offsets.

    The class places them anew on the device, which alone knows how large its textures are.
    """
    touched: list[list[int]] = [[] for _ in textures]
    for transfer in (*plan.reads, *plan.writes):
        # Between two steps: the first is over, but its textures may not be overwritten yet.
        around = [-1] if transfer.stage < 0 else [transfer.before - 1, transfer.before]
        touched[transfer.port.view.buffer] += around
    for number, step in enumerate(plan.steps):
        for view in (*step.inputs, step.output):
            touched[view.buffer].append(number)
    sizes = [(name, image_of(view).nbytes) for name, view in textures]
    buffers, total, number_of = placed(sizes, [live_range(at) for at in touched])
    number_of[NOWHERE] = NOWHERE

    def move(view: View) -> View:
        return replace(view, buffer=number_of[view.buffer])

    def moved(port: Port) -> Port:
        return replace(port, view=move(port.view))

    steps = tuple(
        replace(step, inputs=tuple(map(move, step.inputs)), output=move(step.output))
        for step in plan.steps
    )
    return replace(
        plan,
        steps=steps,
        inputs=tuple(map(moved, plan.inputs)),
        outputs=tuple(map(moved, plan.outputs)),
        reads=tuple(replace(each, port=moved(each.port)) for each in plan.reads),
        writes=tuple(replace(each, port=moved(each.port)) for each in plan.writes),
        buffers=buffers,
        arena_bytes=total,
    )
