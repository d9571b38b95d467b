"""How well a network does on labelled samples, and how far it agrees with another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mdlc.compiler.errors import MdlcError
from mdlc.compiler.types import Array


@dataclass(frozen=True)
class Accuracy:
    """Shares of 1.

    Attributes:
        top1, top5: of samples whose label is the best, or among the best five; None without
            labels, top5 also where there are fewer than six classes.
        agreement: of samples with the same best class as the original network; for outputs of
            classes by pixel, the mean intersection over union with its classes.
    """

    top1: float | None
    top5: float | None
    agreement: float | None


def accuracy(
    outputs: Sequence[Array], original: Sequence[Array], labels: Array | None, offset: int = 0
) -> Accuracy:
    """Accuracy of a network's first output.

    Args:
        outputs: one for each sample: scores [1, K] (or [1, K, 1, 1]), scores or whole numbers by
            pixel.
        original: the same of the network before compression.
        labels: the class of each sample.
        offset: added to the labels (1 where class 0 is the background).

    Raises:
        MdlcError: labels do not match the outputs.
    """
    flat = outputs[0].size == max(outputs[0].shape, default=1)
    top1 = top5 = None
    if labels is not None:
        if not flat:
            raise MdlcError(
                "labels are one class a picture, but the output is not one row of scores",
                node="--test-labels",
            )
        scores = np.stack([output.reshape(-1) for output in outputs])
        classes = labels + offset
        if classes.min() < 0 or classes.max() >= scores.shape[1]:
            raise MdlcError(
                f"labels go from {classes.min()} to {classes.max()}, "
                f"but the network has {scores.shape[1]} classes",
                node="--test-labels",
                hint="--label-offset 1 is for networks whose class 0 is the background",
            )
        ranked = np.argsort(-scores, axis=1, kind="stable")
        top1 = float(np.mean(ranked[:, 0] == classes))
        if scores.shape[1] > 5:
            top5 = float(np.mean((ranked[:, :5] == classes[:, None]).any(1)))
    if flat and outputs[0].size > 1:
        same = [int(a.argmax()) == int(b.argmax()) for a, b in zip(outputs, original, strict=True)]
        return Accuracy(top1, top5, float(np.mean(same)))
    unions = [mean_iou(class_map(a), class_map(b)) for a, b in zip(outputs, original, strict=True)]
    return Accuracy(top1, top5, float(np.mean(unions)))


def class_map(output: Array) -> Array:
    """The class of every pixel: of whole numbers themselves, of scores the best class, of one
    score (a probability, or a logit where any is negative) whether it is likely."""
    if output.dtype.kind in "iub":
        return output
    if output.ndim < 4:
        return output > (0.0 if output.min() < 0 else 0.5)
    axis = 1 if output.shape[1] <= output.shape[-1] else output.ndim - 1
    if output.shape[axis] == 1:
        return output > (0.0 if output.min() < 0 else 0.5)
    return np.asarray(output.argmax(axis=axis))


def mean_iou(a: Array, b: Array) -> float:
    """Intersection over union of two maps, the mean over the classes that occur in either."""
    found = []
    for value in np.union1d(np.unique(a), np.unique(b)):
        in_a, in_b = a == value, b == value
        found.append(float((in_a & in_b).sum() / (in_a | in_b).sum()))
    return float(np.mean(found))
