"""Network slimming: channels trained towards zero, cut, and the rest trained again.

Liu et al., "Learning Efficient Convolutional Networks through Network Slimming", arXiv 1708.06519:
an L1 norm on the scale factors of BatchNormalization makes channels unimportant; those with the
smallest factors, over all layers, go; what is left is trained on; and again from the start. The
original network's outputs are a further target of training (Hinton et al., arXiv 1503.02531).
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from rich.progress import Progress

from mdlc.codegen.isa.registry import find_isa
from mdlc.codegen.plan.lowering import lower
from mdlc.compiler.errors import MdlcError
from mdlc.compiler.ir import Graph, Node
from mdlc.compiler.onnx_export import export_onnx
from mdlc.compiler.onnx_import import import_model
from mdlc.compiler.types import Array
from mdlc.inputs.sources import read_model
from mdlc.output import write_files
from mdlc.passes.dead_channels import channel_count, remove_channels, remove_dead_channels
from mdlc.passes.prune_channels import channel_spaces, filter_norms, macs
from mdlc.pipeline import optimise
from mdlc.training.network import Network
from mdlc.training.operators import Tensor

Batches = Iterable[tuple[Any, Any]]
Loss = Callable[[Any, Any], Any]
MEASURES = ("macs", "params", "latency")


@dataclass(frozen=True)
class Schedule:
    """How long and how hard to train.

    Attributes:
        rounds: cuts; each takes an equal factor off the measure.
        sparse_steps: steps with the L1 norm before each cut; tune_steps: steps after it;
        final_steps: further steps after the last cut.
        l1: weight of the norm of the scale factors.
        rate: largest learning rate (one cosine each phase); momentum: of SGD; decay: of weights.
        distil: share of the loss that is the distance to the original network's outputs.
        norm_batches: batches whose statistics normalisation starts with.
        bfloat16: whether layers compute in bfloat16 (weights stay float32): about twice as fast
        on processors that have it.
    """

    rounds: int = 3
    sparse_steps: int = 200
    tune_steps: int = 200
    final_steps: int = 400
    l1: float = 1e-4
    rate: float = 0.02
    momentum: float = 0.9
    decay: float = 1e-4
    distil: float = 0.5
    norm_batches: int = 8
    bfloat16: bool = False


@dataclass(frozen=True)
class Slimmed:
    """The result.

    Attributes:
        graph: the network that is left; `mdlc.compile(slimmed.onnx())` takes it.
        shares: of the measure, after every round.
    """

    graph: Graph
    shares: tuple[float, ...]

    def onnx(self) -> Any:
        """It as an onnx.ModelProto."""
        return export_onnx(self.graph)

    def module(self) -> Network:
        """It as a torch.nn.Module."""
        return Network(self.graph)


def trainable_graph(model: Any, example_inputs: Any = None) -> Graph:
    """The graph of a path, an onnx.ModelProto or a torch.nn.Module, as `Network` takes it.

    Raises:
        MdlcError: it cannot be read or exported.
    """
    source = read_model(model, example_inputs)
    graph = import_model(source.path or source.onnx)
    return optimise(graph, stop_after="remove_dead_channels")


def slim(
    model: Any,
    data: Batches,
    *,
    share: float = 0.5,
    of: str = "macs",
    target: str = "arm-neon",
    schedule: Schedule | None = None,
    loss: Loss = F.cross_entropy,
    example_inputs: Any = None,
    multiple: int = 1,
    seed: int = 0,
    folder: str | Path | None = None,
    progress: bool = False,
) -> Slimmed:
    """Slims a network to a share of its work.

    Args:
        model: a torch.nn.Module (with example_inputs, of batch 1), a path or an onnx.ModelProto,
            with one input and one output.
        data: batches (inputs, labels); iterated again when it ends, so a list or a DataLoader.
        share: what is left of the measure, 0 < share < 1.
        of: the measure: macs, params, or latency (the cost model's cycles on `target`).
        schedule: see Schedule.
        loss: of the outputs and the labels.
        multiple: what numbers of channels are rounded up to.
        seed: of torch's generator; the order of `data` is the caller's.
        folder: for a checkpoint after every round, from which a killed run goes on.
        progress: show a bar.

    Raises:
        MdlcError: the network cannot be trained or cut that far, or arguments do not fit.
    """
    schedule = schedule or Schedule()
    if not 0 < share < 1:
        raise MdlcError(
            f"{share:g} is not a share", node="share", hint="choose one between 0 and 1"
        )
    if of not in MEASURES:
        raise MdlcError(f"no measure {of!r}", node="of", hint="choose macs, params or latency")
    torch.manual_seed(seed)
    original = trainable_graph(model, example_inputs)
    if len(original.inputs) != 1 or len(original.outputs) != 1:
        raise MdlcError("slim takes networks with one input and one output")
    measure = _measure(of, target)
    first = measure(original)
    marks = _Checkpoints(folder, original, (share, of, target, schedule, multiple, seed))
    graph, shares = marks.last(original)
    teacher = Network(original).eval() if schedule.distil else None
    phases = schedule.rounds * 2 + 1
    with Progress(disable=not progress) as bar:
        task = bar.add_task("slimming", total=phases)
        bar.advance(task, 2 * len(shares))
        for number in range(len(shares), schedule.rounds):
            trainer = Trainer(graph, data, schedule, loss, teacher)
            trainer.train(schedule.sparse_steps, schedule.l1)
            bar.advance(task)
            most = first * share ** ((number + 1) / schedule.rounds)
            graph = _cut(trainer.network, measure, most, multiple)
            trainer = Trainer(graph, data, schedule, loss, teacher)
            last = number == schedule.rounds - 1
            trainer.train(schedule.tune_steps + (schedule.final_steps if last else 0))
            graph = trainer.network.to_graph()
            shares = (*shares, measure(graph) / first)
            marks.write(graph, shares)
            bar.advance(task)
        bar.advance(task)
    return Slimmed(graph, shares)


def train(
    graph: Graph,
    data: Batches,
    steps: int,
    *,
    schedule: Schedule | None = None,
    loss: Loss = F.cross_entropy,
    teacher: Graph | None = None,
) -> Graph:
    """A graph trained on, normalisation put back for it; see slim."""
    guide = Network(teacher).eval() if teacher is not None else None
    trainer = Trainer(graph, data, schedule or Schedule(), loss, guide)
    trainer.train(steps)
    return trainer.network.to_graph()


def _measure(of: str, target: str) -> Callable[[Graph], float]:
    if of == "macs":
        return lambda graph: float(macs(graph))
    if of == "params":
        return lambda graph: float(
            sum(n.type.size for n in graph.order() if n.constant is not None)
        )
    isa = find_isa(target)

    def latency(graph: Graph) -> float:
        plan = lower(optimise(graph), isa, "Latency")
        return sum(s.cycles(isa) for s in plan.steps)

    return latency


class Trainer:
    """Trains the network of a graph, normalisation put back; see slim."""

    def __init__(
        self, graph: Graph, data: Batches, schedule: Schedule, loss: Loss, teacher: Network | None
    ) -> None:
        self.network = Network(graph)
        self._data, self._schedule, self._loss, self._teacher = data, schedule, loss, teacher
        some = [x for (x, _), _ in zip(data, range(schedule.norm_batches), strict=False)]
        if not some:
            raise MdlcError("there are no batches to train on", node="data")
        self.network.add_norms(some)

    def train(
        self, steps: int, l1: float = 0.0, after: Callable[[int], None] = lambda step: None
    ) -> None:
        """Steps of SGD, the learning rate along half a cosine; ends in evaluation mode.

        Args:
            l1: weight of the norm of the scale factors.
            after: called with the step's number behind each.
        """
        schedule, network = self._schedule, self.network
        optimizer = torch.optim.SGD(
            network.parameters(),
            schedule.rate,
            momentum=schedule.momentum,
            weight_decay=schedule.decay,
        )
        network.train()
        for step, (x, labels) in zip(range(steps), endless(self._data), strict=False):
            rate = schedule.rate * (1 + math.cos(math.pi * step / steps)) / 2
            for group in optimizer.param_groups:
                group["lr"] = rate * min(1.0, (step + 1) / 20)
            x = by_channels(x)
            y = self._outputs(network, x)
            total = self._loss(y, labels)
            if self._teacher is not None:
                total = total * (1 - schedule.distil) + schedule.distil * self._distance(x, y)
            if l1:
                total = total + l1 * sum(s.abs().sum() for s in network.scales().values())
            optimizer.zero_grad()
            total.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
            optimizer.step()
            after(step)
            if not bool(torch.isfinite(total)):
                raise MdlcError(
                    f"training diverged at step {step}", node="schedule", hint="lower the rate"
                )
        network.eval()

    def _outputs(self, network: Network, x: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=self._schedule.bfloat16):
            y = network(x)
        return y.float()

    def _distance(self, x: Tensor, y: Tensor) -> Tensor:
        assert self._teacher is not None
        with torch.no_grad():
            wanted = self._outputs(self._teacher, x)
        if y.dim() == 2 and y.shape[1] > 1:
            soft = F.log_softmax(wanted / 2, 1)
            own = F.log_softmax(y / 2, 1)
            return 4 * F.kl_div(own, soft, log_target=True, reduction="batchmean")
        return F.mse_loss(y, wanted)


def by_channels(x: Tensor) -> Tensor:
    """A batch with the channels of a pixel side by side, which PyTorch's convolutions prefer."""
    return x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x


def endless(data: Batches) -> Iterator[tuple[Any, Any]]:
    """Batches, over and over."""
    while True:
        yield from data


def _cut(network: Network, measure: Callable[[Graph], float], most: float, multiple: int) -> Graph:
    """The network without the channels of the smallest scale factors, at most `most` of a measure.

    The factor of a channel is the sum over the layers that make it, relative to their mean: folded
    normalisation comes back with factors of the data's own size, which differ from layer to layer.
    """
    scales = {
        network_node: scale.detach().abs().double().numpy()
        for network_node, scale in network.scales().items()
    }
    graph = network.to_graph()
    by_node = {network.moved(node): scale / (scale.mean() or 1.0) for node, scale in scales.items()}
    spaces = channel_spaces(graph)
    scores = []
    for space in spaces:
        known = [node for node in space.producers if node in by_node]
        if known:
            scores.append(np.sum([by_node[node][space.of(node)] for node in known], 0) / len(known))
        else:
            scores.append(filter_norms(space))
    if not spaces:
        raise MdlcError("no channel can be cut: all are tied to inputs or outputs", node="share")

    def without(threshold: float) -> Graph:
        masks: dict[Node, Array] = {}
        for space, score in zip(spaces, scores, strict=True):
            stay = max(1, int((score >= threshold).sum()))
            stay = min(len(score), -(-stay // multiple) * multiple)
            for index in np.argsort(-score, kind="stable")[stay:].tolist():
                for node, c in space.channels[index]:
                    masks.setdefault(node, np.ones(channel_count(node), np.bool_))[c] = False
        return remove_dead_channels(remove_channels(graph, masks)[0]) if masks else graph

    thresholds = np.unique(np.concatenate(scores))
    low, high = 0, len(thresholds)
    if measure(without(float("inf"))) > most:
        raise MdlcError(
            "the share cannot be reached by cutting channels alone", node="share", hint="raise it"
        )
    while low < high:  # the first threshold at which little enough is left
        middle = (low + high) // 2
        if measure(without(float(thresholds[middle]))) <= most:
            high = middle
        else:
            low = middle + 1
    found = float(thresholds[low]) if low < len(thresholds) else float("inf")
    return without(found)


class _Checkpoints:
    """The network after each round, in a folder of the caller's."""

    def __init__(self, folder: str | Path | None, original: Graph, key: object) -> None:
        self._folder = Path(folder) if folder is not None else None
        data = export_onnx(original).SerializeToString(deterministic=True)
        self._key = hashlib.sha256(data + repr(key).encode()).hexdigest()

    def last(self, original: Graph) -> tuple[Graph, tuple[float, ...]]:
        """The newest network of the same run, or the original."""
        if self._folder is None:
            return original, ()
        try:
            text = (self._folder / "slim.json").read_text(encoding="utf-8")
            state = json.loads(text)
            if state["key"] != self._key:
                return original, ()
            shares = tuple(float(share) for share in state["shares"])
            graph = import_model(self._folder / f"round_{len(shares)}.onnx")
        except (OSError, ValueError, KeyError, TypeError):
            return original, ()
        return optimise(graph, stop_after="remove_dead_channels"), shares

    def write(self, graph: Graph, shares: tuple[float, ...]) -> None:
        """Keeps a round's network."""
        if self._folder is None:
            return
        model = export_onnx(graph).SerializeToString(deterministic=True)
        state = json.dumps({"key": self._key, "shares": shares}).encode()
        write_files(self._folder, {f"round_{len(shares)}.onnx": model, "slim.json": state})
