"""The networks of benchmarks/networks.py in 8 bits, as the peers' own tools make them.

`quantize_onnx` makes the QuantizeLinear/DequantizeLinear form with ONNX Runtime's quantiser;
ONNX Runtime and OpenVINO read it, and benchmarks/litert_model.py goes on from it.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.runtimes import Array, example_input

CALIBRATION = 8
# A network in 8 bits has an output with at least this much signal over the error, or it is not
# the network that it is taken for: decibels. MNN's ShuffleNetV2 has 7, all others more than 20.
LEAST_SNR = 5.0


def calibration_inputs(count: int = CALIBRATION) -> list[Array]:
    """1x3x224x224 each, seeded; the first is the one that is timed."""
    generator = np.random.default_rng(1)
    drawn = (generator.uniform(-1, 1, (1, 3, 224, 224)) for _ in range(count - 1))
    return [example_input(), *(x.astype(np.float32) for x in drawn)]


def snr(found: Array, exact: Array) -> float:
    """Decibels of the exact output over the error."""
    error = float(np.square(found - exact, dtype=np.float64).sum())
    return 10 * float(np.log10(float(np.square(exact, dtype=np.float64).sum()) / max(error, 1e-30)))


def quantize_onnx(model: Path, made: Path) -> None:
    """model.onnx in float32 to QDQ: activations uint8, weights int8 with a scale per channel."""
    from onnxruntime.quantization import (
        CalibrationDataReader,
        CalibrationMethod,
        QuantFormat,
        QuantType,
        quantize_static,
    )
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.left: Iterator[Array] = iter(calibration_inputs())

        def get_next(self) -> dict[str, Array] | None:
            found = next(self.left, None)
            return None if found is None else {"input": found}

    logging.getLogger().setLevel(logging.ERROR)  # it advises what is done already
    with tempfile.TemporaryDirectory() as folder:
        folded = Path(folder) / "folded.onnx"
        quant_pre_process(str(model), str(folded), skip_symbolic_shape=True)
        quantize_static(
            str(folded),
            str(made),
            Reader(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
        )
