"""--profile: the class tells when each layer is done."""

from __future__ import annotations

from pathlib import Path

import pytest

import mdlc
from mdlc.compiler.errors import MdlcError
from tests.emitted_code import WARNINGS, block_model, build, require, run, sources

_PROGRAM = """\
#include <cstdio>
#include <vector>

#include "Block.h"

int main(int, char** argv) {
  Block network;
  if (network.Init(argv[1]) != Block::kOk) return 1;
  network.trace_context = &network;
  network.trace = [](void* context, int layer, const unsigned char*) {
    if (context != nullptr) std::printf("%d %s\\n", layer, Block::LayerName(layer));
  };
  std::vector<float> image(16 * 16 * 3);
  std::vector<float> logits(10);
  Block::Mat in(image.data(), 16, 16, 3);
  Block::Mat out(logits.data(), 1, 1, 10);
  return network.infer(in, out);
}
"""


def test_every_layer_is_told_by_its_name(tmp_path: Path) -> None:
    compiled = mdlc.compile(block_model(), "generic", name="Block", profile=True)
    compiled.write(tmp_path)
    (tmp_path / "told.cpp").write_text(_PROGRAM)
    program = build(tmp_path, require("g++"), [tmp_path / "told.cpp", *sources(tmp_path)], WARNINGS)
    told = run(program, tmp_path / "Block.weights").split("\n")
    names = [step.name for step in compiled.plan.steps]
    assert [line.split() for line in told if line] == [
        ["-1"],
        *([str(number), name] for number, name in enumerate(names)),
    ]


@pytest.mark.parametrize("target", ["metal", "arm-neon,generic"])
def test_where_layers_have_no_numbers_is_told(target: str) -> None:
    with pytest.raises(MdlcError) as caught:
        mdlc.compile(block_model(), target, profile=True)
    assert caught.value.node == "--profile"
