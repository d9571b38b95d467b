"""The arithmetic of frames in NumPy, against Pillow, OpenCV, ONNX Runtime and double precision."""

from __future__ import annotations

import cv2
import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper
from PIL import Image

from mdlc.codegen.frame.frame import Frame, of_pixels
from mdlc.codegen.frame.reference import convert
from mdlc.codegen.frame.spec import YUV, FrameSpec, exact_matrix

PILLOW = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "area": Image.Resampling.BOX,
    "nearest": Image.Resampling.NEAREST,
}
OPENCV = {
    "bilinear": cv2.INTER_LINEAR,
    "bicubic": cv2.INTER_CUBIC,
    "area": cv2.INTER_AREA,
    "nearest": cv2.INTER_NEAREST,
}
# Height and width of pictures and of networks: shrinking and growing, odd, one pixel, halves.
SIZES = (
    (108, 192, 64, 64), (37, 41, 80, 90), (100, 100, 50, 50), (300, 201, 7, 9), (1, 1, 5, 6),
    (3, 500, 17, 11), (90, 120, 30, 60), (64, 64, 224, 224), (480, 640, 224, 224),
)  # fmt: skip


@pytest.fixture(autouse=True)
def _without_ipp() -> None:
    """Intel's library, which OpenCV calls where it has it, rounds bicubic otherwise."""
    if hasattr(cv2, "ipp"):
        cv2.ipp.setUseIPP(False)


def resized(image: Image.Image, size: tuple[int, int], how: Image.Resampling) -> Image.Image:
    """Rows first, as Pillow always did until 13, which takes columns first in tall pictures."""
    return image.resize((size[0], image.height), how).resize(size, how)


def picture(height: int, width: int, channels: int = 3) -> np.ndarray:
    rng = np.random.default_rng(height * 1000 + width)
    return rng.integers(0, 256, (height, width, channels)).astype(np.uint8)


@pytest.mark.parametrize("resample", PILLOW)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_pillow(size: tuple[int, int, int, int], resample: str) -> None:
    h, w, height, width = size
    pixels = picture(h, w)
    expected = resized(Image.fromarray(pixels), (width, height), PILLOW[resample])
    found = convert(of_pixels(pixels), FrameSpec(resample=resample), height, width, "rgb")
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("size", "resample"),
    [
        (size, resample)
        for size in SIZES
        for resample in OPENCV
        # Its area is another filter where pictures grow.
        if resample != "area" or (size[0] >= size[2] and size[1] >= size[3])
    ],
    ids=str,
)
def test_opencv(size: tuple[int, int, int, int], resample: str) -> None:
    """Bilinear and nearest are equal; so are means of whole numbers of pixels.

    Others take halves by single precision, as the docs say.
    """
    h, w, height, width = size
    pixels = picture(h, w)
    expected = cv2.resize(pixels, (width, height), interpolation=OPENCV[resample])
    spec = FrameSpec(resample=resample, match="opencv")
    found = convert(of_pixels(pixels), spec, height, width, "rgb")
    differ = found != expected
    whole = h % height == 0 and w % width == 0
    if resample in ("bilinear", "nearest") or (resample == "area" and whole):
        assert not differ.any()
        return
    assert differ.mean() < 0.02
    assert np.abs(found.astype(int) - expected).max() <= 1


@pytest.mark.parametrize("resample", ["bilinear", "bicubic", "nearest"])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_tensorflow_by_onnx_runtime(size: tuple[int, int, int, int], resample: str) -> None:
    """tf.image.resize has half-pixel centres, no smoothing and, where it is cubic, a = -0.5 with
    no samples outside; ONNX's Resize with these attributes is that."""
    h, w, height, width = size
    mode = {"bilinear": "linear", "bicubic": "cubic", "nearest": "nearest"}[resample]
    how = {"nearest_mode": "round_prefer_ceil"} if mode == "nearest" else {}
    how |= {"cubic_coeff_a": -0.5, "exclude_outside": 1} if mode == "cubic" else {}
    node = helper.make_node(
        "Resize", ["x", "", "", "sizes"], ["y"],
        mode=mode, coordinate_transformation_mode="half_pixel", **how,
    )  # fmt: skip
    graph = helper.make_graph(
        [node], "resize",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, h, w])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3, height, width])],
        [helper.make_tensor("sizes", TensorProto.INT64, [4], [1, 3, height, width])],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    pixels = picture(h, w)
    (exact,) = session.run(None, {"x": pixels.transpose(2, 0, 1)[None].astype(np.float32)})
    exact = np.clip(exact[0].transpose(1, 2, 0), 0, 255)
    spec = FrameSpec(resample=resample, match="tf")
    found = convert(of_pixels(pixels), spec, height, width, "rgb")
    assert np.abs(found - exact).max() < (0.55 if mode != "nearest" else 1e-6)


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
@pytest.mark.parametrize("mirror", [False, True])
def test_turned_pictures_are_resampled_as_if_they_had_come_upright(
    rotation: int, mirror: bool
) -> None:
    pixels = picture(57, 83)
    x, y, w, h = 11, 6, 60, 43
    image = Image.fromarray(pixels).crop((x, y, x + w, y + h)).rotate(-rotation, expand=True)
    image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if mirror else image
    frame = of_pixels(pixels, rotation=rotation, mirror=mirror, crop=(x, y, w, h))
    for resample, how in PILLOW.items():
        found = convert(frame, FrameSpec(resample=resample), 24, 31, "rgb")
        np.testing.assert_array_equal(found, resized(image, (31, 24), how))
    upright = np.asarray(image)
    for resample in ("bilinear", "nearest"):
        expected = cv2.resize(upright, (31, 24), interpolation=OPENCV[resample])
        spec = FrameSpec(resample=resample, match="opencv")
        np.testing.assert_array_equal(convert(frame, spec, 24, 31, "rgb"), expected)


def nv21(height: int, width: int) -> tuple[Frame, list[np.ndarray]]:
    rng = np.random.default_rng(width)
    luma = rng.integers(0, 256, (height, width)).astype(np.uint8)
    vu = rng.integers(0, 256, (height // 2, width // 2, 2)).astype(np.uint8)
    frame = Frame("NV21", width, height, (luma.ravel(), vu.ravel()), (width, width))
    return frame, [luma, vu[..., 1], vu[..., 0]]


@pytest.mark.parametrize("yuv", YUV)
def test_planes_are_resampled_as_pictures_and_colours_within_a_step(yuv: str) -> None:
    frame, planes = nv21(110, 146)
    spec = FrameSpec(yuv=yuv, match="opencv")
    y, u, v = (cv2.resize(plane, (40, 32)).astype(np.float64) for plane in planes)
    black, (luma, red_v, green_u, green_v, blue_u) = exact_matrix(yuv)
    grey = luma * (y - black)
    u, v = u - 128, v - 128
    exact = np.stack([grey + red_v * v, grey + green_u * u + green_v * v, grey + blue_u * u], -1)
    found = convert(frame, spec, 32, 40, "rgb")
    assert np.abs(found - np.clip(exact, 0, 255)).max() < 0.55
    np.testing.assert_array_equal(convert(frame, spec, 32, 40, "bgr"), found[..., ::-1])
    only = convert(frame, spec, 32, 40, "y")[..., 0]
    assert np.abs(only - np.clip(grey, 0, 255)).max() < 0.55


def test_matrices_are_those_that_opencv_and_the_standards_have() -> None:
    """Unscaled, colours are within a step or two of OpenCV's, whose matrix has three digits."""
    frame, (luma, u, v) = nv21(64, 64)
    luma = np.maximum(luma, 16)  # where OpenCV's own loop begins
    frame = Frame("NV21", 64, 64, (luma.ravel(), frame.planes[1]), (64, 64))
    both = np.concatenate([luma, np.stack([v, u], -1).reshape(32, 64)])
    expected = cv2.cvtColor(both, cv2.COLOR_YUV2RGB_NV21)
    found = convert(frame, FrameSpec(resample="nearest", yuv="bt601,limited"), 64, 64, "rgb")
    assert np.abs(found.astype(int) - expected).max() <= 2
    assert (found != expected).mean() < 0.3


@pytest.mark.parametrize(
    ("fit", "size", "network", "inside"),
    [
        # width x height of the picture, of the network; left, top, width, height of the picture.
        ("letterbox", (640, 427), (320, 320), (0, 53, 320, 214)),
        ("letterbox", (427, 640), (320, 320), (53, 0, 214, 320)),
        ("letterbox:top-left", (427, 640), (320, 320), (0, 0, 213, 320)),
        ("letterbox", (9000, 1), (320, 320), (0, 159, 320, 1)),
        ("stretch", (640, 427), (320, 200), (0, 0, 320, 200)),
    ],
)
def test_where_pictures_go(
    fit: str, size: tuple[int, int], network: tuple[int, int], inside: tuple[int, int, int, int]
) -> None:
    pixels = picture(size[1], size[0], 1)[:, :, :1] // 2
    left, top, width, height = inside
    found = convert(of_pixels(pixels), FrameSpec(fit, fill=(201,)), network[1], network[0], "rgb")
    expected = np.full((network[1], network[0]), 201, np.uint8)
    image = resized(Image.fromarray(pixels[..., 0]), (width, height), PILLOW["bilinear"])
    expected[top : top + height, left : left + width] = image
    np.testing.assert_array_equal(found, np.stack([expected] * 3, -1))


@pytest.mark.parametrize("size", [(500, 375), (375, 500), (333, 333), (400, 121)])
def test_crop_is_that_of_imagenets_evaluation(size: tuple[int, int]) -> None:
    """Shorter side to 256, then the middle 224: torchvision's Resize and CenterCrop on Pillow."""
    pixels = picture(size[1], size[0])
    short = min(size)
    width, height = (256 if side == short else int(256 * side / short) for side in size)
    left, top = round((width - 224) / 2.0), round((height - 224) / 2.0)
    image = resized(Image.fromarray(pixels), (width, height), PILLOW["bilinear"])
    expected = image.crop((left, top, left + 224, top + 224))
    found = convert(of_pixels(pixels), FrameSpec("crop:0.875"), 224, 224, "rgb")
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("match", ["pillow", "opencv"])
def test_grey_is_the_librarys_own(match: str) -> None:
    pixels = picture(30, 40)
    spec = FrameSpec(match=match, resample="nearest")
    found = convert(of_pixels(pixels), spec, 30, 40, "y")[..., 0]
    pillow = np.asarray(Image.fromarray(pixels).convert("L"))
    opencv = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    np.testing.assert_array_equal(found, pillow if match == "pillow" else opencv)


def test_regions_are_bilinear_samples() -> None:
    """Against double precision, turned by 30 degrees; outside the frame is the fill."""
    pixels = picture(80, 100)
    c, s = np.cos(np.pi / 6), np.sin(np.pi / 6)
    region = (2.5 * c, -2.5 * s, 30.0, 2.5 * s, 2.5 * c, -15.0)
    found = convert(of_pixels(pixels, region=region), FrameSpec(fill=(9,)), 32, 40, "rgb")
    region = [np.float64(np.float32(value)) for value in region]
    u, v = np.meshgrid(np.arange(40) + 0.5, np.arange(32) + 0.5)
    x = region[0] * u + region[1] * v + region[2]
    y = region[3] * u + region[4] * v + region[5]
    inside = (x > 0) & (y > 0) & (x < 100) & (y < 80)
    assert 0.2 < inside.mean() < 0.9
    assert (found[~inside] == 9).all()
    x0, y0 = np.floor(x - 0.5).astype(int), np.floor(y - 0.5).astype(int)
    a, b = (x - 0.5 - x0)[..., None], (y - 0.5 - y0)[..., None]

    def at(dy: int, dx: int) -> np.ndarray:
        return pixels[np.clip(y0 + dy, 0, 79), np.clip(x0 + dx, 0, 99)].astype(float)

    exact = (at(0, 0) * (1 - a) + at(0, 1) * a) * (1 - b)
    exact += (at(1, 0) * (1 - a) + at(1, 1) * a) * b
    assert np.abs(found - exact)[inside].max() < 0.8
