"""The one exception type that users of mdlc see."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Sequence


class MdlcError(Exception):
    """Bad input or an unsupported request, told in one sentence.

    Args:
        reason: what is wrong.
        node: the ONNX node, file or flag it is about, if there is one.
        hint: what to do about it.
        inputs: of a value that must be known now, the model's inputs that it is computed from.
    """

    def __init__(
        self,
        reason: str,
        *,
        node: str | None = None,
        hint: str | None = None,
        inputs: Sequence[str] = (),
    ) -> None:
        self.inputs = tuple(inputs)
        self.reason = reason
        self.node = node
        self.hint = hint
        super().__init__(str(self))

    def __str__(self) -> str:
        where = f"{self.node}: " if self.node else ""
        what_to_do = f"; {self.hint}" if self.hint else ""
        return f"{where}{self.reason}{what_to_do}"


def choose(given: str, known: Collection[str], near: str | None = None) -> str:
    """A hint for a name that is not known: the nearest one, and all that there are.

    Args:
        near: the nearest one, where more than spelling tells it.
    """
    alike = [near] if near else difflib.get_close_matches(given, known, 1)
    if len(known) == 1:
        return f"write {next(iter(known))}"
    if not alike:
        return f"choose one of {', '.join(known)}"
    others = [name for name in known if name != alike[0]]
    return f"did you mean {alike[0]}, or one of {', '.join(others)}?"
