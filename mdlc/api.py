"""The library: `compile` and what it returns."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from mdlc.answers import as_answer
from mdlc.checks.budgets import check_budgets
from mdlc.codegen.cpp.emit import Info, answer_code
from mdlc.codegen.isa.base import Isa
from mdlc.codegen.isa.host import runs_here
from mdlc.codegen.plan.encoding_choice import encode_plan, encode_to_size, transform_at_init
from mdlc.codegen.plan.plan import FrameInput, Plan
from mdlc.codegen.plan.schedule_table import Tuned, read_tables, shipped_tables
from mdlc.codegen.plan.sizes import one_class
from mdlc.codegen.plan.weights_file import Placed, placed
from mdlc.codegen.run.executable import Executable
from mdlc.codegen.run.loaded import LoadedModel
from mdlc.codegen.target import Target, target_of
from mdlc.codegen.weights.encoding import RAW, Encoding
from mdlc.compiler.errors import MdlcError
from mdlc.compiler.ir import Count, Graph
from mdlc.compiler.onnx_import import import_model
from mdlc.inputs.preprocess import INPUT_FORMATS, Preprocess, picture_input, preprocess
from mdlc.inputs.sources import Model, read_model, with_outputs
from mdlc.naming import check_beside_answer, class_name
from mdlc.options import CompileOptions
from mdlc.output import write_files
from mdlc.passes.pipeline import Stage
from mdlc.pipeline import stages
from mdlc.precision.fp16 import HalfPrecision
from mdlc.precision.int8 import LowPrecision
from mdlc.recipe import completed
from mdlc.report import Report, report_of
from mdlc.version import __version__

Progress = Callable[[str], None]


@dataclass(frozen=True)
class CompiledModel:
    """A network that has been compiled; nothing of it is on disk yet.

    Attributes:
        model: the ONNX model it came from.
        imported: the graph as imported, without preprocessing.
        graph: the graph after the passes.
        plan: kernels, schedules and memory.
        how: what stands in front of the network.
        info: what the emitted files say of where they come from.
        embed_weights: whether the weights stand in the C++ text.
        pack_all: whether the weights file has what every target's layers read, so that Init copies
            nothing.
        low_precision: calibration table, report and budget, where it was quantised.
        tuned: the tables that the schedules were chosen by.
        half_precision: why layers compute in half precision or do not, where that was asked.
        fixed: values of inputs that are constants.
        others: the same class at its other sizes; plan, graph, imported and what was decided are
            those of one size, and `plan.also` of the first one has the plans of the others.
        plans: of a class for several targets, all; `plan` is one of them, and the first unless
            `by_target` gave this.
        tables: what `tuned` is, of each of the plans.
        c_api: whether the class for C is written, too.
        profile: whether the class calls a function behind every layer.
        without: names of the passes that did not run.
        stages: the graphs after every pass, the preprocessed network first.
    """

    model: Model
    imported: Graph
    graph: Graph
    plan: Plan
    how: Preprocess
    info: Info
    embed_weights: bool = False
    low_precision: LowPrecision | None = None
    tuned: Tuned = field(default_factory=Tuned)
    half_precision: HalfPrecision | None = None
    fixed: Mapping[str, float | Sequence[float]] = field(default_factory=dict)
    others: tuple[CompiledModel, ...] = ()
    plans: tuple[Plan, ...] = ()
    tables: tuple[Tuned, ...] = ()
    without: frozenset[str] = frozenset()
    c_api: bool = False
    profile: bool = False
    pack_all: bool = False
    stages: tuple[Stage, ...] = ()

    @property
    def sizes(self) -> tuple[CompiledModel, ...]:
        """This one and the same class at its other sizes."""
        return (self, *self.others)

    def by_target(self) -> list[CompiledModel]:
        """The class as each of its targets computes it, in order; itself, if it is for one."""
        if not self.plans:
            return [self]
        return [
            replace(self, plan=plan, graph=plan.graph, tuned=tuned)
            for plan, tuned in zip(self.plans, self.tables, strict=True)
        ]

    def here(self) -> CompiledModel:
        """The variant that suits this machine best: by estimated cycles of those that it runs
        without an emulator, or the first."""
        able = [
            each
            for each in self.by_target()
            if isinstance(each.plan.backend, Isa) and runs_here(each.plan.isa)
        ]
        return min(
            able,
            key=lambda each: sum(step.cycles(each.plan.isa) for step in each.plan.steps),
            default=self,
        )

    @property
    def name(self) -> str:
        """The emitted class."""
        return self.plan.name

    @cached_property
    def placed(self) -> Placed:
        """Where the packed weights of all its targets lie."""
        return placed(self.plans or (self.plan,), keep_all=self.pack_all)

    @cached_property
    def _files(self) -> dict[str, bytes]:
        first, *others = self.plans or (self.plan,)
        more: dict[str, Any] = {"others": others, "placed": self.placed} if others else {}
        more |= {"c_api": True} if self.c_api else {}
        more |= {"profile": True} if self.profile else {}
        return target_of(first).emit(first, self.info, embed_weights=self.embed_weights, **more)

    def files(self) -> dict[str, bytes]:
        """What is emitted: contents by file name, in a fixed order."""
        return dict(self._files)

    def write(self, directory: str | os.PathLike[str]) -> list[Path]:
        """Writes the files and returns their paths; none is ever half-written.

        Raises:
            MdlcError: the folder cannot be written to.
        """
        return write_files(Path(directory), self.files())

    def build(self) -> Executable:
        """Builds the emitted class and makes it callable with numpy arrays, as `plan` computes it.

        Raises:
            MdlcError: there is no C++ compiler for the target, or nothing here that runs it.
        """
        more = {"plans": self.plans} if self.plans else {}
        return target_of(self.plan).executable(self.plan, **more)

    def load(self, threads: int = 0) -> LoadedModel:
        """Builds the class and loads it into this process; see LoadedModel.

        Args:
            threads: at most so many; 0: as many as it was compiled for.

        Raises:
            MdlcError: this machine does not run the target, or has no compiler, or the class has
                several sizes.
        """
        loaded = target_of(self.plan).loaded
        if self.others:
            raise MdlcError(
                "a class of several sizes is not loaded into a process",
                node="--shape",
                hint="use build()",
            )
        if loaded is None:
            raise MdlcError(
                f"a class for {self.plan.backend.name} is not loaded into a process",
                node="--target",
                hint="use build()",
            )
        return loaded(self.plan, self.plans, threads)

    def report(self) -> Report:
        """Layers with their kernels and sizes; `str()` of it is a table."""
        return report_of(self.plan)


def compile(
    model: Any,
    options: CompileOptions | str | None = None,
    *,
    example_inputs: Sequence[Any] | None = None,
    progress: Progress | None = None,
    **keywords: Any,
) -> CompiledModel:
    """Compiles a trained network; writes nothing, unless option `dump` is given.

    The result depends on the arguments alone. May be called from several threads at once.

    Args:
        model: a path (.onnx, or .pt2 where torch is installed), the bytes of an ONNX file, an
            onnx.ModelProto, or a torch.nn.Module with `example_inputs`.
        options: see CompileOptions; or the name of a target.
        example_inputs: tensors, for a torch.nn.Module.
        progress: called with a few words at the start of each stage.
        keywords: options by name (target, threads, mean, ...), which go before those in `options`.

    Raises:
        MdlcError: the model or an argument is bad, or the network uses what mdlc does not have.
        TypeError: an option that there is not.
    """
    given = CompileOptions.of(options, keywords)
    tell = progress or (lambda text: None)
    targets = given.found_targets()
    measured = [
        shipped_tables(each.backend)
        if given.tables is None
        else read_tables(given.tables, each.backend)
        for each in targets
    ]
    tell("reading the model")
    source = read_model(model, example_inputs)
    asked = completed(given, source.onnx)
    source = with_outputs(source, asked.also) if asked.also else source
    _ = asked.found_targets()  # which may lack what a recipe asks for
    # The largest size is the class's first; the others share its weights.
    sizes = asked.sizes
    if asked.frame and len(sizes) > 1:
        raise MdlcError("reads frames into one size of the input", node="--frame",
                        hint="give every input one shape")  # fmt: skip
    sizes.sort(key=lambda shapes: -math.prod(math.prod(shape) for shape in shapes.values()))
    found: list[CompiledModel] = []
    for shapes in sizes:
        if len(sizes) > 1:
            tell("size " + ", ".join(f"{n} {'x'.join(map(str, s))}" for n, s in shapes.items()))
        found.append(
            _Compilation(source, asked, given, targets, measured[0], tell).at_size(
                shapes, found[0] if found else None
            )
        )
    plan = one_class([each.plan for each in found])
    first, *others = (
        replace(each, plan=variant) for each, variant in zip(found, plan.sizes, strict=True)
    )
    first = replace(first, others=tuple(others))
    if len(targets) > 1:
        first = _for_targets(first, targets, measured, asked, tell)
    if asked.budgets:
        tell("measuring what budgets limit")
        check_budgets(first, asked.budgets)
    return first


def _for_targets(
    first: CompiledModel,
    targets: Sequence[Target],
    measured: Sequence[Tuned],
    asked: CompileOptions,
    tell: Progress,
) -> CompiledModel:
    """The class, which is for the first target, for all: the same graph with other kernels.

    Raises:
        MdlcError: it has several sizes.
    """
    if first.others:
        raise MdlcError(
            "a class for several targets has one size of its inputs",
            node="--shape",
            hint="give every input one shape, or compile for each target by itself",
        )
    plans = [first.plan]
    for target, tuned in zip(targets[1:], measured[1:], strict=True):
        tell(f"choosing kernels for {target.name}")
        plan = target.lower(
            first.graph, target.backend, first.name, tuned=tuned, threads=asked.threads,
            **asked.row_groups(target), **_answer_room(asked, first.graph),
        )  # fmt: skip
        plans.append(replace(plan, answer=first.plan.answer))
    return replace(first, plans=tuple(plans), tables=tuple(measured), pack_all=asked.pack == "all")


@dataclass(frozen=True)
class _Compilation:
    """What all sizes of a class have in common.

    Attributes:
        asked: options, completed by the recipe; given: as they were given.
    """

    source: Model
    asked: CompileOptions
    given: CompileOptions
    targets: tuple[Target, ...]
    tuned: Tuned
    tell: Progress

    def at_size(
        self, shapes: Mapping[str, Sequence[int]], first: CompiledModel | None
    ) -> CompiledModel:
        """The network at one size.

        Args:
            first: at another size, with which it shares weights and what was measured.
        """
        asked, source, target, tell = self.asked, self.source, self.targets[0], self.tell
        backend = target.backend
        imported = import_model(
            source.path or source.onnx, shapes=shapes, fixed=asked.fixed, bounds=asked.bounds
        )
        imported = imported.with_states(asked.states)
        tell("optimising the graph")
        how = asked.preprocess.for_network(imported)
        network = preprocess(imported, how)
        low = None
        if asked.quantize is not None:
            low = LowPrecision(
                asked.quantize, how, backend, tell, alike=first.low_precision if first else None
            )
        half = None
        if asked.computes_half(target):
            ranges = None if asked.calibrate is None else Path(asked.calibrate)
            alike = first.half_precision if first else None
            half = HalfPrecision(backend, network, how, ranges, tell, alike=alike)
        passed = stages(
            network,
            dump=None if asked.dump is None or first else Path(asked.dump),
            check=asked.check,
            quantize=None if low is None else low.quantize,
            narrow=None if half is None else half.fp32_to_fp16,
            unpacks=target.unpacks,
            attends=target.attends,
            without=asked.left_out,
        )
        for stage in passed[1:]:
            tell(f"  {stage.name}: {stage.seconds * 1e3:.1f} ms")
        tell(f"choosing kernels for {target.name}")
        encoding = asked.encoding(target)
        kept: dict[str, Any] = {"fallback": True} if asked.fallback else {}
        kept |= {"room": half.room} if half else {}
        kept |= asked.row_groups(target)
        kept |= {"alike": first.plan} if first else {}
        kept |= _answer_room(asked, passed[-1].graph)
        kept |= {"frame": frame} if (frame := frame_input(imported, how)) else {}
        name = asked.name or class_name(source.stem, answers=asked.answer is not None)
        plan = target.lower(
            passed[-1].graph, backend, name, tuned=self.tuned, threads=asked.threads, **kept
        )
        if asked.answer is not None:
            check_beside_answer(name)
            plan = replace(plan, answer=as_answer(asked.answer))
            answer_code(plan)  # which says what does not fit before anything is written
        if asked.precision != "fp32":
            kept_float = half.narrowed.kept if half and half.narrowed else {}
            plan = replace(plan, precision=asked.precision, kept_float=kept_float)
        # The file of a class for several targets is computed on as it is.
        if encoding == RAW and target.encodes and len(self.targets) == 1:
            model = sum(n.constant.nbytes for n in imported.order() if n.constant is not None)
            plan = transform_at_init(plan, asked.most_weights(model))
        elif encoding != RAW:
            tell("encoding the weights")
            plan = _encoded(plan, encoding, asked, first)
        info = Info(
            source.file_name,
            source.sha256,
            self.given.command_line(source.file_name, self.targets),
            __version__,
            {node.name: note for node in plan.graph.inputs if (note := input_note(how))}
            | {count.output: _count_note(count) for count in imported.counts},
        )
        return CompiledModel(
            source, imported, plan.graph, plan, how, info, asked.embed_weights, low, self.tuned,
            half, asked.fixed, without=asked.left_out, c_api=asked.c_api, profile=asked.profile,
            stages=tuple(passed),
        )  # fmt: skip


def _answer_room(asked: CompileOptions, graph: Graph) -> dict[str, int]:
    """Lowering's `answer_bytes`: working memory that the answer is made in, if it needs any."""
    if asked.answer is None:
        return {}
    kinds = {n: node.type for n, node in zip(graph.output_names, graph.outputs, strict=True)}
    room = as_answer(asked.answer).scratch(kinds)
    return {"answer_bytes": room} if room else {}


def _encoded(
    plan: Plan, encoding: Encoding | None, asked: CompileOptions, first: CompiledModel | None
) -> Plan:
    """The plan with its weights encoded; None stands for what fits into a size."""
    if encoding is not None:
        return encode_plan(plan, encoding)
    assert asked.max_size is not None
    if first is not None:
        raise MdlcError("fits one size of the inputs only", node="--weights-encoding",
                        hint="give an encoding by name, or every input one shape")  # fmt: skip
    return encode_to_size(plan, asked.max_size)


def _count_note(count: Count) -> str:
    """What the emitted header says of an output whose length depends on data."""
    along = "" if count.axis == 0 else f" along axis {count.axis}"
    return f"only the first {count.name} entries{along} mean anything, the rest is filling"


def frame_input(graph: Graph, how: Preprocess) -> FrameInput | None:
    """The input that frames are read into, where the class takes them."""
    if how.frame is None or how.input_format is None:
        return None
    name = picture_input(graph, "--frame").name
    return FrameInput(how.frame, name, INPUT_FORMATS[how.input_format])


def input_note(how: Preprocess) -> str:
    """What the emitted header says of the values that it expects; "" for the network's own."""
    if not how.changes:
        return ""
    what = {
        "rgb8": "8-bit RGB pixels, row by row",
        "bgr8": "8-bit BGR pixels, row by row",
        "rgba8": "8-bit RGBA pixels, row by row; alpha is ignored by networks of 3 channels",
        "gray8": "8-bit grey pixels, row by row",
    }
    note = what.get(how.input_format or "", "not normalised")
    note = f"a Frame of any size, or {note}" if how.frame else note
    if how.normalises:
        mean, std = (
            ", ".join(f"{value:g}" for value in values) if values else default
            for values, default in ((how.mean, "0"), (how.std, "1"))
        )
        note += f"; infer computes (value - mean) / std with mean {mean} and std {std}"
    elif how.input_format in INPUT_FORMATS:
        note += "; infer takes the values as they are"
    return note
