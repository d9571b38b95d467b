"""What operators answer to passes and targets, held against their references on their samples."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import mdlc.compiler.ops
from mdlc.compiler.ir import Node, make
from mdlc.compiler.op import Elementwise, Op, Sample
from mdlc.compiler.ops.average_pool2d import AveragePool2D
from mdlc.compiler.ops.cast import Cast
from mdlc.compiler.ops.channel_shuffle import ChannelShuffle
from mdlc.compiler.ops.concat import Concat
from mdlc.compiler.ops.constant import constant
from mdlc.compiler.ops.convert_layout import ConvertLayout
from mdlc.compiler.ops.identity import Identity
from mdlc.compiler.ops.input import graph_input
from mdlc.compiler.ops.max_pool2d import MaxPool2D
from mdlc.compiler.ops.pad import Pad
from mdlc.compiler.ops.reshape import Reshape
from mdlc.compiler.ops.resize import Resize
from mdlc.compiler.ops.slice import Slice
from mdlc.compiler.ops.tile import Tile
from mdlc.compiler.ops.transpose import Transpose
from mdlc.compiler.types import Array, DType, Layout, TensorType
from mdlc.compiler.values import UNKNOWN, Values, of_constant, of_type
from mdlc.compiler.window import Window
from tests.op_samples import sampled_ops, samples

assert mdlc.compiler.ops  # imported for its side effect: the registry is filled
# Two operators without samples: both are the identity.
UNSAMPLED = (
    Sample(Identity(), (np.arange(12, dtype=np.float32).reshape(1, 3, 2, 2),)),
    Sample(ConvertLayout(Layout.NHWC), (np.arange(12, dtype=np.float32).reshape(1, 3, 2, 2),)),
)
SAMPLES = (
    *samples(),
    *(pytest.param(sample, id=type(sample.op).__name__) for sample in UNSAMPLED),
)


def _types(sample: Sample) -> list[TensorType]:
    return [TensorType(v.shape, DType.from_numpy(v.dtype)) for v in sample.inputs]


def _node(sample: Sample) -> Node:
    sources = [
        constant(value)
        if index in sample.constant
        else graph_input(f"x{index}", value.shape, DType.from_numpy(value.dtype))
        for index, value in enumerate(sample.inputs)
    ]
    if isinstance(sample.op, Identity):
        return Node(sample.op, tuple(sources), sources[0].type, "")
    return make(sample.op, *sources)


def _result(op: Op, inputs: Sequence[Array]) -> Array:
    if isinstance(op, Identity):
        return inputs[0]
    with np.errstate(all="ignore"):
        return op.reference(*inputs)


def test_every_operator_is_asked() -> None:
    """All that nodes are made of; classes without `infer` only import, as other operators."""
    own = {cls for cls in Op.registry.values() if cls.__module__.startswith("mdlc.compiler.ops.")}
    nodes = {cls.__name__ for cls in own if cls.infer not in (Op.infer, Elementwise.infer)}
    nodes |= {cls.__name__ for cls in own if issubclass(cls, Elementwise)}
    asked = {cls.__name__ for cls in sampled_ops()} | {type(s.op).__name__ for s in UNSAMPLED}
    assert nodes - asked <= {"Constant", "Input"}


@pytest.mark.parametrize("sample", SAMPLES)
def test_every_question_has_an_answer(sample: Sample) -> None:
    node, types = _node(sample), _types(sample)
    op = sample.op
    moved = op.moves(types)
    assert isinstance(moved, tuple)
    assert all(0 <= index < len(types) for index in moved)
    assert op.is_identity(types[0]) in (True, False)
    assert op.same_scale(types) in (True, False)
    assert op.keeps_magnitude(types) in (True, False)
    assert type(op.with_fill(lambda value: value)) is type(op)
    known = op.value_bounds(node, [UNKNOWN for _ in types])
    assert known.most.shape == known.mean.shape == known.deviation.shape
    assert len(known.most) in (1, *node.shape[1:2])
    if node.type.rank in (2, 4):
        channels = op.constant_channels(node, [np.full(t.shape[1:2], np.nan) for t in types])
        assert channels.shape == (node.shape[1],)
    if moved:
        assert op.same_scale(types)


def _sources(sample: Sample, positions: Sequence[int]) -> Array | None:
    """Which element each of the output is, by number, 0 a fill; None where it is computed.

    Found by two sets of numbers that no function of a few of them meets again.
    """
    op = sample.op.with_fill(lambda value: 0.0)
    shapes = [sample.inputs[index].shape for index in positions]
    total = sum(sample.inputs[index].size for index in positions)
    found = []
    for seed in (1, 2):
        drawn = np.concatenate([[0.0], np.random.default_rng(seed).normal(0, 2, total)])
        parts = np.split(drawn[1:], np.cumsum([np.prod(shape, dtype=int) for shape in shapes])[:-1])
        inputs = list(sample.inputs)
        for index, shape, part in zip(positions, shapes, parts, strict=True):
            inputs[index] = part.reshape(shape)
        value = _result(op, inputs)
        order = np.argsort(drawn)
        place = order[np.minimum(np.searchsorted(drawn[order], value), total)]
        if value.dtype != np.float64 or not np.array_equal(drawn[place], value):
            return None
        found.append(place)
    return found[0] if np.array_equal(*found) else None


def _moved(sample: Sample) -> tuple[int, ...]:
    return sample.op.moves(_types(sample))


@pytest.mark.parametrize("sample", [p for p in SAMPLES if _moved(p.values[0])])
def test_movements_only_move(sample: Sample) -> None:
    assert _sources(sample, _moved(sample)) is not None


@pytest.mark.parametrize("cls", sampled_ops())
def test_movements_say_so(cls: type[Op]) -> None:
    """The default is deliberate: what claims to compute does."""
    floats = [s for s in cls.samples() if all(v.dtype.kind == "f" for v in s.inputs)]
    silent = [sample for sample in floats if not _moved(sample)]
    if silent and len(silent) == len(floats):
        assert any(_sources(sample, range(len(sample.inputs))) is None for sample in silent)


IMAGE = TensorType((2, 6, 4, 5))
SAME = (
    (Transpose((0, 1, 2, 3)), IMAGE, True),
    (Transpose((1, 0, 2, 3)), TensorType((6, 6, 1, 1)), False),
    (Transpose((0, 2, 1, 3)), TensorType((6, 1, 1, 3)), True),
    (Reshape(IMAGE.shape), IMAGE, True),
    (Slice((0,) * 4, IMAGE.shape, (1,) * 4), IMAGE, True),
    (Slice((1, 0, 0, 0), IMAGE.shape, (-1, 1, 1, 1)), IMAGE, False),
    (Slice((0, 0), (3, 1), (1, -1)), TensorType((3, 1)), True),
    (Tile((1, 1, 1, 1)), IMAGE, True),
    (Pad((0,) * 4, (0,) * 4, 3.0), IMAGE, True),
    (Cast(DType.F32), IMAGE, True),
    (Concat(1), IMAGE, True),
    (ChannelShuffle(1), IMAGE, True),
    (ChannelShuffle(6), IMAGE, True),
    (ChannelShuffle(2), IMAGE, False),
    (Resize(IMAGE.shape, (1.0,) * 4), IMAGE, True),
    (Resize(IMAGE.shape, (1.0,) * 4, "cubic"), IMAGE, True),
    (Resize(IMAGE.shape, (1.0, 1.0, 1.0, 1.5), coordinates="asymmetric"), IMAGE, False),
    (MaxPool2D(Window((1, 1))), IMAGE, True),
    (MaxPool2D(Window((1, 1), (2, 2), (1, 1, 1, 1))), TensorType((1, 2, 3, 3)), False),
    (MaxPool2D(Window((3, 3), (1, 1), (1, 1, 1, 1))), IMAGE, False),
    (AveragePool2D(Window((1, 1))), IMAGE, True),
    (AveragePool2D(Window((3, 3), (1, 1), (1, 1, 1, 1))), IMAGE, False),
    (ConvertLayout(Layout.NHWC), IMAGE, False),
    (ConvertLayout(Layout.PLAIN), IMAGE, True),
)  # fmt: skip


@pytest.mark.parametrize(("op", "x", "same"), SAME)
def test_identity(op: Op, x: TensorType, same: bool) -> None:
    assert op.infer(x).shape == x.shape
    assert op.is_identity(x) is same
    values = np.random.default_rng(1).permutation(x.size).reshape(x.shape).astype(np.float32)
    if not isinstance(op, ConvertLayout):
        assert np.array_equal(op.reference(values), values) is same


@pytest.mark.parametrize("sample", SAMPLES)
def test_identity_on_samples(sample: Sample) -> None:
    types = _types(sample)
    value = _result(sample.op, sample.inputs)
    one = len(types) == 1 and value.shape == types[0].shape
    if one and value.dtype == sample.inputs[0].dtype and sample.op.is_identity(types[0]):
        np.testing.assert_array_equal(value, sample.inputs[0])


def _floats(sample: Sample) -> list[Array]:
    return [v.astype(np.float64) for v in sample.inputs]


@pytest.mark.parametrize("sample", SAMPLES)
def test_same_scale(sample: Sample) -> None:
    """op(s * (q - z)) is s * (op(q) - z), but for the rounding of what interpolates."""
    if not sample.op.same_scale(_types(sample)):
        return
    scale, zero = 0.25, -7.0
    moved = sample.op.moves(_types(sample)) or (0,)
    inputs, integers = _floats(sample), _floats(sample)
    rng = np.random.default_rng(3)
    for index in range(len(inputs)):
        if index in moved:
            integers[index] = rng.integers(-128, 128, inputs[index].shape).astype(np.float64)
            inputs[index] = scale * (integers[index] - zero)
        else:
            inputs[index] = integers[index] = sample.inputs[index]
    of_integers = sample.op.with_fill(lambda value: value / scale + zero)
    expected = _result(sample.op, inputs)
    found = scale * (_result(of_integers, integers) - zero)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def _largest(inputs: Sequence[Array]) -> float:
    return max((float(np.abs(v.astype(np.float64)).max()) for v in inputs if v.size), default=0.0)


@pytest.mark.parametrize("sample", SAMPLES)
def test_magnitudes_are_kept(sample: Sample) -> None:
    if not sample.op.keeps_magnitude(_types(sample)):
        return
    for factor in (1.0, 1e-3, 30.0):
        inputs = [_scaled(v, factor) if v.dtype.kind == "f" else v for v in sample.inputs]
        found = _result(sample.op, inputs)
        rounding = 1e-3 if found.dtype == np.float16 else 1e-6
        assert _largest([found]) <= max(1.0, _largest(inputs)) * (1 + rounding)


def _known(value: Array) -> Values:
    """What a value says of itself, by channel."""
    wide = np.abs(value.astype(np.float64))
    if value.ndim in (2, 4) and value.size:
        wide = wide.max(tuple(a for a in range(value.ndim) if a != 1))
    most = np.atleast_1d(wide.max(initial=0) if value.ndim not in (2, 4) else wide)
    return Values(most, np.zeros_like(most), np.ones_like(most))


def _check_bounds(sample: Sample, inputs: Sequence[Array]) -> None:
    node = _node(Sample(sample.op, tuple(inputs), sample.constant))
    known = [of_constant(v) if i in sample.constant else _known(v) for i, v in enumerate(inputs)]
    bounds = sample.op.value_bounds(node, known)
    value = np.abs(_result(sample.op, inputs).astype(np.float64))
    value = np.where(np.isnan(value), 0, value)
    if len(bounds.most) > 1:
        value = value.max(tuple(a for a in range(value.ndim) if a != 1))
    limit = bounds.most * (1 + 1e-5) + 1e-6
    assert (value.reshape(-1) <= limit).all() if len(limit) > 1 else value.max(initial=0) <= limit


@pytest.mark.parametrize("sample", SAMPLES)
def test_bounds_hold(sample: Sample) -> None:
    for factor in (1.0, 1e-3, 7.0, 1e4):
        inputs = [
            v if i in sample.constant or v.dtype.kind != "f" else _scaled(v, factor)
            for i, v in enumerate(sample.inputs)
        ]
        _check_bounds(sample, inputs)


def _scaled(value: Array, factor: float) -> Array:
    limit = np.finfo(value.dtype).max
    return np.clip(value.astype(np.float64) * factor, -limit, limit).astype(value.dtype)


UNARY = sorted(
    (cls for cls in sampled_ops() if issubclass(cls, Elementwise) and cls.arity == 1),
    key=lambda cls: cls.__name__,
)


@given(
    st.sampled_from([s for cls in UNARY for s in cls.samples() if s.inputs[0].dtype.kind == "f"]),
    st.floats(1e-6, 1e6),
    st.integers(0, 2**31),
)
def test_bounds_of_functions_hold(sample: Sample, most: float, seed: int) -> None:
    """At any point of an interval, not only at those where the bound was looked for."""
    x = np.random.default_rng(seed).uniform(-most, most, (1, 1, 1, 500)).astype(np.float32)
    _check_bounds(sample, [x])


def test_bounds_of_broadcast_constants_are_not_taken_for_channels() -> None:
    """As many columns as channels: the constant goes along the columns."""
    node = make(
        Op.registry["Add"](),  # type: ignore[call-arg]
        graph_input("x", (1, 2, 3, 2)),
        constant(np.array([0.0, 100.0], np.float32)),
    )
    known = [Values(np.ones(2), np.zeros(2), np.ones(2)), of_constant(np.array([0.0, 100.0]))]
    assert (node.op.value_bounds(node, known).most >= 101).all()


@pytest.mark.parametrize("dtype", list(DType))
def test_bounds_of_inputs(dtype: DType) -> None:
    node = graph_input("x", (1, 3), dtype)
    most = node.op.value_bounds(node, []).most
    assert most == of_type(dtype).most
    unbounded = dtype.is_float or dtype.is_stored
    limit = np.inf if unbounded else 1.0 if dtype is DType.BOOL else np.iinfo(dtype.numpy).max
    assert most >= limit


@pytest.mark.parametrize("sample", SAMPLES)
def test_constant_channels_are_constant(sample: Sample) -> None:
    """Channels said to have one value have it, whatever stands in the others."""
    if _node(sample).type.rank in (2, 4):
        for number in (0.0, 0.5, -3.0):
            _check_constant_channels(sample, number, 1)
            _check_constant_channels(sample, number, 2)


def _check_constant_channels(sample: Sample, number: float, step: int) -> None:
    node = _node(sample)
    inputs, known = list(sample.inputs), []
    for index, value in enumerate(inputs):
        fixed = np.full(value.shape[1:2], np.nan)
        if index not in sample.constant and value.ndim in (2, 4) and value.dtype.kind == "f":
            fixed[::step] = number
            shape = [1] * value.ndim
            shape[1] = -1
            wide = np.broadcast_to(fixed.reshape(shape), value.shape)
            inputs[index] = np.where(np.isnan(wide), value, wide).astype(value.dtype)
        known.append(fixed)
    channels = sample.op.constant_channels(node, known)
    value = _result(sample.op, inputs)
    for channel, expected in enumerate(channels):
        if not np.isnan(expected):
            np.testing.assert_allclose(value[:, channel], expected, rtol=1e-4, atol=1e-5)


def test_constant_channels_are_found() -> None:
    """The answers say something: those of a movement, a pool, a sum and a filter."""
    x = graph_input("x", (1, 4, 4, 4))
    known = np.array([1.0, np.nan, 2.0, np.nan])
    two = np.array([2.0, 2.0, np.nan, np.nan])
    add = make(Op.registry["Add"](), x, constant(np.ones((4, 1, 1), np.float32)))  # type: ignore[call-arg]
    cases = (
        (make(Slice.along(x.shape, 1, 2, 2), x), [known], [2.0, np.nan]),
        (make(MaxPool2D(Window((2, 2))), x), [known], known),
        (make(ChannelShuffle(2), x), [known], [1.0, 2.0, np.nan, np.nan]),
        (make(Concat(1), x, x), [known, two], [*known, *two]),
        (add, [known, np.full(0, np.nan)], known + 1),
    )
    for node, sources, expected in cases:
        np.testing.assert_array_equal(node.op.constant_channels(node, sources), expected)


@pytest.mark.parametrize("sample", SAMPLES)
def test_entries_follow(sample: Sample) -> None:
    """Another value of an entry changes that entry of the output alone."""
    types = _types(sample)
    value = _result(sample.op, sample.inputs)
    for index, given_value in enumerate(sample.inputs):
        for axis, length in enumerate(given_value.shape):
            at = sample.op.follows(types, index, axis)
            if at is None:
                continue
            assert value.shape[at] <= length
            for entry in {0, length // 2, length - 1}:
                changed = np.moveaxis(given_value.copy(), axis, 0)
                changed[entry] = np.roll(changed[entry].reshape(-1), 1).reshape(changed[0].shape)
                inputs = list(sample.inputs)
                inputs[index] = np.moveaxis(changed, 0, axis)
                found = _result(sample.op, inputs)
                others = [each for each in range(value.shape[at]) if each != entry]
                np.testing.assert_array_equal(
                    np.take(found, others, at), np.take(value, others, at)
                )
