"""What the emitted class answers with, as a recipe or the command line describes it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mdlc.codegen.answer.boxes import Boxes
from mdlc.codegen.answer.checks import check_keys
from mdlc.codegen.answer.classes import Classes
from mdlc.codegen.answer.code import AnswerCode, Network
from mdlc.codegen.answer.embedding import Embedding
from mdlc.codegen.answer.keypoints import Keypoints
from mdlc.codegen.answer.mask import Mask
from mdlc.codegen.answer.presets import DECODERS
from mdlc.codegen.answer.quads import Quads
from mdlc.codegen.answer.text import Text
from mdlc.codegen.kernel import View
from mdlc.compiler.errors import MdlcError, choose
from mdlc.compiler.types import TensorType

KINDS: Mapping[str, type[Any]] = {
    "classes": Classes,
    "boxes": Boxes,
    "keypoints": Keypoints,
    "mask": Mask,
    "text": Text,
    "quads": Quads,
    "embedding": Embedding,
}
_NODE = "[answer]"


@dataclass(frozen=True)
class _Typed:
    """An output of which no more is known than name and type."""

    name: str
    type: TensorType

    @property
    def identifier(self) -> str:
        """See columns.Output."""
        return self.name

    @property
    def view(self) -> View:
        """See columns.Output."""
        return View.of(self.type, 0)


@dataclass(frozen=True)
class Answer:
    """A description that is not yet held against a network.

    Attributes:
        kind: one of KINDS; decoder: one of DECODERS, which gives what `values` does not.
        values: fields of the kind.
        labels: names of classes, by number; labels_from: the name of the file that has them.
    """

    kind: str
    decoder: str | None
    values: Mapping[str, Any]
    labels: tuple[str, ...] = ()
    labels_from: str = ""

    def scratch(self, outputs: Mapping[str, TensorType]) -> int:
        """Bytes of working memory that it needs behind the last layer.

        Args:
            outputs: of the network, by ONNX name.
        """
        cls = KINDS[self.kind]
        if not hasattr(cls, "scratch"):
            return 0
        given: dict[str, Any] = {}
        if self.decoder is not None:
            ports = {name: _Typed(name, kind) for name, kind in outputs.items()}
            given.update(DECODERS[self.decoder](Network("", ports, 1, 1)))
        nbytes: int = cls(**{**given, **self.values}).scratch(outputs)
        return nbytes

    def code(self, network: Network) -> AnswerCode:
        """The answer's part of a class.

        Raises:
            MdlcError: the description does not fit the network.
        """
        given: dict[str, Any] = {}
        if self.decoder is not None:
            given.update(DECODERS[self.decoder](network))
        given.update(self.values)
        cls = KINDS[self.kind]
        for field in dataclasses.fields(cls):
            if field.default is dataclasses.MISSING and field.name not in given:
                raise MdlcError(
                    f"{self.kind} need {field.name}",
                    node=_NODE,
                    hint=f"name the output, or a decoder: {', '.join(DECODERS)}",
                )
        code: AnswerCode = cls(**given).code(network)
        if self.labels and code.classes not in (0, len(self.labels)):
            raise MdlcError(
                f"{self.labels_from} has {len(self.labels)} names, and the network tells "
                f"{code.classes} classes apart",
                node=f"{_NODE} labels",
                hint="give it a line for each class, in the network's order, with the background "
                "where it has one",
            )
        return code


def parse_answer(
    table: Mapping[str, Any], labels: Sequence[str] = (), labels_from: str = ""
) -> Answer:
    """A description as it stands in a recipe.

    Args:
        table: keys of the section [answer]: `kind` or `decoder`, and fields of the kind with
            dashes for underscores.
        labels, labels_from: see Answer.

    Raises:
        MdlcError: a key or value that there is not.
    """
    values = {key.replace("-", "_"): value for key, value in table.items()}
    decoder = values.pop("decoder", None)
    if decoder is not None and decoder not in DECODERS:
        raise MdlcError(
            f"there is no decoder {decoder!r}",
            node=f"{_NODE} decoder",
            hint=choose(str(decoder), list(DECODERS)),
        )
    kind = values.pop("kind", "boxes" if decoder is not None else None)
    if kind not in KINDS:
        raise MdlcError(
            "no kind is given" if kind is None else f"there is no kind {kind!r}",
            node=f"{_NODE} kind",
            hint=choose(str(kind), list(KINDS)),
        )
    check_keys(KINDS[kind], values, _NODE, f"{kind} have")
    known = dataclasses.fields(KINDS[kind])
    if all(field.default is not dataclasses.MISSING or field.name in values for field in known):
        KINDS[kind](**values)  # which says what is out of range before a network is read
    return Answer(kind, decoder, values, tuple(labels), labels_from)
