"""The options of `compile`: each one entry, read by the library, the command line and headers."""

from __future__ import annotations

import math
import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mdlc.answers import answer_words, as_answer
from mdlc.codegen.answer.answer import Answer
from mdlc.codegen.frame.spec import MATCHES, RESAMPLES, YUV, FrameSpec
from mdlc.codegen.target import Target, find_targets
from mdlc.codegen.weights.encoding import Encoding, parse_encoding
from mdlc.compiler.errors import MdlcError
from mdlc.inputs.preprocess import INPUT_FORMATS, Preprocess, parse_numbers
from mdlc.naming import checked_class_name
from mdlc.option import Group, check_fields, keywords, option, words
from mdlc.pipeline import FUSE_ROWS, left_out
from mdlc.precision.quantize import CALIBRATE, Quantize
from mdlc.sizes import Given, parse_shapes, shape_words, sizes_of
from mdlc.spellings import (
    Fixed,
    Numbers,
    Tables,
    as_numbers,
    bound_words,
    fixed_words,
    parse_bounds,
    parse_fixed,
    parse_names,
    parse_passes,
    parse_paths,
    parse_states,
    state_words,
    table_words,
)

MAX_THREADS = 64
PRECISIONS = ("fp32", "fp16", "bf16")

# Times the bytes of the model's weights that a file may have where filters can be stored instead
# of their transforms.
OPTIMISE = {"speed": math.inf, "balanced": 1.25, "size": 0.0}
# Bytes of a file that is short enough in any case: a decoder is some thousand bytes of code.
SHORT_FILE = 1 << 16


@dataclass(frozen=True)
class CompileOptions:
    """How a network is compiled: what `mdlc.compile` takes as keywords, and the command line as
    flags. An option is one entry here; what it does stands in its `help`.

    Raises:
        MdlcError: a value that an option does not have, or two that contradict each other.
    """

    target: str = option(
        "host", "-t", "--target", group=Group.TARGET, common=True, always=True,
        help="What to compile for; see `mdlc targets`. host is the best that this machine runs. "
        "Several, with commas between: a class that takes the fastest that the device has.",
    )  # fmt: skip
    name: str | None = option(
        None, "--name", group=Group.CODE, metavar="CLASS",
        convert=lambda name: checked_class_name(name) if name else None,
        help="Name of the emitted class; the default is made of the file's name.",
    )  # fmt: skip
    shapes: Given | None = option(
        None, "--shape", group=Group.INPUT, common=True, metavar="INPUT=DIMS", repeated=True,
        convert=parse_shapes, shows=shape_words,
        help="Shape of an input with open dimensions, as input=1,3,224,224. An open batch is 1 "
        "by itself. Several shapes of an input, also as input=1,3,48,160:1280:80, are sizes of "
        "one class. May be repeated.",
    )  # fmt: skip
    fix: Mapping[str, float | Sequence[float]] | Sequence[str] | None = option(
        None, "--fix", group=Group.INPUT, metavar="INPUT=VALUE", repeated=True,
        convert=parse_fixed, shows=fixed_words,
        help="Value of an input that never changes, as sr=16000: the class has no such input, and "
        "what follows from it is computed now. May be repeated.",
    )  # fmt: skip
    state: Mapping[str, str] | Sequence[str] | None = option(
        None, "--state", group=Group.INPUT, metavar="OUTPUT=INPUT", repeated=True,
        convert=parse_states, shows=state_words,
        help="An output that is an input of the next inference, as stateN=state: the class keeps "
        "it, zero after Init and Reset, and infer has neither. May be repeated.",
    )  # fmt: skip
    also: str | Sequence[str] | None = option(
        None, "--also", group=Group.INPUT, metavar="LAYER", repeated=True,
        convert=parse_names, shows=lambda names: [w for name in names for w in ("--also", name)],
        help="A tensor inside the network, or the node that makes it, that is an output as well. "
        "May be repeated.",
    )  # fmt: skip
    bound: Mapping[str, int] | Sequence[str] | None = option(
        None, "--bound", group=Group.INPUT, metavar="TENSOR=NUMBER", repeated=True,
        convert=parse_bounds, shows=bound_words,
        help="Most entries of a tensor whose length depends on data, as selected=100 for what "
        "NonMaxSuppression selects: of more, the first ones are kept. May be repeated.",
    )  # fmt: skip
    input_format: str | None = option(
        None, "--input-format", group=Group.INPUT, common=True, choices=(*INPUT_FORMATS, "float"),
        help="What the caller's buffer holds: 8-bit pixels, row by row, or floats in the "
        "network's own shape. Default: the network's input as it is.",
    )  # fmt: skip
    mean: Numbers = option(
        None, "--mean", group=Group.INPUT, common=True, metavar="M[,M,M]", **as_numbers("--mean"),
        help="Subtracted from the buffer's values: 0..255 for 8-bit formats; one number or one "
        "per channel of the network.",
    )  # fmt: skip
    std: Numbers = option(
        None, "--std", group=Group.INPUT, common=True, metavar="S[,S,S]", **as_numbers("--std"),
        help="Divides what is left after --mean.",
    )  # fmt: skip
    channel_order: str | None = option(
        None, "--channel-order", group=Group.INPUT, choices=("rgb", "bgr"),
        help="Order of channels that the network was trained on; default: rgb.",
    )  # fmt: skip
    frame: bool = option(
        False, "--frame", group=Group.INPUT,
        help="infer takes camera frames, too: planes in YUV or RGB of any size, turned, mirrored "
        "and cropped, read in one pass into the network's input.",
    )  # fmt: skip
    fit: str | None = option(
        None, "--fit", group=Group.INPUT, metavar="FIT",
        help="How a frame of another shape goes into the input: stretch (default), letterbox, "
        "letterbox:top-left, crop, or crop:0.875 for that share of the shorter side.",
    )  # fmt: skip
    fill: Numbers = option(
        None, "--fill", group=Group.INPUT, metavar="F[,F,F]", **as_numbers("--fill"),
        help="What letterbox leaves, and regions outside the frame: 0..255; default: 114.",
    )  # fmt: skip
    resample: str | None = option(
        None, "--resample", group=Group.INPUT, choices=RESAMPLES,
        help="Filter that frames are resampled with; default: bilinear.",
    )  # fmt: skip
    match: str | None = option(
        None, "--match", group=Group.INPUT, choices=MATCHES,
        help="Whose filter it is: pillow (default; smooths when it shrinks), opencv or tf (which "
        "do not).",
    )  # fmt: skip
    yuv: str | None = option(
        None, "--yuv", group=Group.INPUT, choices=YUV, metavar="MATRIX,RANGE",
        help="Matrix and range of frames in YUV: bt601, bt709 or bt2020 and full or limited; "
        "default: bt601,full.",
    )  # fmt: skip
    recipe: str | os.PathLike[str] | None = option(
        None, "--recipe", group=Group.INPUT, metavar="FILE", path="file",
        help="Options of what stands around the network from this TOML file, where they are not "
        "given; see the documentation of recipes.",
    )  # fmt: skip
    answer: Answer | Mapping[str, Any] | str | None = option(
        None, "--answer", group=Group.ANSWER, common=True, metavar="KIND[,KEY=VALUE]",
        convert=as_answer, shows=answer_words,
        help="infer gives classes, boxes, keypoints, a mask, text or an embedding, too; or boxes "
        "as a known detector's (yolov8, yolox, nanodet ...), as in yolov8,threshold=0.4. See "
        "the documentation of answers.",
    )  # fmt: skip
    core: str | None = option(
        None, "--core", group=Group.TARGET, metavar="CORE",
        help="Core of the target that schedules are chosen for; see `mdlc targets --cores`. "
        "Default: what suits the target's processors in general.",
    )  # fmt: skip
    threads: int = option(
        1, "--threads", group=Group.CODE, number=int, bounds=(1, MAX_THREADS),
        help="Most threads that the emitted class computes on; Init may be told fewer. Results "
        "do not depend on it.",
    )  # fmt: skip
    c_api: bool = option(
        False, "--c-api", group=Group.CODE,
        help="Write the class for C, too: CLASS_c.h and CLASS_c.cpp, for whatever calls C.",
    )  # fmt: skip
    profile: bool = option(
        False, "--profile", group=Group.CODE,
        help="The class calls a function of yours behind every layer, to take the time of each on "
        "the device; leave it out in what you ship.",
    )  # fmt: skip
    tuned: Tables = option(
        None, "--tuned", group=Group.SCHEDULES, metavar="FILE", path="file", repeated=True,
        off=("--no-tuned", "Choose schedules by the cost model alone."),
        convert=parse_paths, shows=table_words,
        help="Choose schedules by this table of `mdlc tune` instead of the one that comes with "
        "mdlc. May be repeated: later tables override.",
    )  # fmt: skip
    embed_weights: bool = option(
        False, "--embed-weights", group=Group.FILES,
        help="Put the weights into the C++ text; there is no separate file then.",
    )  # fmt: skip
    weights_encoding: str = option(
        "raw", "--weights-encoding", group=Group.WEIGHTS, metavar="ENCODING",
        help="How weights are stored: raw, fp16, bf16, int8 or clustered:BITS (2 to 8), each "
        "with +huffman or not; int4+huffman to int7+huffman; auto: the least error for "
        "--max-size. All but raw are decoded by Init; arithmetic stays float32.",
    )  # fmt: skip
    optimise: str = option(
        "balanced", "--optimise", group=Group.WEIGHTS, choices=tuple(OPTIMISE),
        help="Whether the file holds filters or what Winograd's algorithm makes of them, which is "
        "several times as long: speed: the latter, and Init maps the file; size: filters, which "
        "Init transforms; balanced: filters of so many layers that the file is at most 1.25 "
        "times the model's weights.",
    )  # fmt: skip
    pack: str = option(
        "first", "--pack", group=Group.WEIGHTS, choices=("first", "all"),
        help="Of a class for several targets: first: the file has weights in the order that the "
        "first target reads, and Init copies them into another where it takes another target; "
        "all: the file has all orders, and Init copies nothing.",
    )  # fmt: skip
    max_size: int | None = option(
        None, "--max-size", group=Group.WEIGHTS, metavar="BYTES", number=int, bounds=(1, None),
        help="Most bytes of the weights file, for --weights-encoding auto.",
    )  # fmt: skip
    fallback: str | None = option(
        None, "--fallback", group=Group.CODE, choices=("cpu",),
        help="Leave layers that a GPU target lacks to a C++ class, instead of refusing.",
    )  # fmt: skip
    quantize: Quantize | None = option(
        None, "--quantize", group=Group.PRECISION, common=True, choices=("int8",), nested=Quantize,
        shows=lambda quantize: ["--quantize", "int8", *words(quantize)],
        help="Compute in 8-bit integers; needs --calibrate.",
    )  # fmt: skip
    precision: str = option(
        "fp32", "--precision", group=Group.PRECISION, common=True, choices=PRECISIONS,
        help="Element type to compute or to store weights in: fp16: compute in half precision "
        "where the target does, else store weights in it; bf16: store weights in the upper half "
        "of float32.",
    )  # fmt: skip
    calibrate: str | os.PathLike[str] | None = option(
        None, "--calibrate", group=Group.PRECISION, common=True, path="any", **CALIBRATE
    )
    max_arena: int | None = option(
        None, "--max-arena", group=Group.BUDGETS, metavar="BYTES", number=int, bounds=(0, None),
        hidden=True, help="Most bytes of working memory; more is an error that names the layer.",
    )  # fmt: skip
    max_stack: int | None = option(
        None, "--max-stack", group=Group.BUDGETS, metavar="BYTES", number=int, bounds=(0, None),
        hidden=True,
        help="Most bytes of stack that infer takes, as gcc says of the functions on its deepest "
        "path; frames of the C library are not counted.",
    )  # fmt: skip
    max_code: int | None = option(
        None, "--max-code", group=Group.BUDGETS, metavar="BYTES", number=int, bounds=(0, None),
        hidden=True, help="Most bytes of machine code and constants, as built here.",
    )  # fmt: skip
    max_weights: int | None = option(
        None, "--max-weights", group=Group.BUDGETS, metavar="BYTES", number=int, bounds=(0, None),
        hidden=True, help="Most bytes of weights, in the file or embedded.",
    )  # fmt: skip
    max_macs: int | None = option(
        None, "--max-macs", group=Group.BUDGETS, metavar="NUMBER", number=int, bounds=(0, None),
        hidden=True, help="Most multiply-adds of an inference.",
    )  # fmt: skip
    passes: str | Sequence[str] = option(
        "all", "--passes", group=Group.PASSES, metavar="none|-NAME[,-NAME]", convert=parse_passes,
        shows=lambda given: [f"--passes={given}"],
        help="Leave passes out: none runs those alone without which there are no kernels, "
        "-fuse_pad,-canonicalise all but these two. For finding out which one does harm.",
    )  # fmt: skip
    dump: str | os.PathLike[str] | None = option(
        None, "--dump", group=Group.PASSES, metavar="DIR", path="folder", hidden=True, written=True,
        help="Write the graph after every pass to this folder, as text.",
    )  # fmt: skip
    check: bool = option(
        False, "--check", group=Group.PASSES, hidden=True,
        help="Run the network in NumPy before and after every pass and compare.",
    )  # fmt: skip

    def __post_init__(self) -> None:
        check_fields(self)
        _ = self.preprocess, self.sizes  # raise what is wrong with them
        if (self.weights_encoding == "auto") != (self.max_size is not None):
            auto = self.weights_encoding == "auto"
            raise MdlcError(
                "auto needs a size to fit into" if auto else "only --weights-encoding auto uses it",
                node="--weights-encoding" if auto else "--max-size",
                hint="write --weights-encoding auto --max-size BYTES",
            )
        if self.weights_encoding != "auto":
            parse_encoding(self.weights_encoding)
        if self.precision != "fp32" and self.quantize is not None:
            raise MdlcError(
                "contradicts --quantize", node="--precision", hint="give one of the two"
            )
        if self.precision != "fp32" and self.weights_encoding != "raw":
            raise MdlcError(
                f"weights are stored as {self.precision} already",
                node="--weights-encoding",
                hint="leave it out, or --precision",
            )

    @classmethod
    def of(
        cls, given: CompileOptions | str | None = None, options: Mapping[str, Any] | None = None
    ) -> CompileOptions:
        """Options from an object or a target's name, and keywords that change some.

        Raises:
            MdlcError: see the class. TypeError: a keyword that is not known.
        """
        named = keywords(cls, options or {})
        if isinstance(given, str):
            if "target" in named:
                raise TypeError("the target is given twice")
            named["target"] = given
        return replace(given, **named) if isinstance(given, CompileOptions) else cls(**named)

    @property
    def preprocess(self) -> Preprocess:
        """What stands in front of the network."""
        mean, std = parse_numbers(self.mean, "--mean"), parse_numbers(self.std, "--std")
        order = self.channel_order or "rgb"
        return Preprocess(self.input_format, mean, std, order, self._frame_spec())

    def _frame_spec(self) -> FrameSpec | None:
        """How frames are read, where they are; what is wrong is told in any case."""
        fill = parse_numbers(self.fill, "--fill")
        if any(value != int(value) for value in fill if math.isfinite(value)):
            raise MdlcError("is not a whole number", node="--fill", hint="give 0 to 255")
        spec = FrameSpec()
        spec = FrameSpec(
            self.fit or spec.fit,
            tuple(map(int, fill)) or spec.fill,
            self.resample or spec.resample,
            self.match or spec.match,
            self.yuv or spec.yuv,
        )
        return spec if self.frame else None

    def check_complete(self) -> None:
        """For options that a recipe has completed.

        Raises:
            MdlcError: one is given without the one that it needs.
        """
        for name in ("fit", "fill", "resample", "match", "yuv"):
            if getattr(self, name) is not None and not self.frame:
                raise MdlcError(
                    "needs --frame", node=f"--{name}", hint="add --frame, or leave it out"
                )

    @property
    def sizes(self) -> list[dict[str, tuple[int, ...]]]:
        """The shapes that inputs are given, for each size of the class.

        Raises:
            MdlcError: inputs have different numbers of shapes, or there are too many.
        """
        return sizes_of(None if self.shapes is None else parse_shapes(self.shapes))

    @property
    def fixed(self) -> Fixed:
        """Values of inputs that never change, by name."""
        return parse_fixed(self.fix or ())

    @property
    def bounds(self) -> dict[str, int]:
        """Most entries of tensors whose length depends on data, by name."""
        return parse_bounds(self.bound or ())

    @property
    def states(self) -> dict[str, str]:
        """Inputs that the class keeps, by the outputs that they become."""
        return parse_states(self.state or ())

    @property
    def tables(self) -> tuple[Path, ...] | None:
        """Tables of measured schedules; None for the one that comes with mdlc."""
        return None if self.tuned is None else parse_paths(self.tuned)

    @property
    def left_out(self) -> frozenset[str]:
        """Names of the passes that do not run."""
        return left_out(self.passes)

    def row_groups(self, target: Target) -> dict[str, Any]:
        """What lowering for a target is told of row-fused groups, if anything."""
        return {"row_groups": ()} if FUSE_ROWS in self.left_out and target.sized else {}

    @property
    def budgets(self) -> dict[str, int]:
        """What the class may take at most, by what is limited: arena, stack and so on."""
        names = ("macs", "weights", "arena", "code", "stack")
        given = {name: getattr(self, f"max_{name}") for name in names}
        return {name: most for name, most in given.items() if most is not None}

    def computes_half(self, target: Target) -> bool:
        """Whether --precision fp16 changes what is computed, not only how weights are stored."""
        return self.precision == "fp16" and target.narrows

    def most_weights(self, model: int) -> float:
        """Bytes of the file above which filters are transformed by Init; model: of its weights."""
        times = OPTIMISE[self.optimise]
        return max(times * model, SHORT_FILE) if times else 0.0

    def encoding(self, target: Target) -> Encoding | None:
        """How weights are stored; None for auto."""
        if self.precision != "fp32" and not self.computes_half(target):
            return Encoding(self.precision)
        return None if self.weights_encoding == "auto" else parse_encoding(self.weights_encoding)

    def found_targets(self) -> tuple[Target, ...]:
        """The targets of the class, and their core.

        Raises:
            MdlcError: there is none of a name, or it cannot do what is asked.
        """
        found = find_targets(self.target)
        for target in found:
            self._check_target(target)
        if len(found) > 1:
            self._check_several()
        return found if self.core is None else tuple(t.with_core(self.core) for t in found)

    def _check_several(self) -> None:
        """What a class for several targets does not do yet."""
        encodes = self.weights_encoding != "raw" or self.max_size is not None
        for asked, flag, reason in (
            (encodes, "--weights-encoding", "encoded weights are packed for one target"),
            (self.precision != "fp32", "--precision", "a class for several targets has one graph"),
            (self.core is not None, "--core", "a core is one target's"),
            (self.profile, "--profile", "layers are numbered as one target computes them"),
            (self.frame, "--frame", "frames are read by a class for one target"),
        ):
            if asked:
                raise MdlcError(
                    reason, node=flag, hint="leave it out, or compile for each target by itself"
                )

    def _check_target(self, target: Target) -> None:
        name = target.name
        encodes = self.weights_encoding != "raw" or self.max_size is not None
        for asked, able, flag, reason, hint in (
            (self.embed_weights, target.embeds, "--embed-weights",
             f"target {name} always has its weights in a file", "leave it out"),
            (self.c_api, target.c_api, "--c-api",
             f"target {name} has its class for C in any case", "leave it out"),
            (self.profile, target.profiles, "--profile",
             f"target {name} computes on the GPU, whose own tools tell times",
             "leave it out, and use Instruments"),
            (self.threads > 1, target.threads, "--threads",
             f"target {name} computes on the GPU and has no threads of its own", "leave it out"),
            (len(self.sizes) > 1, target.resizes, "--shape",
             f"a class for target {name} has one size",
             "give every input one shape, or compile a class for each size"),
            (len(self.sizes) > 1 and self.answer is not None, False, "--answer",
             "is computed for one size of the inputs",
             "give every input one shape, or leave it out"),
            (bool(self.state), target.keeps, "--state",
             f"target {name} keeps nothing from one inference to the next",
             "leave it out, and give infer the state"),
            (len(self.sizes) > 1 and self.profile, False, "--profile",
             "numbers the layers of one size of the inputs",
             "give every input one shape, or leave it out"),
            (self.answer is not None, target.answers, "--answer",
             f"target {name} gives tensors alone", "leave it out"),
            (encodes, target.encodes, "--weights-encoding",
             f"target {name} stores weights in the one form that its kernels read",
             "leave --weights-encoding and --max-size out"),
            (self.quantize is not None, target.int8, "--quantize",
             f"target {name} has no 8-bit kernels", "leave it out, or choose another target"),
            (self.frame, target.frames, "--frame",
             f"target {name} takes pictures as textures, not as frames", "leave it out"),
            (self.max_code is not None, target.sized, "--max-code",
             f"the code of target {name} is built for its GPU on the device", "leave it out"),
            (self.max_stack is not None, target.sized, "--max-stack",
             f"the code of target {name} is built for its GPU on the device", "leave it out"),
            (self.fallback is not None, target.falls_back, "--fallback",
             f"target {name} has all layers on the processor already",
             "leave it out; it is for target metal"),
            (self.precision != "fp32", target.encodes, "--precision",
             f"target {name} computes in {'half precision' if target.half else 'float'}",
             "leave it out; metal computes in half precision, metal+fp32 in float"),
        ):  # fmt: skip
            if asked and not able:
                raise MdlcError(reason, node=flag, hint=hint)
        if self.calibrate is not None and not self.computes_half(target):
            raise MdlcError(
                "needs --quantize, or --precision fp16 on a target that computes in half precision",
                node="--calibrate",
                hint="leave it out, or choose the target arm-neon+fp16",
            )

    def command_line(self, file_name: str, targets: Sequence[Target]) -> str:
        """The command that compiles a model with these options, as the emitted header shows it."""
        names = self.target if len(targets) > 1 else targets[0].name
        return shlex.join(["mdlc", file_name, *words(replace(self, target=names))])
