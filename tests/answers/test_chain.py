"""Two networks as one class: what the second sees, where its answers lie, what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image, ImageDraw, ImageFont

import mdlc
from mdlc.cli import invoke
from mdlc.codegen.frame.frame import Frame, of_pixels
from mdlc.codegen.frame.reference import convert
from mdlc.codegen.frame.spec import FrameSpec
from tests.answers import published
from tests.chain_program import items_of
from tests.onnx_models import model, node, value, weight
from tests.shared_data import SHARED, needs_shared

HEIGHT, WIDTH = 12, 20  # of the second network
BOXES = [[4.0, 6.0, 20.0, 30.0], [10.5, 2.0, 28.0, 9.0]]
POINTS = [[6.0, 10.0, 18.0, 14.0], [12.0, 3.0, 26.0, 2.5]]


def _finder() -> onnx.ModelProto:
    """Finds the same two boxes, with two key points each, in any picture of 32x32."""
    table = np.array([[*box, *points] for box, points in zip(BOXES, POINTS, strict=True)])
    return model(
        [
            node("Conv", "x w", "c"),
            node("GlobalAveragePool", "c", "mean"),
            node("Flatten", "mean", "flat"),
            node("Mul", "flat zero", "nothing"),
            node("MatMul", "nothing ones", "no"),
            node("Reshape", "no shape", "rows"),
            node("Add", "rows table", "boxes"),
        ],
        [value("x", (1, 3, 32, 32))],
        [value("boxes", (1, 2, 9))],
        [
            weight("w", np.ones((3, 3, 1, 1))),
            weight("zero", np.zeros(1, np.float32)),
            weight("ones", np.ones((3, 18), np.float32)),
            numpy_helper.from_array(np.array([1, 2, 9]), "shape"),
            weight(
                "table",
                np.concatenate([table, [[0.9], [0.8]]], 1)[None].astype(np.float32),
            ),
        ],
    )


def _shower() -> onnx.ModelProto:
    """Gives what it sees as a vector."""
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["x"], ["f"], to=TensorProto.FLOAT),
            helper.make_node("Flatten", ["f"], ["v"]),
        ],
        "shower",
        [helper.make_tensor_value_info("x", TensorProto.UINT8, (1, 3, HEIGHT, WIDTH))],
        [helper.make_tensor_value_info("v", TensorProto.FLOAT, (1, 3 * HEIGHT * WIDTH))],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


RECIPE = """
name = "Pair"
[first]
model = "finder.onnx"
[first.input]
fit = "letterbox:top-left"
[first.answer]
kind = "boxes"
form = "ltrb"
boxes = "boxes[:,0:4]"
keypoints = "boxes[:,4:8]"
keypoint-form = "absolute"
scores = "boxes[:,8]"
[second]
model = "shower.onnx"
[second.input]
fill = 7
[second.answer]
kind = "embedding"
"""


def _written(folder: Path, text: str = RECIPE) -> Path:
    onnx.save(_finder(), folder / "finder.onnx")
    onnx.save(_shower(), folder / "shower.onnx")
    (folder / "pair.toml").write_text(text)
    return folder / "pair.toml"


def _affine(
    box: np.ndarray, points: np.ndarray, region: dict[str, Any], turn: np.ndarray
) -> tuple[tuple[float, ...], int]:
    """The region of a box in an upright picture, from its description; then turned."""
    middle = (box[:2] + box[2:]) / 2
    size = box[2:] - box[:2]
    right = np.array([1.0, 0.0])
    if "turn" in region:
        right = points[region["turn"][1]] - points[region["turn"][0]]
        right /= np.linalg.norm(right)
    down = np.array([-right[1], right[0]])
    shift = region.get("shift", [0, 0])
    middle = middle + right * shift[0] * size[0] + down * shift[1] * size[1]
    size = size * region.get("scale", 1.0)
    columns, fit = WIDTH, region.get("fit", "grow")
    if fit == "grow":
        ratio = max(size[0] / WIDTH, size[1] / HEIGHT)
        size = np.array([ratio * WIDTH, ratio * HEIGHT])
    elif fit == "pad":
        columns = min(WIDTH, int(np.ceil(size[0] * HEIGHT / size[1])))
    linear = np.stack([right * size[0] / columns, down * size[1] / HEIGHT], 1)
    start = middle - (right * size[0] + down * size[1]) / 2
    affine = turn @ np.vstack([np.column_stack([linear, start]), [0, 0, 1]])
    return tuple(affine[:2].ravel()), columns


@pytest.mark.parametrize(
    "region",
    [
        {},
        {"fit": "stretch", "scale": [1.5, 0.8], "shift": [0.1, -0.2]},
        {"fit": "pad"},
        {"turn": [0, 1], "scale": 1.25},
    ],
)
def test_the_second_network_sees_the_region(region: dict[str, Any], tmp_path: Path) -> None:
    keys = "\n".join(f"{key} = {json.dumps(value)}" for key, value in region.items())
    compiled = mdlc.compile_chain(_written(tmp_path, f"{RECIPE}[region]\n{keys}\n"), "generic")
    rng = np.random.default_rng(3)
    upright = rng.integers(0, 256, (32, 24, 3)).astype(np.uint8)
    # Frames that show the same upright picture, and from its places to those of each frame.
    frames: list[tuple[Frame, Any]] = [(of_pixels(upright), np.eye(3))]
    turned = np.ascontiguousarray(np.rot90(upright))
    turn = np.array([[0, 1, 0], [-1, 0, 24], [0, 0, 1.0]])
    frames.append((of_pixels(turned, rotation=90), turn))
    flipped = np.ascontiguousarray(upright[:, ::-1])
    frames.append((of_pixels(flipped, mirror=True), np.array([[-1, 0, 24], [0, 1, 0], [0, 0, 1]])))
    found = items_of(compiled, tmp_path, [frame for frame, _ in frames])
    for items, (frame, turn) in zip(found, frames, strict=True):
        assert len(items) == 2
        for item, box, points in zip(items, BOXES, POINTS, strict=True):
            corners = np.reshape(box, (2, 2)) @ turn[:2, :2].T + turn[:2, 2]
            sides = [item["found"][side] for side in ("left", "top", "right", "bottom")]
            np.testing.assert_allclose(sides, [*corners.min(0), *corners.max(0)], atol=1e-4)
            affine, columns = _affine(np.array(box), np.reshape(points, (2, 2)), region, turn)
            part = Frame(frame.format, frame.width, frame.height, frame.planes, frame.strides,
                         region=affine, region_columns=columns)  # fmt: skip
            seen = convert(part, FrameSpec(fill=(7,)), HEIGHT, WIDTH, "rgb")
            expected = seen.transpose(2, 0, 1).ravel().astype(float)
            got = item["answer"]["values"] * np.linalg.norm(expected)
            # A place near the border of a pixel may be rounded to either side.
            assert np.mean(np.abs(got - expected) > 1.01) < 0.01
            assert np.mean(np.abs(got - expected) > 0.01) < 0.05


def test_the_second_network_sees_turned_boxes(tmp_path: Path) -> None:
    """A turned box is seen upright; one that is high is turned a quarter."""
    text = RECIPE.replace('form = "ltrb"', 'form = "cxcywh"').replace(
        'keypoints = "boxes[:,4:8]"\nkeypoint-form = "absolute"', 'angle = "boxes[:,4]"'
    )
    recipe = _written(tmp_path, f"{text}[region]\nfit = 'stretch'\ntall = 1.5\n")
    finder = onnx.load(tmp_path / "finder.onnx")
    table = np.zeros((1, 2, 9), np.float32)
    table[0, 0, :5] = 16, 12, 14, 8, 0.3
    table[0, 1, :5] = 12, 20, 6, 15, -0.2
    table[0, :, 8] = 0.9, 0.8
    for number, each in enumerate(finder.graph.initializer):
        if each.name == "table":
            finder.graph.initializer[number].CopyFrom(numpy_helper.from_array(table, "table"))
    onnx.save(finder, tmp_path / "finder.onnx")
    pixels = np.random.default_rng(4).integers(0, 256, (32, 32, 3)).astype(np.uint8)
    (items,) = items_of(mdlc.compile_chain(recipe, "generic"), tmp_path, [of_pixels(pixels)])
    assert len(items) == 2
    for item, (x, y, w, h, angle, *_), quarter in zip(items, table[0], (0, 1), strict=True):
        right = np.array([np.cos(angle), np.sin(angle)])
        down = np.array([-right[1], right[0]])
        if quarter:
            right, down, w, h = down, -right, h, w
        linear = np.stack([right * w / WIDTH, down * h / HEIGHT], 1)
        start = np.array([x, y]) - (right * w + down * h) / 2
        affine = tuple(np.column_stack([linear, start]).ravel())
        seen = convert(of_pixels(pixels, region=affine), FrameSpec(fill=(7,)), HEIGHT, WIDTH, "rgb")
        expected = seen.transpose(2, 0, 1).ravel().astype(float)
        got = item["answer"]["values"] * np.linalg.norm(expected)
        assert np.mean(np.abs(got - expected) > 1.01) < 0.01


def test_most_boxes_and_one_arena(tmp_path: Path) -> None:
    compiled = mdlc.compile_chain(_written(tmp_path, RECIPE + "[region]\nmax = 1\n"), "generic")
    pixels = np.zeros((32, 32, 3), np.uint8)
    (items,) = items_of(compiled, tmp_path, [of_pixels(pixels)])
    assert items["found"]["score"] == pytest.approx(0.9)
    manifest = json.loads((tmp_path / "Pair.json").read_text())
    arenas = [plan.working_bytes for plan in compiled.chain.plans]
    assert manifest["arena_bytes"] == max(arenas) == manifest["arena_lower_bound"]
    assert {each["class"] for each in manifest["networks"]} == {"PairDetector", "PairEmbedder"}
    weights = (tmp_path / "Pair.weights").read_bytes()
    assert weights[:8] == b"MDLCWTS\0"
    assert compiled.files() == mdlc.compile_chain(tmp_path / "pair.toml", "generic").files()


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("[first]", "[frist]", "pair.toml: has no key 'frist'; did you mean first"),
        ('model = "finder.onnx"', "", "pair.toml: [first]: has no model"),
        ('model = "finder.onnx"', 'model = "no.onnx"', "there is no such file"),
        ('kind = "boxes"', 'kind = "boxen"', "pair.toml: [answer] kind: there is no kind 'boxen'"),
        ('form = "ltrb"', 'form = "ltrbt"', "form: there is no form 'ltrbt'; did you mean ltrb"),
        ("fill = 7", 'fill = "x"', "[input] fill"),
        ("[second.answer]\nkind", "[second.other]\nkind", "[second]: has no key 'other'"),
        ('[second.answer]\nkind = "embedding"', "", "[second]: says not what the network answers"),
        ('kind = "embedding"', 'kind = "mask"', "name scores 1xCxHxW"),
        (RECIPE[-1:], "\n[region]\nfitt = 1\n", "[region]: regions have no key 'fitt'"),
        (RECIPE[-1:], "\n[region]\nfit = 'grown'\n", "[region] fit: there is no fit 'grown'"),
        (RECIPE[-1:], "\n[region]\nscale = 99\n", "[region] scale: 99 is out of range"),
        (
            RECIPE[-1:],
            "\n[region]\nturn = [0, 2]\n",
            "boxes have 2 key points, not one of number 2",
        ),
        (RECIPE[-1:], "\n[region]\ntall = 1.5\n", "[region] tall: boxes are upright"),
    ],
)
def test_what_does_not_fit_is_told(
    old: str, new: str, told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    head, _, tail = RECIPE.rpartition(old) if old == RECIPE[-1:] else RECIPE.partition(old)
    recipe = _written(tmp_path, head + new + tail)
    assert invoke(["pipeline", str(recipe), "-t", "generic", "-o", str(tmp_path / "out")]) == 2
    assert told in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_errors_on_the_device(tmp_path: Path) -> None:
    compiled = mdlc.compile_chain(_written(tmp_path), "generic")
    with pytest.raises(Exception, match="exit status 1"):
        items_of(compiled, tmp_path, [Frame("RGB", 0, 4, (np.zeros(1, np.uint8),), (3,))])


FACES = """
name = "Faces"
[first]
model = "{models}/yunet_n.onnx"
[first.input]
fit = "letterbox"
fill = 0
channel-order = "bgr"
match = "opencv"
[first.answer]
decoder = "yunet"
[second]
model = "{models}/pfld.onnx"
[second.input]
std = 255
match = "opencv"
[second.answer]
kind = "keypoints"
points = "output"
unit = "picture"
[region]
scale = 1.1
turn = [0, 1]
"""


@needs_shared
def test_landmarks_behind_a_face_detector(tmp_path: Path) -> None:
    """PFLD behind YuNet on a photograph, upright and from a phone's turned NV21 frame."""
    (tmp_path / "faces.toml").write_text(FACES.format(models=SHARED / "models"))
    compiled = mdlc.compile_chain(tmp_path / "faces.toml", "generic", optimise="speed")
    picture = Image.open(SHARED / "data/pictures/grace_hopper.png").convert("RGB")
    picture = picture.resize((picture.width // 2 * 2, picture.height // 2 * 2))
    pixels = np.asarray(picture)
    height, width, _ = pixels.shape
    turned = picture.convert("YCbCr").transpose(Image.Transpose.ROTATE_90)
    luma, *chroma = turned.split()
    half = [np.asarray(c.resize((height // 2, width // 2), Image.Resampling.BOX)) for c in chroma]
    vu = np.stack(half[::-1], -1)
    nv21 = Frame("NV21", height, width, (np.asarray(luma).ravel().copy(), vu.ravel().copy()),
                 (height, height), rotation=90)  # fmt: skip
    upright, sideways = items_of(compiled, tmp_path, [of_pixels(pixels), nv21])
    assert len(upright) == len(sideways) == 1

    # The same with ONNX Runtime and published post-processing.
    session = onnxruntime.InferenceSession(SHARED / "models/yunet_n.onnx")
    spec = FrameSpec("letterbox", (0,), match="opencv")
    seen = convert(of_pixels(pixels), spec, 320, 320, "bgr")
    names = [output.name for output in session.get_outputs()]
    given = {"input": seen.transpose(2, 0, 1)[None].astype(np.float32)}
    outputs = dict(zip(names, session.run(None, given), strict=True))
    boxes, scores, points = published.yunet(outputs, 320)
    best = scores[:, 0].argmax()
    scale = max(width, height) / 320
    left = (320 - round(width / scale)) // 2, (320 - round(height / scale)) // 2
    box = ((boxes[best].reshape(2, 2) - left) * scale).ravel()
    eyes = (points[best][:2] - left) * scale
    sides = [upright[0]["found"][side] for side in ("left", "top", "right", "bottom")]
    np.testing.assert_allclose(sides, box, atol=0.1)
    right = (eyes[1] - eyes[0]) / np.linalg.norm(eyes[1] - eyes[0])
    down = np.array([-right[1], right[0]])
    side = 1.1 * max(box[2] - box[0], box[3] - box[1])
    start = (box[:2] + box[2:]) / 2 - (right + down) * side / 2
    linear = np.stack([right, down], 1) * side / 112
    affine = tuple(np.column_stack([linear, start]).ravel())
    face = convert(of_pixels(pixels, region=affine), FrameSpec(match="opencv"), 112, 112, "rgb")
    session = onnxruntime.InferenceSession(SHARED / "models/pfld.onnx")
    given = {"input": face.transpose(2, 0, 1)[None].astype(np.float32) / 255}
    landmarks = session.run(None, given)[0].reshape(68, 2) * 112 @ linear.T + start
    found = upright[0]["answer"]["point"]
    places = np.stack([found["x"], found["y"]], 1)
    np.testing.assert_allclose(places, landmarks, atol=0.5)
    # The eyes of both networks lie at the same places.
    assert np.abs(places[36:42].mean(0) - eyes[0]).max() < 0.1 * side
    found = sideways[0]["answer"]["point"]
    places = np.stack([width - found["y"], found["x"]], 1)
    np.testing.assert_allclose(places, landmarks, atol=0.02 * side)


TEXT = """
name = "Page"
[first]
model = "{models}/ppocr_v3_det.onnx"
[first.input]
shape = "x=1,3,224,320"
channel-order = "bgr"
match = "opencv"
mean = [123.675, 116.28, 103.53]
std = [58.395, 57.12, 57.375]
[first.answer]
kind = "quads"
[second]
model = "{models}/ppocr_v4_rec.onnx"
[second.input]
shape = "x=1,3,48,320"
channel-order = "bgr"
match = "opencv"
mean = 127.5
std = 127.5
fill = 127
[second.answer]
kind = "text"
scores = "softmax_11.tmp_0"
dictionary = "symbols.txt"
space = true
[region]
fit = "pad"
tall = 1.5
"""
LINES = ("COMPILER 2026", "GRAPHS AND KERNELS", "STATIC CLASS 17")


def _line(text: str) -> Image.Image:
    font = ImageFont.load_default(36)
    picture = Image.new("RGB", (round(font.getlength(text)) + 24, 54), "white")
    ImageDraw.Draw(picture).text((12, 6), text, fill="black", font=font)
    return picture


def _symbols() -> list[str]:
    """The recogniser's symbols as far as it tells them by itself, of an alphabet it is shown."""
    session = onnxruntime.InferenceSession(SHARED / "models/ppocr_v4_rec.onnx")
    symbols = ["?"] * 6623
    for text in ("ABCDEFGHIJ", "KLMNOPQRS", "TUVWXYZ", "0123456789"):
        line = _line(text)
        width = min(320, round(line.width * 48 / line.height))
        seen = np.asarray(line.resize((width, 48)), np.float32)[..., ::-1] / 127.5 - 1
        given = np.zeros((1, 3, 48, 320), np.float32)
        given[0, :, :, :width] = seen.transpose(2, 0, 1)
        best = session.run(None, {"x": given})[0][0].argmax(1)
        read = [n for n, before in zip(best, [0, *best], strict=False) if n not in (0, before)]
        read = [n for n in read if n <= len(symbols)]  # without the space, which is the last one
        assert len(read) == len(text)
        for number, symbol in zip(read, text, strict=True):
            symbols[number - 1] = symbol
    return symbols


@needs_shared
def test_a_page_is_read(tmp_path: Path) -> None:
    """PP-OCR's detector and recogniser, on a rendered page and on its side."""
    (tmp_path / "symbols.txt").write_text("\n".join(_symbols()))
    (tmp_path / "page.toml").write_text(TEXT.format(models=SHARED / "models"))
    compiled = mdlc.compile_chain(tmp_path / "page.toml", "generic", optimise="speed")
    page = Image.new("RGB", (320, 224), "white")
    pen = ImageDraw.Draw(page)
    for number, text in enumerate(LINES):
        font = ImageFont.load_default(26)
        pen.text((24, 20 + 64 * number), text, fill="black", font=font)
    side = np.ascontiguousarray(np.asarray(page.transpose(Image.Transpose.ROTATE_90)))
    frames = [of_pixels(np.asarray(page)), of_pixels(side, rotation=90)]
    for items in items_of(compiled, tmp_path, frames):
        read = [item["answer"]["utf8"].decode() for item in items]
        assert [text.replace(" ", "") for text in read] == [text.replace(" ", "") for text in LINES]
        assert (items["answer"]["score"] > 0.8).all()
