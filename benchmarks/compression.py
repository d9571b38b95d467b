"""The road of compression on real data, with seeds: what each lever saves and what it costs.

    python -m benchmarks.compression resnet20 [--work DIR]     CIFAR-10, with retraining (torch)
    python -m benchmarks.compression mobilenet_v2              ImageNet pictures, no retraining
    python -m benchmarks.compression portrait deeplab          segmentation networks
    python -m benchmarks.compression resnet50                  its shape alone: sizes and times

Ledgers are written to --work as NAME.html and NAME.json. A run that was killed goes on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnx

import mdlc
from benchmarks.compression_resnet20 import SPARSITY, cifar, trained_stages
from mdlc.checks.accuracy import accuracy
from mdlc.codegen.plan.encoding_choice import worst_and_mean
from mdlc.codegen.plan.weights_file import HEADER_BYTES, payload_of
from mdlc.compiler.onnx_export import export_onnx
from mdlc.compiler.onnx_import import import_model
from mdlc.compress.compression import Recipe, compress
from mdlc.compress.ledger import Entry, Ledger, write_ledger
from mdlc.inputs.samples import Samples
from tests.shared_data import (
    SHARED,
    Array,
    imagenet_pictures,
    model_path,
    picture,
)


def entry(stage: str, note: str, compiled: Any, test: Samples, originals: list[Array]) -> Entry:
    """A line of the ledger for a compiled network; the first call fills `originals`."""
    plan = compiled.plan
    executable = compiled.build()
    name = compiled.graph.output_names[0]
    outputs = [result[name] for result in executable.run_many(test.inputs)]
    if not originals:
        originals.extend(outputs)
    found = accuracy(outputs, originals, test.labels)
    disk = HEADER_BYTES + (payload_of(plan).nbytes if plan.encoded else plan.weight_bytes)
    made = Entry(
        stage,
        note,
        disk,
        plan.weight_bytes + plan.arena_bytes,
        sum(n.type.size for n in plan.graph.order() if n.constant is not None),
        plan.macs,
        sum(s.cycles(plan.isa) for s in plan.steps) / 1e6,
        executable.time(100).total / 1e6,
        found.top1,
        found.top5,
        found.agreement,
        worst_and_mean(plan)[2] if plan.encoded else None,
    )
    click.echo(f"{stage}: {disk} bytes, {plan.macs} MAC, top-1 {found.top1}")
    return made


def resnet20(work: Path, target: str, effort: float) -> Ledger:
    """Slimmed to half the multiply-adds, pruned, and codebooks whose centroids are trained."""
    path = model_path("resnet20_cifar10")
    networks = trained_stages(work, effort)
    tests, classes = cifar("test")
    name = import_model(path).inputs[0].name
    test = Samples(tuple({name: x[None]} for x in tests), classes, "cifar10")
    originals: list[Array] = []
    first = mdlc.compile(path, target)
    entries = [entry("original", path.name, first, test, originals)]

    def add(stage: str, note: str, encoding: str = "raw") -> None:
        model = export_onnx(networks[stage])
        compiled = mdlc.compile(model, target, name="Resnet20", weights_encoding=encoding)
        label = stage if encoding == "raw" else f"{stage}, {encoding}"
        entries.append(entry(label, note, compiled, test, originals))

    add("retrained", "uncut, trained on these pictures as the others are")
    add("slimmed", "half of the multiply-adds")
    add("slimmed", "half of the multiply-adds", "int8+huffman")
    add("pruned", f"slimmed, and {SPARSITY:g} of the weights zero")
    for stage in networks:
        if stage.endswith("bits"):
            bits = stage.split()[-2]
            add(stage, "codebooks retrained", f"clustered:{bits}+huffman")
    return Ledger(path.name, target, len(test), tuple(entries))


def mobilenet_v2(work: Path, target: str, effort: float) -> Ledger:
    """Encodings alone, on the ImageNet pictures: of all layers alike, and mixed for a size."""
    path = model_path("mobilenet_v2_imagenet")
    files = imagenet_pictures()
    samples = [{"input": picture(file, 224, 224)[None]} for file, _ in files]
    labels = np.array([label for _, label in files]) + 1
    test = Samples(tuple(samples), labels, "imagenet_samples")
    whole = Recipe(
        encodings=("int8", "int8+huffman", "int7+huffman", "int6+huffman",
                   "clustered:5+huffman", "clustered:4+huffman"),
    )  # fmt: skip
    return _with_sizes(path, whole, (2_000_000, 1_600_000), work, test, target)


def _with_sizes(
    path: Path, recipe: Recipe, sizes: Sequence[int], work: Path, test: Samples, target: str
) -> Ledger:
    """The ledger of a recipe, and a line for mixed encodings of each size."""
    options = {"target": target}
    ledger = compress(path, recipe, work=work, test=test, options=options).ledger
    entries = list(ledger.entries)
    for most in sizes:
        mixed = Recipe(encodings=("auto",), max_size=most)
        last = compress(path, mixed, work=work, test=test, options=options).ledger.entries[-1]
        entries.append(replace(last, stage=f"mixed, {most / 1e6:g} MB"))
    return replace(ledger, entries=tuple(entries))


def segmentation_pictures(network: str) -> Samples:
    """Photographs and some of the ImageNet pictures for `portrait` or `deeplab`, not labelled."""
    pictures = [SHARED / "data" / "pictures" / n for n in ("grace_hopper.png", "cat.png")]
    if network == "portrait":
        pictures += [f for f, _ in imagenet_pictures()[::10]]
        values = [picture(f, 256, 256)[None].transpose(0, 3, 1, 2) for f in pictures]
        scaled = [v.astype(np.float32) / np.float32(255) for v in values]
        return Samples(tuple({"input0": v} for v in scaled), None, "pictures")
    name = import_model(model_path("deeplab_mobilenet_v2_pascal")).inputs[0].name
    pictures += [f for f, _ in imagenet_pictures()[::50]]
    found = tuple({name: picture(f, 513, 513)[None]} for f in pictures)
    return Samples(found, None, "pictures")


def portrait(work: Path, target: str, effort: float) -> Ledger:
    """Encodings of a segmentation network; agreement is the mean IoU with the original's mask."""
    test = segmentation_pictures("portrait")
    recipe = Recipe(encodings=("int8", "int8+huffman", "int6+huffman", "clustered:5+huffman"))
    path = model_path("portrait_segmentation")
    return compress(path, recipe, work=work, test=test, options={"target": target}).ledger


def deeplab(work: Path, target: str, effort: float) -> Ledger:
    """Encodings of DeepLab; agreement is the mean IoU with the original's classes."""
    test = segmentation_pictures("deeplab")
    recipe = Recipe(encodings=("int8", "int8+huffman", "int6+huffman"))
    path = model_path("deeplab_mobilenet_v2_pascal")
    return compress(path, recipe, work=work, test=test, options={"target": target}).ledger


def resnet50(work: Path, target: str, effort: float) -> Ledger:
    """ResNet-50's shape with seeded random weights: half the work, then 8 bits and clusters."""
    from benchmarks.networks import resnet_50

    path = work / "resnet50.onnx"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        onnx.save(resnet_50(), path)
    recipe = Recipe(target_macs=0.5, multiple=16, encodings=("int8+huffman", "clustered:5+huffman"))
    return compress(path, recipe, work=work, options={"target": target}).ledger


NETWORKS: Mapping[str, Any] = {
    "resnet20": resnet20,
    "mobilenet_v2": mobilenet_v2,
    "portrait": portrait,
    "deeplab": deeplab,
    "resnet50": resnet50,
}


@click.command()
@click.argument("networks", nargs=-1, type=click.Choice(list(NETWORKS)))
@click.option("--target", default="host", show_default=True)
@click.option("--work", type=click.Path(path_type=Path), default=Path("compression"))
@click.option("--effort", default=1.0, show_default=True, help="Share of the training steps.")
def main(networks: Sequence[str], target: str, work: Path, effort: float) -> None:
    for name in networks or NETWORKS:
        ledger = NETWORKS[name](work / name, target, effort)
        write_ledger(work / name, ledger)
        for row in (ledger.columns(), *ledger.rows()):
            click.echo(" | ".join(row))


if __name__ == "__main__":
    main()
