"""The passes in order. Their mechanism is passes/pipeline.py."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from mdlc.compiler.errors import MdlcError, choose
from mdlc.compiler.ir import Graph
from mdlc.passes.canonicalise import canonicalise, lower_batch_norm
from mdlc.passes.channel_shuffle import fold_channel_shuffle
from mdlc.passes.common_subexpressions import merge_common_subexpressions
from mdlc.passes.constant_folding import fold_constants
from mdlc.passes.dead_channels import remove_dead_channels
from mdlc.passes.fold_scale_shift import fold_scale_shift
from mdlc.passes.fp16_to_fp32 import fp16_to_fp32
from mdlc.passes.fuse_activation import fuse_activation, fuse_residual
from mdlc.passes.fuse_attention import fuse_attention
from mdlc.passes.fuse_pad import fuse_pad
from mdlc.passes.fuse_quantized_sum import fuse_quantized_sum
from mdlc.passes.layout import assign_layout, flatten_channels_last
from mdlc.passes.lower_quantized import lower_quantized
from mdlc.passes.pipeline import GraphPass, Stage, run_passes
from mdlc.passes.sink_transposes import sink_transposes
from mdlc.passes.unpack_bytes import unpack_bytes

# What makes the graph smaller, every tensor still being one of the model's.
FRONT: tuple[GraphPass, ...] = (
    # One element type for arithmetic, and what is known now computed now.
    fp16_to_fp32,
    fold_constants,
    merge_common_subexpressions,
    # Synonyms and operators that do nothing, so that the rules below see one form of each.
    canonicalise,
    # What the model has in 8 bits, in integers.
    lower_quantized,
    # Transposes of exporters that think in NHWC cancel each other.
    sink_transposes,
    canonicalise,
    # Shuffles of channels into the order of weights.
    fold_channel_shuffle,
    # Work that disappears into weights and padding.
    fuse_pad,
    fold_scale_shift,
    lower_batch_norm,
    fold_scale_shift,
)
BACK: tuple[GraphPass, ...] = (
    # Attention in one layer, before anything else takes its parts.
    fuse_attention,
    # Work that disappears into epilogues. The sum goes first: an activation behind it is behind
    # the convolution then.
    fuse_residual,
    fuse_quantized_sum,
    fuse_activation,
    # Channels that nobody reads, or whose value is known.
    remove_dead_channels,
    # Pictures: the first layer reads their bytes.
    unpack_bytes,
    # Memory order, last: it describes the graph that is left.
    flatten_channels_last,
    fold_constants,
    merge_common_subexpressions,
    assign_layout,
)
PASSES = (*FRONT, *BACK)
# In front of quantisation, in place of which `quantize` stands here, and behind it. Activations
# are fused behind it only: the range of every tensor is wanted.
BEFORE_QUANTIZATION = (*FRONT, remove_dead_channels)
AFTER_QUANTIZATION = (lower_quantized, merge_common_subexpressions, *BACK)
# Passes that change values by design.
LOSSY = ("quantize", "lower_quantized", "fp32_to_fp16")
# Without these a network has operators for which there are no kernels, or tensors that do not lie
# in memory as kernels read them, so they always run.
NEEDED = (fp16_to_fp32, lower_batch_norm, assign_layout)
# What lowering fuses, by the name under which it is left out like a pass.
FUSE_ROWS = "fuse_rows"
OPTIONAL = (
    *dict.fromkeys(each.__name__ for each in PASSES if each not in NEEDED),
    FUSE_ROWS,
)


def left_out(given: str | Sequence[str]) -> frozenset[str]:
    """The passes that a choice such as none or -fuse_pad,-canonicalise leaves out.

    Raises:
        MdlcError: it is none of that form, or there is no such pass that can be left out.
    """
    words = given.split(",") if isinstance(given, str) else list(given)
    if words == ["all"]:
        return frozenset()
    if words == ["none"]:
        return frozenset(OPTIONAL)
    found = []
    for word in words:
        name = word.strip().removeprefix("-")
        if not word.strip().startswith("-"):
            raise MdlcError(f"{word!r} is not a choice of passes", node="--passes",
                            hint="write all, none, or -NAME for each to leave out")  # fmt: skip
        if name in (each.__name__ for each in NEEDED):
            raise MdlcError(f"{name} cannot be left out: kernels need it", node="--passes",
                            hint="leave out others, or write none for all that can be")  # fmt: skip
        if name not in OPTIONAL:
            raise MdlcError(f"there is no pass {name!r}", node="--passes",
                            hint=choose(name, OPTIONAL))  # fmt: skip
        found.append(name)
    return frozenset(found)


def passes_of(
    *,
    quantize: GraphPass | None = None,
    narrow: GraphPass | None = None,
    unpacks: bool = True,
    attends: bool = True,
    without: Collection[str] = (),
) -> tuple[GraphPass, ...]:
    """The passes that run; see `stages`."""
    passes = PASSES
    if quantize is not None:
        passes = (*BEFORE_QUANTIZATION, quantize, *AFTER_QUANTIZATION)
    if not unpacks:
        passes = tuple(each for each in passes if each is not unpack_bytes)
    if not attends:
        passes = tuple(each for each in passes if each is not fuse_attention)
    passes = tuple(each for each in passes if each.__name__ not in without)
    return passes if narrow is None else (*passes, narrow)


def optimise(
    graph: Graph,
    *,
    dump: Path | None = None,
    check: bool = False,
    max_rewrites: int | None = None,
    stop_after: str | None = None,
    without: Collection[str] = (),
) -> Graph:
    """The graph after all passes (or after the last one named `stop_after`); see `stages`."""
    return stages(
        graph,
        dump=dump,
        check=check,
        max_rewrites=max_rewrites,
        stop_after=stop_after,
        without=without,
    )[-1].graph


def stages(
    graph: Graph,
    *,
    dump: Path | None = None,
    check: bool = False,
    max_rewrites: int | None = None,
    stop_after: str | None = None,
    quantize: GraphPass | None = None,
    narrow: GraphPass | None = None,
    unpacks: bool = True,
    attends: bool = True,
    without: Collection[str] = (),
) -> list[Stage]:
    """The graph after every pass; see run_passes.

    Args:
        quantize: rounds tensors to 8 bits; called `quantize` in the list of stages.
        narrow: computes in half precision what may be, last of all; called `fp32_to_fp16`.
        unpacks: whether the target's convolutions read bytes.
        attends: whether it has a layer of attention.
        without: names of passes that are left out; see `left_out`.

    Raises:
        MdlcError: there is no pass called `stop_after`.
    """
    passes = passes_of(
        quantize=quantize, narrow=narrow, unpacks=unpacks, attends=attends, without=without
    )
    names = list(dict.fromkeys(graph_pass.__name__ for graph_pass in passes))
    if stop_after is not None and stop_after not in ("import", *names):
        raise MdlcError(
            f"there is no pass {stop_after!r}",
            node="--stage",
            hint=f"choose one of {', '.join(names)}",
        )
    if stop_after == "import":
        return [Stage("import", graph, 0.0)]
    return run_passes(
        graph,
        passes,
        dump=dump,
        check=check,
        max_rewrites=max_rewrites,
        stop_after=stop_after,
        lossy=LOSSY,
    )
