"""Post-processing as the networks' authors publish it, written again in NumPy."""

from __future__ import annotations

import numpy as np

Array = np.ndarray


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-np.clip(x, -80, 80)))


def softmax(x: Array) -> Array:
    shares = np.exp(x - x.max(-1, keepdims=True))
    return shares / shares.sum(-1, keepdims=True)


def grid(height: int, width: int, stride: int) -> Array:
    """Columns and rows of the cells, N x 2."""
    rows, columns = -(-height // stride), -(-width // stride)
    return np.stack(np.meshgrid(np.arange(columns), np.arange(rows)), -1).reshape(-1, 2)


def from_centres(boxes: Array) -> Array:
    half = boxes[:, 2:] / 2
    return np.concatenate([boxes[:, :2] - half, boxes[:, :2] + half], 1)


def overlap(box: Array, boxes: Array) -> Array:
    corner = np.minimum(box[2:], boxes[:, 2:]) - np.maximum(box[:2], boxes[:, :2])
    shared = np.prod(np.maximum(corner, 0), 1)
    area = np.prod(boxes[:, 2:] - boxes[:, :2], 1)
    return shared / (np.prod(box[2:] - box[:2]) + area - shared)


def nms(boxes: Array, scores: Array, labels: Array, limit: float, class_wise: bool = True) -> Array:
    """Numbers of the boxes that stay, the best first."""
    left = np.lexsort((np.arange(len(scores)), -scores))
    kept = []
    while len(left):
        first, left = left[0], left[1:]
        kept.append(first)
        same = labels[left] == labels[first] if class_wise else True
        left = left[~((overlap(boxes[first], boxes[left]) > limit) & same)]
    return np.array(kept, int)


def detected(
    boxes: Array, scores: Array, threshold: float, limit: float
) -> tuple[Array, Array, Array]:
    """Boxes, scores and labels: of every candidate its best class, thresholded and suppressed."""
    labels, best = scores.argmax(1), scores.max(1)
    sure = best > threshold
    boxes, best, labels = boxes[sure], best[sure], labels[sure]
    kept = nms(boxes, best, labels, limit)
    return boxes[kept], best[kept], labels[kept]


def yolox(output: Array, size: int) -> tuple[Array, Array]:
    """(x + column) * stride, exp(w) * stride; object times class."""
    cells = np.concatenate([grid(size, size, s) for s in (8, 16, 32)])
    strides = np.concatenate([np.full((len(grid(size, size, s)), 1), s) for s in (8, 16, 32)])
    centres = (output[:, :2] + cells) * strides
    sizes = np.exp(output[:, 2:4]) * strides
    return from_centres(np.concatenate([centres, sizes], 1)), output[:, 4:5] * output[:, 5:]


def nanodet(outputs: dict[str, Array], size: int) -> tuple[Array, Array]:
    """Points at 0.5 * (stride - 1) in a cell; distances are means of distributions over 0 to 7."""
    boxes, scores = [], []
    for stride in (8, 16, 32):
        points = grid(size, size, stride) * stride + 0.5 * (stride - 1)
        logits = outputs[f"dis_pred_stride_{stride}"][0].reshape(-1, 4, 8)
        sides = softmax(logits) @ np.arange(8) * stride
        boxes.append(np.concatenate([points - sides[:, :2], points + sides[:, 2:]], 1))
        scores.append(outputs[f"cls_pred_stride_{stride}"][0])
    return np.concatenate(boxes), np.concatenate(scores)


def yunet(outputs: dict[str, Array], size: int) -> tuple[Array, Array, Array]:
    """The score is the root of class times object; key points are offsets in strides."""
    boxes, scores, points = [], [], []
    for stride in (8, 16, 32):
        cells = grid(size, size, stride)
        numbers = outputs[f"bbox_{stride}"][0]
        centres = (numbers[:, :2] + cells) * stride
        boxes.append(np.concatenate([centres, np.exp(numbers[:, 2:]) * stride], 1))
        scores.append(np.sqrt(outputs[f"cls_{stride}"][0] * outputs[f"obj_{stride}"][0]))
        offsets = outputs[f"kps_{stride}"][0].reshape(-1, 5, 2)
        points.append((offsets + cells[:, None]) * stride)
    return from_centres(np.concatenate(boxes)), np.concatenate(scores), np.concatenate(points)


def fastestdet(output: Array, size: int) -> tuple[Array, Array]:
    """tanh for the centre, sigmoid of the picture for the size, object^0.6 * class^0.4."""
    table = output.reshape(output.shape[0], -1).T
    side = output.shape[1]
    cells = np.stack(np.meshgrid(np.arange(side), np.arange(side)), -1).reshape(-1, 2)
    centres = (np.tanh(table[:, 1:3]) + cells) / side * size
    boxes = from_centres(np.concatenate([centres, sigmoid(table[:, 3:5]) * size], 1))
    return boxes, table[:, :1] ** 0.6 * table[:, 5:] ** 0.4


def text_regions(
    probability: Array, binary: float = 0.3, least: float = 0.6, unclip: float = 1.5
) -> list[tuple[Array, float]]:
    """Differentiable binarisation as PP-OCR post-processes it, by OpenCV: corners and scores."""
    import cv2

    found = []
    bitmap = (probability > binary).astype(np.uint8)
    contours, _ = cv2.findContours(bitmap, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    for contour in contours:
        corners, side = _mini_box(contour)
        if side < 3:
            continue
        mask = np.zeros_like(bitmap)
        cv2.fillPoly(mask, [corners.astype(np.int32)], 1)
        score = float(probability[mask > 0].mean())
        if score < least:
            continue
        width, height = (
            np.linalg.norm(corners[1] - corners[0]),
            np.linalg.norm(corners[3] - corners[0]),
        )
        distance = width * height * unclip / (2 * (width + height))
        # The polygon with round corners that lies so far outside.
        turns = np.linspace(0, 2 * np.pi, 721)[:-1]
        circle = distance * np.stack([np.cos(turns), np.sin(turns)], 1)
        grown = (corners[:, None] + circle).reshape(-1, 1, 2).astype(np.float32)
        corners, side = _mini_box(grown)
        if side >= 5:
            found.append((corners, score))
    return found


def _mini_box(points: Array) -> tuple[Array, float]:
    """The smallest turned rectangle, its corners from the upper left one on, and its side."""
    import cv2

    rectangle = cv2.minAreaRect(points)
    ordered = sorted(cv2.boxPoints(rectangle).tolist())
    left, right = sorted(ordered[:2], key=lambda p: p[1]), sorted(ordered[2:], key=lambda p: p[1])
    return np.array([left[0], right[0], right[1], left[1]]), min(rectangle[1])
