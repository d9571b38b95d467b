"""Encodings of real networks, without retraining: bytes of the file and what answers lose.

    python -m benchmarks.compression_encodings mobilenet_v2 portrait deeplab

The decoded graph is run by ONNX Runtime, so that nothing is built: minutes instead of the hour
that benchmarks/compression.py takes for the emitted classes' times. MobileNetV2 is counted on the
500 labelled ImageNet pictures; the segmentation networks' masks are compared with the original's
(mean IoU over classes), and DeepLab's dog with the label of the one picture that has one.
"""

from __future__ import annotations

from collections.abc import Sequence

import click
import numpy as np
import onnxruntime
from PIL import Image
from rich.console import Console
from rich.table import Table

import mdlc
from benchmarks.compression import segmentation_pictures
from mdlc.checks.accuracy import accuracy
from mdlc.codegen.plan.encoding_choice import encode_plan, encode_to_size, worst_and_mean
from mdlc.codegen.plan.plan import Plan
from mdlc.codegen.plan.weights_file import HEADER_BYTES, payload_of
from mdlc.codegen.weights.encoding import parse_encoding
from mdlc.compiler.onnx_export import export_onnx
from mdlc.inputs.samples import Samples
from tests.shared_data import SHARED, Array, imagenet_pictures, model_path, picture

MODELS = {
    "mobilenet_v2": "mobilenet_v2_imagenet",
    "portrait": "portrait_segmentation",
    "deeplab": "deeplab_mobilenet_v2_pascal",
}
ENCODINGS = {
    "mobilenet_v2": ("int8+huffman", "int7+huffman", "int6+huffman", "clustered:5+huffman",
                     "clustered:4+huffman", "2000000", "1600000"),
    "portrait": ("int8", "int8+huffman", "int7+huffman", "int6+huffman"),
    "deeplab": ("int8", "int8+huffman", "int7+huffman", "int6+huffman"),
}  # fmt: skip
# In the dog's label: itself, and what is neither it nor background.
DOG, BORDER = 0, 2


def samples_of(name: str) -> Samples:
    """What a network is counted on."""
    if name != "mobilenet_v2":
        return segmentation_pictures(name)
    files = imagenet_pictures()
    values = tuple({"input": picture(file, 224, 224)[None]} for file, _ in files)
    return Samples(values, np.array([label for _, label in files]) + 1, "imagenet_samples")


def outputs(plan: Plan, test: Samples) -> list[Array]:
    """The first output for every sample, by ONNX Runtime on one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    model = export_onnx(plan.graph).SerializeToString()
    session = onnxruntime.InferenceSession(model, options)
    return [session.run([plan.graph.output_names[0]], dict(x))[0] for x in test.inputs]


def dog_iou(plan: Plan) -> float:
    """IoU of DeepLab's dog with the label of the one picture that has one (Pascal's class 12)."""
    folder = SHARED / "data" / "pictures"
    name = plan.graph.inputs[0].name
    values = {name: picture(folder / "dog_segmentation.png", 513, 513)[None]}
    (found,) = outputs(plan, Samples((values,), None, "dog"))
    with Image.open(folder / "dog_segmentation_mask.png") as image:
        label = np.asarray(image.resize((513, 513), Image.Resampling.NEAREST))
    counted = label != BORDER
    dog = (found.reshape(label.shape) == 12)[counted]
    wanted = (label == DOG)[counted]
    return float((dog & wanted).sum() / (dog | wanted).sum())


@click.command()
@click.argument("networks", nargs=-1, type=click.Choice(list(MODELS)))
@click.option("--target", default="arm-neon", show_default=True, help="Whose file is measured.")
def main(networks: Sequence[str], target: str) -> None:
    """Prints a table for each network."""
    for name in networks or MODELS:
        plan = mdlc.compile(model_path(MODELS[name]), target).plan
        test = samples_of(name)
        originals = outputs(plan, test)
        heads = ("encoding", "bytes", "times", "top-1", "top-5", "agreement", "weights' error")
        table = Table(*heads, *(["IoU of the dog"] if name == "deeplab" else []))
        first = HEADER_BYTES + plan.weight_bytes
        for text in ("raw", *ENCODINGS[name]):
            found, encoded = originals, plan
            if text != "raw":
                encoded = (
                    encode_to_size(plan, int(text))
                    if text.isdigit()
                    else encode_plan(plan, parse_encoding(text))
                )
                found = outputs(encoded, test)
            nbytes = HEADER_BYTES + payload_of(encoded).nbytes if encoded.encoded else first
            counted = accuracy(found, originals, test.labels)
            table.add_row(
                f"mixed, at most {text}" if text.isdigit() else text,
                str(nbytes),
                f"{first / nbytes:.2f}",
                "" if counted.top1 is None else f"{100 * counted.top1:.1f} %",
                "" if counted.top5 is None else f"{100 * counted.top5:.1f} %",
                "" if counted.agreement is None else f"{100 * counted.agreement:.2f} %",
                f"{100 * worst_and_mean(encoded)[2]:.2g} %",
                *([f"{dog_iou(encoded):.4f}"] if name == "deeplab" else []),
            )
        Console(width=110).print(f"{MODELS[name]}, {len(test)} pictures", table)


if __name__ == "__main__":
    main()
