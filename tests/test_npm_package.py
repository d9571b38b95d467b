"""The npm package: built by its own script, loaded by Node."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mdlc
from mdlc.codegen.frame.frame import Frame
from mdlc.compiler.errors import MdlcError
from mdlc.package.write import write_package
from tests.emitted_code import require, run, two_ways_model
from tests.test_packages import detector

PROGRAM = """
import fs from 'node:fs';
import assert from 'node:assert';
import { Finder, FinderError } from 'finder';

const pixels = new Uint8ClampedArray(fs.readFileSync('pixels'));
const picture = { data: pixels, width: 20, height: 31 };
const tensor = new Uint8Array(pixels.slice(0, 8 * 12 * 3));
const net = await Finder.load();
assert.equal(net.target, 'wasm-simd128');
const turned = { rotation: 90, mirror: true, crop: { x: 1, y: 2, width: 16, height: 28 } };
const failed = (e) => e instanceof FinderError && e.code === -19 && /rotation/.test(e.message);
const said = {
  tensor: net.infer(tensor),
  named: net.infer({ x: tensor }),
  picture: net.infer(picture),
  framed: net.infer({ x: picture }),
  turned: net.infer(picture, turned),
};
assert.deepEqual(said.named, said.tensor);
assert.deepEqual(said.framed, said.picture);
assert.throws(() => net.infer(picture, { rotation: 45 }), failed);
assert.throws(() => net.infer(tensor.slice(1)), /x is to be a Uint8Array of 288 values/);
assert.throws(() => net.infer(new Float32Array(288)), TypeError);
assert.throws(() => net.infer({ y: tensor }), TypeError);
assert.throws(() => net.infer({ data: pixels, width: 21, height: 31 }), /4 bytes a pixel/);
const other = await Finder.load({ weights: fs.readFileSync('node_modules/finder/Finder.weights') });
assert.deepEqual(other.infer(tensor), said.tensor);
const bad = fs.readFileSync('node_modules/finder/Finder.weights');
bad[100] ^= 1;
await assert.rejects(Finder.load({ weights: bad }), (e) => e.code === -7);
for (let i = 0; i < 3000; ++i) net.infer(i % 2 ? picture : tensor);
net.close();
net.close();
assert.throws(() => net.infer(tensor), /closed/);
assert.deepEqual(other.infer(tensor), said.tensor);
console.log(JSON.stringify(said, (_, v) => (typeof v === 'number' ? String(v) : v)));
"""

# Tensors in and out, two of each, whose names are none of JavaScript's.
TENSORS = """
import assert from 'node:assert';
import { Ways } from 'ways';
const ways = await Ways.load();
const a = Float32Array.from({ length: 40 }, (_, i) => i / 8), b = new Float32Array([1, -2]);
const out = ways.infer({ 'a.b/1': a, class: b });
console.log(JSON.stringify({ sum: [...out['sum:0']], last: [...out['1st']] }));
"""


def _packed(folder: Path, compiled: mdlc.CompiledModel, app: Path, program: str) -> Any:
    """Builds a package, puts what it ships into an app, and reads what its program prints."""
    node = require("node")
    write_package("npm", compiled, folder)
    assert ".wasm, by " in run(node, "build.mjs", where=folder)
    shipped = json.loads((folder / "package.json").read_text())
    installed = app / "node_modules" / shipped["name"]
    installed.mkdir(parents=True)
    for name in (*shipped["files"], "package.json"):
        shutil.copyfile(folder / name, installed / name)
    (app / "app.mjs").write_text(program)
    return json.loads(run(node, "app.mjs", where=app))


def test_pictures_in_and_objects_out(tmp_path: Path) -> None:
    app = tmp_path / "app"
    app.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (31, 20, 4), np.uint8)
    (app / "pixels").write_bytes(pixels.tobytes())
    said = _packed(
        tmp_path / "package", detector(target="wasm-simd128", name="Finder"), app, PROGRAM
    )
    assert (tmp_path / "package" / "Finder.wasm").stat().st_size < 80_000
    executable = detector().build()
    tensor = np.frombuffer(pixels.tobytes()[: 8 * 12 * 3], np.uint8).reshape(1, 8, 12, 3)
    plain = Frame("RGBA", 20, 31, (pixels.ravel(),), (80,))
    turned = Frame("RGBA", 20, 31, (pixels.ravel(),), (80,), (), 90, True, (1, 2, 16, 28))
    for what, answer in (
        ("tensor", executable.answer({"x": tensor})),
        ("picture", executable.answer_frame(plain)),
        ("turned", executable.answer_frame(turned)),
    ):
        boxes = answer["box"][: answer["count"]]
        assert len(boxes) == len(said[what]) > 0
        for name in ("left", "top", "right", "bottom", "score"):
            found = [float(box[name]) for box in said[what]]
            np.testing.assert_allclose(found, boxes[name], rtol=1e-4, atol=1e-4)


def test_tensors_in_and_out(tmp_path: Path) -> None:
    how: dict[str, Any] = {"name": "Ways", "c_api": True, "embed_weights": True}
    compiled = mdlc.compile(two_ways_model(), "wasm-simd128", **how)
    app = tmp_path / "app"
    app.mkdir()
    said = _packed(tmp_path / "package", compiled, app, TENSORS)
    assert not (tmp_path / "package" / "Ways.weights").exists()
    # In memory as the class has it, whose order of axes the types state.
    first = compiled.plan.inputs[0].type
    a = first.to_logical(np.arange(40, dtype=np.float32) / 8)
    out = a + np.float32([1, -2]).reshape(1, 2, 1, 1)
    sums = compiled.plan.outputs[0].type.to_physical(out).ravel()
    np.testing.assert_array_equal(np.float32(said["sum"]), sums)
    np.testing.assert_allclose(said["last"], out.mean((0, 2, 3)), rtol=1e-5)


def test_the_module_has_one_thread(tmp_path: Path) -> None:
    with pytest.raises(MdlcError, match="has one thread"):
        write_package("npm", mdlc.compile(two_ways_model(), "generic", threads=2), tmp_path)


def test_names_that_node_and_python_have_already_are_refused(tmp_path: Path) -> None:
    with pytest.raises(MdlcError, match="'net' names a module of Node's"):
        write_package("npm", detector(), tmp_path)
    with pytest.raises(MdlcError, match="'queue' names a module of Python's"):
        write_package("python", detector(name="Queue"), tmp_path)


@pytest.mark.parametrize("kind", ["classes", "keypoints", "mask", "embedding"])
def test_the_module_of_every_answer_is_javascript(kind: str, tmp_path: Path) -> None:
    node = require("node")
    write_package("npm", detector(kind, name="Finder"), tmp_path)
    run(node, "--check", "index.js", where=tmp_path)
