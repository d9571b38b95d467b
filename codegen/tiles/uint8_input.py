"""Bytes that become floats while a convolution's input is copied: what a first layer reads.

A picture's bytes are read once, as rows of the copy with a border that the convolution needs
anyway. What is added to them is added there, too: padding is zero behind the sum.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from mdlc.codegen.isa.dialect import Dialect
from mdlc.compiler.ir import Node
from mdlc.compiler.ops.conv2d import Conv2D
from mdlc.compiler.types import DType


@dataclass(frozen=True)
class Unpack:
    """What happens to the bytes of an image in its copy.

    Attributes:
        shift: added to each channel; () for nothing.
    """

    shift: tuple[float, ...]

    @staticmethod
    def of(node: Node) -> Unpack | None:
        """What a Conv2D wants done, or None where its input has floats already."""
        op = node.op
        assert isinstance(op, Conv2D)
        return Unpack(op.shift) if node.inputs[0].type.dtype is DType.U8 else None

    def pattern(self, isa: Dialect) -> list[float]:
        """The array `shift` that the copy reads: summands until they repeat, in whole groups."""
        if not self.shift:
            return []
        shift = self.shift[:1] if len(set(self.shift)) == 1 else self.shift
        return list(shift) * (math.lcm(_group(isa), len(shift)) // len(shift))

    def name(self, what: str, isa: Dialect) -> str:
        """Such as pad_row_u8_shifted_f32_avx2."""
        return f"{what}_u8{'_shifted' if self.shift else ''}_{isa.kind}_{isa.suffix}"

    @property
    def formula(self) -> str:
        """What is added, in comments."""
        return " + shift[c]" if self.shift else ""

    def one(self, isa: Dialect, to: str, byte: str, index: str) -> str:
        """A statement (without semicolon) that writes element `index` of `to`."""
        value = f"static_cast<float>({byte})"
        if self.shift:
            value += f" + shift[{index} % kShift]"
        return isa.set_item(to if to.isidentifier() else f"({to})", index, value)

    def row(self, isa: Dialect) -> str:
        """Statements that convert kCount neighbouring bytes of `x` to `to`."""
        group, start = _group(isa), "0"
        lines = []
        if group > 1:
            trip = "kShift" if self.shift else str(group)
            lines.append(f"for (int i = 0; i + {trip} <= kCount; i += {trip}) {{")
            if self.shift:
                lines.append(f"for (int j = 0; j < kShift; j += {group}) {{")
            lines += self._group_lines(isa)
            lines += ["}", "}"] if self.shift else ["}"]
            start = f"kCount / {trip} * {trip}"
        lines.append(f"for (int i = {start}; i < kCount; ++i) {{")
        lines += [f"{self.one(isa, 'to', 'x[i]', 'i')};", "}"]
        return "\n".join(lines)

    def _group_lines(self, isa: Dialect) -> list[str]:
        """One group of bytes at i + j, with the summands at j."""
        wide, at = isa.as_float or isa, "i + j" if self.shift else "i"
        assert wide.from_bytes is not None
        values = list(wide.from_bytes.values)
        if self.shift:
            values = [
                wide.op("add", value, wide.load(f"shift + j{_plus(number * wide.lanes)}"))
                for number, value in enumerate(values)
            ]
        if isa.as_float:
            each = isa.lanes // wide.lanes
            values = [isa.op("narrow", *values[i : i + each]) for i in range(0, len(values), each)]
        lines = [line.format(f"x + {at}") for line in wide.from_bytes.lines]
        return lines + [
            f"{isa.store(f'to + {at}{_plus(number * isa.lanes)}', value)};"
            for number, value in enumerate(values)
        ]


def _plus(number: int) -> str:
    return f" + {number}" if number else ""


def _group(isa: Dialect) -> int:
    """Bytes that are converted at once."""
    found = (isa.as_float or isa).from_bytes
    return found.count if found else 1
