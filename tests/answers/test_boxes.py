"""Decoded boxes against published post-processing in NumPy, on random tensors and real networks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnxruntime
import pytest
from PIL import Image

from mdlc.codegen.answer.answer import parse_answer
from mdlc.compiler.errors import MdlcError
from tests.answer_program import decode, network
from tests.answers import published
from tests.shared_data import SHARED, needs_shared

# A candidate that is this close to the threshold may fall on either side of it.
_ATOL = 2e-3


def _table(answer: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    box = answer["box"][: answer["count"]]
    corners = np.stack([box[side] for side in ("left", "top", "right", "bottom")], 1)
    return corners, box["score"], box["label"]


def _assert_same(answer: Any, expected: tuple[np.ndarray, ...]) -> None:
    boxes, scores, labels = _table(answer)
    count = min(len(expected[1]), len(answer["box"]))
    assert len(scores) == count
    np.testing.assert_allclose(scores, expected[1][:count], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(labels, expected[2][:count])
    np.testing.assert_allclose(boxes, expected[0][:count], rtol=1e-4, atol=_ATOL)


def _yolo_tensor(rng: np.random.Generator, classes: int, count: int) -> np.ndarray:
    """1x(4+classes)xN: boxes in pixels and scores, most of them low."""
    centres = rng.uniform(0, 320, (2, count))
    sizes = rng.uniform(10, 120, (2, count))
    scores = rng.uniform(0, 1, (classes, count)) ** 6
    return np.concatenate([centres, sizes, scores])[None].astype(np.float32)


@pytest.mark.parametrize(("classes", "count"), [(80, 2100), (1, 333), (3, 64)])
def test_yolov8(classes: int, count: int, tmp_path: Path) -> None:
    tensor = _yolo_tensor(np.random.default_rng(classes), classes, count)
    code = parse_answer({"decoder": "yolov8", "threshold": 0.6, "candidates": 2100}).code(
        network({"out": tensor.shape}, 320, 320)
    )
    answer = decode(code, {"out": tensor}, tmp_path)
    boxes = published.from_centres(tensor[0, :4].T)
    _assert_same(answer, published.detected(boxes, tensor[0, 4:].T, np.float32(0.6), 0.45))
    assert answer["count"] > 0


def test_transposed_heads_give_the_same_boxes(tmp_path: Path) -> None:
    tensor = _yolo_tensor(np.random.default_rng(5), 80, 640)
    answers = []
    for folder, array in (("a", tensor), ("b", tensor.transpose(0, 2, 1).copy())):
        (tmp_path / folder).mkdir()
        code = parse_answer({"decoder": "yolov8", "threshold": 0.7}).code(
            network({"out": array.shape}, 320, 320)
        )
        answers.append(decode(code, {"out": array}, tmp_path / folder))
    assert answers[0]["count"] > 0
    np.testing.assert_array_equal(answers[0], answers[1])


def test_only_the_best_candidates_are_decoded(tmp_path: Path) -> None:
    tensor = _yolo_tensor(np.random.default_rng(6), 2, 4000)
    code = parse_answer(
        {"decoder": "yolov8", "threshold": 0.01, "candidates": 50, "max": 50, "suppression": "none"}
    ).code(network({"out": tensor.shape}, 320, 320))
    answer = decode(code, {"out": tensor}, tmp_path)
    best = np.sort(tensor[0, 4:].max(0))[::-1][:50]
    np.testing.assert_array_equal(answer["box"]["score"], best)


def test_classes_that_suppress_each_other(tmp_path: Path) -> None:
    tensor = _yolo_tensor(np.random.default_rng(7), 5, 500)
    code = parse_answer({"decoder": "yolov8", "threshold": 0.5, "class-wise": False}).code(
        network({"out": tensor.shape}, 320, 320)
    )
    boxes, scores = published.from_centres(tensor[0, :4].T), tensor[0, 4:].T
    sure = scores.max(1) > np.float32(0.5)
    boxes, best, labels = boxes[sure], scores.max(1)[sure], scores.argmax(1)[sure]
    kept = published.nms(boxes, best, labels, 0.45, class_wise=False)
    _assert_same(decode(code, {"out": tensor}, tmp_path), (boxes[kept], best[kept], labels[kept]))


def test_a_candidate_may_be_of_several_classes(tmp_path: Path) -> None:
    """SSD: offsets to anchors, variances, a softmax with a background, each class for itself."""
    rng = np.random.default_rng(8)
    anchors = np.concatenate([rng.uniform(40, 260, (200, 2)), rng.uniform(20, 90, (200, 2))], 1)
    np.savetxt(tmp_path / "anchors.csv", anchors.astype(np.float32), delimiter=",")
    anchors = anchors.astype(np.float32).astype(float)
    offsets = rng.normal(0, 1, (1, 200, 4)).astype(np.float32)
    logits = rng.normal(0, 3, (1, 200, 6)).astype(np.float32)
    code = parse_answer(
        {"decoder": "ssd", "anchors": str(tmp_path / "anchors.csv"), "threshold": 0.3}
    ).code(network({"loc": offsets.shape, "conf": logits.shape}, 300, 300))
    answer = decode(code, {"loc": offsets, "conf": logits}, tmp_path)
    centres = anchors[:, :2] + offsets[0, :, :2] * 0.1 * anchors[:, 2:]
    sizes = anchors[:, 2:] * np.exp(offsets[0, :, 2:] * 0.2)
    boxes = published.from_centres(np.concatenate([centres, sizes], 1))
    scores = published.softmax(logits[0].astype(float))[:, 1:]
    index, labels = np.nonzero(scores > 0.3)
    kept = published.nms(boxes[index], scores[index, labels], labels, 0.45)
    index, labels = index[kept], labels[kept]
    _assert_same(answer, (boxes[index], scores[index, labels], labels))


def test_soft_suppression_lowers_scores(tmp_path: Path) -> None:
    tensor = _yolo_tensor(np.random.default_rng(9), 2, 60)
    code = parse_answer({"decoder": "yolov8", "threshold": 0.2, "suppression": "soft"}).code(
        network({"out": tensor.shape}, 320, 320)
    )
    answer = decode(code, {"out": tensor}, tmp_path)
    boxes, scores = published.from_centres(tensor[0, :4].T), tensor[0, 4:].T.astype(float)
    labels, best = scores.argmax(1), scores.max(1)
    left, found = list(np.nonzero(best > 0.2)[0]), []
    while left:
        first = max(left, key=lambda i: best[i])
        left.remove(first)
        found.append((first, best[first]))
        for other in left:
            if labels[other] == labels[first]:
                shared = published.overlap(boxes[first], boxes[other : other + 1])[0]
                best[other] *= np.exp(-shared * shared / 0.5)
        left = [i for i in left if best[i] > 0.2]
    index = [i for i, _ in found]
    _assert_same(answer, (boxes[index], np.array([s for _, s in found]), labels[index]))


def test_boxes_of_the_callers_picture(tmp_path: Path) -> None:
    """A quarter turn and a scale: corners are in order again."""
    tensor = np.zeros((1, 5, 64), np.float32)
    tensor[0, :, 3] = [100, 50, 20, 10, 0.9]
    code = parse_answer({"decoder": "yolov8"}).code(network({"out": tensor.shape}, 320, 320))
    # x' = 2 y, y' = 640 - 2 x
    answer = decode(code, {"out": tensor}, tmp_path, (0, 2, 0, -2, 0, 640))
    boxes, _, _ = _table(answer)
    np.testing.assert_allclose(boxes, [[90, 420, 110, 460]])


def test_end_to_end_heads_give_their_own_labels(tmp_path: Path) -> None:
    tensor = np.array([[[1, 2, 30, 40, 0.9, 7], [2, 3, 31, 41, 0.8, 7], [5, 5, 9, 9, 0.1, 1]]], "f")
    code = parse_answer({"decoder": "yolo-end2end"}).code(network({"out": tensor.shape}, 64, 64))
    boxes, scores, labels = _table(decode(code, {"out": tensor}, tmp_path))
    np.testing.assert_array_equal(boxes, tensor[0, :2, :4])
    np.testing.assert_array_equal(scores, tensor[0, :2, 4])
    np.testing.assert_array_equal(labels, [7, 7])


def _outputs(model: str, picture: str, size: tuple[int, int], values: Any) -> dict[str, np.ndarray]:
    """What ONNX Runtime makes of a picture; values: of its RGB bytes as floats."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(SHARED / "models" / model), options)
    image = (
        Image.open(SHARED / "data" / "pictures" / picture)
        .convert("RGB")
        .resize(size, Image.Resampling.BILINEAR)
    )
    pixels = values(np.asarray(image).astype(np.float32)).astype(np.float32)
    feed = {session.get_inputs()[0].name: np.ascontiguousarray(pixels.transpose(2, 0, 1))[None]}
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, feed), strict=True))


_BGR_MEAN, _BGR_STD = (103.53, 116.28, 123.675), (57.375, 57.12, 58.395)


@needs_shared
def test_yolox_finds_the_cat(tmp_path: Path) -> None:
    outputs = _outputs("yolox_nano.onnx", "cat.png", (416, 416), lambda x: x[..., ::-1])
    code = parse_answer({"decoder": "yolox", "threshold": 0.05}).code(
        network({name: array.shape for name, array in outputs.items()}, 416, 416)
    )
    answer = decode(code, outputs, tmp_path)
    boxes, scores = published.yolox(outputs["output"][0], 416)
    _assert_same(answer, published.detected(boxes, scores, 0.05, 0.45))
    assert answer["box"]["label"][0] == 15  # cat, of the classes of COCO


@needs_shared
def test_nanodet_finds_the_cat(tmp_path: Path) -> None:
    outputs = _outputs(
        "nanodet_m.onnx", "cat.png", (320, 320), lambda x: (x[..., ::-1] - _BGR_MEAN) / _BGR_STD
    )
    code = parse_answer({"decoder": "nanodet", "threshold": 0.1}).code(
        network({name: array.shape for name, array in outputs.items()}, 320, 320)
    )
    answer = decode(code, outputs, tmp_path)
    boxes, scores = published.nanodet(outputs, 320)
    _assert_same(answer, published.detected(boxes, scores, 0.1, 0.6))
    assert answer["box"]["label"][0] == 15


def test_boxes_end_where_the_picture_does(tmp_path: Path) -> None:
    tensor = _yolo_tensor(np.random.default_rng(12), 2, 400)
    table = {"decoder": "yolov8", "threshold": 0.5, "clip": True}
    code = parse_answer(table).code(network({"out": tensor.shape}, 320, 320))
    answer = decode(code, {"out": tensor}, tmp_path, (2, 0, 0, 0, 2, 0), picture=(600, 500))
    boxes = published.from_centres(tensor[0, :4].T)
    found, scores, labels = published.detected(boxes, tensor[0, 4:].T, np.float32(0.5), 0.45)
    clipped = np.clip(2 * found, 0, [500, 600, 500, 600])
    assert (clipped != 2 * found).any()
    _assert_same(answer, (clipped, scores, labels))


def test_peaks_of_heat_maps(tmp_path: Path) -> None:
    """CenterNet: cells that no neighbour of their class exceeds, with an offset and a size."""
    rng = np.random.default_rng(14)
    heat = rng.normal(-2, 1.5, (1, 3, 20, 24)).astype(np.float32)
    heat[0, 0, 0, 0], heat[0, 1, 19, 23], heat[0, 2, 5, 23] = 6.0, 6.5, 7.0  # at the border
    offsets = rng.uniform(0, 1, (1, 2, 20, 24)).astype(np.float32)
    sizes = rng.uniform(1, 9, (1, 2, 20, 24)).astype(np.float32)
    outputs = {"hm": heat, "reg": offsets, "wh": sizes}
    code = parse_answer({"decoder": "centernet", "max": 1000}).code(
        network({name: array.shape for name, array in outputs.items()}, 80, 96, hm=True)
    )
    answer = decode(code, outputs, tmp_path)
    scores = published.sigmoid(heat[0].astype(float))
    around = np.pad(scores, ((0, 0), (1, 1), (1, 1)), constant_values=-1)
    windows = np.lib.stride_tricks.sliding_window_view(around, (3, 3), (1, 2))
    label, y, x = np.nonzero((scores == windows.max((-1, -2))) & (scores > 0.3))
    best = np.argsort(-scores[label, y, x], kind="stable")
    label, y, x = label[best], y[best], x[best]
    centres = np.stack([x, y], 1) + offsets[0][:, y, x].T
    boxes = published.from_centres(np.concatenate([centres, sizes[0][:, y, x].T], 1) * 4)
    _assert_same(answer, (boxes, scores[label, y, x], label))
    assert answer["count"] > 20


def test_turned_boxes(tmp_path: Path) -> None:
    """YOLO's turned boxes, suppressed by the area that they share, which OpenCV computes, too."""
    rng = np.random.default_rng(13)
    count = 300
    tensor = np.concatenate(
        [
            rng.uniform(0, 160, (2, count)),
            rng.uniform(15, 60, (2, count)),
            rng.uniform(0, 1, (3, count)) ** 3,
            rng.uniform(-0.8, 2.4, (1, count)),
        ]
    )[None].astype(np.float32)
    code = parse_answer({"decoder": "yolov8-obb", "threshold": 0.4}).code(
        network({"out": tensor.shape}, 160, 160)
    )
    answer = decode(code, {"out": tensor}, tmp_path, (1, 0.5, 3, 0, 2, 0))
    numbers = tensor[0].T.astype(float)
    scores, labels = numbers[:, 4:7].max(1), numbers[:, 4:7].argmax(1)
    turned = [((x, y), (w, h), np.degrees(a)) for x, y, w, h, *_, a in numbers]

    def shared(a: int, b: int) -> float:
        kind, points = cv2.rotatedRectangleIntersection(turned[a], turned[b])
        area = cv2.contourArea(cv2.convexHull(points)) if kind else 0.0
        both = np.prod(turned[a][1]) + np.prod(turned[b][1])
        return float(area / (both - area))

    kept: list[int] = []
    for i in np.argsort(-scores, kind="stable"):
        if scores[i] > 0.4 and all(labels[i] != labels[k] or shared(k, i) <= 0.45 for k in kept):
            kept.append(int(i))
    kept = kept[:100]
    assert answer["count"] == len(kept) > 20
    np.testing.assert_allclose(answer["box"]["score"][: len(kept)], scores[kept], rtol=1e-6)
    for box, i in zip(answer["box"], kept, strict=False):
        (x, y), (w, h), degrees = turned[i]
        c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
        corners = np.array([[-w, -h], [w, -h], [w, h], [-w, h]]) / 2 @ [[c, s], [-s, c]] + [x, y]
        corners = np.stack([corners @ [1, 0.5] + 3, corners @ [0, 2]], 1)
        found = np.stack([box["corner"]["x"], box["corner"]["y"]], 1)
        np.testing.assert_allclose(found, corners, rtol=1e-4, atol=_ATOL)
        assert box["left"] == found[:, 0].min()
        assert box["bottom"] == found[:, 1].max()


@needs_shared
@pytest.mark.parametrize("nhwc", [False, True])
def test_fastestdet_finds_the_cat(nhwc: bool, tmp_path: Path) -> None:
    outputs = _outputs("fastestdet.onnx", "cat.png", (352, 352), lambda x: x[..., ::-1] / 255)
    (name,) = outputs
    code = parse_answer({"decoder": "fastestdet", "threshold": 0.2}).code(
        network({name: outputs[name].shape}, 352, 352, **{name: nhwc})
    )
    answer = decode(code, outputs, tmp_path)
    boxes, scores = published.fastestdet(outputs[name][0], 352)
    _assert_same(answer, published.detected(boxes, scores, 0.2, 0.45))
    assert answer["box"]["label"][0] == 15


@needs_shared
def test_ultraface_finds_the_face(tmp_path: Path) -> None:
    outputs = _outputs(
        "ultraface_rfb320.onnx", "grace_hopper.png", (320, 240), lambda x: (x - 127) / 128
    )
    code = parse_answer({"decoder": "ultraface"}).code(
        network({name: array.shape for name, array in outputs.items()}, 240, 320)
    )
    answer = decode(code, outputs, tmp_path)
    boxes = outputs["boxes"][0] * [320, 240, 320, 240]
    _assert_same(answer, published.detected(boxes, outputs["scores"][0, :, 1:], 0.7, 0.3))
    assert answer["count"] == 1


@needs_shared
def test_yunet_finds_the_face_and_its_points(tmp_path: Path) -> None:
    outputs = _outputs("yunet_n.onnx", "grace_hopper.png", (320, 320), lambda x: x[..., ::-1])
    code = parse_answer({"decoder": "yunet"}).code(
        network({name: array.shape for name, array in outputs.items()}, 320, 320)
    )
    answer = decode(code, outputs, tmp_path)
    boxes, scores, points = published.yunet(outputs, 320)
    _assert_same(answer, published.detected(boxes, scores, 0.6, 0.3))
    assert answer["count"] == 1
    found = answer["box"]["keypoints"][0]
    best = points[scores[:, 0].argmax()]
    np.testing.assert_allclose(np.stack([found["x"], found["y"]], 1), best, rtol=1e-4, atol=_ATOL)


@needs_shared
def test_blazeface_finds_the_face(tmp_path: Path) -> None:
    outputs = _outputs(
        "blazeface_back.onnx", "grace_hopper.png", (256, 256), lambda x: x / 127.5 - 1
    )
    code = parse_answer({"decoder": "blazeface"}).code(
        network({name: array.shape for name, array in outputs.items()}, 256, 256)
    )
    answer = decode(code, outputs, tmp_path)
    numbers, raw = outputs["cat_1"][0], outputs["cat"][0, :, 0]
    centres = np.concatenate(
        [
            np.repeat((published.grid(256, 256, stride) + 0.5) * stride, each, 0)
            for stride, each in ((16, 2), (32, 6))
        ]
    )
    scores = published.sigmoid(raw.astype(float))
    boxes = published.from_centres(
        np.concatenate([centres + numbers[:, :2], numbers[:, 2:4]], 1).astype(float)
    )
    sure = scores > 0.5
    near = sure & (published.overlap(boxes[scores.argmax()], boxes) > 0.3)
    mean = (boxes[near] * scores[near, None]).sum(0) / scores[near].sum()
    assert answer["count"] == 1
    assert near.sum() == sure.sum() > 1
    np.testing.assert_allclose(_table(answer)[0][0], mean, rtol=1e-4)


@pytest.mark.parametrize(
    ("table", "reason"),
    [
        ({"kind": "boxen"}, "did you mean boxes"),
        ({"decoder": "yolov9000"}, "there is no decoder 'yolov9000'"),
        ({"kind": "boxes", "scores": "out[4:,:]", "boxes": "out[0:5,:]"}, "slice 4 of them"),
        ({"kind": "boxes", "scores": "out[4:900,:]", "boxes": "out[0:4,:]"}, "choose from 0:84"),
        ({"kind": "boxes", "scores": "aus", "boxes": "out[0:4,:]"}, "there is no output 'aus'"),
        ({"kind": "boxes", "boxes": "out[0:4,:]"}, "boxes need scores"),
        ({"decoder": "yolov8", "threshold": 1.5}, "choose a number from 0 to 1"),
        ({"decoder": "yolov8", "threshold": "high"}, "'high' is not a number"),
        ({"decoder": "yolov8", "treshold": 0.5}, "did you mean threshold"),
        ({"decoder": "yolov8", "form": "distance", "strides": [8]}, "give grids of"),
        ({"decoder": "yolov8", "size-unit": "metre"}, "there is no size-unit 'metre'"),
        ({"decoder": "nanodet"}, "the outputs are not those of nanodet"),
        ({"decoder": "yolov8", "boxes": "out"}, "say which axis the attributes lie along"),
    ],
)
def test_what_does_not_fit_is_told(table: dict[str, Any], reason: str) -> None:
    with pytest.raises(MdlcError) as caught:
        parse_answer(table).code(network({"out": (1, 84, 2100)}, 320, 320))
    assert reason in str(caught.value)
    assert "[answer]" in str(caught.value)
