"""An operator in words, for comments in emitted text: MaxPool2D 3x3, stride 2, padding 1."""

from __future__ import annotations

import dataclasses
import enum
import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from mdlc.compiler.window import Window

# Attributes that name themselves otherwise, and those that say nothing to a reader of the header.
_WORDS = {
    "pads": "padding",
    "dtype": "to",
    "ceil_mode": "rounded up",
    "x_zero": "input zero point",
    "y_zero": "output zero point",
    "x_scale": "input scale",
    "y_scale": "output scale",
    "a_zero": "zero point of the first input",
    "b_zero": "zero point of the second input",
}
# Longer lists (a value for every channel) are counted.
_LONGEST_LIST = 8


class Counting(str):
    """What is being done, the n-th of so many times: words for those who print them, and counts
    for a bar.

    Attributes:
        stage: the words without the counts.
        done, total: how many are done, and how many there are.
    """

    stage: str
    done: int
    total: int

    def __new__(cls, stage: str, done: int, total: int) -> Counting:
        """Words such as `calibrating 3/64`."""
        made = super().__new__(cls, f"{stage} {done}/{total}")
        made.stage, made.done, made.total = stage, done, total
        return made


def in_words(op: Any, size: str = "") -> str:
    """An operator with the attributes that are not as usual.

    Args:
        size: of its filter.
    """
    head = type(op).__name__
    words = list(attributes(op))
    window = next((f for f in vars(op).values() if isinstance(f, Window)), None)
    size = size or ("x".join(map(str, window.kernel)) if window else "")
    return ", ".join([f"{head} {size}".rstrip(), *words])


def counted(count: int, noun: str) -> str:
    """1 pixel, 2 pixels."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def byte_count(number: int) -> str:
    """Bytes for people: 12 B, 1.2 KiB, 3.4 MiB."""
    if number < 1024:
        return f"{number} B"
    return f"{number / 1024:.1f} KiB" if number < 1 << 20 else f"{number / (1 << 20):.2f} MiB"


def work(macs: int) -> str:
    """How many multiply-adds a layer or network has."""
    if macs < 100_000:
        return f"{macs:,} multiply-add{'' if macs == 1 else 's'}"
    return f"{macs / 1e6:.2f} million multiply-adds"


def attributes(what: Any) -> Iterator[str]:
    """The attributes of an operator, or of a part of one, that differ from their defaults."""
    for field in dataclasses.fields(what):
        value = getattr(what, field.name)
        hidden = field.name in ("kernel", "residual", "activation")
        # A constant's elements are no attribute to be read.
        if hidden or isinstance(value, np.ndarray) or value is None or value == field.default:
            continue
        if isinstance(value, Window):
            yield from attributes(value)
            continue
        label = _WORDS.get(field.name, field.name.replace("_", " "))
        if value is True:
            yield label
        elif value is False:
            yield f"no {label}"
        elif dataclasses.is_dataclass(value):
            inner = list(attributes(value))
            yield f"{label} {type(value).__name__}{' (' + ', '.join(inner) + ')' if inner else ''}"
        else:
            yield f"{label} {_value(field.name, value)}"


def _value(name: str, value: Any) -> str:
    if isinstance(value, enum.Enum):
        return str(value.value)
    if isinstance(value, float):
        return f"{value:g}" if math.isfinite(value) else ("infinity" if value > 0 else "-infinity")
    if isinstance(value, tuple):
        if len(value) > _LONGEST_LIST:
            return f"of {len(value)} values"
        if len(value) > 1 and len(set(value)) == 1 and name in ("stride", "pads", "dilation"):
            return _value(name, value[0])
        if name in ("stride", "dilation"):
            return "x".join(map(str, value))
        each = [_value("", element) for element in value]
        if name in ("shape", "sizes"):
            return "x".join(map(str, value)) or "scalar"
        listed = " and ".join(filter(None, [", ".join(each[:-1]), *each[-1:]]))
        return (
            f"{listed} at top, left, bottom, right"
            if name == "pads" and len(value) == 4
            else listed
        )
    return str(value)
