"""Panels of a first layer's bytes without gaps, in AArch64 assembly (tbl).

With 3 channels a filter row is 9 or 21 bytes, which a panel (codegen/isa/arm/int8_panels.py) would
round up to 12 or 24. Here the whole groups of four of all rows stand first, then what each row has
beside them: 3x3 of 3 channels are 28 bytes a pixel instead of 36, 7x7 are 148 instead of 168. The
filter row of 8 neighbouring pixels is at most 64 bytes: four registers, out of which tbl picks.
"""

from __future__ import annotations

from collections.abc import Sequence

from mdlc.codegen.code import C_TYPES, Microkernel
from mdlc.compiler.types import DType
from mdlc.compiler.words import counted

_GROUPS, _OVER, _INDEX, _FLIP = 4, 8, 12, 31  # first registers of results, of indices; 0x80


def gathers(run: int, taps: int, pixel: int) -> bool:
    """Whether rows of `run` bytes of 8 pixels, `pixel` bytes apart, have gaps and fit."""
    if taps < 2 or run % 4 == 0 or run < 4 or 7 * pixel + run > 64 or taps * run > 256:
        return False
    return _INDEX + len(_Code(8, run, taps, pixel, False).indices) <= _FLIP


def gathered(run: int, taps: int) -> list[int]:
    """The depth in a panel's order, as positions in [tap][run]; -1 is padding."""
    whole = run // 4 * 4
    order = [tap * run + k for tap in range(taps) for k in range(whole)]
    order += [tap * run + k for tap in range(taps) for k in range(whole, run)]
    return order + [-1] * (-len(order) % 4)


def gather(rows: int, run: int, taps: int, pixel: int, source: DType, *, flip: bool) -> Microkernel:
    """The function (x, panel) that copies so many neighbouring pixels; kTapStep bytes a row."""
    code = _Code(rows, run, taps, pixel, flip)
    name = f"gather_{source.value}{'_flip' if flip else ''}_{rows}_{taps}x{run}_step{pixel}_neon"
    lines = "\n".join(f'"{line}\\n"' for line in code.lines)
    listed = ", ".join(str(value) for index in code.indices for value in index)
    registers = [*range(_INDEX + len(code.indices)), *([_FLIP] if flip else [])]
    clobbers = ", ".join(f'"v{number}"' for number in registers)
    text = (
        f"// {counted(rows, 'pixel')}, {pixel} bytes apart, as [depth / 4][{code.pitch}][4]"
        f"{', every byte ^ 0x80' if flip else ''}: {run // 4 * 4} bytes of each\n"
        f"// of {taps} filter rows, then {run % 4} more of each.\n"
        "template <int kTapStep>\n"
        f"inline void {name}(const {C_TYPES[source]}* x, std::int8_t* to) {{\n"
        f"static const std::uint8_t kIndex[] = {{{listed}}};\n"
        "const std::int64_t step = kTapStep;\n"
        f"std::int8_t* over = to + {run // 4 * 4 * taps * code.pitch};\n"
        "const std::uint8_t* index = kIndex;\n"
        f"asm volatile({lines}\n"
        ': [x] "+r"(x), [to] "+r"(to), [over] "+r"(over), [index] "+r"(index)\n'
        f': [step] "r"(step)\n: {clobbers}, "memory");\n}}\n'
    )
    return Microkernel(name, text)


class _Code:
    """The instructions, and the vectors of positions that they look up."""

    def __init__(self, rows: int, run: int, taps: int, pixel: int, flip: bool) -> None:
        self.pitch = 4 * -(-rows // 4)
        self.indices: list[tuple[int, ...]] = []
        self.lines: list[str] = []
        held = over = 0
        registers = -(-((self.pitch - 1) * pixel + run) // 16)
        for _ in range(taps):
            self._say(f"ld1 {_list(0, registers)}, [%[x]], %[step]")
            if flip:
                for v in range(registers):
                    self._say(f"eor v{v}.16b, v{v}.16b, v{_FLIP}.16b")
            for k in range(0, run // 4 * 4, 4):
                for first in range(0, self.pitch, 4):
                    pixels = range(first, first + 4)
                    self._look(
                        _GROUPS + held, [p * pixel + k + b for p in pixels for b in range(4)]
                    )
                    held += 1
                    if held == 4:
                        self._say(f"st1 {_list(_GROUPS, 4)}, [%[to]], #64")
                        held = 0
            for k in range(run // 4 * 4, run):
                self._look(_OVER + over, [p * pixel + k for p in range(self.pitch)])
                over += 1
                if over == 4:
                    self._store_over()
                    over = 0
        if held:
            self._say(f"st1 {_list(_GROUPS, held)}, [%[to]]")
        if over:  # what the registers behind hold meets weights of zero
            self._store_over()
        setup = [f"movi v{_FLIP}.16b, #128"] if flip else []
        for first in range(0, len(self.indices), 4):
            count = min(4, len(self.indices) - first)
            setup.append(f"ld1 {_list(_INDEX + first, count)}, [%[index]], #{16 * count}")
        self.lines = setup + self.lines

    def _say(self, line: str) -> None:
        self.lines.append(line)

    def _look(self, target: int, positions: Sequence[int]) -> None:
        """Bytes at 16 positions of the row; at 8 or 4 of them, the rest is not used."""
        low, high = min(positions) // 16, max(positions) // 16
        index = tuple(position - 16 * low for position in positions)
        index += (0,) * (16 - len(index))
        if index not in self.indices:
            self.indices.append(index)
        kind = "16b" if len(positions) == 16 else "8b"
        number = _INDEX + self.indices.index(index)
        table = _list(low, high - low + 1)
        self._say(f"tbl v{target}.{kind}, {table}, v{number}.{kind}")

    def _store_over(self) -> None:
        """Four bytes of each pixel, and no byte more."""
        if self.pitch == 8:
            self._say(f"st4 {_list(_OVER, 4, '8b')}, [%[over]], #32")
            return
        for p in range(4):
            self._say(f"st4 {_list(_OVER, 4, 'b')}[{p}], [%[over]], #4")


def _list(first: int, count: int, kind: str = "16b") -> str:
    """Consecutive registers, as instructions of tables and of interleaved memory take them."""
    last = f"-v{first + count - 1}.{kind}" if count > 1 else ""
    return f"{{v{first}.{kind}{last}}}"
