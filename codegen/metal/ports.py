"""Kernels at the ends of a network: between the caller's rows of pixels and textures."""

from __future__ import annotations

from mdlc.codegen.metal.image import LANES, Image
from mdlc.codegen.metal.index import Index, flat
from mdlc.codegen.metal.kernel import (
    ComputeCode,
    Head,
    declaration,
    group_for,
    guard,
    image_of,
    layer,
    place,
)
from mdlc.codegen.plan.plan import Port
from mdlc.compiler.types import DType

# Element types of the caller's memory in Metal's words. Truth values are bytes there.
MEMORY_TYPES = {
    DType.F16: "half",
    DType.F32: "float",
    DType.U8: "uchar",
    DType.I8: "char",
    DType.BOOL: "uchar",
    DType.I16: "short",
    DType.U16: "ushort",
    DType.I32: "int",
    DType.I64: "long",
}

_CAMERA = (
    "// Between pixels of a picture of another size: bilinear.\n"
    "constexpr sampler between(coord::normalized, address::clamp_to_edge, filter::linear);\n"
)


def _start(image: Image) -> str:
    """A pointer to where a thread's four channels begin in the caller's `pixels`."""
    at, slice_ = place(image)
    pixel = [at, Index("position.y", image.height), Index("position.x", image.width)]
    pixels = flat(pixel, (image.images, image.height, image.width))
    return (pixels * image.channels + slice_ * LANES).behind("pixels")


def _lanes(image: Image, statement: str) -> str:
    """A statement for each lane ({0}: its number, {1}: its name) that is a channel."""
    count = min(LANES, image.channels)
    lines = [statement.format(lane, "xyzw"[lane]) for lane in range(count)]
    last = image.channels % LANES
    if last and image.slices > 1:
        _, slice_ = place(image)
        lines.insert(last, f"if ({slice_} < {image.slices - 1}) {{")
        lines.append("}")
    return "\n".join(lines)


def reader(port: Port) -> ComputeCode:
    """Rows of interleaved channels to a texture."""
    image = image_of(port.view)
    kind = MEMORY_TYPES[port.type.dtype]
    name = f"read_{port.type.dtype.value}_{image.label}"
    grid = (image.width, image.height, image.layers)
    element = image.element
    head = declaration([(element, "write", "y")], [(f"device const {kind}", "pixels")])
    comment = f"Channels side by side to slices of four: {image.label}."
    body = (
        f"{guard(grid)}device const {kind}* from = {_start(image)};\n"
        f"{element}4 value = {element}4(0);\n"
        + _lanes(image, f"value.{{1}} = {element}(from[{{0}}]);")
        + f"\ny.write(value, position.xy, {layer(image)});"
    )
    return ComputeCode(name, comment, head, body, grid=grid, group=group_for(grid))


def writer(port: Port) -> ComputeCode:
    """A texture to rows of interleaved channels."""
    image = image_of(port.view)
    kind = MEMORY_TYPES[port.type.dtype]
    name = f"write_{port.type.dtype.value}_{image.label}"
    grid = (image.width, image.height, image.layers)
    head = declaration([(image.element, "read", "x")], [(f"device {kind}", "pixels")])
    comment = f"Slices of four to channels side by side: {image.label}."
    body = (
        f"{guard(grid)}const {image.element}4 value = x.read(position.xy, {layer(image)});\n"
        f"device {kind}* to = {_start(image)};\n"
        + _lanes(image, f"to[{{0}}] = {kind}(value.{{1}});")
    )
    return ComputeCode(name, comment, head, body, grid=grid, group=group_for(grid))


def takes_camera(port: Port) -> bool:
    """Whether a camera's picture can be this input: one image of three channels."""
    image = image_of(port.view)
    return (image.images, image.channels) == (1, 3) and image.element != "int"


def camera(port: Port, *, scale: float, bgr: bool) -> ComputeCode:
    """A picture of any size to the network's input.

    Args:
        scale: what full intensity is in the input's units (255 for 8-bit formats).
        bgr: whether the input's first channel is blue.
    """
    image = image_of(port.view)
    name = f"camera_{image.label}"
    grid = (image.width, image.height, 1)
    head = Head(
        (
            "texture2d<float, access::sample> picture [[texture(0)]]",
            f"texture2d_array<{image.element}, access::write> y [[texture(1)]]",
            "uint3 position [[thread_position_in_grid]]",
        )
    )
    order = "zyx" if bgr else "xyz"
    channels = ", ".join(f"pixel.{lane}" for lane in order)
    comment = (
        f"A picture of any size, resized to {image.height} x {image.width}; its values times "
        f"{scale:g}."
    )
    body = (
        f"{guard(grid)}const float2 at = (float2(position.xy) + float2(0.5f)) / "
        f"float2({image.width}.0f, {image.height}.0f);\n"
        f"const float4 pixel = picture.sample(between, at) * float4({float(scale)}f);\n"
        f"y.write({image.element}4(float4({channels}, 0.0f)), position.xy, {image.first});"
    )
    return ComputeCode(
        name, comment, head, body, grid=grid, group=group_for(grid), helpers=(_CAMERA,)
    )
