"""ResNet-20 on CIFAR-10: retrained, slimmed, pruned and shared, one stage after another.

The labelled pictures are those of ../shared/data/cifar10: its 15000 training pictures are trained
on, its 2000 test pictures are counted on and nothing else. Nothing is chosen by the test pictures:
every stage trains for a fixed number of steps, and its last network is taken.

The network was trained elsewhere, on pictures that were not recompressed. Training on these gains
accuracy by itself, so the original is first trained on alike, uncut: `retrained` is the line that
the cut ones are to be compared with, beside the original.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnx

from mdlc.compiler.ir import Graph
from mdlc.compiler.onnx_export import export_onnx
from mdlc.output import write_file
from tests.shared_data import IMAGENET_MEAN, IMAGENET_STD, SHARED, Array, model_path, normalised

BATCH = 128
SPARSITY = 0.6


def cifar(split: str, count: int | None = None, seed: int = 0) -> tuple[Array, Array]:
    """Images of CIFAR-10 as ResNet-20 takes them [N, 3, 32, 32], shuffled, and labels."""
    with np.load(SHARED / "data" / "cifar10" / "cifar10_subset.npz") as data:
        images, labels = data[f"{split}_images"], data[f"{split}_labels"]
    chosen = np.random.default_rng(seed).permutation(len(images))[:count]
    values = [normalised(images[i], IMAGENET_MEAN, IMAGENET_STD) for i in chosen]
    return np.concatenate(values), labels[chosen].astype(np.int64)


class Batches:
    """Training pictures, shuffled anew in every epoch, mirrored and shifted by up to 4 pixels."""

    def __init__(self, seed: int = 0) -> None:
        """Args:
        seed: of the order and of shifts.
        """
        self._images, self._labels = cifar("train")
        self._rng = np.random.default_rng(seed)

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        import torch

        rng = self._rng
        order = rng.permutation(len(self._images))
        for start in range(0, len(order) - BATCH + 1, BATCH):
            chosen = order[start : start + BATCH]
            x = np.pad(self._images[chosen], ((0, 0), (0, 0), (4, 4), (4, 4)))
            found = np.empty((len(chosen), 3, 32, 32), np.float32)
            for i in range(len(chosen)):
                top, left = rng.integers(0, 9, 2)
                crop = x[i, :, top : top + 32, left : left + 32]
                found[i] = crop[:, :, ::-1] if rng.random() < 0.5 else crop
            yield torch.from_numpy(found), torch.from_numpy(self._labels[chosen])


def trained_stages(work: Path, effort: float) -> dict[str, Graph]:
    """The networks after each stage of training, by name; those in `work` are read.

    Args:
        effort: share of the full number of steps (6500 in all, half an hour of one core).
    """
    from mdlc.training import prune_weights, share_weights, slim
    from mdlc.training.slimming import Schedule, train, trainable_graph

    path = model_path("resnet20_cifar10")

    def steps(full: int) -> int:
        return max(2, int(full * effort))

    def stage(name: str, make: Callable[[], Graph]) -> Graph:
        kept = work / f"{name}-{effort:g}.onnx"
        if not kept.exists():
            started = time.time()
            model = export_onnx(make())
            write_file(kept, model.SerializeToString(deterministic=True))
            click.echo(f"{name}: {time.time() - started:.0f} s")
        return trainable_graph(onnx.load(kept))

    work.mkdir(parents=True, exist_ok=True)
    found = {}
    schedule = Schedule(rate=0.05, distil=0.0, bfloat16=True)
    found["retrained"] = whole = stage(
        "retrained",
        lambda: train(trainable_graph(path), Batches(0), steps(1500), schedule=schedule),
    )
    cuts = Schedule(
        rounds=2, sparse_steps=steps(150), tune_steps=steps(200), final_steps=steps(2600),
        rate=0.05, l1=1e-4, distil=0.8, bfloat16=True,
    )  # fmt: skip
    found["slimmed"] = slimmed = stage(
        "slimmed",
        lambda: (
            slim(
                export_onnx(whole), Batches(1), schedule=cuts, multiple=8, folder=work / "slim"
            ).graph
        ),
    )
    sparse = Schedule(rate=0.02, distil=0.8, bfloat16=True)
    found["pruned"] = pruned = stage(
        "pruned",
        lambda: prune_weights(
            slimmed, Batches(2), SPARSITY, steps(800), schedule=sparse, teacher=whole
        ),
    )
    for before, graph, bits in (
        ("pruned", pruned, 4),
        ("slimmed", slimmed, 4),
        ("pruned", pruned, 3),
    ):
        found[f"{before}, {bits} bits"] = stage(
            f"{before}_{bits}bits",
            lambda graph=graph, bits=bits: share_weights(  # type: ignore[misc]
                graph, Batches(3), bits, steps(300), teacher=whole, distil=0.8
            ),
        )
    return found
