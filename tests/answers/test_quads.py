"""Regions of text against PP-OCR's published post-processing by OpenCV."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from mdlc.codegen.answer.answer import parse_answer
from mdlc.compiler.errors import MdlcError
from tests.answer_program import decode, network
from tests.answers import published

HEIGHT, WIDTH = 160, 224


def _drawn(rng: np.random.Generator) -> np.ndarray:
    """Turned rectangles of high probability, blurred, among specks."""
    drawn = np.zeros((HEIGHT, WIDTH), np.float32)
    for y in range(20, HEIGHT, 40):
        for x in range(30, WIDTH, 60):
            size = (float(rng.uniform(12, 46)), float(rng.uniform(5, 14)))
            angle = float(rng.uniform(-12, 12)) if rng.random() < 0.7 else 90.0
            corners = cv2.boxPoints(((x, y), size, angle))
            cv2.fillPoly(drawn, [corners.astype(np.int32)], float(rng.uniform(0.5, 1.0)))
    drawn = cv2.GaussianBlur(drawn, (3, 3), 0)
    drawn[0, 10:40] = drawn[1, 12:30] = drawn[2, 12:30] = drawn[3, 12:30] = 0.9  # at the border
    drawn[-5:, -20:] = 0.8
    drawn[3, 60] = drawn[5, 70] = drawn[6, 71] = 0.99  # too small
    return drawn


def _area_shared(a: np.ndarray, b: np.ndarray) -> float:
    shared, _ = cv2.intersectConvexConvex(a.astype(np.float32), b.astype(np.float32))
    both = cv2.contourArea(a.astype(np.float32)) + cv2.contourArea(b.astype(np.float32))
    return float(shared / (both - shared))


def _corners(answer: Any) -> np.ndarray:
    found = answer["quad"][: answer["count"]]["corner"]
    return np.stack([found["x"], found["y"]], -1)


@pytest.mark.parametrize("seed", range(3))
def test_regions_are_those_of_the_published_post_processing(seed: int, tmp_path: Path) -> None:
    probability = _drawn(np.random.default_rng(seed))
    code = parse_answer({"kind": "quads"}).code(
        network({"out": (1, 1, HEIGHT, WIDTH)}, 2 * HEIGHT, 2 * WIDTH)
    )
    answer = decode(code, {"out": probability[None, None]}, tmp_path)
    expected = published.text_regions(probability)
    corners, scores = _corners(answer), answer["quad"]["score"]
    # The mean of a few cells more or less may fall on either side of the threshold.
    sure = [(box, score) for box, score in expected if score > 0.65]
    assert len(sure) > 5
    assert len(sure) <= len(corners) <= len(published.text_regions(probability, least=0.55))
    for box, score in sure:
        shared = [_area_shared(2 * box, each) for each in corners]
        best = int(np.argmax(shared))
        assert shared[best] > 0.97
        assert scores[best] == pytest.approx(score, abs=0.05)
    # In reading order.
    tops = corners[:, :, 1].min(1)
    assert (np.diff(tops) > -30).all()


def test_regions_may_have_holes_and_touch_at_corners(tmp_path: Path) -> None:
    """A ring is one region, and so is a staircase; what lies inside a ring is another one."""
    drawn = np.zeros((64, 64), np.float32)
    drawn[4:28, 4:36] = 1
    drawn[8:24, 8:32] = 0
    drawn[13:19, 12:28] = 1
    for step in range(8):
        drawn[36 + 3 * step : 39 + 3 * step, 10 + 6 * step : 16 + 6 * step] = 1
    code = parse_answer({"kind": "quads", "threshold": 0.2, "unclip": 0.0, "least": 1.0}).code(
        network({"out": (1, 1, 64, 64)}, 64, 64)
    )
    corners = _corners(decode(code, {"out": drawn[None, None]}, tmp_path))
    assert len(corners) == 3
    np.testing.assert_allclose(corners[0], [[4, 4], [35, 4], [35, 27], [4, 27]], atol=1e-4)
    np.testing.assert_allclose(corners[1], [[12, 13], [27, 13], [27, 18], [12, 18]], atol=1e-4)
    points = np.argwhere(drawn * (np.arange(64)[:, None] > 34))[:, ::-1]
    expected = cv2.boxPoints(cv2.minAreaRect(points.astype(np.float32)))
    assert _area_shared(corners[2], cv2.convexHull(expected)[:, 0]) > 0.999


def test_only_so_many_regions(tmp_path: Path) -> None:
    drawn = np.zeros((64, 64), np.float32)
    for y in range(2, 60, 10):
        for x in range(2, 60, 10):
            drawn[y : y + 6, x : x + 6] = 1
    code = parse_answer({"kind": "quads", "max": 5}).code(network({"out": (1, 1, 64, 64)}, 64, 64))
    assert decode(code, {"out": drawn[None, None]}, tmp_path)["count"] == 5


def test_a_map_of_other_shape_is_told() -> None:
    with pytest.raises(MdlcError, match="name probabilities 1x1xHxW in float"):
        parse_answer({"kind": "quads"}).code(network({"out": (1, 2, 8, 8)}, 8, 8))
