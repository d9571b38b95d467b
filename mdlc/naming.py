"""The name of the emitted class."""

from __future__ import annotations

import re

from mdlc.codegen.answer.code import ANSWER_MEMBERS
from mdlc.codegen.cpp.chain import CHAIN_MEMBERS
from mdlc.codegen.frame.text import FRAME_MEMBERS
from mdlc.codegen.kernel import kernels
from mdlc.codegen.plan.plan import CLASS_MEMBERS, CPP_KEYWORDS, SOURCE_NAMES
from mdlc.compiler.errors import MdlcError

# What the text of a class declares or uses under these names.
_OWN = frozenset({"infer", "main", "std", "Mat"})
# Words that no class can have as its name, those of C++20 among them.
RESERVED = (CPP_KEYWORDS - _OWN) | frozenset(
    "char8_t co_await co_return co_yield concept consteval constinit requires".split()  # noqa: SIM905
)
# Macros and types that headers of the C library bring into every scope.
C_NAMES = frozenset(
    """
    NULL EOF INFINITY NAN assert errno linux unix stdin stdout stderr size_t ptrdiff_t max_align_t
    nullptr_t wint_t float_t double_t
    """.split()  # noqa: SIM905
) | {f"{sign}int{bits}_t" for sign in ("", "u") for bits in (8, 16, 32, 64, "max", "ptr")}
_TAKEN = RESERVED | C_NAMES | _OWN


def class_name(stem: str, *, answers: bool = False) -> str:
    """A class name from a file's stem: digits_mobilenet gives DigitsMobilenet.

    Args:
        answers: whether the class has an answer, parts of which it is not called after.
    """
    words = re.findall(r"[0-9A-Za-z]+", stem)
    name = "".join(word[0].upper() + word[1:] for word in words) or "Model"
    if name[0].isdigit():
        name = f"Model{name}"
    taken = taken_class_names() | _TAKEN | (ANSWER_MEMBERS if answers else frozenset())
    return f"{name}Model" if name in taken else name


def taken_class_names() -> frozenset[str]:
    """Names of what stands in an emitted class or beside it."""
    layers = {kernel.layer for kernel in kernels()}
    return (CLASS_MEMBERS | SOURCE_NAMES | layers) - (ANSWER_MEMBERS - FRAME_MEMBERS)


def check_beside_answer(name: str) -> None:
    """A class that answers is not called as a part of its answer.

    Raises:
        MdlcError: it is.
    """
    if name in ANSWER_MEMBERS:
        raise MdlcError(
            f"{name!r} names a part of a class that answers",
            node="--name",
            hint=f"choose another name, such as {name}Network",
        )


def checked_class_name(name: str) -> str:
    """The name that a user gave.

    Raises:
        MdlcError: it is no C++ identifier, or names something in the emitted files.
    """
    if not re.fullmatch(r"[A-Za-z][0-9A-Za-z_]*", name) or "__" in name:
        raise MdlcError(
            f"{name!r} is not a valid C++ class name",
            node="--name",
            hint="use letters and digits, a letter first",
        )
    reasons = {
        "is a reserved word of C++": RESERVED,
        "is a name of the C library": C_NAMES,
        "names a part of every emitted class": taken_class_names() | _OWN,
    }
    for reason, names in reasons.items():
        if name in names:
            raise MdlcError(
                f"{name!r} {reason}",
                node="--name",
                hint=f"choose another name, such as {name[0].upper()}{name[1:]}Network",
            )
    return name


def check_class_of_chain(name: str) -> str:
    """The name of a class of two networks, which is not called as what it declares.

    Raises:
        MdlcError: it is.
    """
    if name in CHAIN_MEMBERS | ANSWER_MEMBERS:
        raise MdlcError(
            f"{name!r} names a part of the class",
            node="--name",
            hint=f"choose another name, such as {name}Network",
        )
    return name
