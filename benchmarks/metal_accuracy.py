"""How near Metal classes come to float: top-1 on a hundred pictures, masks, largest errors.

    python -m benchmarks.metal_accuracy [--pictures 100] [--target metal+fp32] [NETWORK ...]

Runs on the simulator (docs/metal.md), a few seconds an inference.
"""

from __future__ import annotations

import argparse

import numpy as np

import mdlc
from tests.metal.programs import relative_error
from tests.metal.test_networks import mask_ious
from tests.shared_data import model_inputs, model_path, onnxruntime_outputs

CLASSIFIERS = ("mobilenet_v2_imagenet", "mobilenet_v1_075_imagenet", "squeezenet_fp16")
SEGMENTERS = ("deeplab_mobilenet_v2_pascal", "portrait_segmentation")
OTHERS = ("resnet20_cifar10", "resnet8_cifar10", "mobilenet_vww", "ultraface_rfb320",
          "fastestdet", "cifar10_winml_tutorial", "mnist_cntk")  # fmt: skip


def classifier(name: str, pictures: int, target: str) -> str:
    frames = model_inputs(name, pictures)
    actual = mdlc.compile(model_path(name), target).build().run_many(frames)
    (output,) = actual[0]
    wanted = [onnxruntime_outputs(name, frame)[output] for frame in frames]
    same = sum(
        int(found[output].argmax() == expected.argmax())
        for found, expected in zip(actual, wanted, strict=True)
    )
    worst = max(
        relative_error(found[output], expected)
        for found, expected in zip(actual, wanted, strict=True)
    )
    return f"| {name} | top-1 the same on {same} of {len(frames)} | {worst:.1e} |"


def segmenter(name: str, pictures: int, target: str) -> str:
    lines = []
    for number, ious in enumerate(mask_ious(name, pictures, target)):
        classes = ", ".join(f"{label}: {iou:.4f}" for label, iou in ious.items())
        mean = np.mean(list(ious.values()))
        lines.append(f"| {name}, picture {number} | mean IoU {mean:.4f} ({classes}) | |")
    return "\n".join(lines)


def other(name: str, target: str) -> str:
    (inputs,) = model_inputs(name)
    actual = mdlc.compile(model_path(name), target).build()(inputs)
    worst = max(
        relative_error(actual[output], expected)
        for output, expected in onnxruntime_outputs(name, inputs).items()
    )
    return f"| {name} | | {worst:.1e} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, default=100)
    parser.add_argument("--target", default="metal", choices=["metal", "metal+fp32"])
    parser.add_argument("networks", nargs="*", default=[*CLASSIFIERS, *SEGMENTERS, *OTHERS])
    options = parser.parse_args()
    np.seterr(all="ignore")
    print("| network | | largest error, relative to the largest value |\n|---|---|---|")
    for name in options.networks:
        if name in CLASSIFIERS:
            print(classifier(name, options.pictures, options.target), flush=True)
        else:
            kind = (
                segmenter(name, 12, options.target)
                if name in SEGMENTERS
                else other(name, options.target)
            )
            print(kind, flush=True)


if __name__ == "__main__":
    main()
