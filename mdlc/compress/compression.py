"""Stages of a compression, each from an ONNX model to the next, with their figures.

Every finished stage leaves its model and its figures in a work folder, under a digest of all that
they depend on: a run that was killed goes on where it stopped.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from mdlc.api import CompiledModel, Progress, compile
from mdlc.checks.accuracy import accuracy
from mdlc.checks.graph_values import node_values
from mdlc.codegen.isa.host import runs_here
from mdlc.codegen.plan.encoding_choice import worst_and_mean
from mdlc.codegen.plan.weights_file import HEADER_BYTES, payload_of
from mdlc.compiler.errors import MdlcError
from mdlc.compiler.ir import Graph, Node
from mdlc.compiler.onnx_export import export_onnx
from mdlc.compiler.onnx_import import import_model
from mdlc.compiler.types import Array
from mdlc.compress.ledger import Entry, Ledger, entry_from_json
from mdlc.inputs.preprocess import model_values, picture_input
from mdlc.inputs.samples import Samples
from mdlc.inputs.sources import read_model
from mdlc.naming import class_name
from mdlc.options import CompileOptions
from mdlc.output import write_files
from mdlc.passes.prune_channels import (
    Pruned,
    check_share,
    filter_norms,
    prune_channels,
    prune_to_macs,
)
from mdlc.passes.prune_weights import check_pruning, prune_weights
from mdlc.passes.reconstruct import reconstruction_scores, refit
from mdlc.pipeline import optimise
from mdlc.sizes import one_size
from mdlc.version import __version__

METHODS = ("l1", "reconstruct")
# Inferences of which the median is the measured time.
REPEATS = 30


@dataclass(frozen=True)
class Recipe:
    """What to do to a network.

    Attributes:
        prune: share of the channels that goes, or None.
        target_macs: share of the multiply-adds that may stay, or None; instead of `prune`.
        method: l1 (norms of filters) or reconstruct (least squares on calibration data).
        multiple: what numbers of channels are rounded up to.
        skip: layers that keep all their filters and weights.
        prune_weights: share of the weights of every layer that becomes zero, or None.
        block: output channels that are zero together.
        encodings: weights encodings, each an entry of the ledger; the last one is compiled.
        max_size: bytes, for the encoding auto.
        seed: of the pixels that are fitted.
    """

    prune: float | None = None
    target_macs: float | None = None
    method: str = "l1"
    multiple: int = 4
    skip: tuple[str, ...] = ()
    encodings: tuple[str, ...] = ()
    max_size: int | None = None
    seed: int = 0
    prune_weights: float | None = None
    block: int = 1

    @property
    def prunes(self) -> bool:
        """Whether channels are cut."""
        return self.prune is not None or self.target_macs is not None


@dataclass(frozen=True)
class Compressed:
    """The result.

    Attributes:
        model: the last ONNX model; compiled: it, with the last encoding.
        ledger: figures of all stages.
    """

    model: onnx.ModelProto
    compiled: CompiledModel
    ledger: Ledger


@dataclass
class _Run:
    model: Path
    recipe: Recipe
    calibration: Samples | None
    test: Samples | None
    options: CompileOptions
    label_offset: int
    work: Path
    tell: Progress
    originals: list[Array] = field(default_factory=list)


def compress(
    model: Path,
    recipe: Recipe,
    *,
    work: Path,
    calibration: Samples | None = None,
    test: Samples | None = None,
    label_offset: int = 0,
    options: CompileOptions | Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> Compressed:
    """Compresses a network.

    Args:
        work: folder for finished stages; what is there and fits is used again.
        calibration: inputs for method reconstruct.
        test: inputs (with labels or not) for accuracy.
        label_offset: added to labels, 1 where class 0 is the background.
        options: of mdlc.compile, those of the weights' encoding apart.

    Raises:
        MdlcError: the recipe does not fit the network or the samples.
    """
    _check(recipe, calibration)
    options = options if isinstance(options, CompileOptions) else CompileOptions.of(None, options)
    one_size(options.shapes, "mdlc compress")
    if options.state:
        raise MdlcError("measures single inferences, not sequences", node="--state",
                        hint="compress without it, then compile the result with it")  # fmt: skip
    run = _Run(
        model,
        recipe,
        calibration,
        test,
        options,
        label_offset,
        work,
        progress or (lambda text: None),
    )
    entries: list[Entry] = []
    key = _digest(
        read_model(model).sha256, run.options, _samples_digest(test), label_offset, __version__
    )
    path = model
    entries.append(_figures(run, "original", model.name, path, "raw", key))
    if recipe.prunes:
        key = _digest(key, recipe.prune, recipe.target_macs, recipe.method, recipe.multiple,
                      recipe.skip, recipe.seed, _samples_digest(calibration))  # fmt: skip
        path = _stage(run, "pruned", key, partial(_prune, run, model))
        entries.append(_figures(run, "pruned", _prune_note(recipe), path, "raw", key))
        if recipe.method == "reconstruct":
            key = _digest(key, "refitted")
            path = _stage(run, "refitted", key, partial(_refit, run, model))
            note = "weights fitted to the original's outputs by least squares"
            entries.append(_figures(run, "refitted", note, path, "raw", key))
    if recipe.prune_weights is not None:
        key = _digest(key, "sparse", recipe.prune_weights, recipe.block, recipe.skip)
        path = _stage(run, "sparse", key, partial(_sparse, run, path))
        entries.append(_figures(run, "sparse", _sparse_note(recipe), path, "raw", key))
    for encoding in recipe.encodings:
        note = "weights encoded" + (f" in {recipe.max_size} bytes" if encoding == "auto" else "")
        own = _digest(key, encoding, recipe.max_size if encoding == "auto" else None)
        entries.append(_figures(run, encoding, note, path, encoding, own))
    last = recipe.encodings[-1] if recipe.encodings else "raw"
    compiled = _compiled(run, path, last)
    samples = len(test) if test is not None else 0
    ledger = Ledger(model.name, compiled.plan.backend.name, samples, tuple(entries))
    return Compressed(onnx.load(path), compiled, ledger)


def _check(recipe: Recipe, calibration: Samples | None) -> None:
    if recipe.prune is not None and recipe.target_macs is not None:
        raise MdlcError(
            "--prune-channels and --target-macs contradict each other", node="--target-macs"
        )
    if recipe.prune is not None:
        check_share(recipe.prune)
    if recipe.target_macs is not None and not 0 < recipe.target_macs < 1:
        raise MdlcError(
            f"{recipe.target_macs:g} is not a share of the multiply-adds",
            node="--target-macs",
            hint="choose a share between 0 and 1, such as 0.5",
        )
    if recipe.method not in METHODS:
        raise MdlcError(f"no method {recipe.method!r}", node="--method", hint="l1 or reconstruct")
    if recipe.method == "reconstruct" and recipe.prunes and calibration is None:
        raise MdlcError(
            "reconstruction needs inputs to fit to",
            node="--method",
            hint="give --calibrate PICTURES|X.npz",
        )
    if recipe.prune_weights is not None:
        check_pruning(recipe.prune_weights, recipe.block)
    elif recipe.block != 1:
        raise MdlcError(
            "--block needs weights to prune", node="--block", hint="give --prune-weights SHARE"
        )
    if not recipe.prunes and not recipe.encodings and recipe.prune_weights is None:
        raise MdlcError(
            "there is nothing to do",
            hint="give --prune-channels, --target-macs, --prune-weights or --weights-encoding",
        )


def _prune_note(recipe: Recipe) -> str:
    how = "L1 norms of filters" if recipe.method == "l1" else "least-squares reconstruction"
    what = (
        f"{recipe.prune:g} of the channels cut"
        if recipe.prune is not None
        else f"channels cut to {recipe.target_macs:g} of the multiply-adds"
    )
    return f"{what} by {how}"


def _sparse_note(recipe: Recipe) -> str:
    what = f"blocks 1x{recipe.block}" if recipe.block > 1 else "weights"
    return f"{recipe.prune_weights:g} of the {what} of every layer zero, by magnitude"


# ------------------------------------------------------------------------------------ stages


def _stage(run: _Run, name: str, key: str, make: Callable[[], Graph]) -> Path:
    """The file of a stage's model, made if it is not there."""
    path = run.work / f"{name}-{key[:16]}.onnx"
    if not path.exists():
        run.tell(name)
        data = export_onnx(make()).SerializeToString(deterministic=True)
        write_files(path.parent, {path.name: data})
    return path


def _graph(run: _Run, model: Path) -> Graph:
    """The network as trained, on the operators that pruning works on."""
    options = run.options
    graph = import_model(
        model,
        shapes=one_size(options.shapes, "mdlc compress"),
        fixed=options.fixed,
        bounds=options.bounds,
    )
    return optimise(graph, stop_after="remove_dead_channels")


def _values(run: _Run, graph: Graph, nodes: Sequence[Node]) -> Iterator[Mapping[Node, Array]]:
    """Values of nodes on the calibration data, as the network without preprocessing sees it."""
    assert run.calibration is not None
    original = _compiled(run, run.model, "raw")
    return node_values(graph, nodes, as_trained(original, run.calibration))


def as_trained(compiled: CompiledModel, samples: Samples) -> list[Mapping[str, Array]]:
    """Inputs of the preprocessed network as inputs of the network as trained."""
    if not compiled.how.changes:
        return list(samples.inputs)
    picture = picture_input(compiled.imported, "--input-format")
    found: list[Mapping[str, Array]] = []
    for values in samples.inputs:
        own = model_values(values[picture.name], picture, compiled.how)
        found.append({**values, picture.name: own})
    return found


def _pruned(run: _Run, model: Path) -> tuple[Graph, Pruned]:
    recipe, graph = run.recipe, _graph(run, model)
    scores = filter_norms
    if recipe.method == "reconstruct":
        scores = reconstruction_scores(graph, partial(_values, run), recipe.seed)  # type: ignore[assignment]
    if recipe.target_macs is not None:
        pruned = prune_to_macs(
            graph, recipe.target_macs, scores=scores, multiple=recipe.multiple, skip=recipe.skip
        )
    else:
        assert recipe.prune is not None
        pruned = prune_channels(
            graph, recipe.prune, scores=scores, multiple=recipe.multiple, skip=recipe.skip
        )
    return graph, pruned


def _prune(run: _Run, model: Path) -> Graph:
    return _pruned(run, model)[1].graph


def _refit(run: _Run, model: Path) -> Graph:
    graph, pruned = _pruned(run, model)
    return refit(graph, pruned, partial(_values, run), run.recipe.seed)


def _sparse(run: _Run, path: Path) -> Graph:
    assert run.recipe.prune_weights is not None
    return prune_weights(
        _graph(run, path), run.recipe.prune_weights, run.recipe.block, run.recipe.skip
    )


# ----------------------------------------------------------------------------------- figures


def _compiled(run: _Run, path: Path, encoding: str) -> CompiledModel:
    name = run.options.name
    if path != run.model and name is None:
        name = class_name(run.model.stem)
    max_size = run.recipe.max_size if encoding == "auto" else None
    return compile(path, run.options, name=name, weights_encoding=encoding, max_size=max_size)


def _figures(run: _Run, stage: str, note: str, path: Path, encoding: str, key: str) -> Entry:
    """A stage's line of the ledger, kept in the work folder."""
    kept = run.work / f"{_digest('figures', stage, key)[:16]}.json"
    try:
        return entry_from_json(json.loads(kept.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        pass
    run.tell(f"figures: {stage}")
    compiled = _compiled(run, path, encoding)
    plan = compiled.plan
    disk = HEADER_BYTES + (payload_of(plan).nbytes if plan.encoded else plan.weight_bytes)
    top1 = top5 = agreement = measured = None
    if runs_here(plan.isa):
        executable = compiled.build()
        measured = executable.time(REPEATS).total / 1e6
    if run.test is not None:
        outputs = _outputs(compiled, run.test)
        if stage == "original":
            run.originals = outputs
        elif not run.originals:
            run.originals = _outputs(_compiled(run, run.model, "raw"), run.test)
        found = accuracy(outputs, run.originals, run.test.labels, run.label_offset)
        top1, top5, agreement = found.top1, found.top5, found.agreement
    entry = Entry(
        stage,
        note,
        disk,
        plan.weight_bytes + plan.arena_bytes,
        _params(plan.graph),
        plan.macs,
        sum(s.cycles(plan.backend) for s in plan.steps) / 1e6,
        measured,
        top1,
        top5,
        agreement,
        worst_and_mean(plan)[2] if plan.encoded else None,
    )
    write_files(kept.parent, {kept.name: json.dumps(asdict(entry)).encode()})
    return entry


def _params(graph: Graph) -> int:
    return sum(
        node.type.size
        for node in graph.order()
        if node.constant is not None and node.type.dtype.is_float
    )


def _outputs(compiled: CompiledModel, samples: Samples) -> list[Array]:
    """The first output for every sample: of the emitted class where it runs here, else of ONNX
    Runtime on the compiled graph."""
    name = compiled.graph.output_names[0]
    if runs_here(compiled.plan.isa):
        executable = compiled.build()
        found = []
        for start in range(0, len(samples), 64):
            some = samples.inputs[start : start + 64]
            found += [result[name] for result in executable.run_many(some)]
        return found
    out = compiled.graph.outputs[0]
    return [v[out] for v in node_values(compiled.graph, [out], samples.inputs)]


def _digest(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def _samples_digest(samples: Samples | None) -> str:
    if samples is None:
        return ""
    total = hashlib.sha256()
    for values in samples.inputs:
        for name in sorted(values):
            total.update(name.encode() + np.ascontiguousarray(values[name]).tobytes())
    if samples.labels is not None:
        total.update(samples.labels.tobytes())
    return total.hexdigest()
