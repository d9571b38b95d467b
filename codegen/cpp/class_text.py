"""What the emitted files of every target say alike: the manual, ports in the manifest, literals."""

from __future__ import annotations

import hashlib
import textwrap
from collections.abc import Mapping, Sequence

from mdlc.codegen.plan.plan import Plan, Port


def manual(rows: Sequence[tuple[str, str]], plan: Plan, notes: Mapping[str, str]) -> list[str]:
    """The table at the top of a header, in lines that clang-format has no reason to refill.

    Args:
        rows: labels and texts, which those of the inputs and outputs follow.
        notes: on the expected input, by its name.
    """
    whole = list(rows)
    for port in plan.inputs:
        note = notes.get(port.name)
        whole.append(("in", f"{_described(port)}{'; ' + note if note else ''}"))
    whole += [("out", _described(port)) for port in plan.outputs]
    lines = []
    for label, text in whole:
        wrapped = textwrap.wrap(text, 82, break_long_words=False, break_on_hyphens=False)
        for number, line in enumerate(wrapped or [""]):
            lines.append(f"{'' if number else label:<11}{line}".rstrip())
    return lines


def _described(port: Port) -> str:
    height, width, channels = port.dims
    size = f"height {height}, width {width}, channels {channels}"
    return f"{port.identifier}: {port.type.dtype.value}, {size}"


def port_entry(port: Port) -> dict[str, object]:
    """An input or output in the manifest."""
    height, width, channels = port.dims
    return {
        "name": port.name,
        "parameter": port.identifier,
        "shape": list(port.type.shape),
        "dtype": port.type.dtype.value,
        "layout": port.type.layout.value,
        "mat": {"height": height, "width": width, "channels": channels},
    }


def file_entries(files: Mapping[str, bytes]) -> dict[str, object]:
    """The emitted files in the manifest, by name."""
    return {
        name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        for name, data in sorted(files.items())
    }


def stacked(port: Port) -> tuple[int, int]:
    """Rows of a port's Mat, and bytes of each."""
    height, width, channels = port.dims
    return height, width * channels * port.type.dtype.size


def bytes_literal(data: bytes) -> str:
    """Bytes as the elements of a C++ array."""
    return ", ".join(str(byte) for byte in data)
