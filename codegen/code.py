"""Emitted C++ as data: functions, their loops and calls, microkernels, and how types are spelled.

A kernel gives its layer as a Function, whose parameters, loops and calls are values; text of C++
comes of it once, at the end, in codegen/cpp/functions.py. Only then is it known which loops
threads share and what each function is called.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from mdlc.compiler.types import DType

C_TYPES = {
    DType.F16: "std::uint16_t",
    DType.F32: "float",
    DType.F64: "double",
    DType.I8: "std::int8_t",
    DType.U8: "std::uint8_t",
    DType.I16: "std::int16_t",
    DType.U16: "std::uint16_t",
    DType.I32: "std::int32_t",
    DType.U32: "std::uint32_t",
    DType.I64: "std::int64_t",
    DType.U64: "std::uint64_t",
    DType.BOOL: "std::uint8_t",
    DType.BF16: "std::uint16_t",
    **{each: "std::uint8_t" for each in DType if each.is_stored and each.size == 1},
}


@dataclass(frozen=True)
class Microkernel:
    """A function that owns intrinsics, emitted once per (operation, type, tile, ISA).

    Attributes:
        name: also its C++ name, such as gemm_f32_8x12_neon; it says all that the text depends on.
        text: the C++ definition with the comment that states formula, tile and packed layout.
        needs: microkernels and helpers that must stand before it.
        includes: standard headers it uses.
    """

    name: str
    text: str
    needs: tuple[Microkernel, ...] = ()
    includes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Parameter:
    """A parameter of a function: its C++ type (`const float*`) and name."""

    type: str
    name: str

    def __str__(self) -> str:
        return f"{self.type} {self.name}"


@dataclass(frozen=True)
class Pointer:
    """A pointer expression: base + variable * step for each term + fixed.

    Attributes:
        own: where the base is scratch memory of which every thread has a part: elements from one
            thread's part to the next one's. Counts only inside a ParallelLoop that threads share.
    """

    base: str
    terms: tuple[tuple[str, int], ...] = ()
    fixed: int = 0
    own: int = 0

    def __add__(self, elements: int) -> Pointer:
        return replace(self, fixed=self.fixed + elements)

    def plus(self, variable: str, step: int) -> Pointer:
        """The pointer moved by variable * step."""
        return replace(self, terms=(*self.terms, (variable, step))) if step else self

    def __str__(self) -> str:
        """As one thread computes it."""
        return self.spelled()

    def spelled(self, *, thread: bool = False) -> str:
        """The expression; `thread`: whether the running thread's number is known."""
        terms = [("thread", self.own)] if thread and self.own else []
        text = self.base
        for variable, step in (*terms, *self.terms):
            moved = variable if abs(step) == 1 else f"{variable} * {abs(step)}"
            text += f" {'-' if step < 0 else '+'} {moved}"
        return text + (f" {'-' if self.fixed < 0 else '+'} {abs(self.fixed)}" if self.fixed else "")


def offset(base: str, *loops: tuple[int, str, int], fixed: int = 0, own: int = 0) -> Pointer:
    """`base` advanced by variable * step for each loop of more than one trip.

    Args:
        loops: (trips, variable, step).
        own: see Pointer.
    """
    terms = tuple((name, step) for trips, name, step in loops if trips > 1 and step)
    return Pointer(base, terms, fixed, own)


def position(*loops: tuple[int, str, int], fixed: int = 0) -> str:
    """The sum of variable * step for each loop of more than one trip, and `fixed`, as an index.

    Args:
        loops: (trips, variable, step).
    """
    terms = [
        name if step == 1 else f"{name} * {step}"
        for trips, name, step in loops
        if trips > 1 and step
    ]
    if not terms:
        return str(fixed)
    return " + ".join(terms) + (f" {'-' if fixed < 0 else '+'} {abs(fixed)}" if fixed else "")


def nested(loops: Sequence[tuple[str, int]], inner: str) -> str:
    """Text in loops over (variable, trips), the outermost first; one trip is no loop.

    The text names no variable of a loop of one trip: `position` and `offset` leave it out.
    """
    for variable, trips in reversed(loops):
        if trips > 1:
            inner = f"for (int {variable} = 0; {variable} < {trips}; ++{variable}) {{\n{inner}\n}}"
    return inner


def counted_loop(
    variable: str, first: int, end: int, step: int = 1
) -> tuple[str, tuple[int | tuple[int, str]]]:
    """The head of a loop, in which a brace is open, and its variable as a term of `advanced`.

    One trip is no loop, and the variable a number.
    """
    if end - first <= step:
        return "{", (first,)
    by = f"++{variable}" if step == 1 else f"{variable} += {step}"
    return f"for (int {variable} = {first}; {variable} < {end}; {by}) {{", ((1, variable),)


def advanced(base: str, *terms: int | tuple[int, str]) -> str:
    """`base` plus elements: a fixed number, or (count, step), a step being a C++ name.

    Nothing stands for terms of 0, nor for a factor of 1.
    """
    moves = [times(*term) if isinstance(term, tuple) else str(term) for term in terms]
    return " + ".join([base, *(move for move in moves if move != "0")])


# Octal escapes of three digits never run on into what follows.
_SPELLED = [
    chr(byte) if 32 <= byte < 127 and chr(byte) not in '"\\?' else f"\\{byte:03o}"
    for byte in range(256)
]


def string_literal(data: bytes) -> str:
    """Bytes as a C++ string literal; text is given in UTF-8."""
    return f'"{"".join(map(_SPELLED.__getitem__, data))}"'


def times(count: int, step: str) -> str:
    """count * step, for a C++ name."""
    return f"{count} * {step}" if count > 1 else step if count else "0"


Value = str | int | Pointer


@dataclass(frozen=True)
class Call:
    """A statement that calls a function.

    Attributes:
        function: a str for one of the standard library.
        template_arguments: a Microkernel for its address.
        layer: C++ name of the layer, for a Function that takes one.
    """

    function: Microkernel | Function | str
    arguments: tuple[Value, ...]
    template_arguments: tuple[str | int | Microkernel, ...] = ()
    layer: str = ""

    @property
    def microkernels(self) -> tuple[Microkernel, ...]:
        """What it calls, and what that calls by its template arguments."""
        named = (self.function, *self.template_arguments)
        return tuple(each for each in named if isinstance(each, Microkernel))


@dataclass(frozen=True)
class Variable:
    """A pointer that is declared: `type name = value;`."""

    type: str
    name: str
    value: Pointer


@dataclass(frozen=True)
class Loop:
    """`variable` from 0 to below `count`; the body alone, which does not name it, for one trip."""

    variable: str
    count: int
    body: Body


@dataclass(frozen=True)
class ParallelLoop:
    """A loop of independent iterations, of several kinds one behind the other.

    What it becomes is decided where it is rendered: plain loops, or one that threads share.
    Iterations are the same whatever the number of threads, so results are, too.

    Attributes:
        cases: how many iterations of each kind, and their body, in which `variable` counts from 0.
    """

    variable: str
    cases: tuple[tuple[int, Body], ...]

    @property
    def count(self) -> int:
        """All iterations."""
        return sum(count for count, _ in self.cases)


@dataclass(frozen=True)
class Scope:
    """Statements in braces."""

    body: Body


# A string is text as it stands: declarations, loops of other forms, arithmetic.
Statement = str | Call | Variable | Loop | ParallelLoop | Scope
Body = tuple[Statement, ...]


def body(*parts: Statement | Sequence[Statement]) -> Body:
    """Statements and sequences of them as one body."""
    found: list[Statement] = []
    for part in parts:
        if isinstance(part, str):
            found += [part] if part else []
        elif isinstance(part, Sequence):
            found += body(*part)
        else:
            found.append(part)
    return tuple(found)


@dataclass(frozen=True)
class LayerCode:
    """What a kernel gives as the code of a layer: a Function, or a compute kernel of Metal."""

    name: str


@dataclass(frozen=True)
class Function(LayerCode):
    """A function of the emitted class.

    Two functions are the same one if all of this is equal; of two that differ, each gets a name
    of its own (codegen/cpp/functions.py), so `name` need not tell everything.

    Attributes:
        name: told by geometry, such as conv1x1_56x56x64_to_128_relu.
        fields: the layer's packed arrays that it reads, by the order of `Kernel.pack`.
        parameters: the run-time inputs, the output, then scratch memory if it needs any.
        body: its statements.
        comment: what stands above it, lines without the slashes.
        needs: microkernels that text in the body calls, beside those of its Calls.
        includes: standard headers it uses.
        struct: C++ type of the layers whose fields it takes, as `const struct& layer`; "": it
            takes the fields one by one.
        owner: the class that it is a member function of, or "".
    """

    fields: tuple[Parameter, ...]
    parameters: tuple[Parameter, ...]
    body: Body
    comment: tuple[str, ...] = ()
    needs: tuple[Microkernel, ...] = ()
    includes: tuple[str, ...] = ()
    struct: str = ""
    owner: str = ""

    @property
    def calls(self) -> tuple[Call, ...]:
        """All calls in the body, in order."""
        return tuple(each for each in walk(self.body) if isinstance(each, Call))

    @property
    def microkernels(self) -> tuple[Microkernel, ...]:
        """What it calls of microkernels."""
        called = [microkernel for call in self.calls for microkernel in call.microkernels]
        inner = [m for function in self.functions for m in function.microkernels]
        return tuple(dict.fromkeys([*called, *inner, *self.needs]))

    @property
    def functions(self) -> tuple[Function, ...]:
        """What it calls of layers' functions."""
        called = [c.function for c in self.calls if isinstance(c.function, Function)]
        return tuple(dict.fromkeys(called))

    @property
    def parallel(self) -> bool:
        """Whether threads may share something in it."""
        return any(isinstance(each, ParallelLoop) and each.count > 1 for each in walk(self.body))


def walk(statements: Body) -> Iterator[Statement]:
    """All statements, each before those inside it."""
    for statement in statements:
        yield statement
        if isinstance(statement, Loop | Scope):
            yield from walk(statement.body)
        elif isinstance(statement, ParallelLoop):
            for _, inner in statement.cases:
                yield from walk(inner)
