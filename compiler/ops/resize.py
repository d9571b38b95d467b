"""Resize: interpolation along the axes (Upsample too)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from mdlc.compiler.errors import MdlcError
from mdlc.compiler.ir import Node
from mdlc.compiler.onnx_node import OnnxNode
from mdlc.compiler.op import Cost, LayoutRule, OnnxForm, Op, Sample, normalize_axis, random_array
from mdlc.compiler.types import Array, TensorType
from mdlc.compiler.values import Values

_COORDINATES = (
    "half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "align_corners", "asymmetric",
    "tf_half_pixel_for_nn", "tf_crop_and_resize",
)  # fmt: skip


def _scaled(length: int, scale: float) -> int:
    """The length of a scaled axis; in float32 (10 by 1.3 is 13), as ONNX Runtime does;
    onnx's shape inference multiplies in float64, and finds 12.
    """
    return math.floor(np.float32(length) * np.float32(scale))


@dataclass(frozen=True)
class Resize(Op):
    """Separable interpolation to `sizes`.

    Attributes:
        scales: output over input, per axis, as the model gives them.
        mode: "nearest", "linear" or "cubic"; coordinates: ONNX's coordinate_transformation_mode.
        antialias: whether linear and cubic weights reach as far as a pixel of a smaller y does.
        nearest: rounding for nearest ("simple", before operator set 11: up where it shrinks, else
            down); roi: (starts..., ends...) for tf_crop_and_resize.

    Sources: ONNX specification, operators Resize and Upsample.
    """

    sizes: tuple[int, ...]
    scales: tuple[float, ...]
    mode: str = "nearest"
    coordinates: str = "half_pixel"
    nearest: str = "round_prefer_floor"
    cubic: float = -0.75
    exclude_outside: bool = False
    extrapolation: float = 0.0
    roi: tuple[float, ...] = ()
    antialias: bool = False

    onnx: ClassVar[tuple[str, ...]] = ("Resize", "Upsample")
    layout_rule: ClassVar[LayoutRule] = LayoutRule.NATIVE

    @classmethod
    def from_onnx(cls, n: OnnxNode) -> Node:
        x = n.input(0)
        mode = n.attr("mode", "nearest")
        if n.op_type == "Upsample" or n.opset < 11:
            given = n.attr("scales") if n.op_type == "Upsample" and n.opset < 9 else n.const(1)
            scales = tuple(float(s) for s in given)
            scaled = tuple(_scaled(d, s) for d, s in zip(x.shape, scales, strict=True))
            mode = {"bilinear": "linear"}.get(mode, mode)
            return n.make(cls(scaled, scales, mode, "asymmetric", "simple"), x)
        rank = len(x.shape)
        axes = [normalize_axis(a, rank) for a in n.attr("axes", tuple(range(rank)))]
        coordinates = n.attr("coordinate_transformation_mode", "half_pixel")
        roi_in = n.optional_const(1) if coordinates == "tf_crop_and_resize" else None
        scales_in, sizes_in = n.optional_const(2), n.optional_const(3)
        sizes, scale_list = list(x.shape), [1.0] * rank
        if sizes_in is not None and sizes_in.size:
            wanted = [int(d) for d in sizes_in]
            policy = n.attr("keep_aspect_ratio_policy", "stretch")
            ratios = [
                float(np.float32(w) / np.float32(x.shape[a]))
                for w, a in zip(wanted, axes, strict=True)
            ]
            if policy != "stretch":
                ratio = min(ratios) if policy == "not_larger" else max(ratios)
                ratios = [ratio] * len(axes)
                wanted = [math.floor(ratio * x.shape[a] + 0.5) for a in axes]
            for axis, size, ratio in zip(axes, wanted, ratios, strict=True):
                sizes[axis], scale_list[axis] = size, ratio
        elif scales_in is not None and scales_in.size:
            for axis, scale in zip(axes, scales_in, strict=True):
                scale_list[axis] = float(scale)
                sizes[axis] = _scaled(x.shape[axis], float(scale))
        else:
            raise n.error("neither scales nor sizes are given")
        roi = [0.0] * rank + [1.0] * rank
        if roi_in is not None:
            for i, axis in enumerate(axes):
                roi[axis], roi[rank + axis] = float(roi_in[i]), float(roi_in[len(axes) + i])
        op = cls(
            tuple(sizes),
            tuple(scale_list),
            mode,
            coordinates,
            n.attr("nearest_mode", "round_prefer_floor"),
            n.attr("cubic_coeff_a", -0.75),
            bool(n.attr("exclude_outside", 0)),
            n.attr("extrapolation_value", 0.0),
            tuple(roi) if roi_in is not None else (),
            bool(n.attr("antialias", 0)) and mode != "nearest",
        )
        return op._by_axes(n, x) if op.antialias else n.make(op, x)

    def _by_axes(self, n: OnnxNode, x: Node) -> Node:
        """One axis at a time: pixels of a smaller picture have many taps."""
        for axis, size in enumerate(self.sizes):
            if size != x.shape[axis] or not self.untouched(axis, size):
                sizes, scales = list(x.shape), [1.0] * len(self.sizes)
                sizes[axis], scales[axis] = size, self.scales[axis]
                x = n.make(replace(self, sizes=tuple(sizes), scales=tuple(scales)), x)
        return x

    def infer(self, *inputs: TensorType) -> TensorType:
        x = inputs[0]
        if len(self.sizes) != x.rank or min(self.sizes) < 1:
            raise MdlcError(f"{x} does not resize to {list(self.sizes)}")
        if self.mode not in ("nearest", "linear", "cubic") or self.coordinates not in _COORDINATES:
            raise MdlcError(f"resize mode {self.mode!r} with {self.coordinates!r} is not known")
        return TensorType(self.sizes, x.dtype)

    def _source(self, axis: int, length: int) -> Array:
        """The position in x of every position of y along an axis.

        In float32, as scales are in ONNX: which pixel is nearest depends on how 1.5 / 0.6 rounds.
        """
        count, scale = self.sizes[axis], np.float32(self.scales[axis])
        at = np.arange(count, dtype=np.float32)
        if self.coordinates == "align_corners":
            return at * (length - 1) / (count - 1) if count > 1 else at * 0
        if self.coordinates == "asymmetric":
            return at / scale
        if self.coordinates == "pytorch_half_pixel" and count <= 1:
            return at * 0
        if self.coordinates == "tf_half_pixel_for_nn":
            return (at + 0.5) / scale
        if self.coordinates == "tf_crop_and_resize":
            rank = len(self.sizes)
            start, end = (self.roi[axis], self.roi[rank + axis]) if self.roi else (0.0, 1.0)
            if count > 1:
                return start * (length - 1) + at * (end - start) * (length - 1) / (count - 1)
            return at + 0.5 * (start + end) * (length - 1)
        if self.coordinates == "half_pixel_symmetric":
            adjustment = np.float32(count) / (scale * np.float32(length))
            offset = np.float32(length / 2) * (1 - adjustment)
            centred = (at.astype(np.float64) + 0.5) / np.float64(scale) - 0.5
            return (np.float64(offset) + centred).astype(np.float32)
        return (at + 0.5) / scale - 0.5

    def taps(self, axis: int, length: int) -> tuple[Array, Array]:
        """What each position along an axis is made of.

        Args:
            length: of the input along the axis.

        Returns:
            Indices [out, t] in the input and their weights [out, t] (float64); all weights of a
            position outside the input are 0 where `extrapolation` applies.
        """
        source = self._source(axis, length)
        if self.mode == "nearest":
            low = np.floor(source)
            # In between two pixels, as far as float32 can tell; ONNX Runtime has the same bound.
            tie = np.abs(source - low - 0.5) <= 1e-6
            above = source - low > 0.5
            rounded = {
                "round_prefer_floor": low + (above & ~tie),
                "round_prefer_ceil": low + (above | tie),
                "floor": low,
                "ceil": np.ceil(source),
                "simple": np.ceil(source) if self.scales[axis] < 1 else low,
            }[self.nearest]
            indices, weights = rounded[:, None], np.ones((len(source), 1))
        elif self.antialias and self.scales[axis] < 1:
            indices, weights = self._wide_taps(source, self.scales[axis])
        elif self.mode == "linear":
            low = np.floor(source)
            ratio = source - low
            indices = np.stack([low, low + 1], 1)
            weights = np.stack([1 - ratio, ratio], 1)
        else:
            low = np.floor(source)
            r, a = source - low, self.cubic
            indices = np.stack([low - 1, low, low + 1, low + 2], 1)
            weights = np.stack(
                [
                    ((a * (r + 1) - 5 * a) * (r + 1) + 8 * a) * (r + 1) - 4 * a,
                    ((a + 2) * r - (a + 3)) * r * r + 1,
                    ((a + 2) * (1 - r) - (a + 3)) * (1 - r) * (1 - r) + 1,
                    ((a * (2 - r) - 5 * a) * (2 - r) + 8 * a) * (2 - r) - 4 * a,
                ],
                1,
            )
        if self.exclude_outside:
            weights = weights * ((indices >= 0) & (indices < length))
            weights = weights / weights.sum(1, keepdims=True)
        if self.coordinates == "tf_crop_and_resize":
            inside = (source >= 0) & (source <= length - 1)
            weights = weights * inside[:, None]
        return np.clip(indices, 0, length - 1).astype(np.int64), weights

    def _wide_taps(self, source: Array, scale: float) -> tuple[Array, Array]:
        """The taps of pixels that are larger than those of x, whose weights reach further."""
        reach = 1 if self.mode == "linear" else 2
        low, first = np.floor(source), math.floor(-reach / scale) + 1
        offsets = np.arange(first, 2 - first)
        away = np.abs((offsets - (source - low)[:, None]) * scale)
        if self.mode == "linear":
            weights = np.clip(1 - away, 0, 1)
        else:
            a = self.cubic
            near = (a + 2) * away**3 - (a + 3) * away**2 + 1
            far = a * away**3 - 5 * a * away**2 + 8 * a * away - 4 * a
            weights = np.where(away <= 1, near, np.where(away < 2, far, 0))
        return low[:, None] + offsets, weights / weights.sum(1, keepdims=True)

    def channel_map(
        self, inputs: Sequence[TensorType], output: TensorType
    ) -> tuple[Array | None, ...] | None:
        alike = output.rank > 1 and self.untouched(1, inputs[0].shape[1])
        return (np.arange(output.shape[1]),) if alike else None

    def with_channels(self, inputs: Sequence[TensorType], kept: Array) -> Op:
        return replace(self, sizes=(self.sizes[0], len(kept), *self.sizes[2:]))

    def reference(self, *inputs: Array) -> Array:
        x = inputs[0]
        y = x.astype(np.float64)
        outside = np.zeros(self.sizes, np.bool_)
        for axis, length in enumerate(x.shape):
            if self.untouched(axis, length):
                continue
            indices, weights = self.taps(axis, length)
            shape = [1] * x.ndim
            shape[axis] = len(indices)
            y = sum(  # type: ignore[assignment]
                np.take(y, indices[:, t], axis) * weights[:, t].reshape(shape)
                for t in range(indices.shape[1])
            )
            outside |= (weights.sum(1) == 0).reshape(shape)
        y = np.where(outside, self.extrapolation, y)
        if x.dtype.kind in "iu":
            y = np.clip(np.rint(y), np.iinfo(x.dtype).min, np.iinfo(x.dtype).max)
        return np.asarray(y, x.dtype)

    def untouched(self, axis: int, length: int) -> bool:
        """Whether positions along an axis are those of the input."""
        indices, weights = self.taps(axis, length)
        if len(indices) != length:
            return False
        dense = np.zeros((length, length))
        for t in range(indices.shape[1]):
            np.add.at(dense, (np.arange(length), indices[:, t]), weights[:, t])
        return bool(np.array_equal(dense, np.eye(length)))

    def moves(self, inputs: Sequence[TensorType]) -> tuple[int, ...]:
        return (0,) if self.mode == "nearest" and not self._leaves else ()

    def is_identity(self, x: TensorType) -> bool:
        return all(self.untouched(axis, length) for axis, length in enumerate(x.shape))

    def same_scale(self, inputs: Sequence[TensorType]) -> bool:
        return self.mode != "cubic" and not self._leaves

    @property
    def _leaves(self) -> bool:
        """Whether elements may come from outside the input, where they are `extrapolation`."""
        return self.coordinates == "tf_crop_and_resize"

    def keeps_magnitude(self, inputs: Sequence[TensorType]) -> bool:
        return self.mode != "cubic" and abs(self.extrapolation) <= 1

    def value_bounds(self, node: Node, inputs: Sequence[Values]) -> Values:
        source, grows = node.inputs[0].type, 1.0
        apart = source.rank in (2, 4) and self.untouched(1, source.shape[1])
        x = inputs[0] if apart else inputs[0].together()
        if self.mode == "cubic":
            taps = [self.taps(*each)[1] for each in enumerate(source.shape)]
            grows = math.prod(float(np.abs(weights).sum(1).max()) for weights in taps)
        outside = abs(self.extrapolation) if self._leaves else 0.0
        return Values(np.maximum(x.times(grows).most, outside), x.mean, x.deviation)

    def constant_channels(self, node: Node, known: Sequence[Array]) -> Array:
        apart = not self._leaves and self.untouched(1, node.inputs[0].shape[1])
        return known[0] if apart else np.full(node.shape[1], np.nan)

    def cost(self, inputs: Sequence[TensorType], output: TensorType) -> Cost:
        taps = {"nearest": 0, "linear": 4, "cubic": 16}[self.mode]
        return Cost(output.size * taps, inputs[0].nbytes + output.nbytes)

    def to_onnx(self) -> OnnxForm | None:
        if self.nearest == "simple" and self.mode == "nearest":
            return None
        attributes = {
            "mode": self.mode,
            "coordinate_transformation_mode": self.coordinates,
            "nearest_mode": "floor" if self.nearest == "simple" else self.nearest,
            "cubic_coeff_a": self.cubic,
            "exclude_outside": int(self.exclude_outside),
            "extrapolation_value": self.extrapolation,
            "antialias": int(self.antialias),
        }
        roi = np.array(self.roi, np.float32) if self.roi else None
        return "Resize", attributes, (roi, np.array(self.scales, np.float32), None)

    @classmethod
    def samples(cls) -> Sequence[Sample]:
        x = random_array(1, 1, 18, 4, 5)

        def to(height: float, width: float, **attributes: object) -> Resize:
            sizes = (1, 18, int(4 * height), int(5 * width))
            return cls(sizes, (1.0, 1.0, height, width), **attributes)  # type: ignore[arg-type]

        nearest = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")
        signed = np.random.default_rng(1).integers(-128, 127, (1, 18, 4, 5), np.int8)
        volume = random_array(2, 1, 2, 3, 4, 5)
        grown = ((1, 2, 6, 4, 8), (1.0, 1.0, 2.0, 1.0, 1.6))
        cropped = to(1.5, 1.4, mode="linear", coordinates="tf_crop_and_resize", extrapolation=-2.0)
        roi = (0.0, 0.0, -0.2, 0.1, 1.0, 1.0, 0.7, 1.3)
        return (
            Sample(to(2, 2, coordinates="asymmetric", nearest="floor"), (signed,), label="i8"),
            Sample(cls(*grown), (volume,), label="volume"),
            Sample(cls(*grown, mode="linear"), (volume,), label="volume_linear"),
            Sample(cls((3, 8), (1.0, 1.6), mode="linear"), (volume[0, 0, :, 0],), label="matrix"),
            Sample(replace(cropped, roi=roi), (x,), label="crop"),
            Sample(to(2, 2, coordinates="asymmetric", nearest="floor"), (x,), label="upsample"),
            *(Sample(to(1.75, 0.6, nearest=m), (x,), label=m) for m in nearest),
            Sample(to(1.75, 0.6, coordinates="asymmetric", nearest="simple"), (x,), label="simple"),
            *(
                Sample(to(2, 3, mode="linear", coordinates=c), (x,), label=f"linear_{c}")
                for c in _COORDINATES
                if c not in ("tf_crop_and_resize", "tf_half_pixel_for_nn")
            ),
            Sample(to(0.5, 0.8, mode="linear"), (x,), label="smaller"),
            Sample(to(0.5, 1, mode="linear", antialias=True), (x,), label="wide"),
            Sample(to(1, 0.6, mode="cubic", antialias=True), (x,), label="wide_cubic"),
            Sample(to(2, 2, mode="cubic"), (x,), label="cubic"),
            Sample(
                to(2, 1.6, mode="cubic", coordinates="asymmetric", exclude_outside=True),
                (x,),
                label="cubic_exclude",
            ),
        )
