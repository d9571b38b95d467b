"""The microkernels of Winograd's transforms: one tile of the input, one of the output."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from mdlc.codegen.code import Microkernel
from mdlc.codegen.isa.dialect import Dialect
from mdlc.codegen.isa.scalar import SCALAR
from mdlc.codegen.templates import render
from mdlc.codegen.tiles.epilogue import Epilogue
from mdlc.codegen.tiles.winograd_transform import Lines, Matrix, Transform


@dataclass(frozen=True)
class InputTile:
    """The transform of one tile of the input.

    Attributes:
        down, across: whether the points at infinity of that axis are wanted (not of a phase that
            has no last tap).
    """

    transform: Transform
    down: bool = True
    across: bool = True

    def writes(self, number: int) -> bool:
        """Whether it writes finite points (0), those at infinity down (1), across (2), both (3)."""
        return (True, self.down, self.across, self.down and self.across)[number]

    def name(self, isa: Dialect) -> str:
        """Such as winograd4x3_input_f32_neon."""
        phase = (
            "" if self.down and self.across else f"_{'_down' * self.down}{'_across' * self.across}"
        )
        phase = phase.replace("__", "_") if phase != "_" else "_inner"
        outputs, taps = self.transform.outputs, self.transform.taps
        return f"winograd{outputs}x{taps}_input{phase}_{isa.kind}_{isa.suffix}"

    def _lines(self, isa: Dialect, wide: bool) -> tuple[list[str], list[str]]:
        lines = Lines(isa)
        size = self.transform.size - (0 if wide else 1)
        results = lines.inputs(self.transform, [f"d{i}" for i in range(size)])
        return lines.text, results

    def instructions(self) -> float:
        """Instructions for one vector of channels."""
        size = self.transform.size
        rows, columns = size - (not self.down), size - (not self.across)
        across = _input_operations(self.transform, columns)
        down = _input_operations(self.transform, rows)
        return rows * (2 * columns + across) + columns * (2 * rows + down) + 12

    def _outs(self) -> list[str]:
        """Names of what it writes."""
        names = ("v", "down", "across", "corner")
        return [name for number, name in enumerate(names) if self.writes(number)]

    def microkernel(self, isa: Dialect) -> Microkernel:
        """winograd4x3_input_f32_neon<channels, row step, pixel step, steps...>(d, v...)."""
        across, across_results = self._lines(isa, self.across)
        down, down_results = self._lines(isa, self.down)
        text = render(
            "cpp/kernels/winograd_input.j2",
            name=self.name(isa),
            isa=isa,
            tile=self,
            outs=[f"{isa.element}* {name}" for name in self._outs()],
            outputs=self.transform.outputs,
            taps=self.transform.taps,
            finite=self.transform.size - 1,
            rows=self.transform.size - (not self.down),
            columns=self.transform.size - (not self.across),
            across_results=across_results,
            across=across,
            down_results=down_results,
            down=down,
        )
        return Microkernel(self.name(isa), text)


@cache
def _input_operations(of: Transform, size: int) -> int:
    """Arithmetic of an input transform along one axis, of so many elements."""
    lines = Lines(SCALAR)
    lines.inputs(of, [f"d{i}" for i in range(size)])
    return len(lines.text)


@cache
def _output_operations(of: Transform) -> int:
    """Arithmetic of an output transform along one axis."""
    lines = Lines(SCALAR)
    lines.outputs(of, of.outputs, [f"d{i}" for i in range(of.size)])
    return len(lines.text)


def _used(matrix: Matrix) -> list[int]:
    """Columns of a matrix that are not all zero."""
    return [i for i in range(len(matrix[0])) if any(row[i] for row in matrix)]


@dataclass(frozen=True)
class OutputTile:
    """The transform of one tile back, with the epilogue, of rows x columns outputs inside."""

    transform: Transform
    epilogue: Epilogue
    rows: int
    columns: int

    def name(self, isa: Dialect) -> str:
        """Such as winograd4x3_output_relu_f32_4x4_neon."""
        outputs, taps = self.transform.outputs, self.transform.taps
        size = f"{self.rows}x{self.columns}"
        return (
            f"winograd{outputs}x{taps}_output{self.epilogue.suffix}_{isa.kind}_{size}_{isa.suffix}"
        )

    def instructions(self) -> float:
        """Instructions for one vector of channels of a whole tile."""
        size, outputs = self.transform.size, self.transform.outputs
        count = _output_operations(self.transform)
        return size * (size + outputs + count) + outputs * (size + count + 3 * outputs) + 14

    def microkernel(self, isa: Dialect) -> Microkernel:
        """winograd4x3_output_relu_f32_4x4_neon<channels, steps...>(m, bias, ..., y)."""
        across, down = Lines(isa), Lines(isa)
        size, epilogue = self.transform.size, self.epilogue
        d = [f"d{i}" for i in range(size)]
        activation = epilogue.function(isa)
        text = render(
            "cpp/kernels/winograd_output.j2",
            name=self.name(isa),
            isa=isa,
            size=size,
            outputs=self.transform.outputs,
            taps=self.transform.taps,
            rows=self.rows,
            columns=self.columns,
            formula=epilogue.formula("bias[n] + (A' m A)[r][q][n]"),
            epilogue=epilogue,
            activation=activation.name if activation else "",
            arguments=isa.arguments(["m", *epilogue.arguments]),
            used_across=_used(self.transform.output[: self.columns]),
            used_down=_used(self.transform.output[: self.rows]),
            across_results=across.outputs(self.transform, self.columns, d),
            across=across.text,
            down_results=down.outputs(self.transform, self.rows, d),
            down=down.text,
        )
        return Microkernel(self.name(isa), text, (activation,) if activation else ())
