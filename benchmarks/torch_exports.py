"""Small PyTorch modules by both of its exporters, as classes, against ONNX Runtime.

    python -m benchmarks.torch_exports --target generic --target arm-neon
    python -m benchmarks.torch_exports --filter 'lstm|mha' --derived

What networks are made of, one thing at a time: einsum, unfold, every mode of interpolation and
grid sampling, norms, attention, recurrent cells, scatters, sorts, masks, transforms of Fourier,
heads of detectors, tensors whose length depends on data. `--derived` tries what ONNX Runtime's
optimiser and quantisers make of each instead.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnx
import onnxruntime
import torch
from onnxruntime import quantization
from rich.console import Console

from benchmarks.cli import Plain
from benchmarks.onnx_cases import RIGHT, run_cases, tables
from benchmarks.onnx_official import Case
from benchmarks.torch_modules import MODULES
from mdlc.compiler.types import Array

# Formats and types of a static quantisation.
STATIC = (("QDQ", "QInt8", "QUInt8"), ("QDQ", "QInt8", "QInt8"), ("QDQ", "QInt8", "QInt16"),
          ("QOperator", "QInt8", "QUInt8"), ("QOperator", "QUInt8", "QUInt8"))  # fmt: skip


def exported(name: str, exporter: str, path: Path) -> None:
    """Writes a module as one of the exporters does."""
    make, inputs = MODULES[name]
    torch.manual_seed(0)
    network = make().eval()
    if exporter == "dynamo":
        more: dict[str, Any] = {"dynamo": True, "verbose": False, "external_data": False}
    else:
        more = {"dynamo": False, "opset_version": int(exporter.removeprefix("opset"))}
    with torch.no_grad():
        torch.onnx.export(network, inputs, str(path), **more)


def drawn(model: onnx.ModelProto, seed: int) -> dict[str, Array]:
    """Values for the inputs of a model; integers are few, as they may be indices."""
    random = np.random.default_rng(seed)
    weights = {tensor.name for tensor in model.graph.initializer}
    values: dict[str, Array] = {}
    for given in (i for i in model.graph.input if i.name not in weights):
        kind = given.type.tensor_type
        shape = [dim.dim_value or 1 for dim in kind.shape.dim]
        dtype = onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type)
        if dtype.kind == "f":
            value: Array = random.standard_normal(shape)
        else:
            value = random.integers(
                0, 200 if dtype.itemsize < 4 and dtype.kind != "b" else 2, shape
            )
        values[given.name] = np.asarray(value).astype(dtype)
    return values


def _session(model: bytes, level: str = "DISABLE_ALL", to: Path | None = None) -> Any:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, f"ORT_{level}")
    options.log_severity_level = 4
    if to is not None:
        options.optimized_model_filepath = str(to)
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


class _Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, model: onnx.ModelProto) -> None:
        self._left = iter([drawn(model, seed) for seed in range(2)])

    def get_next(self) -> dict[str, Array] | None:
        return next(self._left, None)


def derived(path: Path) -> Iterator[tuple[Path, bool]]:
    """What ONNX Runtime's tools make of a model, and whether it is rounded to 8 bits or fp16."""
    model = onnx.load(path)

    def beside(name: str) -> Path:
        return path.with_name(f"{path.stem}__{name}.onnx")

    def optimised(source: Path, name: str) -> Path:
        _session(source.read_bytes(), "ENABLE_EXTENDED", beside(name))
        return beside(name)

    with contextlib.suppress(Exception):
        yield optimised(path, "extended"), False
    kinds = quantization.QuantType
    with contextlib.suppress(Exception):
        quantization.quantize_dynamic(path, beside("dynamic"), weight_type=kinds.QInt8)
        yield beside("dynamic"), True
        yield optimised(beside("dynamic"), "dynamic_extended"), True
    for form, weights, activations in STATIC:
        name = f"{form}_{weights}_{activations}"
        with contextlib.suppress(Exception):
            quantization.quantize_static(
                path, beside(name), _Reader(model),
                quant_format=quantization.QuantFormat[form], per_channel=weights == "QInt8",
                weight_type=kinds[weights], activation_type=kinds[activations],
            )  # fmt: skip
            yield beside(name), True
            yield optimised(beside(name), f"{name}_extended"), True
    with contextlib.suppress(Exception):
        from onnxruntime.transformers.float16 import convert_float_to_float16

        onnx.save(convert_float_to_float16(onnx.load(path)), beside("fp16"))
        yield beside("fp16"), True


def case_of(path: Path, rounded: bool) -> Case:
    """The model with two inputs and what ONNX Runtime, not optimising, makes of them."""
    model = onnx.load(path)
    session = _session(model.SerializeToString())
    frames, largest = [], 0.0
    for seed in range(2):
        given = drawn(model, seed)
        wanted = dict(zip([o.name for o in model.graph.output], session.run(None, given),
                          strict=True))  # fmt: skip
        frames.append((given, wanted))
        floats = [np.abs(v).max() for v in wanted.values() if v.dtype.kind == "f" and v.size]
        largest = max(largest, *map(float, np.nan_to_num(floats)), 0.0)
    tolerances = (1e-2, 0.04 * largest) if rounded else (1e-3, 2e-5)
    return Case(path.stem, "torch", model, frames, *tolerances)


@click.command(cls=Plain)
@click.option("--target", multiple=True, default=["generic"], show_default=True)
@click.option("--filter", "pattern", default="", help="Only modules whose name has this pattern.")
@click.option("--sample", default=1, show_default=True, help="Every N-th module only.")
@click.option("--exporter", multiple=True, default=["opset11", "opset17", "dynamo"])
@click.option("--derived", "tools", is_flag=True, help="What ONNX Runtime's tools make of each.")
def main(
    target: tuple[str, ...], pattern: str, sample: int, exporter: tuple[str, ...], tools: bool
) -> None:
    """Prints how many exported modules are right on emitted code, and why others are not."""
    console = Console(width=160)
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    cases = []
    with tempfile.TemporaryDirectory() as name, open(os.devnull, "w") as silent:
        folder = Path(name)
        for module in [m for m in MODULES if re.search(pattern, m)][::sample]:
            for way in exporter:
                path = folder / f"{module}_{way}.onnx"
                # What an exporter or ONNX Runtime does not have is not asked for.
                with contextlib.suppress(Exception), contextlib.redirect_stdout(silent):
                    exported(module, way, path)
                    made = derived(path) if tools else [(path, False)]
                    cases += [case_of(each, rounded) for each, rounded in made]
        for each in target:
            outcomes = run_cases(cases, each, folder / f"{each}.jsonl")
            console.print(f"{each}: {len(outcomes)} models")
            for table in tables(outcomes):
                console.print(table)
            for outcome in outcomes:
                if outcome.outcome != RIGHT:
                    console.print(f"{outcome.name}: {outcome.outcome}: {outcome.reason}",
                                  markup=False)  # fmt: skip


if __name__ == "__main__":
    main()
