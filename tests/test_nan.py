"""NaN goes through Max, Min and Sign from either side, the same on every target."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import mdlc
from tests.onnx_models import model, node, value
from tests.targets import FLOAT_TARGETS, require

SHAPES = (((9,), (9,)), ((2, 3, 4, 5), (3, 1, 1)), ((6,), ()))


@pytest.mark.parametrize("target", FLOAT_TARGETS)
def test_nan_is_kept(target: str) -> None:
    require(target)
    values, nodes = {}, []
    for number, (long, short) in enumerate(SHAPES):
        for index, shape in enumerate((long, short)):
            drawn = np.random.default_rng(number).normal(0, 1, shape)
            values[f"x{number}{index}"] = np.where(drawn < 0, np.nan, drawn).astype(np.float32)
        for kind, order in itertools.product(("Max", "Min"), ("01", "10")):
            operands = " ".join(f"x{number}{index}" for index in order)
            nodes.append(node(kind, operands, f"{kind}{number}{order}"))
        nodes.append(node("Sign", f"x{number}0", f"Sign{number}"))
    names = [each.output[0] for each in nodes]
    proto = model(nodes, [value(n, v.shape) for n, v in values.items()],
                  [value(n, None) for n in names])  # fmt: skip
    results = mdlc.compile(proto, target).build()(values)
    functions = {"Max": np.maximum, "Min": np.minimum}
    for name in names:
        kind, number = name.rstrip("0123456789"), name[len(name.rstrip("0123456789"))]
        first = values[f"x{number}0"]
        wanted = np.sign(first) if kind == "Sign" else functions[kind](first, values[f"x{number}1"])
        np.testing.assert_array_equal(results[name], wanted, err_msg=name)
