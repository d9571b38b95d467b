"""The road of compression on real data, with seeds: what each lever saves and what it costs.

    python -m benchmarks.compression resnet20 [--work DIR]     CIFAR-10, with retraining (torch)
    python -m benchmarks.compression mobilenet_v2              ImageNet pictures, no retraining
    python -m benchmarks.compression portrait                  a segmentation network
    python -m benchmarks.compression resnet50                  its shape alone: sizes and times

Ledgers are written to --work as NAME.html and NAME.json. A run that was killed goes on.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnx

import mdlc
from mdlc.accuracy import accuracy
from mdlc.codegen.weights_choice import worst_and_mean
from mdlc.codegen.weights_file import HEADER_BYTES, payload_of
from mdlc.compiler.ir import Graph
from mdlc.compiler.onnx_export import export_onnx
from mdlc.compiler.onnx_import import import_model
from mdlc.compression import Recipe, compress
from mdlc.ledger import Entry, Ledger, write_ledger
from mdlc.samples import Samples
from tests.shared_data import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    SHARED,
    Array,
    imagenet_pictures,
    model_path,
    normalised,
    picture,
)


def cifar(split: str, count: int | None = None, seed: int = 0) -> tuple[Array, Array]:
    """Images of CIFAR-10 as ResNet-20 takes them [N, 3, 32, 32], shuffled, and labels."""
    with np.load(SHARED / "data" / "cifar10" / "cifar10_subset.npz") as data:
        images, labels = data[f"{split}_images"], data[f"{split}_labels"]
    chosen = np.random.default_rng(seed).permutation(len(images))[:count]
    values = [normalised(images[i], IMAGENET_MEAN, IMAGENET_STD) for i in chosen]
    return np.concatenate(values), labels[chosen].astype(np.int64)


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


def resnet20(work: Path, target: str, minutes: float) -> Ledger:
    """Slimmed to half the multiply-adds, then 4-bit codebooks whose centroids are trained."""
    import torch

    from mdlc.training import share_weights, slim
    from mdlc.training.slimming import Schedule, trainable_graph

    path = model_path("resnet20_cifar10")
    images, labels = cifar("train")
    rng = np.random.default_rng(0)

    class Batches:
        """Shuffled, flipped and shifted by up to four pixels."""

        def __iter__(self) -> Any:
            order = rng.permutation(len(images))
            for start in range(0, len(order) - 127, 128):
                chosen = order[start : start + 128]
                x = np.pad(images[chosen], ((0, 0), (0, 0), (4, 4), (4, 4)))
                found = np.empty((len(chosen), 3, 32, 32), np.float32)
                for i in range(len(chosen)):
                    top, left = rng.integers(0, 9, 2)
                    crop = x[i, :, top : top + 32, left : left + 32]
                    found[i] = crop[:, :, ::-1] if rng.random() < 0.5 else crop
                yield torch.from_numpy(found), torch.from_numpy(labels[chosen])

    started = time.time()
    step = _step_seconds(trainable_graph(path), Batches())
    # Three rounds; a step of a slimmed network takes about 0.7 of one of the whole.
    steps = int(minutes * 60 / step / 0.75)
    quick = Schedule(
        rounds=3,
        sparse_steps=steps // 12,
        tune_steps=steps // 8,
        final_steps=steps // 4,
        rate=0.02,
        l1=1e-4,
        distil=0.7,
    )
    click.echo(f"{step:.2f} s a step; {quick}")
    slimmed = slim(path, Batches(), share=0.5, schedule=quick, folder=work / "slim", seed=0)
    click.echo(f"slimmed to {slimmed.shares[-1]:.3f} in {time.time() - started:.0f} s")
    first = import_model(path)
    teacher = trainable_graph(path)
    shared = {}
    for bits in (4, 3):
        shared[bits] = share_weights(
            slimmed.graph, Batches(), bits, steps // 10, rate=1e-3, teacher=teacher, distil=0.7
        )
    click.echo(f"trained for {time.time() - started:.0f} s in all")
    tests, classes = cifar("test")
    name = first.inputs[0].name
    test = Samples(tuple({name: x[None]} for x in tests), classes, "cifar10")
    originals: list[Array] = []
    entries = [
        entry("original", path.name, mdlc.compile(path, target), test, originals),
        _graph_entry("slimmed", "half of the multiply-adds, retrained", slimmed.graph, "raw",
                     target, test, originals),
        _graph_entry("int8", "8-bit residues, Huffman codes", slimmed.graph, "int8+huffman",
                     target, test, originals),
    ]  # fmt: skip
    for bits, graph in shared.items():
        entries.append(
            _graph_entry(f"{bits} bits", f"codebooks of {2**bits}, retrained, Huffman codes",
                         graph, f"clustered:{bits}+huffman", target, test, originals)
        )  # fmt: skip
    return Ledger(path.name, target, len(test), tuple(entries))


def _graph_entry(
    stage: str, note: str, graph: Graph, encoding: str, target: str, test: Samples,
    originals: list[Array],
) -> Entry:  # fmt: skip
    compiled = mdlc.compile(export_onnx(graph), target, name="Resnet20", weights_encoding=encoding)
    return entry(stage, note, compiled, test, originals)


def _step_seconds(graph: Graph, data: Any) -> float:
    from mdlc.training.slimming import Schedule, train

    begin = time.time()
    train(graph, data, 2, schedule=Schedule(rate=1e-5, norm_batches=1), teacher=graph)
    return (time.time() - begin) / 3


def mobilenet_v2(work: Path, target: str, minutes: float) -> Ledger:
    """Encodings alone, on the ImageNet pictures."""
    path = model_path("mobilenet_v2_imagenet")
    files = imagenet_pictures()
    samples = [{"input": picture(file, 224, 224)[None]} for file, _ in files]
    labels = np.array([label for _, label in files]) + 1
    test = Samples(tuple(samples), labels, "imagenet_samples")
    recipe = Recipe(
        encodings=("fp16", "int8", "int8+huffman", "clustered:8+huffman", "clustered:6+huffman",
                   "clustered:5+huffman", "clustered:4+huffman", "auto"),
        max_size=2_500_000,
    )  # fmt: skip
    found = compress(path, recipe, work=work, test=test, options={"target": target})
    return found.ledger


def portrait(work: Path, target: str, minutes: float) -> Ledger:
    """Encodings of a segmentation network; agreement is the mean IoU with the original's mask."""
    path = model_path("portrait_segmentation")
    pictures = [SHARED / "data" / "pictures" / n for n in ("grace_hopper.png", "cat.png")]
    pictures += [f for f, _ in imagenet_pictures()[::10]]
    samples = [{"input0": normalised(picture(f, 256, 256), (0.0,) * 3, (255.0,) * 3)}
               for f in pictures]  # fmt: skip
    test = Samples(tuple(samples), None, "pictures")
    recipe = Recipe(encodings=("fp16", "int8", "int8+huffman", "clustered:6+huffman",
                               "clustered:5+huffman"))  # fmt: skip
    return compress(path, recipe, work=work, test=test, options={"target": target}).ledger


def resnet50(work: Path, target: str, minutes: float) -> Ledger:
    """ResNet-50's shape with seeded random weights: half the parameters, then clusters."""
    from benchmarks.networks import resnet_50

    path = work / "resnet50.onnx"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        onnx.save(resnet_50(), path)
    recipe = Recipe(target_macs=0.5, multiple=16, encodings=("int8+huffman", "clustered:4+huffman"))
    return compress(path, recipe, work=work, options={"target": target}).ledger


NETWORKS: Mapping[str, Any] = {
    "resnet20": resnet20,
    "mobilenet_v2": mobilenet_v2,
    "portrait": portrait,
    "resnet50": resnet50,
}


@click.command()
@click.argument("networks", nargs=-1, type=click.Choice(list(NETWORKS)))
@click.option("--target", default="host", show_default=True)
@click.option("--work", type=click.Path(path_type=Path), default=Path("compression"))
@click.option("--minutes", default=12.0, show_default=True, help="Of training, about.")
def main(networks: Sequence[str], target: str, work: Path, minutes: float) -> None:
    for name in networks or NETWORKS:
        ledger = NETWORKS[name](work / name, target, minutes)
        write_ledger(work / name, ledger)
        for row in (ledger.columns(), *ledger.rows()):
            click.echo(" | ".join(row))


if __name__ == "__main__":
    main()
