"""The sizes that a class is compiled for: what `--shape` says.

`x=1,3,224,224` is one size of the input x. Several of one input, or a dimension as
`first:last:step`, are several sizes of the class.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence

from mdlc.compiler.errors import MdlcError

Shape = tuple[int, ...]
Given = Mapping[str, Sequence[int] | Sequence[Sequence[int]]] | Sequence[str]

MAX_SIZES = 64
_FORM = "write --shape input=1,3,224,224, or input=1,3,48,160:1280:80 for several sizes"


def parse_shapes(given: Given) -> dict[str, tuple[Shape, ...]]:
    """The shapes of each input by name, in order.

    Args:
        given: by name a shape or several, or texts as on the command line.

    Raises:
        MdlcError: one is not of that form.
    """
    shapes: dict[str, list[Shape]] = {}
    if isinstance(given, Mapping):
        for name, value in given.items():
            many = bool(value) and not isinstance(value[0], int)
            every: Sequence[Sequence[int]] = value if many else [value]  # type: ignore[list-item, assignment]
            shapes[name] = [tuple(shape) for shape in every]
    else:
        for text in given:
            name, _, dims = text.rpartition("=")
            found = list(_expanded(dims)) if name else []
            if not found:
                raise MdlcError(f"{text!r} is not a shape", node="--shape", hint=_FORM)
            shapes.setdefault(name, []).extend(found)
    return {name: tuple(every) for name, every in shapes.items()}


def _expanded(dims: str) -> Iterator[Shape]:
    """All shapes of a text; none where it is not one."""
    choices = []
    for word in dims.replace("x", ",").split(","):
        try:
            numbers = [int(number) for number in word.split(":")]
        except ValueError:
            return
        if min(numbers) < 1 or len(numbers) not in (1, 3):
            return
        if len(numbers) == 3:
            first, last, step = numbers
            numbers = list(range(first, last + 1, step))
        choices.append(numbers)
    yield from itertools.product(*choices)


def sizes_of(shapes: Mapping[str, Sequence[Shape]] | None) -> list[dict[str, Shape]]:
    """The shapes of all inputs that are given, for each size of the class.

    Inputs of one shape have it at every size; of those with several, the first belong together,
    and so on.

    Raises:
        MdlcError: inputs have different numbers of shapes, or there are too many.
    """
    counts = {name: len(every) for name, every in (shapes or {}).items() if len(every) > 1}
    if len(set(counts.values())) > 1:
        listed = " and ".join(f"{count} of {name!r}" for name, count in counts.items())
        raise MdlcError(f"gives {listed}", node="--shape",
                        hint="give every input one shape, or as many as the others")  # fmt: skip
    count = next(iter(counts.values()), 1)
    if count > MAX_SIZES:
        raise MdlcError(f"gives {count} sizes, more than {MAX_SIZES}", node="--shape",
                        hint="take larger steps")  # fmt: skip
    return [
        {name: every[index % len(every)] for name, every in (shapes or {}).items()}
        for index in range(count)
    ]


def one_size(shapes: Given | None, command: str) -> dict[str, Shape] | None:
    """The shapes of inputs, for what is done at one size only.

    Raises:
        MdlcError: there are several.
    """
    if shapes is None:
        return None
    sizes = sizes_of(parse_shapes(shapes))
    if len(sizes) > 1:
        raise MdlcError(f"gives {len(sizes)} sizes, but `{command}` takes one", node="--shape",
                        hint="give one shape of each input")  # fmt: skip
    return sizes[0]


def shape_words(shapes: Mapping[str, Sequence[Shape]]) -> list[str]:
    """The words of the command line that give the shapes again."""
    return [
        word
        for name, every in sorted(shapes.items())
        for shape in every
        for word in ("--shape", f"{name}={','.join(map(str, shape))}")
    ]
