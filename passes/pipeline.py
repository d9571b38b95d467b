"""Running passes in order: verification, timing, dumps, comparison and bisection."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mdlc.compiler.errors import MdlcError
from mdlc.compiler.interpreter import run
from mdlc.compiler.ir import Graph
from mdlc.compiler.rewrite import Budget
from mdlc.compiler.text import large_constants, print_graph
from mdlc.compiler.types import Array, DType

GraphPass = Callable[..., Graph]


@dataclass(frozen=True)
class Stage:
    """A graph after a pass.

    Attributes:
        name: of the pass, or "import".
        seconds: it took.
    """

    name: str
    graph: Graph
    seconds: float


def run_passes(
    graph: Graph,
    passes: Sequence[GraphPass],
    *,
    dump: Path | None = None,
    check: bool = False,
    max_rewrites: int | None = None,
    stop_after: str | None = None,
    lossy: Collection[str] = (),
) -> list[Stage]:
    """All stages, the imported graph first.

    Args:
        dump: folder for the text of every stage, as 003_fuse_pad.mdl, and for its constants.
        check: compare the outputs before and after each pass on random inputs.
        max_rewrites: stop rewriting after so many, to find the one that does harm.
        stop_after: name of the last pass to run.
        lossy: names of passes that change values by design: what they leave is not compared with
            what was before, but what comes after is compared with it.

    Raises:
        MdlcError: a pass changed what the network computes (--check), or the folder cannot be
            written to.
        RuntimeError: a pass made an ill-typed graph.
    """
    stages = [Stage("import", graph, 0.0)]
    budget = Budget(max_rewrites)
    inputs = random_inputs(graph) if check else {}
    before = run(graph, inputs) if check else {}
    # Half-precision arithmetic itself is not better than this.
    half = any(node.type.dtype in (DType.F16, DType.BF16) for node in graph.order())
    bound = 2e-2 if half else 1e-3
    _dump(dump, 0, stages[-1])
    for number, graph_pass in enumerate(passes, 1):
        name = graph_pass.__name__
        takes_budget = "budget" in inspect.signature(graph_pass).parameters
        start = time.perf_counter()
        changed = graph_pass(graph, budget=budget) if takes_budget else graph_pass(graph)
        stages.append(Stage(name, changed, time.perf_counter() - start))
        _verify(graph, changed, name)
        graph = changed
        _dump(dump, number, stages[-1])
        if check:
            after = run(graph, inputs)
            if name in lossy:
                before = after
            _compare(before, after, name, bound)
        if name == stop_after:
            break
    return stages


def random_inputs(graph: Graph, seed: int = 0) -> dict[str, Array]:
    """Seeded values for every input: -1..1 for floats, 0..255 for bytes, small integers."""
    generator = np.random.default_rng(seed)
    values: dict[str, Array] = {}
    for node in graph.inputs:
        dtype = node.type.dtype
        if dtype.is_float:
            values[node.name] = generator.uniform(-1, 1, node.shape).astype(dtype.numpy)
        elif dtype is DType.BOOL:
            values[node.name] = generator.integers(0, 2, node.shape).astype(np.bool_)
        else:
            top = 256 if dtype is DType.U8 else 8
            values[node.name] = generator.integers(0, top, node.shape).astype(dtype.numpy)
    return values


def _verify(before: Graph, after: Graph, name: str) -> None:
    """Inputs, outputs and the types of all nodes hold."""
    if after.output_names != before.output_names:
        raise RuntimeError(f"pass {name} changed the outputs")
    for old, new in zip(before.outputs, after.outputs, strict=True):
        if old.shape != new.shape or old.type.dtype is not new.type.dtype:
            raise RuntimeError(f"pass {name} turns output {old} into {new}")
    for node in after.order():
        inferred = node.op.infer(*(source.type for source in node.inputs))
        if inferred.shape != node.shape or inferred.dtype is not node.type.dtype:
            raise RuntimeError(f"pass {name} made {node}, which should be {inferred}")


def _compare(before: dict[str, Array], after: dict[str, Array], name: str, bound: float) -> None:
    for output, value in before.items():
        if value.dtype.kind != "f":
            continue
        # What has overflowed already (in half precision, say) is no measure of anything.
        known = np.isfinite(value)
        wanted, got = (v[known].astype(np.float64) for v in (value, after[output]))
        scale = max(float(np.abs(wanted).max(initial=0.0)), 1e-6)
        worst = float(np.abs(wanted - got).max(initial=0.0))
        if not worst <= bound * scale:  # NaN is no agreement
            raise MdlcError(
                f"pass {name} changes output {output!r} by {worst:.3g} of {scale:.3g}",
                hint="please report this, with the model",
            )


def _dump(folder: Path | None, number: int, stage: Stage) -> None:
    if folder is None:
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        stem = folder / f"{number:03d}_{stage.name}"
        stem.with_suffix(".mdl").write_text(print_graph(stage.graph), encoding="utf-8")
        np.savez(stem.with_suffix(".npz"), **large_constants(stage.graph))  # type: ignore[arg-type]
    except OSError as error:
        raise MdlcError(f"cannot write {folder}: {error.strerror}", node="--dump") from error
