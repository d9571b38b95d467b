"""Text: a line that a recogniser reads, by CTC."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mdlc.codegen.answer.checks import between, one_of, read_lines
from mdlc.codegen.answer.code import AnswerCode, Network, argument_of, factor, text
from mdlc.codegen.answer.columns import parse_columns
from mdlc.codegen.code import string_literal
from mdlc.compiler.errors import MdlcError


@dataclass(frozen=True)
class Text:
    """How a line is read.

    Attributes:
        scores: the output, a row of scores of all symbols for each step.
        dictionary: file with a symbol a line; space: a space follows them.
        blank: number of the blank among the scores, before or behind all symbols.
        activation: what makes probabilities of the scores.
        beam: 1: the best path; more: so many lines are followed, and the likeliest one is taken.
    """

    scores: str
    dictionary: str
    space: bool = False
    blank: int = 0
    activation: str = "none"
    beam: int = 1

    def __post_init__(self) -> None:
        one_of(self, "activation", ("none", "softmax"))
        between(self, "blank", 0, 1_000_000)
        between(self, "beam", 1, 64)

    def _symbols(self) -> list[str]:
        lines = read_lines(Path(self.dictionary), "[answer] dictionary")
        return [*lines, " "] if self.space else list(lines)

    def code(self, network: Network) -> AnswerCode:
        """The answer's part of the class.

        Raises:
            MdlcError: the description does not fit the network's outputs, or the dictionary them.
        """
        found = parse_columns(self.scores, network.outputs, "[answer] scores")
        symbols = self._symbols()
        if len(symbols) + 1 != found.count or self.blank not in (0, len(symbols)):
            raise MdlcError(
                f"{self.dictionary} has {len(symbols)} symbols, with the blank {len(symbols) + 1}, "
                f"and {found.port.name} has scores for {found.count}",
                node="[answer] dictionary",
                hint="use the dictionary of the training; `space = true` adds a space, and the "
                "blank is the first (0) or the last",
            )
        bytes_each = max(len(symbol.encode()) for symbol in symbols)
        most = found.candidates * bytes_each + 1
        start = found.start
        return AnswerCode(
            "Text",
            text("text_struct.j2", max=most),
            text(
                "text_beam.j2" if self.beam > 1 else "text.j2",
                beam=self.beam,
                top=min(2 * self.beam, found.count - 1),
                name=network.name,
                argument=argument_of(found.port),
                symbols=[string_literal(symbol.encode()) for symbol in symbols],
                steps=found.candidates,
                step=found.candidate_step,
                start=f" + {start}" if start else "",
                classes=found.count,
                class_times=factor(found.attribute_step),
                blank=self.blank,
                before="" if self.blank else " - 1",
                softmax=self.activation == "softmax",
            ),
            (found.port,),
            frozenset(
                {"cstring"}
                | ({"cmath"} if self.activation == "softmax" else set())
                | ({"cmath", "algorithm"} if self.beam > 1 else set())
            ),
            np.dtype([("length", "<i4"), ("score", "<f4"), ("utf8", f"S{most}")], align=True),
            f"a line of up to {found.candidates} of {len(symbols)} symbols, in UTF-8",
            shown=("std::puts(answer.utf8);",),
        )
