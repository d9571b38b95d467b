"""Classes: the best of a row of scores."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mdlc.codegen.answer.checks import between, one_of
from mdlc.codegen.answer.code import AnswerCode, Network, argument_of, factor, only, text

ACTIVATIONS = ("none", "softmax", "sigmoid")


@dataclass(frozen=True)
class Classes:
    """The best classes of a classifier.

    Attributes:
        scores: the output, as in `columns.parse_columns`; None: the only one.
        activation: what makes probabilities of the network's numbers.
        top: how many; threshold: a class below it is left out.
    """

    scores: str | None = None
    activation: str = "none"
    top: int = 5
    threshold: float = 0.0

    def __post_init__(self) -> None:
        one_of(self, "activation", ACTIVATIONS)
        between(self, "top", 1, 1000)
        between(self, "threshold", 0.0, 1.0)

    def code(self, network: Network) -> AnswerCode:
        """The answer's part of the class.

        Raises:
            MdlcError: the description does not fit the network's outputs.
        """
        found = only(self.scores, "scores", network)
        top = min(self.top, found.count)
        step, start = found.attribute_step, found.start
        argument = argument_of(found.port)
        return AnswerCode(
            "Classes",
            text("classes_struct.j2", top=top),
            text(
                "classes.j2",
                name=network.name,
                argument=argument,
                classes=found.count,
                start=f" + {start}" if start else "",
                step=factor(step),
                activation=self.activation,
                threshold=self.threshold,
            ),
            (found.port,),
            frozenset({"cmath"} if self.activation != "none" else ()),
            np.dtype([("count", "<i4"), ("item", [("label", "<i4"), ("score", "<f4")], (top,))]),
            f"the {top} best classes of {found.count} with their scores, the best first",
            elements={"item": "Class"},
            shown=(
                "for (const {name}::Class& found : answer) "
                'std::printf("class %d: %.3f\\n", found.label, static_cast<double>(found.score));',
            ),
            classes=found.count,
        )
