"""A .metal file as text: its kernels' arguments, and the rules of Metal that C++ does not have.

What clang itself refuses on the simulator's library (conversions between vectors, pointers of
another address space, what a texture's access forbids, `double`) is not repeated here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from mdlc.compiler.errors import MdlcError

# Attributes of arguments and functions, as the Metal Shading Language Specification (version 3)
# names them, section 5.2, that the simulator has.
_INDEXED = frozenset({"texture", "buffer", "threadgroup"})
_POSITIONS = {
    "thread_position_in_grid": "grid",
    "threadgroup_position_in_grid": "group",
    "thread_position_in_threadgroup": "local",
    "threads_per_threadgroup": "group_size",
    "threadgroups_per_grid": "groups",
}
_SCALARS = {
    "thread_index_in_threadgroup": "p.index",
    "thread_index_in_simdgroup": "p.index % 32U",
    "simdgroup_index_in_threadgroup": "p.index / 32U",
}
_FUNCTION_ATTRIBUTES = frozenset({"max_total_threads_per_threadgroup", "kernel"})
_SPACES = ("device", "constant", "threadgroup", "thread")
# Not in the language: Metal Shading Language Specification, section 1.5.4.
_FORBIDDEN = frozenset(
    """
    double goto try catch throw dynamic_cast typeid virtual new delete thread_local register
    noexcept asm long_double wchar_t mutable friend explicit_throw
    """.split()  # noqa: SIM905
)
_WAITS = re.compile(r"\b(threadgroup_barrier|simdgroup_\w+|simd_\w+|threadgroup)\b")


@dataclass(frozen=True)
class Argument:
    """A kernel's parameter.

    Attributes:
        type: without address space and attribute; attribute, index: [[texture(0)]] is
            ("texture", 0); index is -1 where there is none.
    """

    type: str
    name: str
    attribute: str
    index: int


@dataclass(frozen=True)
class KernelSource:
    """A kernel of a file."""

    name: str
    arguments: tuple[Argument, ...]
    waits: bool

    def count(self, attribute: str) -> int:
        """One more than the highest index of an attribute."""
        return max((a.index + 1 for a in self.arguments if a.attribute == attribute), default=0)


def without_comments(text: str) -> str:
    """The text with comments as blanks."""
    return re.sub(r"//[^\n]*|/\*.*?\*/", " ", text, flags=re.DOTALL)


def without_attributes(text: str) -> str:
    """The text with attributes as blanks: every other character stays where it is."""
    return re.sub(r"\[\[.*?\]\]", lambda found: " " * len(found[0]), text)


def read_kernels(text: str, file: str = "the .metal file") -> list[KernelSource]:
    """The kernels of a file.

    Raises:
        MdlcError: the text is no valid Metal, as far as these rules go.
    """
    plain = without_comments(text)
    _check_words(plain, file)
    functions = _functions(plain)
    _check_recursion(functions, file)
    kernels = []
    for name, is_kernel, parameters, _ in functions:
        for parameter in parameters:
            _check_space(parameter, name, file)
        if is_kernel:
            arguments = tuple(_argument(parameter, name, file) for parameter in parameters)
            _check_indices(arguments, name, file)
            reached = _reached(name, functions)
            waits = bool(_WAITS.search(" ".join([*parameters, *reached])))
            kernels.append(KernelSource(name, arguments, waits))
    for declared in re.findall(r"[;{}]\s*([^;{}()=]*[*&]\s*\w+)\s*[;=]", plain):
        if re.match(r"\s*(return|case)\b", declared) or not re.search(r"\w\s*[*&]", declared):
            continue
        if re.match(r"\s*(?:const\s+)?[a-z]\w*\d?\s*(?:const\s*)?[*&]\s*\w+$", declared):
            _check_space(declared, "a declaration", file)
    return kernels


def _check_words(plain: str, file: str) -> None:
    for word in re.findall(r"\b[A-Za-z_]\w*\b", plain):
        if word in _FORBIDDEN:
            raise MdlcError(f"{word!r} is not in the Metal language", node=file)
    for attribute in re.findall(r"\[\[\s*(\w+)", plain):
        known = _INDEXED | _POSITIONS.keys() | _SCALARS.keys() | _FUNCTION_ATTRIBUTES
        if attribute not in known:
            raise MdlcError(f"attribute [[{attribute}]] is not supported", node=file)


Function = tuple[str, bool, list[str], str]


def _functions(plain: str) -> list[Function]:
    """Name, whether a kernel, parameters and body of every function defined at file scope."""
    found: list[Function] = []
    pattern = re.compile(r"(?:^|[;}>\n])\s*((?:[\w:<>,*&\[\]()]+\s+)+?)(\w+)\s*\(")
    at = 0
    while match := pattern.search(plain, at):
        end = _closing(plain, match.end() - 1)
        brace = re.compile(r"\s*\{").match(plain, end + 1)
        if not brace:
            at = match.end()
            continue
        stop = _closing(plain, brace.end() - 1)
        head = match[1]
        parameters = _split(plain[match.end() : end])
        body = plain[brace.end() : stop]
        found.append((match[2], re.search(r"\bkernel\b", head) is not None, parameters, body))
        at = stop
    return found


def _closing(text: str, start: int) -> int:
    """Where the bracket at `start` closes."""
    pairs = {"(": ")", "{": "}"}
    opened, closed = text[start], pairs[text[start]]
    depth = 0
    for at in range(start, len(text)):
        depth += (text[at] == opened) - (text[at] == closed)
        if depth == 0:
            return at
    return len(text)


def _split(parameters: str) -> list[str]:
    """Parameters at the commas outside brackets."""
    found, depth, start = [], 0, 0
    for at, character in enumerate(parameters):
        depth += character in "<([{"
        depth -= character in ">)]}"
        if character == "," and depth == 0:
            found.append(parameters[start:at].strip())
            start = at + 1
    last = parameters[start:].strip()
    return [*found, last] if last else found


def _check_space(parameter: str, where: str, file: str) -> None:
    bare = re.sub(r"\[\[.*?\]\]", "", parameter)
    if re.search(r"[*&]", bare) and not re.search(rf"\b({'|'.join(_SPACES)})\b", bare):
        raise MdlcError(
            f"{where}: {' '.join(bare.split())!r} needs an address space", node=file,
            hint=f"one of {', '.join(_SPACES)}",
        )  # fmt: skip


def _argument(parameter: str, name: str, file: str) -> Argument:
    match = re.fullmatch(
        r"(.*?[\s*&])(\w+)\s*\[\[\s*(\w+)\s*(?:\(\s*(\d+)\s*\))?\s*\]\]", parameter, re.DOTALL
    )
    if match is None:
        raise MdlcError(f"kernel {name}: {parameter!r} has no attribute", node=file)
    kind, label, attribute, number = match.groups()
    if (attribute in _INDEXED) != (number is not None):
        raise MdlcError(f"kernel {name}: [[{attribute}]] of {label!r} is malformed", node=file)
    is_texture = kind.strip().startswith("texture")
    if (attribute == "texture") != is_texture:
        raise MdlcError(f"kernel {name}: {label!r} does not fit [[{attribute}]]", node=file)
    if (attribute in ("buffer", "threadgroup")) != (re.search(r"[*&]", kind) is not None):
        raise MdlcError(f"kernel {name}: {label!r} does not fit [[{attribute}]]", node=file)
    spaces = {"buffer": ("device", "constant"), "threadgroup": ("threadgroup",)}
    if attribute in spaces and not any(re.search(rf"\b{s}\b", kind) for s in spaces[attribute]):
        raise MdlcError(f"kernel {name}: {label!r} is not in the space of a {attribute}", node=file)
    if attribute in _POSITIONS and not re.fullmatch(r"(uint|ushort)[23]?", kind.strip()):
        raise MdlcError(f"kernel {name}: [[{attribute}]] is of type uint3", node=file)
    return Argument(kind.strip(), label, attribute, -1 if number is None else int(number))


def _check_indices(arguments: tuple[Argument, ...], name: str, file: str) -> None:
    seen: set[tuple[str, int]] = set()
    for argument in arguments:
        key = argument.attribute, argument.index
        if key in seen:
            raise MdlcError(f"kernel {name}: [[{argument.attribute}]] is used twice", node=file)
        seen.add(key)


def _calls(body: str, names: set[str]) -> set[str]:
    return {name for name in re.findall(r"\b(\w+)\s*\(", body) if name in names}


def _check_recursion(functions: list[Function], file: str) -> None:
    import networkx as nx

    names = {name for name, *_ in functions}
    graph = nx.DiGraph()
    for name, _, _, body in functions:
        graph.add_edges_from((name, other) for other in _calls(body, names))
    if not nx.is_directed_acyclic_graph(graph):
        cycle = nx.find_cycle(graph)
        raise MdlcError(f"function {cycle[0][0]!r} calls itself; Metal has no recursion", node=file)


def _reached(name: str, functions: list[Function]) -> list[str]:
    """Bodies of a function and of all that it calls."""
    bodies = {function[0]: function[3] for function in functions}
    seen, pending = {name}, [name]
    while pending:
        for other in _calls(bodies[pending.pop()], set(bodies)):
            if other not in seen:
                seen.add(other)
                pending.append(other)
    return [bodies[each] for each in seen]


def call_arguments(kernel: KernelSource) -> list[str]:
    """C++ expressions that pass the simulator's arguments to a kernel; see simulated.cpp.j2."""
    found = []
    for argument in kernel.arguments:
        kind, index = argument.type, argument.index
        if argument.attribute == "texture":
            found.append(f"{kind}{{a.textures[{index}]}}")
        elif argument.attribute in ("buffer", "threadgroup"):
            source = "buffers" if argument.attribute == "buffer" else "threadgroup_memory"
            pointer = re.sub(r"&$", "*", kind)
            # From plain memory into the address space, which is a cast that only glue may do.
            value = f"({pointer})(void*)a.{source}[{index}]"
            found.append(f"*({value})" if kind.endswith("&") else value)
        elif argument.attribute in _SCALARS:
            found.append(f"{kind}({_SCALARS[argument.attribute]})")
        else:
            p = f"p.{_POSITIONS[argument.attribute]}"
            lanes = int(kind[-1]) if kind[-1].isdigit() else 1
            parts = ", ".join(f"{p}.{axis}" for axis in "xyz"[:lanes])
            found.append(f"{kind}({parts})" if lanes > 1 else f"{p}.x")
    return found
