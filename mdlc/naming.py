"""The name of the emitted class."""

from __future__ import annotations

import re

from mdlc.codegen.plan import CPP_KEYWORDS
from mdlc.compiler.errors import MdlcError


def class_name(stem: str) -> str:
    """A class name from a file's stem: digits_mobilenet gives DigitsMobilenet."""
    words = re.findall(r"[0-9A-Za-z]+", stem)
    name = "".join(word[0].upper() + word[1:] for word in words) or "Model"
    if name[0].isdigit():
        name = f"Model{name}"
    return name


def checked_class_name(name: str) -> str:
    """The name that a user gave.

    Raises:
        MdlcError: it is no C++ identifier.
    """
    if not re.fullmatch(r"[A-Za-z][0-9A-Za-z_]*", name) or "__" in name or name in CPP_KEYWORDS:
        raise MdlcError(
            f"{name!r} is no C++ class name", node="--name", hint="use letters and digits"
        )
    return name
