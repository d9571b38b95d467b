"""Embeddings: a vector of length 1 that stands for the picture."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mdlc.codegen.answer.code import AnswerCode, Network, argument_of, factor, only, text


@dataclass(frozen=True)
class Embedding:
    """A vector, divided by its length (L2).

    Attributes:
        vector: the output, as in `columns.parse_columns`; None: the only one.
    """

    vector: str | None = None

    def code(self, network: Network) -> AnswerCode:
        """The answer's part of the class.

        Raises:
            MdlcError: the description does not fit the network's outputs.
        """
        found = only(self.vector, "vector", network)
        step, start = found.attribute_step, found.start
        return AnswerCode(
            "Embedding",
            text("embedding_struct.j2", size=found.count),
            text(
                "embedding.j2",
                name=network.name,
                argument=argument_of(found.port),
                size=found.count,
                start=f" + {start}" if start else "",
                step=factor(step),
            ),
            (found.port,),
            frozenset({"cmath"}),
            np.dtype([("values", "<f4", (found.count,))]),
            f"a vector of {found.count} values and of length 1",
            shown=('std::printf("%.4f ...\\n", static_cast<double>(answer.values[0]));',),
        )
