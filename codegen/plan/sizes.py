"""Several plans in one class: the same network at several sizes of its inputs.

Every variant is a Plan of its own. Layers of the same name whose packed arrays are equal are one
layer of the class, so that the weights file holds them once; the arena is that of the largest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from mdlc.codegen.kernel import Step
from mdlc.codegen.plan.choice import same_arrays
from mdlc.codegen.plan.plan import Plan
from mdlc.compiler.errors import MdlcError


def one_class(plans: Sequence[Plan]) -> Plan:
    """The plans as variants of the first.

    Args:
        plans: of one network for one backend, each at other sizes of its inputs.

    Raises:
        MdlcError: two have the same sizes of their inputs, or a state's size differs.
    """
    if len(plans) == 1:
        return plans[0]
    labels = _labels(plans)
    _check_states(plans)
    first = plans[0]
    members: dict[str, list[Step]] = {step.name: [step] for step in first.steps}
    taken = {step.name for plan in plans for step in plan.steps}
    taken |= {port.identifier for port in (*first.inputs, *first.outputs)}
    also = []
    for plan, label in zip(plans[1:], labels[1:], strict=True):
        names: dict[str, str] = {}
        steps = []
        for step in plan.steps:
            alike = members.setdefault(step.name, [step])
            same = next((each for each in alike if same_packing(each, step)), None)
            if same is None:
                name, number = f"{step.name}_{label}", 1
                while name in taken:
                    number += 1
                    name = f"{step.name}_{label}_{number}"
                taken.add(name)
                same = replace(step, name=name)
                alike.append(same)
            names[step.name] = same.name
            # The very arrays, so that there is one of each in memory, too.
            steps.append(replace(step, name=same.name, weights=same.weights))
        encoded = {names[name]: weights for name, weights in plan.encoded.items()}
        also.append(replace(plan, steps=tuple(steps), encoded=encoded, variant=label))
    encoded = dict(first.encoded)
    for plan in also:
        encoded = {**plan.encoded, **encoded}
    return replace(first, also=tuple(also), encoded=encoded, variant=labels[0])


def same_packing(one: Step, other: Step) -> bool:
    """Whether two layers can be one layer of a class: their packed arrays are equal."""
    return one.kernel.layer == other.kernel.layer and same_arrays(one.weights, other.weights)


def _labels(plans: Sequence[Plan]) -> list[str]:
    """For each plan, the dimensions of its inputs that differ between plans: 48x320.

    Dimensions that are alike in every plan (the tokens of two inputs) are named once.
    """
    shapes = [[port.type.shape for port in plan.inputs] for plan in plans]
    flat = [[length for shape in each for length in shape] for each in shapes]
    differing = [lengths for lengths in zip(*flat, strict=True) if len(set(lengths)) > 1]
    named = list(zip(*dict.fromkeys(differing), strict=True)) or [()] * len(plans)
    labels = ["x".join(map(str, lengths)) for lengths in named]
    for index, label in enumerate(labels):
        if label in labels[:index] or not label:
            listed = ", ".join("x".join(map(str, shape)) for shape in shapes[index])
            raise MdlcError(f"names the size {listed} twice", node="--shape",
                            hint="give every size once")  # fmt: skip
    return labels


def _check_states(plans: Sequence[Plan]) -> None:
    for state in plans[0].states:
        for plan in plans[1:]:
            other = next(each for each in plan.states if each.name == state.name)
            if other.view.type != state.view.type:
                raise MdlcError(
                    f"the state {state.name!r} is {state.view.type} at one size and "
                    f"{other.view.type} at another",
                    node="--state",
                    hint="a state is kept from one size to the next; compile a class for each",
                )


def size_text(plan: Plan) -> str:
    """The sizes of a variant's inputs in words: 1x3x48x320; with names where there are several."""
    shapes = ["x".join(map(str, port.type.shape)) or "scalar" for port in plan.inputs]
    if len(shapes) == 1:
        return shapes[0]
    return ", ".join(f"{p.name} {s}" for p, s in zip(plan.inputs, shapes, strict=True))
