"""How a tensor lies in a texture: four channels to a slice, images one behind the other.

The last axis in memory order is the channels, the one before the width, the one before that the
height; all axes before are images. It is the layout of MPSImage, and it makes what is a view in
the C++ class a view here too. Lanes behind the last channel hold finite values of no meaning.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from mdlc.codegen.metal.index import Index, flat, unflat
from mdlc.compiler.types import DType, TensorType

LANES = 4
# Limits of every GPU family that runs iOS 13: Metal feature set tables, "Maximum 2D texture
# width and height" and "Maximum number of layers per ... 2D texture array".
MAX_PIXELS = 16384
MAX_SLICES = 2048

# Element types by how textures hold them. Integers to 255 are exact in half precision; wider
# ones are 32 bits, 64-bit values among them.
HALF_TYPES = frozenset({DType.F16, DType.F32, DType.U8, DType.I8, DType.BOOL})
INT_TYPES = frozenset({DType.I16, DType.U16, DType.I32, DType.I64})


def element(dtype: DType) -> str | None:
    """The texture's element type, or None where Metal has no such arithmetic."""
    if dtype in HALF_TYPES:
        return "half"
    return "int" if dtype in INT_TYPES else None


@dataclass(frozen=True)
class Image:
    """The geometry of a tensor in a texture array.

    Attributes:
        first: the slice of the texture in which the tensor begins.
        pitch: slices of the texture from one image to the next.
        wide: whether elements are floats: halves could overflow, or the target is in float.
    """

    type: TensorType
    images: int
    height: int
    width: int
    channels: int
    first: int = 0
    pitch: int = 0
    wide: bool = False

    @staticmethod
    def of(tensor: TensorType, first: int = 0, pitch: int = 0, wide: bool = False) -> Image:
        """The image of a tensor, by itself or from slice `first` on of a deeper texture."""
        shape = (1, 1, 1, *tensor.physical_shape)
        lead = math.prod(shape[:-3])
        slices = -(-shape[-1] // LANES)
        height, width, channels = shape[-3:]
        return Image(tensor, lead, height, width, channels, first, pitch or slices, wide)

    @property
    def slices(self) -> int:
        """Slices of one image."""
        return -(-self.channels // LANES)

    @property
    def layers(self) -> int:
        """Slices of a texture that holds the tensor alone."""
        return self.images * self.slices

    @property
    def fits(self) -> bool:
        """Whether Metal has textures of this size."""
        return self.width <= MAX_PIXELS and self.height <= MAX_PIXELS and self.layers <= MAX_SLICES

    @property
    def element(self) -> str:
        """half, float or int."""
        found = element(self.type.dtype)
        assert found is not None
        return "float" if self.wide and found == "half" else found

    @property
    def nbytes(self) -> int:
        """Bytes of a texture that holds the tensor alone, without a device's own alignment."""
        size = LANES * (2 if self.element == "half" else 4)
        return self.layers * self.height * self.width * size

    @property
    def extent(self) -> tuple[int, int, int, int]:
        """Images, height, width and channels."""
        return self.images, self.height, self.width, self.channels

    @property
    def label(self) -> str:
        """The size in names: 56x56x24."""
        sizes = [self.images] if self.images > 1 else []
        return "x".join(map(str, [*sizes, self.height, self.width, self.channels]))

    def layer(self, image: Index, slice_: Index) -> Index:
        """The texture's slice that holds a slice of an image."""
        return image * self.pitch + slice_ + self.first

    def logical(self, position: Sequence[Index]) -> list[Index]:
        """Logical indices of an element given by image, row, column and channel."""
        shape = self.type.physical_shape
        if len(shape) > 3:
            physical = [*unflat(position[0], shape[:-3]), *position[1:]]
        else:
            physical = list(position[len(position) - len(shape) :])
        indices = [Index.of(0)] * len(shape)
        for place, axis in enumerate(self.type.layout.axes(len(shape))):
            indices[axis] = physical[place]
        return indices

    def position(self, logical: Sequence[Index]) -> list[Index]:
        """Image, row, column and channel of an element given by its logical indices."""
        shape = self.type.physical_shape
        physical = [logical[axis] for axis in self.type.layout.axes(len(shape))]
        if len(shape) > 3:
            return [flat(physical[:-3], shape[:-3]), *physical[-3:]]
        return [Index.of(0)] * (4 - len(shape)) + physical
