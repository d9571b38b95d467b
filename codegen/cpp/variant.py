"""A class for several instruction sets: one plan and one set of layers' functions for each.

Init takes a variant for the life of the network. What differs between variants (kernels, schedules,
packing, memory) is theirs alone; a function that is the same in two of them is emitted once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from mdlc.codegen.code import Function
from mdlc.codegen.cpp.arena_text import Arena
from mdlc.codegen.cpp.functions import Functions, layer_function
from mdlc.codegen.cpp.kernels_file import guard, namespace, using
from mdlc.codegen.cpp.row_fusion import row_group_code
from mdlc.codegen.isa.base import Isa
from mdlc.codegen.kernel import SCRATCH, View
from mdlc.codegen.plan.plan import CLASS_MEMBERS, SOURCE_NAMES, Plan

# Below about this many cycles, waking a thread costs more than it saves.
_WORTH_SHARING = 20_000


@dataclass(frozen=True)
class Line:
    """A line of `infer`.

    Attributes:
        layers: numbers of the steps that it computes; text: the call.
        function: the name of what it calls.
    """

    layers: tuple[int, ...]
    text: str
    function: str


@dataclass(frozen=True)
class Contents:
    """What `infer` does in one variant of the class, at one size of its inputs.

    Attributes:
        plan: of the size. name: of the member function.
        arena: where its tensors lie, by constants.
        codes: of all steps and row-fused groups; lines: of `infer`, in order.
        groups: the member functions among those called, as (name, comment).
    """

    plan: Plan
    name: str
    arena: Arena
    codes: tuple[Function, ...]
    lines: tuple[Line, ...]
    groups: tuple[tuple[str, str], ...]

    def output(self, name: str) -> View:
        """Where an output lies."""
        return next(port.view for port in self.plan.outputs if port.name == name)

    def keep(self) -> list[str]:
        """The lines at the end of `infer` that make states of the next inference."""

        def copy(target: View, source: View) -> str:
            to, come = (self.arena.at(view, "unsigned char") for view in (target, source))
            return f"std::memcpy({to}, {come}, {target.type.nbytes});"

        states = self.plan.states
        first = [copy(state.staged, state.made) for state in states if state.staged]
        return first + [
            copy(state.view, state.staged or state.made)
            for state in states
            if state.view != state.made
        ]


@dataclass(frozen=True)
class Variant:
    """A plan of a class and its functions.

    Attributes:
        sizes: what it does at each size of the inputs.
        number: among the class's variants, as the targets were named.
        condition: of the preprocessor, where the class has other machines' variants, too; or "".
        runs: the number of the variant that computes for it: an earlier one, if both would be the
            same text, or its own.
        opening: statements by which a member function sees what is internal.
    """

    plan: Plan
    number: int
    condition: str
    runs: int
    functions: Functions
    opening: tuple[str, ...]
    sizes: tuple[Contents, ...]

    @property
    def isa(self) -> Isa:
        """Its instruction set."""
        return self.plan.isa

    @property
    def namespace(self) -> str:
        """The C++ namespace of its layers."""
        return namespace(self.isa)

    @property
    def cycles(self) -> float:
        """What the cost model makes of an inference."""
        return sum(step.cycles(self.isa) for step in self.plan.steps)


def variants_of(
    plans: Sequence[Plan], types: Mapping[str, str], renamed: Mapping[tuple[str, str, str], str]
) -> list[Variant]:
    """The variants of a class, in the order of its plans.

    Args:
        types: C++ types of the layers, by name.
        renamed: members of those types that are called otherwise than the packed array, by type
            of the layer, type of the array, and array.
    """
    found: list[Variant] = []
    machines = {guard(plan.isa) for plan in plans}
    taken = set(CLASS_MEMBERS | SOURCE_NAMES | types.keys())
    for number, plan in enumerate(plans):
        opening = tuple(using(plan.name, plan.isa))
        earlier = [each for each in found if _serves(each.isa, plan.isa)]
        functions = Functions(
            taken, opening, renamed, [(each.namespace, each.functions) for each in earlier]
        )
        sizes = tuple(
            _contents(each, types, functions, several=len(plans) > 1) for each in plan.sizes
        )
        condition = _condition(plan.isa, plans) if len(machines) > 1 else ""
        own = Variant(plan, number, condition, number, functions, opening, sizes)
        same = next((each.runs for each in earlier if _same(each, own)), number)
        found.append(replace(own, runs=same))
    return found


def _contents(
    plan: Plan, types: Mapping[str, str], functions: Functions, *, several: bool
) -> Contents:
    """A size's part of the class, its functions being added to those of the file."""
    arena = Arena(plan)
    codes = [_code(plan, arena, unit, types, several=several) for unit in plan.units()]
    lines, groups = [], []
    for unit, code in zip(plan.units(), codes, strict=True):
        shared = _threads(plan, unit) > 1
        name = functions.add(code, shared=shared)
        text = _call(plan, arena, unit, name, code, shared=shared and code.parallel)
        lines.append(Line(unit, text, name))
        if code.owner:
            groups.append((name, " ".join(code.comment)))
    words = ["infer", plan.variant, namespace(plan.isa) if several else ""]
    name = "_".join(word for word in words if word)
    return Contents(plan, name, arena, tuple(codes), tuple(lines), tuple(groups))


def _same(earlier: Variant, later: Variant) -> bool:
    """Whether a variant would be the same text as an earlier one."""
    space = f"{earlier.namespace}::"

    def told(variant: Variant) -> list[object]:
        return [
            (
                [line.text.replace(space, "") for line in each.lines],
                each.plan.buffers,
                each.plan.states,
            )
            for each in variant.sizes
        ]

    return (
        not later.functions.defined
        and not any(each.groups for each in later.sizes)
        and told(earlier) == told(later)
        and _packed(earlier.plan) == _packed(later.plan)
    )


def _packed(plan: Plan) -> list[tuple[str, str, bytes]]:
    return [(s.name, name, a.tobytes()) for s in plan.layers for name, a in s.weights.items()]


def _serves(earlier: Isa, later: Isa) -> bool:
    """Whether functions compiled for one instruction set run, and are right, in another's place."""
    own = later.helpers
    return (
        earlier.toolchain.triple == later.toolchain.triple
        and set(earlier.toolchain.guard) <= set(later.toolchain.guard)
        and earlier.toolchain.cpu_flags <= later.toolchain.cpu_flags
        and all(own.get(name, text) == text for name, text in earlier.helpers.items())
    )


def _condition(isa: Isa, plans: Sequence[Plan]) -> str:
    """Where a variant is compiled: on its machine; one for any, where no other always fits."""
    if own := guard(isa):
        return own
    always = {
        guard(plan.isa) for plan in plans if guard(plan.isa) and not plan.isa.toolchain.cpu_flags
    }
    return " && ".join(f"!({each})" for each in sorted(always))


def _code(
    plan: Plan, arena: Arena, unit: Sequence[int], types: Mapping[str, str], *, several: bool
) -> Function:
    """The function of a step, or of a row-fused group of them; types: of the layers."""
    group = plan.row_group_of(unit[0])
    if group is not None:
        code = row_group_code(plan, group, types, arena.at)
        words = [code.name, plan.variant, namespace(plan.isa) if several else ""]
        return replace(code, name="_".join(word for word in words if word))
    step = plan.steps[unit[0]]
    return replace(layer_function(step, plan.isa), struct=types[step.name])


def _threads(plan: Plan, unit: Sequence[int]) -> int:
    """Threads that share the loops of a step or a row-fused group."""
    group = plan.row_group_of(unit[0])
    if group is not None:
        return group.strips
    return plan.threads if plan.steps[unit[0]].cycles(plan.isa) > _WORTH_SHARING else 1


def _call(
    plan: Plan, arena: Arena, unit: Sequence[int], name: str, code: Function, *, shared: bool
) -> str:
    """The line of `infer` that computes a layer or a group of them."""
    if code.owner:
        return f"{name}();"
    step = plan.steps[unit[0]]
    words = [step.name, *(arena.at(view) for view in (*step.inputs, step.output))]
    if SCRATCH in code.parameters:
        assert step.scratch is not None
        words.append(arena.at(step.scratch, "unsigned char"))
    words += ["*workers_"] if shared else []
    return f"{name}({', '.join(words)});"
