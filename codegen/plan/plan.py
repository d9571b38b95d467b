"""The Plan: ordered steps with their memory; the last form of a network before text."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from mdlc.codegen.answer.answer import Answer
from mdlc.codegen.answer.code import ANSWER_MEMBERS
from mdlc.codegen.frame.spec import FrameSpec
from mdlc.codegen.frame.text import FRAME_MEMBERS
from mdlc.codegen.isa.base import Backend, Isa
from mdlc.codegen.kernel import Step, View
from mdlc.codegen.plan.row_fusion import RowGroup
from mdlc.codegen.weights.sections import EncodedWeights
from mdlc.compiler.ir import Graph
from mdlc.compiler.types import DType, TensorType

ALIGNMENT = 64


@dataclass(frozen=True)
class Buffer:
    """A piece of the arena.

    Attributes:
        name: C++ constant's stem, from the first tensor that lives in it.
        nbytes: size.
        offset: bytes from the arena's start, a multiple of ALIGNMENT.
        first, last: indices of the first and last step that touch it, inclusive; -1 is the
            copying-in of the inputs and len(steps) the copying-out of the outputs.
    """

    name: str
    nbytes: int
    offset: int
    first: int
    last: int


@dataclass(frozen=True)
class Port:
    """An input or output of the network as the emitted class sees it.

    Attributes:
        name: ONNX name; identifier: C++ parameter name.
        view: where it lies in the arena.
    """

    name: str
    identifier: str
    view: View

    @property
    def type(self) -> TensorType:
        """The tensor's type; the Mat holds it in memory order."""
        return self.view.type

    @property
    def dims(self) -> tuple[int, int, int]:
        """Height, width and channels of the Mat: the last two physical axes, the rest stacked."""
        shape = (1, 1, 1, *self.type.physical_shape)
        height = 1
        for length in shape[:-2]:
            height *= length
        return height, shape[-2], shape[-1]


@dataclass(frozen=True)
class State:
    """Memory of the class that is kept from one inference to the next.

    Attributes:
        name: of the ONNX input that it is; result: of the ONNX output that it becomes.
        view: its memory. made: where its next value lies at the end of an inference.
        staged: where that value waits, if `made` lies in the memory of a state: all are read
            before one is written.
    """

    name: str
    result: str
    view: View
    made: View
    staged: View | None = None

    @property
    def views(self) -> tuple[View, ...]:
        """All memory that it concerns."""
        return (self.view, self.made, *([self.staged] if self.staged else []))


@dataclass(frozen=True)
class FrameInput:
    """The input that camera frames are read into.

    Attributes:
        port: its ONNX name; order: its channels, rgb, bgr, rgba or y.
        scratch: memory for the conversion, which no layer needs yet; None before it is planned.
    """

    spec: FrameSpec
    port: str
    order: str
    scratch: View | None = None


@dataclass(frozen=True)
class Blob:
    """A packed array in the weights file."""

    step: str
    field: str
    dtype: str
    offset: int
    nbytes: int


@dataclass(frozen=True)
class Plan:
    """Everything the emitters need.

    Attributes:
        backend: the instruction set (or GPU) that it is for.
        inputs, outputs: what the caller gives and gets. states: what the class keeps.
        row_groups: neighbouring steps that are computed in bands of rows, in order.
        encoded: by step, weights that the file holds in another form than the step's; see
            codegen/weights/sections.py. Without any, the file is computed on as it is.
        precision: of arithmetic or weights, as asked for.
        answer: what `infer` makes of the outputs, where it is asked to.
        answer_scratch: memory that the answer is made in, which no layer needs any more.
        kept_float: by node name, why a layer is not in half precision although it could be.
        also: the other variants of the class: the same network at other sizes of its inputs.
            Steps of one name have one packing, which the class holds once (variants.py).
        variant: what tells this one from the others, as part of an identifier; "" if it is alone.
        frame: the input that camera frames are read into, where the class takes them.
        part: name of the class that this one is part of, which gives it weights and working
            memory; "" if it stands alone.
    """

    name: str
    backend: Backend
    graph: Graph
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    steps: tuple[Step, ...]
    buffers: tuple[Buffer, ...]
    arena_bytes: int
    threads: int = 1
    encoded: Mapping[str, EncodedWeights] = field(default_factory=dict)
    precision: str = "fp32"
    kept_float: Mapping[str, str] = field(default_factory=dict)
    row_groups: tuple[RowGroup, ...] = ()
    states: tuple[State, ...] = ()
    answer: Answer | None = None
    answer_scratch: View | None = None
    frame: FrameInput | None = None
    also: tuple[Plan, ...] = ()
    variant: str = ""
    part: str = ""

    @property
    def sizes(self) -> tuple[Plan, ...]:
        """All plans of the class, this one first."""
        return (self, *self.also)

    @property
    def layers(self) -> tuple[Step, ...]:
        """The layers of the class: the steps of all variants, each name once."""
        found: dict[str, Step] = {}
        for plan in self.sizes:
            for step in plan.steps:
                found.setdefault(step.name, step)
        return tuple(found.values())

    @property
    def working_bytes(self) -> int:
        """The class's arena: that of its largest variant."""
        return max(plan.arena_bytes for plan in self.sizes)

    @property
    def isa(self) -> Isa:
        """The instruction set of a plan for a C++ class."""
        assert isinstance(self.backend, Isa)
        return self.backend

    @property
    def frame_port(self) -> Port | None:
        """The input that camera frames are read into."""
        return next((p for p in self.inputs if self.frame and p.name == self.frame.port), None)

    def units(self) -> list[tuple[int, ...]]:
        """Indices of the steps that are called at once, in order: a group's, or a single one."""
        inside = {index: group for group in self.row_groups for index in group.indices}
        units = [(i,) for i in range(len(self.steps)) if i not in inside]
        return sorted(units + [tuple(group.indices) for group in self.row_groups])

    def row_group_of(self, step: int) -> RowGroup | None:
        """The group that a step belongs to."""
        return next((group for group in self.row_groups if step in group.indices), None)

    def bands(self, step: int) -> str:
        """In words, what the step's group is; "" for a step that is in none."""
        group = self.row_group_of(step)
        if group is None:
            return ""
        first, last = (self.steps[i].name for i in (group.first, group.last))
        rows = f"{group.rows} row{'s' if group.rows > 1 else ''}"
        return f"row-fused from {first} to {last}, in bands of {rows}"

    @property
    def hidden(self) -> frozenset[str]:
        """Names of the steps whose output is never whole in memory."""
        return frozenset(self.steps[i].name for c in self.row_groups for i in c.indices[:-1])

    @property
    def macs(self) -> int:
        """Multiply-adds of one inference."""
        return sum(
            step.node.op.cost([s.type for s in step.node.inputs], step.node.type).macs
            for step in self.steps
        )

    @property
    def half_steps(self) -> tuple[Step, ...]:
        """The steps that compute in half precision."""
        return tuple(s for s in self.steps if s.seen(self.isa).dtype is DType.F16)

    def blobs(self) -> list[Blob]:
        """The layout of the weights' payload: in the order of layers, each aligned to 64 bytes."""
        found: list[Blob] = []
        offset = 0
        for step in self.layers:
            for name, array in step.weights.items():
                found.append(Blob(step.name, name, array.dtype.str, offset, array.nbytes))
                offset += -(-array.nbytes // ALIGNMENT) * ALIGNMENT
        return found

    @property
    def weight_bytes(self) -> int:
        """Bytes of the weights in memory; without encodings also of the file's payload."""
        blobs = self.blobs()
        return -(-(blobs[-1].offset + blobs[-1].nbytes) // ALIGNMENT) * ALIGNMENT if blobs else 0

    def digest(self) -> bytes:
        """SHA-256 of what a weights file must agree with: ISA, layers, schedules, blobs, values."""
        text = [self.name, self.backend.name]
        for plan in self.sizes:
            text += [f"{s.name} {s.node.op} {s.schedule} {s.node.type}" for s in plan.steps]
        text += [str(blob) for blob in self.blobs()]
        text += [f"{name} {weights.encoding}" for name, weights in self.encoded.items()]
        total = hashlib.sha256("\n".join(text).encode())
        for step in self.layers:
            for array in step.weights.values():
                total.update(array.tobytes())
        return total.digest()


CPP_KEYWORDS = frozenset(
    """
    alignas alignof and and_eq asm auto bitand bitor bool break case catch char char16_t
    char32_t class compl const constexpr const_cast continue decltype default delete do
    double dynamic_cast else enum explicit export extern false float for friend goto if
    inline int long mutable namespace new noexcept not not_eq nullptr operator or or_eq
    private protected public register reinterpret_cast return short signed sizeof static
    static_assert static_cast struct switch template this thread_local throw true try
    typedef typeid typename union unsigned using virtual void volatile wchar_t while xor
    xor_eq infer main std Mat
    """.split()  # noqa: SIM905
)


# What the emitted class and its source declare; a layer of that name would hide it.
CLASS_MEMBERS = frozenset(
    """
    At band strip thread target target_ variant_ kUnknownTarget Init Input Mat Release Reset
    Shape Workers InitOptions Load copied_ options codes copy file count
    bytes aligned variant handle given restrict arena_ kThreads threads
    workers_ error input
    kArenaBytes kWeightBytes mapped_
    decoded_ repacked_ LayerName layer
    mapped_bytes_ memory_ modelpath past trace trace_context weights ErrorText Error kOk
    kFileMissing kFileTruncated kFileForeign kFileVersion kOtherTarget kOtherModel kFileCorrupt
    kOutOfMemory kNotInitialised kBadInput kBadOutput kUnsupportedCpu kBadThreads
    """.split()  # noqa: SIM905
).union(ANSWER_MEMBERS, FRAME_MEMBERS)
SOURCE_NAMES = frozenset(
    """
    Choose Variant kVariants
    Close HasStamp Open OpenStamp Stamp StampOf WriteStamp kAtOnce kEnding lseek read sysconf
    Cpuid CpuidRegisters CpuFeature CpuFeatures KeptRegisters Reported kNeeded
    IsProcessorFeaturePresent getauxval sysctlbyname
    Check ThreadPool band strip thread CopyIn CopyOut Crc32
    CrcTables Fits Load32 Map Unmap close fstat kCrc kHeaderBytes
    Decoder DecodeWeights FilterTransform Kind Numbers Plane Rows Section Stored Stream
    WeightFromHalf kFilter0 kFilter1 kFilter2 kFilter3 kFilter4 kFilter5 kFilter6 kFilter7
    kFilter8 kFilter9 kScales0 kScales1 kScales2 kScales3 kScales4 kScales5 kScales6 kScales7
    kScales8 kScales9 Transform kTransforms FloatToHalf
    kFiltersAtOnce kHalf kInteger kLongestCode kNumbers kPayloadBytes kRaw kRows kSections kShared
    kStage kStored kUpper
    kMagic kMost kPlan kTarget kWeights mmap munmap open stat answers
    """.split()  # noqa: SIM905
)


def identifier(text: str) -> str:
    """A C++ identifier for an input or output: the ONNX name's last two path components."""
    text = re.sub(r"(_output_\d+|:\d+)$", "", text)  # exporters number a node's outputs
    parts = [part for part in re.split(r"[/:;]+", text) if part]
    name = "_".join(parts[-2:]) if parts else "tensor"
    name = re.sub(r"[^0-9A-Za-z]+", "_", name).strip("_") or "tensor"
    if name[0].isdigit():
        name = f"tensor_{name}"
    return f"{name}_" if name in CPP_KEYWORDS else name


class Names:
    """Hands out identifiers, each once."""

    def __init__(self, taken: Mapping[str, int] | None = None) -> None:
        self._taken = dict(taken or {})
        self._reserved = frozenset(self._taken)
        self._layer = ""

    @classmethod
    def of_layers(cls, reserved: Collection[str]) -> Names:
        """Names for layers, which are in lower case: only such names can collide."""
        names = cls({name: 1 for name in reserved if name == name.lower()})
        names._layer = "_layer"
        return names

    def unique(self, name: str) -> str:
        """The name itself, or with the first free number behind it; never a word of C++."""
        if name in CPP_KEYWORDS or (self._layer and name in self._reserved):
            name += self._layer or "_"
        key = name.lower()
        count = self._taken.get(key, 0) + 1
        self._taken[key] = count
        return name if count == 1 else self.unique(f"{name}_{count}")
