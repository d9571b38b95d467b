"""What a Metal kernel family gives: the text of a compute kernel, its grid and its arguments."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from mdlc.codegen.code import LayerCode
from mdlc.codegen.kernel import AnyKernel, Schedule, View
from mdlc.codegen.metal.backend import Metal
from mdlc.codegen.metal.image import LANES, Image, element
from mdlc.codegen.metal.index import Index
from mdlc.compiler.ir import Node

# 16-bit registers of a thread that leave room for 1024 threads on a core of the M1: public reverse
# engineering (Dougall Johnson, "Apple G13 GPU architecture reference").
FULL_REGISTERS = 104


@dataclass(frozen=True)
class Work:
    """What one dispatch does, for the cost report.

    Attributes:
        half_fmas, float_fmas: multiply-adds in each precision, of all threads.
        registers: 16-bit registers that a thread keeps alive, estimated.
    """

    half_fmas: int = 0
    float_fmas: int = 0
    registers: int = 32


@dataclass(frozen=True)
class Head:
    """A compute kernel's parameters, each with its attribute."""

    parameters: tuple[str, ...]


@dataclass(frozen=True)
class ComputeCode(LayerCode):
    """A compute kernel.

    Textures are bound in the order inputs, output; buffers in the order of `Kernel.pack`.

    Attributes:
        comment: what stands above it, without the slashes.
        head: its parameters; body: its statements in Metal's language.
        grid: threads along x, y and z.
        group: threads of a group along x, y and z.
        shared_bytes: threadgroup memory, argument [[threadgroup(0)]]; 0 for none.
        helpers: declarations at file scope that it needs, each once in a file.
        work: for the cost report.
        matrix: another form for GPUs that have simdgroup_matrix, bound to the same arguments.
    """

    comment: str
    head: Head
    body: str
    grid: tuple[int, int, int] = (1, 1, 1)
    group: tuple[int, int, int] = (1, 1, 1)
    shared_bytes: int = 0
    helpers: tuple[str, ...] = ()
    work: Work = field(default_factory=Work)
    matrix: ComputeCode | None = None

    def definition(self, name: str) -> str:
        """Its text under a name, which need not be the one that it asks for."""
        comment = "".join(f"// {line}\n" for line in self.comment.splitlines())
        parameters = ", ".join(self.head.parameters)
        return f"{comment}kernel void {name}({parameters}) {{\n{self.body}\n}}\n"

    @property
    def groups(self) -> tuple[int, int, int]:
        """Groups along x, y and z; the last ones may reach beyond the grid."""
        x, y, z = (-(-n // g) for n, g in zip(self.grid, self.group, strict=True))
        return x, y, z


# Reads outside the image are zeros: the padding of convolutions.
ZEROS = (
    "// Outside an image there are zeros.\n"
    "constexpr sampler zeros(coord::pixel, address::clamp_to_zero, filter::nearest);\n"
)


class ComputeKernel(AnyKernel[Metal]):
    """One family of Metal kernels; a file in codegen/metal/kernels/ that defines KERNELS.

    All of them take textures of halves and of floats, as their views say.
    """

    def cost(self, node: Node, schedule: Schedule, metal: Metal) -> float:
        """Estimated cycles of a GPU core: the larger of arithmetic and memory."""
        size = math.prod(node.shape) + sum(math.prod(s.shape) for s in node.inputs)
        return size / LANES

    def absorbs(self, node: Node) -> Node | None:
        """The input that the kernel computes itself; only where nobody else reads that."""
        return None


def stored(node: Node) -> bool:
    """Whether textures can hold a node's operands and result."""
    runtime = [source for source in node.inputs if source.constant is None]
    return all(element(source.type.dtype) is not None for source in (node, *runtime))


def image_of(view: View) -> Image:
    """The image that a view stands for: offset and pitch are slices of the texture."""
    return Image.of(view.type, view.offset, view.pitch, view.wide)


def group_for(grid: Sequence[int], threads: int = 64) -> tuple[int, int, int]:
    """A shape of thread groups that wastes little of a grid: powers of two, x first."""

    def waste(shape: tuple[int, int, int]) -> tuple[float, int]:
        whole = math.prod(-(-n // g) * g for n, g in zip(grid, shape, strict=True))
        # Square groups read fewer distinct texels; wide ones come next.
        return whole, abs(shape[0] - shape[1]) + 4 * shape[2]

    shapes = [
        (x, y, threads // (x * y))
        for x in (1, 2, 4, 8, 16, 32, 64)
        for y in (1, 2, 4, 8, 16, 32, 64)
        if x * y <= threads
    ]
    return min(shapes, key=waste)


def declaration(
    textures: Sequence[tuple[str, str, str]],
    buffers: Sequence[tuple[str, str]],
    *,
    extra: Sequence[str] = (),
    position: bool = True,
) -> Head:
    """The head of a kernel.

    Args:
        textures: element type, access and name of each.
        buffers: pointer type without its asterisk ("device const half4") and name of each.
        extra: further parameters with their attributes.
    """
    parameters = [
        f"texture2d_array<{kind}, access::{access}> {label} [[texture({i})]]"
        for i, (kind, access, label) in enumerate(textures)
    ]
    parameters += [f"{kind}* {label} [[buffer({i})]]" for i, (kind, label) in enumerate(buffers)]
    parameters += extra
    if position:
        parameters.append("uint3 position [[thread_position_in_grid]]")
    return Head(tuple(parameters))


def guard(grid: Sequence[int]) -> str:
    """Threads outside the grid do nothing."""
    tests = [f"position.{axis} >= {n}" for axis, n in zip("xyz", grid, strict=True)]
    return f"if ({' || '.join(tests)}) {{\nreturn;\n}}\n"


def place(image: Image, z: str = "position.z") -> tuple[Index, Index]:
    """Image and slice of a thread whose z counts both."""
    at = Index(z, image.layers)
    return at // image.slices, at % image.slices


def layer(image: Image, z: str = "position.z") -> str:
    """The texture slice of a thread whose z counts images and slices."""
    if image.pitch == image.slices:
        return str(Index(z, image.layers) + image.first)
    return str(image.layer(*place(image, z)))
