"""The trained networks and pictures of the shared folder, as tests and benchmarks use them.

The folder is `shared` beside the repository, or what MDLC_SHARED names. A clone without it skips
the tests that need it: decorate them with `needs_shared`.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
import pytest
from PIL import Image

Array = npt.NDArray[Any]

SHARED = Path(os.environ.get("MDLC_SHARED") or Path(__file__).resolve().parents[2] / "shared")
needs_shared = pytest.mark.skipif(
    not (SHARED / "models").is_dir(),
    reason="the shared folder with trained networks is absent (beside the repository, or as "
    "MDLC_SHARED)",
)


@dataclass(frozen=True)
class SharedModel:
    """How a network of the shared folder is fed.

    Attributes:
        input: name of its one input.
        load: makes `count` inputs for it, each with a batch of 1.
        quantised: whether it has operators on 8-bit integers.
    """

    input: str
    load: Callable[[int], list[Array]]
    quantised: bool = False


def model_path(name: str) -> Path:
    """The file of a network by its name without ending."""
    return SHARED / "models" / f"{name}.onnx"


def model_inputs(name: str, count: int = 1) -> list[dict[str, Array]]:
    """Inputs of a network made of real data, preprocessed as it was trained."""
    model = MODELS[name]
    return [{model.input: value} for value in model.load(count)]


def onnxruntime_outputs(name: str, inputs: dict[str, Array]) -> dict[str, Array]:
    """What ONNX Runtime computes, by output name."""
    session = _session(name)
    return dict(zip([o.name for o in session.get_outputs()], session.run(None, inputs),
                    strict=True))  # fmt: skip


@cache
def _session(name: str) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(
        str(model_path(name)), options, providers=["CPUExecutionProvider"]
    )


def imagenet_pictures() -> list[tuple[Path, int]]:
    """The sample pictures with their classes 0..999 (networks of 1001 classes count from 1)."""
    folder = SHARED / "data" / "imagenet_samples"
    with (folder / "labels.csv").open(encoding="utf-8", newline="") as file:
        return [(folder / row["file"], int(row["class"])) for row in csv.DictReader(file)]


def cifar10_test(count: int) -> tuple[Array, Array]:
    """Test images of CIFAR-10 [count, 32, 32, 3] uint8, evenly of all classes, and labels."""
    with np.load(SHARED / "data" / "cifar10" / "cifar10_subset.npz") as data:
        images, labels = data["test_images"], data["test_labels"]
    chosen = np.arange(count) * len(images) // count  # the file is sorted by class
    return images[chosen], labels[chosen]


def picture(path: Path, width: int, height: int) -> Array:
    """A picture resized bilinearly without cropping: uint8 [height, width, 3], RGB."""
    with Image.open(path) as file:
        image = file.convert("RGB").resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(image)


def photographs(
    width: int,
    height: int,
    *,
    mean: Sequence[float] = (0.0, 0.0, 0.0),
    std: Sequence[float] = (1.0, 1.0, 1.0),
    bgr: bool = False,
    channels_last: bool = False,
    dtype: npt.DTypeLike = np.float32,
    first: str | None = None,
) -> Callable[[int], list[Array]]:
    """Sample pictures as (value - mean) / std; the spread of classes is even.

    Args:
        first: a single photograph that comes before them.
    """

    def load(count: int) -> list[Array]:
        files = imagenet_pictures()
        chosen = [files[i * len(files) // count][0] for i in range(count)]
        if first:
            chosen = [SHARED / "data" / "pictures" / first, *chosen[1:]]
        return [_normalised(picture(path, width, height)) for path in chosen]

    def _normalised(pixels: Array) -> Array:
        return normalised(pixels, mean, std, bgr=bgr, channels_last=channels_last, dtype=dtype)

    return load


def cifar(
    *,
    mean: Sequence[float] = (0.0, 0.0, 0.0),
    std: Sequence[float] = (1.0, 1.0, 1.0),
    channels_last: bool = False,
) -> Callable[[int], list[Array]]:
    """Test images of CIFAR-10 as (value - mean) / std."""

    def load(count: int) -> list[Array]:
        images, _ = cifar10_test(count)
        return [normalised(image, mean, std, channels_last=channels_last) for image in images]

    return load


def normalised(
    pixels: Array,
    mean: Sequence[float],
    std: Sequence[float],
    *,
    bgr: bool = False,
    channels_last: bool = False,
    dtype: npt.DTypeLike = np.float32,
) -> Array:
    """uint8 [H, W, 3] RGB -> [1, 3, H, W] or [1, H, W, 3]; mean and std in units of 0..255."""
    if bgr:
        pixels = pixels[..., ::-1]
    values = (pixels.astype(np.float32) - np.float32(mean)) / np.float32(std)
    if not channels_last:
        values = values.transpose(2, 0, 1)
    return np.ascontiguousarray(values[None], dtype)


def digits(count: int) -> list[Array]:
    """Handwritten digits of scikit-learn (8x8, 0..16) as MNIST has them: 28x28, 0..255."""
    from sklearn.datasets import load_digits

    images = load_digits().images[:count]
    return [
        np.asarray(
            Image.fromarray((image * (255 / 16)).astype(np.uint8)).resize(
                (28, 28), Image.Resampling.BILINEAR
            ),
            np.float32,
        )[None, None]
        for image in images
    ]


def speech_features(count: int) -> list[Array]:
    """Seeded noise in place of speech features [1, 1960]: the shared folder has no sound."""
    generator = np.random.default_rng(7)
    return [generator.uniform(0, 26, (1, 1960)).astype(np.float32) for _ in range(count)]


UNIT = (255.0,) * 3
HALF = (127.5,) * 3
IMAGENET_MEAN, IMAGENET_STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)

MODELS: dict[str, SharedModel] = {
    "mobilenet_v2_imagenet": SharedModel(
        "input", photographs(224, 224, channels_last=True, dtype=np.uint8)
    ),
    "mobilenet_v2_imagenet_qdq": SharedModel(
        "input0", photographs(224, 224, mean=HALF, std=HALF), quantised=True
    ),
    "mobilenet_v1_075_imagenet": SharedModel(
        "input", photographs(192, 192, channels_last=True, dtype=np.uint8)
    ),
    "deeplab_mobilenet_v2_pascal": SharedModel(
        "MobilenetV2/MobilenetV2/input",
        photographs(513, 513, channels_last=True, dtype=np.uint8, first="dog_segmentation.png"),
    ),
    "squeezenet_fp16": SharedModel(
        "data_0", photographs(224, 224, mean=(103.94, 116.78, 123.68), bgr=True, dtype=np.float16)
    ),
    "resnet20_cifar10": SharedModel("input", cifar(mean=IMAGENET_MEAN, std=IMAGENET_STD)),
    "resnet8_cifar10": SharedModel("input_1", cifar(channels_last=True)),
    "mobilenet_vww": SharedModel("input_1", photographs(96, 96, std=UNIT, channels_last=True)),
    "ultraface_rfb320": SharedModel(
        "input",
        photographs(320, 240, mean=(127.0,) * 3, std=(128.0,) * 3, first="grace_hopper.png"),
    ),
    "fastestdet": SharedModel("input.1", photographs(352, 352, std=UNIT)),
    "portrait_segmentation": SharedModel(
        "input0", photographs(256, 256, std=UNIT, first="grace_hopper.png")
    ),
    "cifar10_winml_tutorial": SharedModel("modelInput", cifar(mean=HALF, std=HALF)),
    "mnist_cntk": SharedModel("Input3", digits),
    "kws_qdq": SharedModel("serving_default_input:0", speech_features, quantised=True),
    "kws_qoperator": SharedModel("serving_default_input:0", speech_features, quantised=True),
}
