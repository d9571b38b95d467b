"""Loops that may run on several threads.

Kernels mark such a loop in the text they emit; what the mark becomes is decided in one place: a
plain `for` in a class for one thread, `pool.Run` in one for more. Iterations are independent and
the same whatever the number of threads, so results are, too.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from mdlc.codegen.code import LayerCode

CLOSE = "@}"
_OPEN = re.compile(r"@parallel\((\w+), (\d+)\) \{")
_OWN = re.compile(r"@own\((\d+)\)")
_KINDS = re.compile(r"@kinds \{\n(.*?)\n@;", re.DOTALL)
_KIND = re.compile(r"@kind\((\w+), (\d+)\) \{\n(.*?)\n@\.", re.DOTALL)


def open_parallel(variable: str, count: int) -> str:
    """The start of a loop of independent iterations; CLOSE ends it."""
    return f"@parallel({variable}, {count}) {{"


def own(elements: int) -> str:
    """Behind a pointer to scratch memory inside such a loop: the running thread's part of it."""
    return f"@own({elements})"


def parallel(variable: str, count: int, body: str) -> str:
    """A loop of independent iterations; the body alone for one."""
    if count == 1:
        return body
    return f"{open_parallel(variable, count)}\n{body}\n{CLOSE}"


def loop_cases(variable: str, cases: Sequence[tuple[int, str]], *, shared: bool) -> str:
    """A loop over independent iterations of several kinds, one kind after the other.

    Args:
        cases: how many of each kind, and their body, in which `variable` counts from 0.
        shared: whether threads share it, all kinds as one loop; else it is a loop for each kind.
    """
    if not shared:
        return "\n".join(_loop(variable, count, body) for count, body in cases)
    if len(cases) == 1:
        return parallel(variable, *cases[0])
    return "\n".join(
        ["@kinds {", *(f"@kind({variable}, {count}) {{\n{body}\n@." for count, body in cases), "@;"]
    )


def _loop(variable: str, count: int, body: str) -> str:
    if count == 1:
        return body
    return f"for (int {variable} = 0; {variable} < {count}; ++{variable}) {{\n{body}\n}}"


def _spelled_kinds(text: str, threads: int) -> str:
    """Loops of several kinds as loops for each, or for several threads as a shared one."""

    def spelled(found: re.Match[str]) -> str:
        kinds = [(each[1], int(each[2]), each[3]) for each in _KIND.finditer(found[1])]
        if threads == 1:
            return "\n".join(_loop(*kind) for kind in kinds)
        lines, start, total = "", 0, sum(count for _, count, _ in kinds)
        for variable, count, body in kinds:
            number = f"const int {variable} = item{f' - {start}' if start else ''};\n"
            start += count
            test = f"if (item < {start}) " if start < total else ""
            lines += f"{test}{{\n{number if count > 1 else ''}{body}\n}}"
            lines += " else " if start < total else ""
        return parallel("item", total, lines)

    return _KINDS.sub(spelled, text)


def balance(count: int) -> float:
    """The share of 2 and of 4 threads' time that `count` equal iterations use, the worse one."""
    return min(count / (threads * -(-count // threads)) for threads in (2, 4))


def best_level(levels: Sequence[tuple[str, int]]) -> str:
    """The loop to share out, of nested ones from the outermost: the first that is balanced."""
    for name, count in levels:
        if balance(count) >= 0.8:
            return name
    return max(levels, key=lambda level: balance(level[1]))[0]


def resolve(code: LayerCode, threads: int) -> LayerCode:
    """The code with its marks spelled out for a class of so many threads."""
    code = replace(code, text=_spelled_kinds(code.text, threads))
    if threads == 1:
        text = _OPEN.sub(r"for (int \1 = 0; \1 < \2; ++\1) {", code.text)
        return replace(code, text=_OWN.sub("", text).replace(CLOSE, "}"))
    if not _OPEN.search(code.text):
        return code
    pieces, text, position = [], code.text, 0
    for found in _OPEN.finditer(text):
        body = text[found.end() : text.index(CLOSE, found.end())]
        thread = "int thread" if _OWN.search(body) else "int"
        pieces.append(text[position : found.start()])
        pieces.append(f"pool.Run({found[2]}, [&](int {found[1]}, {thread}) {{")
        position = found.end()
    text = "".join([*pieces, text[position:]]).replace(CLOSE, "});")
    text = _OWN.sub(r" + thread * \1", text)
    text = re.sub(rf"\b{re.escape(code.name)}\(", f"{code.name}(ThreadPool& pool, ", text, count=1)
    return replace(code, text=text, parallel=True)
