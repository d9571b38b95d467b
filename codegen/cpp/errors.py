"""The errors of an emitted class: its enum, their sentences, and the same for C."""

from __future__ import annotations

from dataclasses import dataclass

from mdlc.codegen.frame.spec import LONGEST_SIDE
from mdlc.codegen.plan.plan import Plan


@dataclass(frozen=True)
class Error:
    """An error code.

    Attributes:
        name: without the `k` that it has in C++; text: what ErrorText says.
    """

    name: str
    number: int
    text: str


def errors_of(plan: Plan, several: bool) -> list[Error]:
    """The errors that a class returns, kOk first.

    Args:
        several: whether it is for several instruction sets.
    """
    misfit = "has no data, another size or type, or rows closer than their length"
    lacks = (
        "has none of the instruction sets that the class is for, or not the one asked for"
        if several
        else f"lacks {plan.isa.description}"
    )
    crowded = ", or there are too many threads" if plan.threads > 1 else ""
    found = [
        Error("Ok", 0, "no error"),
        Error("FileMissing", -1, "the weights file cannot be opened"),
        Error("FileTruncated", -2, "the weights file is not as long as it should be"),
        Error("FileForeign", -3, "the file is not a weights file of mdlc"),
        Error("FileVersion", -4, "the weights file has another format version"),
        Error("OtherTarget", -5, "the weights file was made for another target"),
        Error("OtherModel", -6, "the weights file was made for another model or class"),
        Error("FileCorrupt", -7, "the weights file is damaged: its checksum does not match"),
        Error("OutOfMemory", -8, f"there is not enough memory{crowded}"),
        Error("NotInitialised", -9, "infer was called before Init succeeded"),
        Error("BadInput", -10, f"an input {misfit}"),
        Error("BadOutput", -11, f"an output {misfit}"),
        Error("UnsupportedCpu", -12, f"the processor {lacks}"),
    ]
    if plan.threads > 1:
        text = f"the number of threads is not between 1 and {plan.threads}"
        found.append(Error("BadThreads", -13, text))
    if plan.frame is not None:
        found += _of_frames(plan.frame.spec.kernel.divides)
    if several:
        found.append(
            Error("UnknownTarget", -21, "the class is not for the instruction set asked for")
        )
    return found


def _of_frames(divides: bool) -> list[Error]:
    many = ", or it has too many of them" if divides else ""
    strides = (
        "rows of the frame are closer than their length, or pixels 0 or more than 4 bytes apart"
    )
    return [
        Error("FrameFormat", -14, "the frame has no format that there is"),
        Error("FrameSize", -15,
              f"a side of the frame is below 1 or above {LONGEST_SIDE} pixels{many}"),
        Error("FrameData", -16, "a plane of the frame is null"),
        Error("FrameStride", -17, strides),
        Error("FrameCrop", -18, "the crop is empty or leaves the frame"),
        Error("FrameRotation", -19, "the rotation is not 0, 90, 180 or 270 degrees"),
        Error("FrameRegion", -20, "the region lies too far away, is not finite or is too wide"),
    ]  # fmt: skip
