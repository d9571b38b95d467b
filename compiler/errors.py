"""The one exception type that users of mdlc see."""

from __future__ import annotations


class MdlcError(Exception):
    """Bad input or an unsupported request, told in one sentence.

    Args:
        reason: what is wrong.
        node: the ONNX node, file or flag it is about, if there is one.
        hint: what to do about it.
    """

    def __init__(self, reason: str, *, node: str | None = None, hint: str | None = None) -> None:
        self.reason = reason
        self.node = node
        self.hint = hint
        super().__init__(str(self))

    def __str__(self) -> str:
        where = f"{self.node}: " if self.node else ""
        what_to_do = f"; {self.hint}" if self.hint else ""
        return f"{where}{self.reason}{what_to_do}"
