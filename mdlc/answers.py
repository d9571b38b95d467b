"""The option --answer and the section [answer] of a recipe: what the class makes of its outputs."""

from __future__ import annotations

import tomllib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from mdlc.codegen.answer.answer import KINDS, Answer, parse_answer
from mdlc.codegen.answer.checks import read_lines
from mdlc.codegen.answer.presets import DECODERS
from mdlc.compiler.errors import MdlcError, choose

FLAG = "--answer"
FILES = ("labels", "dictionary", "anchors")  # keys that may name a file


def as_answer(given: Answer | Mapping[str, Any] | str) -> Answer:
    """An answer as the command line, a recipe or a caller describes it.

    Args:
        given: a kind or a decoder with further keys behind commas (yolov8,threshold=0.4), or the
            keys of a recipe's section; `labels` names a file with a class's name a line.

    Raises:
        MdlcError: there is no such kind, decoder, key or value.
    """
    if isinstance(given, Answer):
        return given
    table = dict(_table(given) if isinstance(given, str) else given)
    path = table.pop("labels", None)
    if path is not None and not isinstance(path, str | Path):
        raise MdlcError(f"{path!r} is not a path", node="[answer] labels", hint="name a file")
    if path is None:
        return parse_answer(table)
    labels = Path(path)
    return parse_answer(table, read_lines(labels, "[answer] labels"), labels.name)


def check_labels(names: Sequence[str], classes: Collection[int], where: str) -> None:
    """Whether there are as many names as the network has classes.

    Args:
        classes: how many it has, of several outputs that may be meant; nothing where that is not
            known.
        where: the option or key, for messages.

    Raises:
        MdlcError: there are more or fewer.
    """
    if not names or not classes or len(names) in classes:
        return
    most = max(classes)
    counted = " or ".join(map(str, sorted(classes)))
    hint = "name every class, one a line"
    if len(names) == most - 1:
        hint = "perhaps the network's first class is the background: put a line for it in front"
    elif len(names) == most + 1:
        hint = "perhaps its first line is a background that the network lacks: remove that line"
    raise MdlcError(f"{len(names)} names for a network of {counted} classes", node=where, hint=hint)


def _table(text: str) -> dict[str, Any]:
    """yolov8,threshold=0.4 as a table; commas inside brackets part nothing."""
    first, *others = _parts(text)
    if first in DECODERS:
        table: dict[str, Any] = {"decoder": first}
    elif first in KINDS:
        table = {"kind": first}
    else:
        raise MdlcError(
            f"there is no answer {first!r}", node=FLAG, hint=choose(first, [*KINDS, *DECODERS])
        )
    for part in others:
        key, equals, value = part.partition("=")
        if not equals:
            raise MdlcError(
                f"{part!r} is not KEY=VALUE", node=FLAG, hint=f"write {FLAG} yolov8,threshold=0.4"
            )
        try:
            table[key.strip()] = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            table[key.strip()] = value.strip()
    return table


def _parts(text: str) -> list[str]:
    parts, depth = [""], 0
    for char in text:
        depth += (char in "[{(") - (char in "]})")
        if char == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += char
    return [part.strip() for part in parts]


def answer_words(answer: Answer) -> list[str]:
    """The words of the command line that describe an answer again."""
    values = {name.replace("_", "-"): value for name, value in answer.values.items()}
    if answer.labels:
        values["labels"] = answer.labels_from
    for key in FILES:  # folders are of one machine alone
        if isinstance(values.get(key), str):
            values[key] = Path(values[key]).name
    spelled = [f"{key}={_spelled(value)}" for key, value in values.items()]
    return [FLAG, ",".join([answer.decoder or answer.kind, *spelled])]


def _spelled(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        each = (f'"{item}"' if isinstance(item, str) else str(item) for item in value)
        return f"[{', '.join(each)}]"
    return str(value)
