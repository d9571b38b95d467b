"""Classes, key points, masks, text and embeddings against the same in NumPy."""

from __future__ import annotations

import itertools
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from PIL import Image

from mdlc.codegen.answer.answer import parse_answer
from mdlc.codegen.answer.code import Network
from mdlc.codegen.kernel import View
from mdlc.codegen.plan.plan import Port
from mdlc.compiler.errors import MdlcError
from mdlc.compiler.types import DType, TensorType
from tests.answer_program import decode, network
from tests.answers.published import sigmoid, softmax
from tests.shared_data import SHARED, model_path, needs_shared


@pytest.mark.parametrize("activation", ["none", "softmax", "sigmoid"])
def test_the_best_classes(activation: str, tmp_path: Path) -> None:
    logits = np.random.default_rng(1).normal(0, 3, (1, 1000)).astype(np.float32)
    code = parse_answer({"kind": "classes", "activation": activation}).code(
        network({"out": logits.shape}, 224, 224)
    )
    answer = decode(code, {"out": logits}, tmp_path)
    row = logits[0].astype(float)
    scores = {"none": row, "softmax": softmax(row), "sigmoid": sigmoid(row)}[activation]
    best = np.argsort(-scores, kind="stable")[:5]
    np.testing.assert_array_equal(answer["item"]["label"], best)
    np.testing.assert_allclose(answer["item"]["score"], scores[best], rtol=1e-5)


def test_equal_classes_stay_in_order_and_doubtful_ones_are_left_out(tmp_path: Path) -> None:
    scores = np.array([[0.1, 0.4, 0.05, 0.4, 0.05]], np.float32)
    code = parse_answer({"kind": "classes", "threshold": 0.09, "top": 4}).code(
        network({"out": scores.shape}, 8, 8)
    )
    answer = decode(code, {"out": scores}, tmp_path)
    assert answer["count"] == 3
    np.testing.assert_array_equal(answer["item"]["label"][:3], [1, 3, 0])


def test_an_embedding_has_length_one(tmp_path: Path) -> None:
    vector = np.random.default_rng(2).normal(0, 5, (1, 128, 1, 1)).astype(np.float32)
    code = parse_answer({"kind": "embedding"}).code(network({"out": vector.shape}, 112, 112))
    answer = decode(code, {"out": vector}, tmp_path)
    expected = vector.ravel().astype(float) / np.linalg.norm(vector.astype(float))
    np.testing.assert_allclose(answer["values"], expected, rtol=1e-6)


def test_an_embedding_of_zeros_stays_zero(tmp_path: Path) -> None:
    code = parse_answer({"kind": "embedding"}).code(network({"out": (1, 4)}, 112, 112))
    assert not decode(code, {"out": np.zeros((1, 4))}, tmp_path)["values"].any()


@pytest.mark.parametrize("nhwc", [False, True])
def test_points_that_are_numbers(nhwc: bool, tmp_path: Path) -> None:
    """MoveNet's: y, x, score as parts of the picture."""
    points = np.random.default_rng(3).uniform(0, 1, (1, 1, 17, 3)).astype(np.float32)
    code = parse_answer(
        {
            "kind": "keypoints",
            "points": "out",
            "values": 3,
            "third": "score",
            "order": "yx",
            "unit": "picture",
            "skeleton": "coco",
        }
    ).code(network({"out": points.shape}, 192, 256, out=nhwc))
    answer = decode(code, {"out": points}, tmp_path, (2, 0, 1, 0, 3, -1))
    np.testing.assert_allclose(answer["point"]["x"], points[0, 0, :, 1] * 256 * 2 + 1, rtol=1e-5)
    np.testing.assert_allclose(
        answer["point"]["y"], points[0, 0, :, 0] * 192 * 3 - 1, rtol=1e-5, atol=1e-4
    )
    np.testing.assert_array_equal(answer["point"]["score"], points[0, 0, :, 2])
    assert "kLines[19][2] = {{15, 13}, {13, 11}" in code.struct


@pytest.mark.parametrize("nhwc", [False, True])
def test_points_on_heat_maps(nhwc: bool, tmp_path: Path) -> None:
    maps = np.random.default_rng(4).uniform(0, 1, (1, 5, 12, 16)).astype(np.float32)
    maps[0, 0, 0, 0] = maps[0, 1, 11, 15] = 2.0  # at the border nothing is refined
    code = parse_answer(
        {"kind": "keypoints", "maps": "out", "refine": "quarter", "activation": "sigmoid"}
    ).code(network({"out": maps.shape}, 48, 64, out=nhwc))
    answer = decode(code, {"out": maps}, tmp_path)
    for k, point in enumerate(answer["point"]):
        y, x = np.unravel_index(maps[0, k].argmax(), (12, 16))
        fine_x, fine_y = float(x), float(y)
        if 0 < x < 15:
            fine_x += 0.25 * np.sign(maps[0, k, y, x + 1] - maps[0, k, y, x - 1])
        if 0 < y < 11:
            fine_y += 0.25 * np.sign(maps[0, k, y + 1, x] - maps[0, k, y - 1, x])
        assert (point["x"], point["y"]) == (fine_x * 4, fine_y * 4)
        assert point["score"] == pytest.approx(sigmoid(maps[0, k].max()), rel=1e-6)


def _bilinear(maps: np.ndarray, height: int, width: int) -> np.ndarray:
    """CxHxW to height x width, with the middle of pixels (torch's align_corners=False)."""

    def places(length: int, cells: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        at = np.clip((np.arange(length) + 0.5) * cells / length - 0.5, 0, cells - 1)
        first = at.astype(int)
        return first, np.minimum(first + 1, cells - 1), at - first

    y0, y1, ys = places(height, maps.shape[1])
    x0, x1, xs = places(width, maps.shape[2])
    rows = maps[:, y0] * (1 - ys)[:, None] + maps[:, y1] * ys[:, None]
    return rows[:, :, x0] * (1 - xs) + rows[:, :, x1] * xs


@pytest.mark.parametrize("size", [(20, 24), (77, 131), (7, 5)])
def test_a_mask_of_the_callers_size(size: tuple[int, int], tmp_path: Path) -> None:
    maps = np.random.default_rng(5).normal(0, 2, (1, 21, 20, 24)).astype(np.float32)
    code = parse_answer({"kind": "mask", "activation": "softmax"}).code(
        network({"out": maps.shape}, 160, 192, out=True)
    )
    labels, confidence = decode(code, {"out": maps}, tmp_path, mask=size, picture=(160, 192))
    expected = _bilinear(maps[0].astype(float), *size)
    # Where two classes are equal to rounding, either is right.
    ordered = np.sort(expected, 0)
    clear = ordered[-1] - ordered[-2] > 1e-4
    assert clear.mean() > 0.99
    np.testing.assert_array_equal(labels[clear], expected.argmax(0)[clear])
    best = softmax(expected.transpose(1, 2, 0)).max(-1)
    np.testing.assert_allclose(confidence, best, rtol=1e-3, atol=1e-4)


def test_a_mask_of_one_channel(tmp_path: Path) -> None:
    maps = np.random.default_rng(6).normal(0, 2, (1, 16, 16, 1)).astype(np.float32)
    code = parse_answer({"kind": "mask", "channels": "last", "activation": "sigmoid"}).code(
        network({"out": maps.shape}, 16, 16)
    )
    labels, confidence = decode(code, {"out": maps}, tmp_path, mask=(16, 16), picture=(16, 16))
    np.testing.assert_allclose(confidence, sigmoid(maps[0, :, :, 0]), rtol=1e-5)
    np.testing.assert_array_equal(labels, confidence > 0.5)


def test_a_line_of_text(tmp_path: Path) -> None:
    """Blanks part equal characters; what is beyond ASCII is UTF-8."""
    (tmp_path / "symbols.txt").write_text('a\n猫\n\\\n"\né\n7\n', encoding="utf-8")
    path = [0, 1, 1, 0, 1, 2, 2, 7, 3, 4, 0, 0, 5, 6, 6]
    scores = np.full((1, len(path), 8), 0.01, np.float32)
    scores[0, np.arange(len(path)), path] = 0.93
    code = parse_answer(
        {
            "kind": "text",
            "scores": "out",
            "dictionary": str(tmp_path / "symbols.txt"),
            "space": True,
        }
    ).code(network({"out": scores.shape}, 48, 320))
    answer = decode(code, {"out": scores}, tmp_path)
    assert answer["utf8"].decode() == 'aa猫 \\"é7'
    assert answer["length"] == len(answer["utf8"])
    assert answer["score"] == pytest.approx(0.93)


def test_a_dictionary_of_another_length_is_told(tmp_path: Path) -> None:
    (tmp_path / "symbols.txt").write_text("a\nb\n")
    table: dict[str, Any] = {"kind": "text", "scores": "out"}
    table["dictionary"] = str(tmp_path / "symbols.txt")
    with pytest.raises(
        MdlcError, match="has 2 symbols, with the blank 3, and out has scores for 8"
    ):
        parse_answer(table).code(network({"out": (1, 5, 8)}, 48, 320))


@pytest.mark.parametrize(
    ("shape", "table", "reason"),
    [
        ((1, 10, 10), {"kind": "classes"}, "has numbers for 10 places"),
        ((1, 300, 4, 4), {"kind": "mask"}, "labels are bytes"),
        ((1, 10), {"kind": "mask"}, "name scores 1xCxHxW or labels 1xHxW"),
        ((1, 9), {"kind": "keypoints", "points": "out"}, "set values to 2 or 3"),
        ((1, 9), {"kind": "keypoints", "maps": "out"}, "not 1xKxHxW"),
        (
            (1, 4),
            {"kind": "keypoints", "points": "out", "skeleton": "0-1 1-2"},
            "joins points beyond the 2",
        ),
        (
            (1, 4),
            {"kind": "keypoints", "points": "out", "skeleton": "coconut"},
            "'coconut' is not two numbers of points",
        ),
        ((1, 9), {"kind": "keypoints"}, "name one output, as points or as maps"),
    ],
)
def test_what_does_not_fit_is_told(
    shape: tuple[int, ...], table: dict[str, Any], reason: str
) -> None:
    with pytest.raises(MdlcError) as caught:
        parse_answer(table).code(network({"out": shape}, 32, 32))
    assert reason in str(caught.value)


def test_answers_are_made_of_floats() -> None:
    view = View.of(TensorType((1, 10), DType.I64), 0)
    with pytest.raises(MdlcError, match="elements of type i64"):
        parse_answer({"kind": "classes"}).code(
            Network("Net", {"out": Port("out", "out", view)}, 8, 8)
        )


def _likeliest(scores: np.ndarray) -> tuple[tuple[int, ...], float]:
    """The likeliest line by all paths: those that read alike are added up."""
    totals: dict[tuple[int, ...], float] = {}
    for path in itertools.product(range(scores.shape[1]), repeat=len(scores)):
        read = tuple(k for k, before in zip(path, (0, *path), strict=False) if k not in (0, before))
        chance = float(np.prod([scores[t, k] for t, k in enumerate(path)]))
        totals[read] = totals.get(read, 0.0) + chance
    best = max(totals, key=lambda read: totals[read])
    return best, totals[best]


def test_a_beam_finds_the_likeliest_line(tmp_path: Path) -> None:
    """Equal to adding up all paths; the best path alone often reads something else."""
    (tmp_path / "symbols.txt").write_text("a\nb\nc\n")
    rng = np.random.default_rng(7)
    table = {"kind": "text", "scores": "out", "dictionary": str(tmp_path / "symbols.txt")}
    other = 0
    for softmax_ in (False, True):
        folder = tmp_path / str(softmax_)
        folder.mkdir()
        given = {**table, "beam": 64, "activation": "softmax" if softmax_ else "none"}
        code = parse_answer(given).code(network({"out": (1, 4, 4)}, 48, 320))
        for _ in range(8):
            logits = rng.normal(0, 1.2, (4, 4)).astype(np.float32)
            scores = softmax(logits.astype(float))
            answer = decode(
                code, {"out": (logits if softmax_ else scores.astype(np.float32))[None]}, folder
            )
            best, chance = _likeliest(scores)
            text = "".join("abc"[k - 1] for k in best)
            assert answer["utf8"].decode() == text
            if text:
                assert answer["score"] == pytest.approx(chance ** (1 / len(text)), rel=1e-4)
            path = scores.argmax(1)
            greedy = [
                k for k, before in zip(path, (0, *path), strict=False) if k not in (0, before)
            ]
            other += "".join("abc"[k - 1] for k in greedy) != text
    assert other > 3


def test_a_mask_as_runs(tmp_path: Path) -> None:
    rng = np.random.default_rng(8)
    mask = np.repeat(rng.integers(0, 3, (6, 4)), 3, 1).astype(np.uint8)
    code = parse_answer({"kind": "mask"}).code(network({"out": (1, 3, 6, 12)}, 6, 12))
    rows = ", ".join(str(value) for value in np.pad(mask, ((0, 0), (0, 2))).ravel())
    (tmp_path / "runs.cpp").write_text(
        f"""
        #include <cstdint>
        #include <cstddef>
        #include <cstdio>
        {code.struct}
        int main() {{
          std::uint8_t labels[] = {{{rows}}};
          Mask mask;
          mask.labels = labels;
          mask.height = 6;
          mask.width = 12;
          mask.stride = 14;
          Run runs[72];
          const int count = mask.Runs(runs, 72);
          for (int i = 0; i < count; ++i) std::printf("%d %d\\n", runs[i].label, runs[i].length);
          return mask.Runs(runs, 2) == count ? 0 : 1;
        }}
        """
    )
    flags = ["-std=c++17", "-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Werror"]
    program = str(tmp_path / "runs")
    subprocess.run(["g++", *flags, str(tmp_path / "runs.cpp"), "-o", program], check=True)
    told = subprocess.run([program], check=True, capture_output=True, text=True).stdout
    runs = [tuple(map(int, line.split())) for line in told.splitlines()]
    flat = mask.ravel().tolist()
    assert runs == [(label, len(list(run))) for label, run in itertools.groupby(flat)]


def _session(name: str) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(model_path(name))


@needs_shared
def test_the_dogs_mask(tmp_path: Path) -> None:
    """DeepLab's labels at the picture's size, against the mask that somebody drew."""
    picture = Image.open(SHARED / "data/pictures/dog_segmentation.png").convert("RGB")
    truth = np.asarray(Image.open(SHARED / "data/pictures/dog_segmentation_mask.png"))
    pixels = np.asarray(picture.resize((513, 513), Image.Resampling.BILINEAR))[None]
    session = _session("deeplab_dm05_u8")
    (labels,) = session.run(None, {session.get_inputs()[0].name: pixels})
    code = parse_answer({"kind": "mask"}).code(
        network({"out": labels.shape}, 513, 513, out=DType.from_numpy(labels.dtype))
    )
    height, width = picture.height, picture.width
    scale = (width / 513, 0, 0, 0, height / 513, 0)
    mask, _ = decode(code, {"out": labels}, tmp_path, scale, (height, width), (height, width))
    found, drawn = mask == 12, truth == 0  # the dog, in both numberings
    known = truth != 2  # its border
    shared, either = (found & drawn & known).sum(), ((found | drawn) & known).sum()
    assert shared / either > 0.9
    # The published way is the nearest label, too.
    nearest = np.asarray(
        Image.fromarray(labels[0].astype(np.uint8)).resize(
            (width, height), Image.Resampling.NEAREST
        )
    )
    assert (mask == nearest).mean() > 0.999


@needs_shared
@pytest.mark.parametrize(("file", "label"), [("cat", "cat"), ("grace_hopper", "military uniform")])
def test_photographs_are_named(file: str, label: str, tmp_path: Path) -> None:
    names = (SHARED / "data/imagenet_labels_1001.txt").read_text().splitlines()
    picture = Image.open(SHARED / f"data/pictures/{file}.png").convert("RGB").resize((224, 224))
    session = _session("mobilenet_v2_imagenet")
    given = {session.get_inputs()[0].name: np.asarray(picture)[None]}
    (scores,) = session.run(None, given)
    code = parse_answer({"kind": "classes"}).code(network({"out": scores.shape}, 224, 224))
    answer = decode(code, {"out": scores}, tmp_path)
    best = np.argsort(-scores[0], kind="stable")[:5]
    np.testing.assert_array_equal(answer["item"]["label"], best)
    np.testing.assert_array_equal(answer["item"]["score"], scores[0][best])
    assert any(label in names[k] for k in best)
