"""The library: `compile` and what it returns."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from mdlc.codegen.cpp.emit import Info
from mdlc.codegen.plan.encoding_choice import encode_plan, encode_to_size
from mdlc.codegen.plan.plan import Plan
from mdlc.codegen.plan.schedule_table import Tuned, read_tables, shipped_tables
from mdlc.codegen.run.executable import Executable
from mdlc.codegen.target import Target, find_target, target_of
from mdlc.codegen.weights.encoding import RAW, Encoding, parse_encoding
from mdlc.compiler.errors import MdlcError
from mdlc.compiler.ir import Graph
from mdlc.compiler.onnx_import import import_model
from mdlc.inputs.preprocess import INPUT_FORMATS, Preprocess, parse_numbers, preprocess
from mdlc.inputs.sources import Model, read_model
from mdlc.naming import checked_class_name, class_name
from mdlc.output import write_files
from mdlc.pipeline import stages
from mdlc.precision.fp16 import HalfPrecision
from mdlc.precision.int8 import LowPrecision
from mdlc.precision.quantize import Quantize
from mdlc.report import Report, report_of
from mdlc.version import __version__

Numbers = str | float | Sequence[float] | None
Shapes = Mapping[str, Sequence[int]] | None
Tables = str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | None
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
        low_precision: calibration table, report and budget, where it was quantised.
        tuned: the tables that the schedules were chosen by.
        half_precision: why layers compute in half precision or do not, where that was asked.
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

    @property
    def name(self) -> str:
        """The emitted class."""
        return self.plan.name

    @cached_property
    def _files(self) -> dict[str, bytes]:
        return target_of(self.plan).emit(self.plan, self.info, embed_weights=self.embed_weights)

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
        """Builds the emitted class and makes it callable with numpy arrays.

        Raises:
            MdlcError: there is no C++ compiler for the target, or nothing here that runs it.
        """
        return target_of(self.plan).executable(self.plan)

    def report(self) -> Report:
        """Layers with their kernels and sizes; `str()` of it is a table."""
        return report_of(self.plan)


def compile(
    model: Any,
    target: str = "host",
    *,
    name: str | None = None,
    shapes: Shapes = None,
    mean: Numbers = None,
    std: Numbers = None,
    input_format: str | None = None,
    channel_order: str = "rgb",
    core: str | None = None,
    threads: int = 1,
    tuned: Tables = None,
    embed_weights: bool = False,
    weights_encoding: str = "raw",
    max_size: int | None = None,
    quantize: Quantize | None = None,
    fallback: str | None = None,
    precision: str = "fp32",
    calibrate: str | os.PathLike[str] | None = None,
    example_inputs: Sequence[Any] | None = None,
    dump: str | os.PathLike[str] | None = None,
    check: bool = False,
    progress: Progress | None = None,
) -> CompiledModel:
    """Compiles a trained network; writes nothing, unless `dump` is given.

    The result depends on the arguments alone. May be called from several threads at once.

    Args:
        model: a path (.onnx, or .pt2 where torch is installed), the bytes of an ONNX file, an
            onnx.ModelProto, or a torch.nn.Module with `example_inputs`.
        target: a name that `mdlc targets` lists; host is the best that this machine runs.
        name: the emitted class; made of the model's name where it is None.
        shapes: shapes of inputs with open dimensions, by name. An open batch is 1 by itself.
        mean, std: the emitted class computes (value - mean) / std first; one number, or one per
            channel, in units of what the caller passes (0..255 for 8-bit formats).
        input_format: rgb8, bgr8, rgba8, gray8 or float: what the caller passes; see Preprocess.
        channel_order: rgb or bgr: what the network was trained on.
        core: the core of the target whose caches and rates choose among schedules, as `mdlc
            targets --cores` lists them; None for what suits the target's processors in general.
        threads: the most that the emitted class computes on; results do not depend on it.
        tuned: tables of measured schedules (`mdlc tune`), of which a later one overrides an
            earlier; None for the table that comes with mdlc, () for the cost model alone.
        embed_weights: put the weights into the C++ text, so that there is no other file.
        weights_encoding: raw, fp16, bf16, int8 or clustered:BITS, with +huffman or not: how the
            weights are stored (arithmetic stays float32); or auto, the best for `max_size`.
        max_size: bytes that the weights file may have, for auto.
        quantize: compute in 8-bit integers; see Quantize.
        fallback: cpu: layers that a GPU target lacks are computed by a C++ class.
        precision: fp32; fp16: computes in half precision where the target does, else stores
            weights in it; bf16: stores weights in the upper half of float32.
        calibrate: pictures or an NPZ file that tell which layers leave half precision's range;
            without, bounds do. Of `quantize`, its own.
        example_inputs: tensors, for a torch.nn.Module.
        dump: folder for the graph after every pass, as text.
        check: evaluate the network before and after every pass, and compare.
        progress: called with a few words at the start of each stage.

    Raises:
        MdlcError: the model or an argument is bad, or the network uses what mdlc does not have.
    """
    tell = progress or (lambda text: None)
    how = Preprocess(
        input_format, parse_numbers(mean, "--mean"), parse_numbers(std, "--std"), channel_order
    )
    if not 1 <= threads <= 64:
        raise MdlcError(f"{threads} threads", node="--threads", hint="choose from 1 to 64")
    encoding = _encoding(weights_encoding, max_size)
    chosen = find_target(target)
    if core is not None:
        chosen = chosen.with_core(core)
    if embed_weights and not chosen.embeds:
        raise MdlcError(
            f"target {chosen.name} has its weights in a file",
            node="--embed-weights",
            hint="leave --embed-weights out",
        )
    if threads > 1 and not chosen.threads:
        raise MdlcError(
            f"target {chosen.name} has no threads of its own",
            node="--threads",
            hint="leave --threads out",
        )
    if encoding != RAW and not chosen.encodes:
        raise MdlcError(
            f"target {chosen.name} has its weights as its kernels read them",
            node="--weights-encoding",
            hint="leave --weights-encoding and --max-size out",
        )
    if quantize is not None and not chosen.integers:
        raise MdlcError(
            f"target {chosen.name} has no 8-bit kernels", node="--quantize", hint="leave it out"
        )
    if fallback is not None and (fallback != "cpu" or not chosen.falls_back):
        raise MdlcError(
            f"target {chosen.name} does not fall back to {fallback!r}",
            node="--fallback",
            hint="cpu is what layers can be left to, by target metal",
        )
    _check_precision(precision, chosen, encoding, quantize, calibrate)
    computes_half = precision == "fp16" and chosen.narrows
    if precision != "fp32" and not computes_half:
        encoding = Encoding(precision)  # storage alone
    paths = _paths(tuned)
    tables = shipped_tables(chosen.backend) if paths is None else read_tables(paths, chosen.backend)
    checked = checked_class_name(name) if name else None
    tell("reading the model")
    source = read_model(model, example_inputs)
    imported = import_model(source.path or source.onnx, shapes=shapes)
    tell("optimising the graph")
    low_precision = None if quantize is None else LowPrecision(quantize, how, chosen.backend, tell)
    network = preprocess(imported, how)
    half = None
    if computes_half:
        source_of_ranges = None if calibrate is None else Path(calibrate)
        half = HalfPrecision(chosen.backend, network, how, source_of_ranges, tell)
    passed = stages(
        network,
        dump=None if dump is None else Path(dump),
        check=check,
        quantize=None if low_precision is None else low_precision.quantize,
        narrow=None if half is None else half.fp32_to_fp16,
        unpacks=chosen.unpacks,
    )
    for stage in passed[1:]:
        tell(f"  {stage.name}: {stage.seconds * 1e3:.1f} ms")
    graph = passed[-1].graph
    class_ = checked or class_name(source.stem)
    tell(f"choosing kernels for {chosen.name}")
    kept = {"decodable": True} if encoding != RAW else {}
    kept |= {"fallback": True} if fallback else {}
    plan = chosen.lower(graph, chosen.backend, class_, tuned=tables, threads=threads, **kept)
    if precision != "fp32":
        kept_float = half.narrowed.kept if half and half.narrowed else {}
        plan = replace(plan, precision=precision, kept_float=kept_float)
    if encoding != RAW:
        tell("encoding the weights")
        if encoding is None:
            assert max_size is not None
            plan = encode_to_size(plan, max_size)
        else:
            plan = encode_plan(plan, encoding)
    info = Info(
        source.file_name,
        source.sha256,
        command_line(
            source.file_name,
            chosen.name,
            how,
            name=checked,
            shapes=shapes,
            core=core,
            threads=threads,
            tuned=paths,
            embed_weights=embed_weights,
            weights_encoding=weights_encoding,
            max_size=max_size,
            quantize=quantize,
            fallback=fallback,
            precision=precision,
            calibrate=None if calibrate is None else Path(calibrate),
        ),
        __version__,
        {node.name: note for node in graph.inputs if (note := input_note(how))},
    )
    return CompiledModel(
        source, imported, plan.graph, plan, how, info, embed_weights, low_precision, tables, half
    )


PRECISIONS = ("fp32", "fp16", "bf16")


def _check_precision(
    precision: str,
    target: Target,
    encoding: Encoding | None,
    quantize: Quantize | None,
    calibrate: str | os.PathLike[str] | None,
) -> None:
    """Raises MdlcError where options contradict each other."""
    if precision not in PRECISIONS:
        raise MdlcError(
            f"there is no precision {precision!r}",
            node="--precision",
            hint=f"choose one of {', '.join(PRECISIONS)}",
        )
    if calibrate is not None and (precision != "fp16" or not target.narrows):
        raise MdlcError(
            "means nothing without --quantize or --precision fp16 on a target that computes in it",
            node="--calibrate",
            hint="leave it out, or choose the target arm-neon+fp16",
        )
    if precision == "fp32":
        return
    if quantize is not None:
        raise MdlcError("contradicts --quantize", node="--precision", hint="give one of the two")
    if encoding != RAW:
        raise MdlcError(
            f"weights are stored as {precision} already",
            node="--weights-encoding",
            hint="leave it out, or --precision",
        )
    if not target.encodes:
        raise MdlcError(
            f"target {target.name} computes in {'half precision' if target.half else 'float'}",
            node="--precision",
            hint="leave it out; metal computes in half precision, metal+fp32 in float",
        )


def _encoding(text: str, max_size: int | None) -> Encoding | None:
    """The encoding of a name; None for auto."""
    if (text == "auto") != (max_size is not None):
        raise MdlcError(
            "auto and a size belong together",
            node="--weights-encoding" if text == "auto" else "--max-size",
            hint="write --weights-encoding auto --max-size BYTES",
        )
    return None if text == "auto" else parse_encoding(text)


def _paths(tuned: Tables) -> list[Path] | None:
    if tuned is None:
        return None
    given = [tuned] if isinstance(tuned, str | os.PathLike) else tuned
    return [Path(path) for path in given]


def command_line(
    file_name: str,
    target: str,
    how: Preprocess,
    *,
    name: str | None = None,
    shapes: Shapes = None,
    core: str | None = None,
    threads: int = 1,
    tuned: Sequence[Path] | None = None,
    embed_weights: bool = False,
    weights_encoding: str = "raw",
    max_size: int | None = None,
    quantize: Quantize | None = None,
    fallback: str | None = None,
    precision: str = "fp32",
    calibrate: Path | None = None,
) -> str:
    """The command that compiles a model with these options, as the emitted header shows it."""
    words = ["mdlc", file_name, "--target", target]
    if name:
        words += ["--name", name]
    for input_name, shape in sorted((shapes or {}).items()):
        words += ["--shape", f"{input_name}={','.join(map(str, shape))}"]
    if how.input_format:
        words += ["--input-format", how.input_format]
    for option, values in (("--mean", how.mean), ("--std", how.std)):
        if values:
            words.append(f"{option}={','.join(f'{value:g}' for value in values)}")
    if how.channel_order != "rgb":
        words += ["--channel-order", how.channel_order]
    if core is not None:
        words += ["--core", core]
    if threads > 1:
        words += ["--threads", str(threads)]
    if tuned is not None:
        words += [word for path in tuned for word in ("--tuned", path.name)] or ["--no-tuned"]
    if embed_weights:
        words.append("--embed-weights")
    if weights_encoding != "raw":
        words += ["--weights-encoding", weights_encoding]
    if max_size is not None:
        words += ["--max-size", str(max_size)]
    if fallback:
        words += ["--fallback", fallback]
    if quantize:
        words += quantize.words()
    if precision != "fp32":
        words += ["--precision", precision]
    if calibrate is not None:
        words += ["--calibrate", calibrate.name]
    return shlex.join(words)


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
    if how.normalises:
        mean, std = (
            ", ".join(f"{value:g}" for value in values) if values else default
            for values, default in ((how.mean, "0"), (how.std, "1"))
        )
        note += f"; infer computes (value - mean) / std with mean {mean} and std {std}"
    elif how.input_format in INPUT_FORMATS:
        note += "; infer takes the values as they are"
    return note
