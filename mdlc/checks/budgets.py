"""Budgets: what a class may take of a device at most, and which layer is to blame for more."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from mdlc.checks.footprint import footprint
from mdlc.codegen.kernel import Step
from mdlc.codegen.plan.plan import Plan
from mdlc.codegen.plan.weights_file import stored_bytes
from mdlc.compiler.errors import MdlcError
from mdlc.compiler.words import counted

if TYPE_CHECKING:
    from mdlc.api import CompiledModel


def check_budgets(compiled: CompiledModel, budgets: Mapping[str, int]) -> None:
    """Raises MdlcError for the first budget that the class exceeds, naming the layer.

    Args:
        budgets: the most of "macs", "weights", "arena", "code" and "stack"; of the last two the
            class is built for.
    """
    plans = compiled.plans or (compiled.plan,)
    sizes = [size for plan in plans for size in plan.sizes]
    for name, most in budgets.items():
        if name == "macs":
            plan = max(sizes, key=lambda each: each.macs)
            work = {step.name: _macs(step) for step in plan.steps}
            _hold(name, "inference takes", plan.macs, most, "multiply-add", _most_of(work))
        elif name == "weights":
            _hold(name, "weights take", stored_bytes(plans, compiled.placed), most, "byte",
                  _most_of(_stored(plans[0])))  # fmt: skip
        elif name == "arena":
            plan = max(sizes, key=lambda each: each.arena_bytes)
            _hold(name, "working memory takes", plan.arena_bytes, most, "byte", _fullest(plan))
    if "code" not in budgets and "stack" not in budgets:
        return
    found = footprint(compiled)
    if "code" in budgets:
        if found.code_bytes is None:
            raise MdlcError("measuring code needs the `size` tool", node="--max-code",
                            hint="install binutils")  # fmt: skip
        layers, nbytes = found.largest
        _hold("code", "code takes", found.code_bytes, budgets["code"], "byte",
              f"layer {' and '.join(map(repr, layers[:3]))} alone {nbytes}")  # fmt: skip
    if "stack" in budgets:
        if found.unbounded:
            raise MdlcError(f"the stack of {found.unbounded[0]} has no bound", node="--max-stack",
                            hint="please report this, with the model")  # fmt: skip
        where = f"in layer {found.layers[0]!r}" if found.layers else "outside of layers"
        _hold("stack", "infer's stack takes", found.infer_stack, budgets["stack"], "byte",
              f"most of it {where}")  # fmt: skip


def _hold(name: str, what: str, used: int, most: int, unit: str, blame: str) -> None:
    if used > most:
        raise MdlcError(f"{what} {counted(used, unit)}, {blame}", node=f"--max-{name}",
                        hint=f"{most} were allowed")  # fmt: skip


def _macs(step: Step) -> int:
    node = step.node
    return int(node.op.cost([source.type for source in node.inputs], node.type).macs)


def _most_of(shares: Mapping[str, int]) -> str:
    name = max(shares, key=lambda each: shares[each], default="")
    return f"{shares[name]} of them in layer {name!r}" if name else "in no layer"


def _stored(plan: Plan) -> dict[str, int]:
    """Bytes of the file by layer."""
    found = {}
    for step in plan.layers:
        nbytes = sum(array.nbytes for array in step.weights.values())
        if weights := plan.encoded.get(step.name):
            kept = sum(a.nbytes for name, a in step.weights.items() if name != "weights")
            nbytes = kept + len(weights.data)
        found[step.name] = nbytes
    return found


def _fullest(plan: Plan) -> str:
    """Where the most tensors are alive, and the two largest of them."""

    def alive(at: int) -> list[tuple[int, str]]:
        return sorted(((b.nbytes, b.name) for b in plan.buffers if b.first <= at <= b.last),
                      reverse=True)  # fmt: skip

    at = max(range(-1, len(plan.steps) + 1), key=lambda each: sum(n for n, _ in alive(each)))
    inside = 0 <= at < len(plan.steps)
    where = f"at layer {plan.steps[at].name!r}" if inside else "where inputs or outputs are copied"
    tensors = " and ".join(f"{name} ({nbytes})" for nbytes, name in alive(at)[:2])
    return f"the most {where}, which needs {tensors}"
