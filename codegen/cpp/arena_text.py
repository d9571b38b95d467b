"""Where tensors lie in the arena, as C++: constants, and pointers by them."""

from __future__ import annotations

import re

from mdlc.codegen.code import C_TYPES
from mdlc.codegen.kernel import View
from mdlc.codegen.plan.plan import CLASS_MEMBERS, SOURCE_NAMES, Plan


def _constant(name: str) -> str:
    """conv2_1_dw gives kConv2_1Dw: numbers stay apart."""
    parts = [part for part in re.split(r"_+", name) if part]
    joined = "".join(f"_{part}" if part[0].isdigit() else part.capitalize() for part in parts)
    return f"k{joined.removeprefix('_')}"


class Arena:
    """The arena's buffers by the names of their constants, found once for a plan.

    Attributes:
        names: of the constants. space: their namespace, where the class has several variants.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.space = f"at_{plan.variant}" if plan.variant else ""
        self.names: list[str] = []
        # Inside the class, a member of that name would be meant and not the constant.
        taken = {*CLASS_MEMBERS, *SOURCE_NAMES, *(step.name for step in plan.steps)}
        for buffer in plan.buffers:
            wanted = _constant(buffer.name)
            name, number = wanted, 1
            while name in taken:
                number += 1
                name = f"{wanted}V{number}"
            self.names.append(name)
            taken.add(name)

    def at(self, view: View, kind: str = "") -> str:
        """A pointer to a view, of its element type or another one."""
        name = f"{self.space}::" * bool(self.space) + self.names[view.buffer]
        extra = f" + {view.offset}" if view.offset else ""
        return f"At<{kind or C_TYPES[view.type.dtype]}>({name}{extra})"

    def offsets(self) -> list[dict[str, object]]:
        """The buffers as constants."""
        found = []
        last = len(self.plan.steps)
        for name, buffer in zip(self.names, self.plan.buffers, strict=True):
            first_step, last_step = (
                "input" if at < 0 else "output" if at >= last else self.plan.steps[at].name
                for at in (buffer.first, buffer.last)
            )
            found.append(
                {
                    "name": name,
                    "offset": buffer.offset,
                    "nbytes": buffer.nbytes,
                    "live": f"{first_step} .. {last_step}",
                }
            )
        return found
