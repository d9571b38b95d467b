"""Which functions of emitted C++ call which, and how much stack each takes, as gcc reports it.

`-fcallgraph-info=su` writes, beside an object file, the functions that are left after inlining
with their frames, and their calls ("Developer Options" in the manual of GCC).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass

FLAG = "-fcallgraph-info=su"
ENDING = ".ci"
# What gcc calls the target of a call through a pointer.
INDIRECT = "__indirect_call"
# What a function that calls no other may use below its frame without saying so (System V ABI for
# AMD64, section 3.2.2; Apple's for arm64 likewise).
RED_ZONE = 128

_NODE = re.compile(r'^node: \{ title: "([^"]*)" label: "([^"]*)"', re.MULTILINE)
_EDGE = re.compile(r'^edge: \{ sourcename: "([^"]*)" targetname: "([^"]*)"', re.MULTILINE)
_FRAME = re.compile(r"^(\d+) bytes \(([^)]*)\)$")


@dataclass(frozen=True)
class Called:
    """A function.

    Attributes:
        symbol: as the linker calls it. text: as C++ declares it.
        frame: bytes of stack; None of a function that is not defined in the sources.
        unbounded: its frame grows with what it is given.
    """

    symbol: str
    text: str
    frame: int | None
    unbounded: bool = False


class CallGraph:
    """The functions of a class's sources."""

    def __init__(self, reports: Iterable[str]) -> None:
        """Args:
        reports: the contents of gcc's files, one for each source.
        """
        self.functions: dict[str, Called] = {}
        self._calls: dict[str, dict[str, None]] = {}
        for text in reports:
            for title, label in _NODE.findall(text):
                found = _called(title, label)
                if found.frame is not None or title not in self.functions:
                    self.functions[title] = found
            for source, target in _EDGE.findall(text):
                self._calls.setdefault(source, {})[target] = None
        called = {target for targets in self._calls.values() for target in targets}
        # Emitted code points to lambdas alone; a call through a pointer may reach each of them that
        # nothing calls by its name.
        pointed = [
            title
            for title, each in self.functions.items()
            if each.frame is not None and title not in called and "lambda(" in each.text
        ]
        self._calls[INDIRECT] = dict.fromkeys(pointed)

    def named(self, test: Callable[[Called], bool]) -> list[str]:
        """Titles of the functions of the sources that a test holds for."""
        return [t for t, each in self.functions.items() if each.frame is not None and test(each)]

    def reached(self, roots: Collection[str]) -> dict[str, None]:
        """Titles of all functions that these may call, and of themselves."""
        found = dict.fromkeys(roots)
        left = list(roots)
        while left:
            for target in self._calls.get(left.pop(), ()):
                if target not in found:
                    found[target] = None
                    left.append(target)
        return found

    def deepest(self, root: str) -> tuple[int, tuple[Called, ...]]:
        """Bytes of stack on the path from a function that takes most, and that path.

        Functions that the sources do not define (of the C library) count as nothing, and so does
        a call back to a function that is on the path already. The last one's red zone counts.
        """
        known: dict[str, tuple[int, tuple[str, ...]]] = {}
        nothing: tuple[int, tuple[str, ...]] = (0, ())

        def visit(title: str, above: frozenset[str]) -> tuple[int, tuple[str, ...]]:
            if title not in known:
                inside = above | {title}
                below = [
                    visit(target, inside)
                    for target in self._calls.get(title, ())
                    if target not in inside
                ]
                most, path = max(below, key=lambda each: each[0], default=nothing)
                own = self.functions[title].frame or 0 if title in self.functions else 0
                known[title] = own + most, (title, *path)
            return known[title]

        most, path = visit(root, frozenset())
        functions = (self.functions[t] for t in path if t in self.functions)
        return most + RED_ZONE, tuple(each for each in functions if each.frame is not None)

    def sizes(self, sizes: Mapping[str, int], roots: Collection[str]) -> int:
        """Bytes of machine code of all functions that these reach; sizes: by symbol."""
        return sum(sizes.get(_symbol(title), 0) for title in self.reached(roots))


def _symbol(title: str) -> str:
    """Functions of one file only are told apart by its name in front."""
    return title.rpartition(":")[2]


def _called(title: str, label: str) -> Called:
    lines = label.split("\\n")
    frame, unbounded = None, False
    for line in lines[1:]:
        if found := _FRAME.match(line):
            frame = int(found[1])
            unbounded = "dynamic" in found[2] and "bounded" not in found[2]
    return Called(_symbol(title), lines[0], frame, unbounded)
