"""Top-1 of trained networks in 8 bits against float: `python -m benchmarks.quantization`.

ImageNet networks: calibrated on 64 random crops (60 to 85 % of the shorter side, half of them
mirrored) of the sample pictures, counted on the 500 whole pictures. The crops are of pictures
that are counted too, because there are no others; ranges and moments are all that is taken from
them, never a label. CIFAR-10 networks: calibrated on 64 training images, counted on the 2000
test images. The answers are those of the emitted integer class, run on this machine; the
integers are the same on every target.

With --choose nothing is counted: the outputs of every method are compared with the float
network's, by signal over error, on inputs that are neither calibrated on nor counted (crops of
other pictures, other training images). That is what the defaults of `mdlc` were chosen by.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from mdlc.codegen.isa.registry import find_isa
from mdlc.compiler.ir import Graph
from mdlc.compiler.onnx_import import import_model
from mdlc.inputs.preprocess import Preprocess
from mdlc.passes.pipeline import run_passes
from mdlc.pipeline import BEFORE_QUANTIZATION
from mdlc.precision.calibration_set import top_classes_of
from mdlc.precision.int8 import COUNTED_AT_ONCE, LowPrecision, answers
from mdlc.precision.native import native
from mdlc.precision.quantize import Quantize
from mdlc.quantization.calibrate import batches
from tests.shared_data import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    SHARED,
    cifar10_test,
    imagenet_pictures,
    model_path,
    normalised,
    picture,
)

Array = npt.NDArray[Any]
Frame = dict[str, Array]
CALIBRATION, OTHERS = 64, 96
SIZES = {"mobilenet_v2_imagenet": 224, "mobilenet_v1_075_imagenet": 192, "squeezenet_fp16": 224}
# Networks of 1001 classes count from 1.
OFFSETS = {"mobilenet_v2_imagenet": 1, "mobilenet_v1_075_imagenet": 1}
NETWORKS = (*SIZES, "resnet20_cifar10", "resnet8_cifar10")


def pixels_of(name: str) -> Callable[[Array], Frame]:
    """What makes the network's input of pixels [H, W, 3] uint8."""
    if name == "squeezenet_fp16":
        return lambda p: {
            "data_0": normalised(
                p, (103.94, 116.78, 123.68), (1.0, 1.0, 1.0), bgr=True, dtype=np.float16
            )
        }
    if name == "resnet20_cifar10":
        return lambda p: {"input": normalised(p, IMAGENET_MEAN, IMAGENET_STD)}
    if name == "resnet8_cifar10":
        return lambda p: {"input_1": normalised(p, (0.0,) * 3, (1.0,) * 3, channels_last=True)}
    return lambda p: {"input": np.ascontiguousarray(p[None])}


def crops(size: int, count: int = CALIBRATION, seed: int = 11, offset: int = 0) -> Iterator[Array]:
    """Parts of sample pictures, evenly of all classes, half of them mirrored."""
    generator = np.random.default_rng(seed)
    files = imagenet_pictures()
    for index in range(count):
        with Image.open(files[index * len(files) // count + offset][0]) as file:
            image = file.convert("RGB")
        side = int(generator.uniform(0.6, 0.85) * min(image.size))
        left, top = (int(generator.integers(0, length - side + 1)) for length in image.size)
        part = image.crop((left, top, left + side, top + side))
        part = part.resize((size, size), Image.Resampling.BILINEAR)
        if generator.integers(2):
            part = part.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        yield np.asarray(part)


def calibration_set(name: str) -> list[Frame]:
    """Inputs that ranges are learned from."""
    make = pixels_of(name)
    if name in SIZES:
        return [make(part) for part in crops(SIZES[name])]
    return [make(image) for image in training_images(CALIBRATION)]


def other_set(name: str) -> list[Frame]:
    """Inputs that are neither calibrated on nor counted."""
    make = pixels_of(name)
    if name in SIZES:
        return [make(part) for part in crops(SIZES[name], OTHERS, 12, 3)]
    return [make(image) for image in training_images(OTHERS, 3)]


def training_images(count: int, offset: int = 0) -> Array:
    """Images of CIFAR-10 that nothing is counted on."""
    with np.load(SHARED / "data" / "cifar10" / "cifar10_subset.npz") as data:
        images: Array = data["train_images"]
    return images[np.arange(count) * len(images) // count + offset]


def counted_set(name: str, count: int) -> tuple[list[Frame], list[int]]:
    """Inputs that are counted, and their classes as the network has them."""
    make = pixels_of(name)
    if name in SIZES:
        size, files = SIZES[name], imagenet_pictures()
        count = min(count, len(files))
        chosen = [files[i * len(files) // count] for i in range(count)]
        return (
            [make(picture(path, size, size)) for path, _ in chosen],
            [label + OFFSETS.get(name, 0) for _, label in chosen],
        )
    images, labels = cifar10_test(min(count, 2000))
    return [make(image) for image in images], [int(label) for label in labels]


def onnxruntime_answers(name: str, frames: list[Frame]) -> list[int]:
    """The trained network's answers."""
    from tests.shared_data import onnxruntime_outputs

    outputs: list[Mapping[str, Array]] = [onnxruntime_outputs(name, frame) for frame in frames]
    return top_classes_of(outputs)


def output_snr(name: str, graph: Graph, frames: list[Frame]) -> float:
    """Decibels of the float network's outputs over the error of an integer graph's."""
    from tests.shared_data import onnxruntime_outputs

    run, signal, error = native(graph), 0.0, 0.0
    for group in batches(frames, COUNTED_AT_ONCE):
        for frame, outputs in zip(group, run(group), strict=True):
            for key, exact in onnxruntime_outputs(name, frame).items():
                found = np.asarray(outputs[key], np.float64)
                signal += float(np.square(exact, dtype=np.float64).sum())
                error += float(np.square(found - exact).sum())
    return 10 * float(np.log10(signal / error))


def quantized(graph: Graph, calibration: list[Frame], method: str, rounding: str) -> Graph:
    """The network in 8 bits, every layer that can be."""
    asked = Quantize(calibration, method, rounding=rounding, placement="everywhere")
    return LowPrecision(asked, Preprocess(), find_isa("host"), lambda text: None).quantize(graph)


def choose(networks: Sequence[str], methods: Sequence[str], roundings: Sequence[str]) -> None:
    """Prints the fidelity of every choice on every network."""
    heads = [f"{method}, {rounding}" for method in methods for rounding in roundings]
    print("| network | " + " | ".join(heads) + " |\n|---" + "|---" * len(heads) + "|", flush=True)
    for name in networks:
        graph = run_passes(import_model(model_path(name)), BEFORE_QUANTIZATION)[-1].graph
        calibration, frames = calibration_set(name), other_set(name)
        found = [
            output_snr(name, quantized(graph, calibration, method, rounding), frames)
            for method in methods
            for rounding in roundings
        ]
        print(f"| {name} | " + " | ".join(f"{db:.1f}" for db in found) + " |", flush=True)


def main() -> None:
    """Prints a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", nargs="*", default=NETWORKS, choices=NETWORKS)
    parser.add_argument("--pictures", type=int, default=2000, help="most inputs counted")
    parser.add_argument("--methods", nargs="*", default=["minmax", "percentile", "entropy", "mse"])
    parser.add_argument("--roundings", nargs="*", default=["corrected", "adaptive"])
    parser.add_argument("--per-tensor", action="store_true")
    parser.add_argument("--choose", action="store_true", help="fidelity on other inputs instead")
    given = parser.parse_args()
    if given.choose:
        choose(given.networks, given.methods, given.roundings)
        return
    print("| network | inputs | ranges | rounding | float top-1 | int8 top-1 | points lost "
          "| same answers | seconds |")  # fmt: skip
    print("|---|---|---|---|---|---|---|---|---|", flush=True)
    for name in given.networks:
        frames, right = counted_set(name, given.pictures)
        calibration = calibration_set(name)
        graph = run_passes(import_model(model_path(name)), BEFORE_QUANTIZATION)[-1].graph
        exact = onnxruntime_answers(name, frames)
        for method in given.methods:
            for rounding in given.roundings:
                start = time.perf_counter()
                low = LowPrecision(
                    Quantize(
                        calibration,
                        method,
                        given.per_tensor,
                        rounding=rounding,
                        placement="everywhere",
                    ),
                    Preprocess(),
                    find_isa("host"),
                    lambda text: None,
                )
                found = answers(low.quantize(graph), frames)
                before, after, same = (
                    float(np.mean(np.array(a) == np.array(b)))
                    for a, b in ((exact, right), (found, right), (found, exact))
                )
                print(
                    f"| {name} | {len(right)} | {method} | {rounding} | {before:.4f} | "
                    f"{after:.4f} | {100 * (before - after):.2f} | {100 * same:.1f} % | "
                    f"{time.perf_counter() - start:.0f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
