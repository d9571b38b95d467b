"""ncnn models in 8 bits, from ncnn models in float32.

ncnn's own tool for this (ncnn2int8) is in none of its wheels. This does what its documentation
describes (docs/how-to-use-and-FAQ/quantized-int8-inference.md of ncnn): convolutions and dense
layers get weights of int8 with a scale for every output channel and one scale for their input,
from the largest value seen; a convolution whose output is read by such layers alone gives int8
(the hundreds of parameter 8).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.int8_models import calibration_inputs
from benchmarks.runtimes import Array

# What stands before weights in the .bin: raw float32, or int8.
FLOAT_TAG, INT8_TAG = 0, 0x000D4B38
# Parameters by number, ncnn's layers' own: outputs, has a bias, weights; groups of depthwise ones.
PRODUCTS = {"Convolution": (0, 5, 6), "ConvolutionDepthWise": (0, 5, 6), "InnerProduct": (0, 1, 2)}
GROUPS = 7
INT8 = 8


@dataclass
class Layer:
    """One line of the .param file, and its weights."""

    kind: str
    name: str
    inputs: list[str]
    outputs: list[str]
    parameters: dict[int, str]
    weights: Array | None = None
    bias: Array | None = None

    def number(self, key: int) -> int:
        """A parameter that is an integer, 0 where it is left out."""
        return int(self.parameters.get(key, "0"))

    @property
    def line(self) -> str:
        """The text."""
        counts = [str(len(self.inputs)), str(len(self.outputs))]
        words = [self.kind, self.name, *counts, *self.inputs, *self.outputs]
        return " ".join([*words, *(f"{k}={v}" for k, v in self.parameters.items())])


def read(param: Path, weights: Path) -> list[Layer]:
    """The layers of a float32 model."""
    raw, at, layers = weights.read_bytes(), 0, []
    for line in param.read_text().splitlines()[2:]:
        kind, name, reads, writes, *rest = line.split()
        inputs, rest = rest[: int(reads)], rest[int(reads) :]
        outputs, rest = rest[: int(writes)], rest[int(writes) :]
        parameters = {int(k): v for k, v in (word.split("=") for word in rest)}
        layer = Layer(kind, name, inputs, outputs, parameters)
        if kind in PRODUCTS:
            count, biased, size = map(layer.number, PRODUCTS[kind])
            assert int.from_bytes(raw[at : at + 4], "little") == FLOAT_TAG
            layer.weights = np.frombuffer(raw, np.float32, size, at + 4)
            at += 4 + 4 * size
            if biased:
                layer.bias = np.frombuffer(raw, np.float32, count, at)
                at += 4 * count
        layers.append(layer)
    assert at == len(raw)
    return layers


def peaks(param: Path, weights: Path, names: set[str]) -> dict[str, float]:
    """The largest absolute value of each tensor over the calibration inputs."""
    import ncnn

    net = ncnn.Net()
    net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = False
    net.opt.use_bf16_storage = False
    net.load_param(str(param))
    net.load_model(str(weights))
    found = dict.fromkeys(names, 0.0)
    for given in calibration_inputs():
        extractor = net.create_extractor()
        extractor.set_light_mode(False)
        extractor.input("in0", ncnn.Mat(given[0]).clone())
        for name in names:
            values = np.array(extractor.extract(name)[1])
            found[name] = max(found[name], float(np.abs(values).max()))
    return found


def readers(layers: list[Layer], name: str) -> list[Layer]:
    """Who reads a tensor, through copies of it."""
    found = []
    for layer in layers:
        if name in layer.inputs:
            if layer.kind == "Split":
                found += [r for output in layer.outputs for r in readers(layers, output)]
            else:
                found.append(layer)
    return found


def convert(param: Path, weights: Path, int8_param: Path, int8_weights: Path) -> None:
    """Writes the model in 8 bits."""
    layers = read(param, weights)
    products = [layer for layer in layers if layer.kind in PRODUCTS]
    largest = peaks(param, weights, {layer.inputs[0] for layer in products})
    scale_of = {name: 127 / max(peak, 1e-9) for name, peak in largest.items()}
    raw = bytearray()
    for layer in products:
        assert layer.weights is not None
        depthwise = layer.kind == "ConvolutionDepthWise"
        rows = layer.weights.reshape(layer.number(GROUPS if depthwise else 0), -1)
        scales = 127 / np.maximum(np.abs(rows).max(axis=1), 1e-9)
        integers = np.clip(np.rint(rows * scales[:, None]), -127, 127).astype(np.int8).tobytes()
        raw += INT8_TAG.to_bytes(4, "little") + integers + bytes(-len(integers) % 4)
        if layer.bias is not None:
            raw += layer.bias.tobytes()
        raw += scales.astype(np.float32).tobytes()
        raw += np.float32(scale_of[layer.inputs[0]]).tobytes()
        term, behind = 1 if depthwise else 2, readers(layers, layer.outputs[0])
        convolutions = ("Convolution", "ConvolutionDepthWise")
        if layer.kind in convolutions and behind and all(r.kind in convolutions for r in behind):
            term += 100
            raw += np.float32(scale_of[behind[0].inputs[0]]).tobytes()
        layer.parameters[INT8] = str(term)
    head = param.read_text().splitlines()[:2]
    int8_param.write_text("\n".join([*head, *(layer.line for layer in layers)]) + "\n")
    int8_weights.write_bytes(raw)
