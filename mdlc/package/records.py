"""An answer's structs by the bytes, for languages that read memory instead of C's headers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mdlc.codegen.answer.code import AnswerCode


@dataclass(frozen=True)
class Field:
    """A field of a struct.

    Attributes:
        kind: float, int, char (of a text) or the name of a struct.
        offset: from the struct's start; size: of an element; count: of an array's elements, None:
            it is none.
    """

    name: str
    kind: str
    offset: int
    size: int
    count: int | None

    @property
    def of_structs(self) -> bool:
        """Whether its elements are structs."""
        return self.kind not in ("float", "int", "char")


@dataclass(frozen=True)
class Record:
    """A struct; nbytes: with its padding."""

    name: str
    fields: tuple[Field, ...]
    nbytes: int


@dataclass(frozen=True)
class Language:
    """How a language spells the types of an answer.

    Attributes:
        numbers: of fields by their kind; lists: a list of {}; floats: an array of floats.
        keywords: words that no field is called as it stands; they are put between backticks.
    """

    numbers: Mapping[str, str]
    lists: str
    floats: str
    keywords: frozenset[str] = frozenset()

    def name(self, name: str) -> str:
        """A field's or parameter's name."""
        return f"`{name}`" if name in self.keywords else name

    def type_of(self, field: Field) -> str:
        """A field's type."""
        word = self.numbers.get(field.kind, field.kind)
        return word if field.count is None else self.lists.format(word)

    def result(self, answer: AnswerCode | None) -> str:
        """What infer returns."""
        if answer is None:
            return "Outputs"
        if answer.type in ("Mask", "Text"):
            return answer.type
        if answer.type == "Embedding":
            return self.floats
        return self.lists.format(records_of(answer)[-1].fields[-1].kind)


def records_of(answer: AnswerCode) -> list[Record]:
    """The structs of an answer that is not a mask, each behind those that it has in it."""
    found: list[Record] = []

    def add(name: str, dtype: np.dtype[Any]) -> None:
        fields = []
        for field, (kind, offset, *_) in (dtype.fields or {}).items():
            count = kind.shape[0] if kind.shape else None
            base = kind.base
            if base.names:
                add(answer.elements[field], base)
                fields.append(Field(field, answer.elements[field], offset, base.itemsize, count))
            elif base.kind == "S":
                fields.append(Field(field, "char", offset, 1, base.itemsize))
            else:
                word = {"i": "int", "f": "float"}[base.kind]
                fields.append(Field(field, word, offset, base.itemsize, count))
        found.append(Record(name, tuple(fields), dtype.itemsize))

    if answer.dtype.names:
        add(answer.type, answer.dtype)
    return found
