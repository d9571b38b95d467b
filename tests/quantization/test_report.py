"""What the report says of layers, against values computed apart."""

from __future__ import annotations

import math

import numpy as np
import pytest

from mdlc.compiler.interpreter import run
from mdlc.passes.lower_quantized import lower_quantized
from mdlc.passes.pipeline import random_inputs
from mdlc.quantization.calibrate import calibrate, interpreted, probe
from mdlc.quantization.layers import assign
from mdlc.quantization.quantize import quantize
from mdlc.quantization.report import layer_reports
from mdlc.quantization.table import make_table
from tests.passes.ir import graph
from tests.quantization.test_quantize import RESIDUAL


def test_figures_of_layers() -> None:
    source = graph(RESIDUAL)
    inputs = [random_inputs(source, seed) for seed in range(5)]
    table = make_table(calibrate(source, inputs), "percentile")
    found = quantize(assign(source, table))
    reports = {r.name: r for r in layer_reports(found, table, inputs, interpreted)}
    assert set(reports) == {"a6", "dr", "c", "r", "g", "f"}
    names = list(reports)
    by_own = [reports[name].own_snr_db for name in names]
    assert by_own == sorted(by_own)

    # 8 input channels of 1 pixel each for 8x8 pixels of 8 channels.
    assert reports["c"].kind == "Conv2D"
    assert reports["c"].macs == 8 * 8 * 8 * 8
    assert reports["c"].weight_bytes == 3 * 64
    assert (reports["r"].kind, reports["r"].macs) == ("Add", 0)
    assert reports["a6"].zero == -128

    exact = probe(source, {n: n.name for n in source.order() if n.name in reports})
    rounded = lower_quantized(probe(found.graph, {found.tensors[n]: n for n in reports}))
    for name, report in reports.items():
        wanted = np.stack([run(exact, i)[name] for i in inputs]).astype(np.float64)
        got = np.stack([run(rounded, i)[name] for i in inputs]).astype(np.float64)
        snr = 10 * math.log10((wanted**2).sum() / ((got - wanted) ** 2).sum())
        assert report.snr_db == pytest.approx(snr, abs=1e-6)
        assert report.own_snr_db > 20
    # The first layer has nothing before it but the rounding of the input, which is its own too.
    assert reports["a6"].own_snr_db == pytest.approx(reports["a6"].snr_db, abs=3)
    # What a layer loses by itself is less than what is lost up to it.
    assert reports["f"].own_snr_db > reports["f"].snr_db
