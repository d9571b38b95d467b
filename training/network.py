"""A graph as a torch.nn.Module that can be trained, and back.

Exporters fold BatchNormalization into convolutions. For training it is put back: every
convolution is followed by one whose statistics are those of the data and whose scale and shift undo
them, so that the network computes what it did; `to_graph` folds it again.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from mdlc.compiler.errors import MdlcError
from mdlc.compiler.ir import Graph, Node
from mdlc.compiler.ops.constant import constant
from mdlc.compiler.ops.conv2d import Conv2D
from mdlc.compiler.ops.conv_transpose2d import ConvTranspose2D
from mdlc.compiler.ops.dense import Dense
from mdlc.compiler.ops.input import Input
from mdlc.compiler.types import Array
from mdlc.training.operators import Tensor, compute, convolve, formula, transposed

EPSILON = 1e-5


def _is_layer(node: Node) -> bool:
    return isinstance(node.op, Conv2D | ConvTranspose2D | Dense) and all(
        source.constant is not None for source in node.inputs[1:3]
    )


class Network(torch.nn.Module):  # type: ignore[misc]
    """The network of a graph whose inputs have batch 1; takes batches of any length.

    Constants that are no weights of a convolution or dense layer (or slopes) are not trained.
    """

    def __init__(self, graph: Graph) -> None:
        """Args:
        graph: as `mdlc.training.slimming.trainable_graph` gives it.

        Raises:
            MdlcError: an input's batch is not 1.
        """
        super().__init__()
        for node in graph.inputs:
            if node.shape[:1] != (1,):
                raise MdlcError(
                    f"input {node.name!r} has batch {node.shape[:1]}, not 1",
                    hint="training makes batches itself",
                )
        self.graph = graph
        self._order = [node for node in graph.order() if node.constant is None]
        self._layers: dict[Node, str] = {}
        self.parameters_of = torch.nn.ParameterDict()
        self.norms = torch.nn.ModuleDict()
        for node in self._order:
            if not _is_layer(node):
                continue
            key = f"layer{len(self._layers)}"
            self._layers[node] = key
            for name, source in zip(("weight", "bias", "slope"), node.inputs[1:], strict=False):
                if source.constant is not None:
                    value = torch.from_numpy(np.array(source.constant, np.float32))
                    self.parameters_of[f"{key}_{name}"] = torch.nn.Parameter(value)

    def forward(self, *inputs: Tensor) -> Any:
        """The outputs (one tensor where there is one) for the inputs in the graph's order."""
        values = self._run(inputs)
        found = tuple(values[node] for node in self.graph.outputs)
        return found[0] if len(found) == 1 else found

    def _run(
        self, inputs: Iterable[Tensor], collect: dict[Node, list[Tensor]] | None = None
    ) -> dict[Node, Tensor]:
        values: dict[Node, Tensor] = dict(zip(self.graph.inputs, inputs, strict=True))
        for node in self._order:
            if isinstance(node.op, Input):
                continue
            sources = [self._value(source, values) for source in node.inputs]
            if node in self._layers:
                values[node] = self._layer(node, sources, collect)
            else:
                values[node] = compute(node, sources)
        return values

    @staticmethod
    def _value(node: Node, values: dict[Node, Tensor]) -> Tensor:
        if node.constant is not None:
            return torch.from_numpy(np.array(node.constant))
        return values[node]

    def _layer(
        self, node: Node, sources: list[Tensor], collect: dict[Node, list[Tensor]] | None
    ) -> Tensor:
        key, op = self._layers[node], node.op
        weight, bias = self.parameters_of[f"{key}_weight"], self.parameters_of[f"{key}_bias"]
        if isinstance(op, Conv2D):
            y = convolve(op, sources[0], weight, bias)
        elif isinstance(op, ConvTranspose2D):
            y = transposed(op, sources[0], weight, bias)
        else:
            y = F.linear(sources[0], weight, bias)
        if key in self.norms:
            y = self.norms[key](y)
        elif collect is not None and isinstance(op, Conv2D):
            collect.setdefault(node, []).append(y.detach())
        if getattr(op, "residual", False):
            y = y + sources[-1]
        activation = getattr(op, "activation", None)
        if activation is None:
            return y
        operands = [y]
        if activation.arity == 2:
            slope = self.parameters_of[f"{key}_slope"]
            operands.append(slope.reshape(-1, *(1,) * (y.dim() - 2)))
        return formula(activation, *operands)

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def add_norms(self, batches: Iterable[Tensor]) -> None:
        """Puts a BatchNormalization behind every convolution, with the statistics of batches.

        Args:
            batches: inputs, a few hundred samples in all. The network must have one input.
        """
        sums: dict[Node, list[Tensor]] = {}
        for batch in batches:
            collected: dict[Node, list[Tensor]] = {}
            self._run((batch,), collected)
            for node, (y,) in collected.items():
                flat = y.double().transpose(0, 1).flatten(1)
                part = torch.stack(
                    [torch.full_like(flat[:, 0], flat.shape[1]), flat.sum(1), (flat**2).sum(1)]
                )
                sums.setdefault(node, []).append(part)
        for node, parts in sums.items():
            count, total, squares = torch.stack(parts).sum(0)
            mean = total / count
            variance = (squares / count - mean**2).clamp_min(0)
            norm = torch.nn.BatchNorm2d(len(mean), eps=EPSILON)
            norm.running_mean.copy_(mean)
            norm.running_var.copy_(variance)
            norm.weight.copy_((variance + EPSILON).sqrt())
            norm.bias.copy_(mean)
            self.norms[self._layers[node]] = norm

    def layers(self) -> dict[Node, str]:
        """The layers with weights, and what the names of their parameters begin with."""
        return dict(self._layers)

    def scales(self) -> dict[Node, Tensor]:
        """The scale factors of the normalisation behind each layer, the L1 norm's subject."""
        return {
            node: self.norms[key].weight for node, key in self._layers.items() if key in self.norms
        }

    def to_graph(self) -> Graph:
        """The graph with the weights as trained, normalisation folded."""
        done: dict[Node, Node] = {}
        for node in self.graph.order():
            inputs = [done[source] for source in node.inputs]
            if node in self._layers:
                for index, value in enumerate(self._folded(node), start=1):
                    inputs[index] = constant(value, node.inputs[index].name)
            same = tuple(inputs) == node.inputs
            done[node] = node if same else replace(node, inputs=tuple(inputs))
        graph = Graph(
            tuple(done[node] for node in self.graph.inputs),
            tuple(done[node] for node in self.graph.outputs),
            self.graph.output_names,
            self.graph.name,
        )
        self._moved = done
        return graph

    def moved(self, node: Node) -> Node:
        """A node's counterpart in the graph that `to_graph` gave last."""
        return self._moved[node]

    def _folded(self, node: Node) -> list[Array]:
        key = self._layers[node]
        values = [
            self.parameters_of[f"{key}_{name}"].detach().double()
            for name in ("weight", "bias", "slope")
            if f"{key}_{name}" in self.parameters_of
        ]
        if key in self.norms:
            norm = self.norms[key]
            factor = (norm.weight / (norm.running_var + norm.eps).sqrt()).detach().double()
            mean = norm.running_mean.double()
            values[0] = values[0] * factor.reshape(-1, *(1,) * (values[0].dim() - 1))
            values[1] = (values[1] - mean) * factor + norm.bias.detach().double()
        return [value.float().numpy() for value in values]
