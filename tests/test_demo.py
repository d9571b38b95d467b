"""The demo's page: what its module for WebAssembly answers, and who may ask its server."""

from __future__ import annotations

import json
import threading
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import mdlc
from mdlc.cli import invoke
from mdlc.demo import demo_options, serve, site
from mdlc.options import CompileOptions
from tests.emitted_code import require as require_program
from tests.emitted_code import run
from tests.targets import require

EXAMPLES = Path(__file__).parent.parent / "examples"
DIGITS = EXAMPLES / "digits_mobilenet.onnx"
LABELS = tuple(str(number) for number in range(10))
NODE = """
import { readFileSync } from "node:fs";
const { Network } = await import(process.argv[2] + "/network.mjs");
const read = (name) => new Uint8Array(readFileSync(`${process.argv[2]}/${name}`));
const config = JSON.parse(readFileSync(`${process.argv[2]}/config.json`, "utf8"));
const network = await Network.load(read("network.wasm"), read("network.weights"), config);
const rgba = read("pixels");
const first = network.run(rgba), again = network.run(rgba);
if (JSON.stringify(first) !== JSON.stringify(again)) throw new Error("not the same again");
console.log(JSON.stringify(first));
"""


def test_the_module_answers_what_the_class_answers(tmp_path: Path) -> None:
    """In Node, on the digit as the page reads it: RGBA pixels."""
    require("wasm-simd128")
    options = demo_options(DIGITS, CompileOptions(mean=128, std=64, answer="classes,top=3"))
    assert options.input_format == "gray8"
    compiled = mdlc.compile(DIGITS, options)
    files = site(compiled)
    grey = np.asarray(Image.open(EXAMPLES / "digit.png").convert("L").resize((32, 32)))
    files["pixels"] = np.dstack([grey, grey, grey, np.full_like(grey, 255)]).tobytes()
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    (tmp_path / "ask.mjs").write_text(NODE)
    found = json.loads(run(require_program("node"), tmp_path / "ask.mjs", tmp_path))
    native = mdlc.compile(DIGITS, "generic", input_format="gray8", mean=128, std=64,
                          answer="classes,top=3").build()  # fmt: skip
    wanted = native.answer({"image": grey.reshape(1, 32, 32, 1)})
    assert found["count"] == wanted["count"] == 3
    assert [each["label"] for each in found["item"]] == list(wanted["item"]["label"])
    np.testing.assert_allclose(
        [each["score"] for each in found["item"]], wanted["item"]["score"], rtol=1e-4, atol=1e-4
    )


def test_a_recipe_for_frames_is_one_for_the_page() -> None:
    options = demo_options(DIGITS, CompileOptions(recipe=EXAMPLES / "digits.toml"))
    assert not options.frame
    assert options.mean == (128.0,)
    answer = mdlc.compile(DIGITS, options).plan.answer
    assert answer is not None
    assert answer.labels == LABELS


def test_what_an_output_means_is_guessed_where_it_can_be(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert demo_options(DIGITS, CompileOptions()).answer.kind == "classes"  # type: ignore[union-attr]
    import onnx
    from onnx import TensorProto, helper

    maps = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3, 8, 8])],
    )
    path = tmp_path / "maps.onnx"
    onnx.save(helper.make_model(maps, opset_imports=[helper.make_opsetid("", 17)]), path)
    assert invoke(["demo", str(path), "-o", str(tmp_path / "out")]) == 2
    assert "say it, as in --answer yolov8" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_only_this_machine_is_served() -> None:
    server = serve({"index.html": b"page", "network.wasm": b"\0asm"}, 0)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    port = server.server_address[1]
    assert server.server_address[0] == "127.0.0.1"

    def ask(path: str, host: str) -> tuple[int, bytes, str]:
        request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers={"Host": host})
        try:
            with urllib.request.urlopen(request) as answer:
                return answer.status, answer.read(), answer.headers["Content-Type"]
        except urllib.error.HTTPError as error:
            return error.code, b"", ""

    try:
        assert ask("/", f"127.0.0.1:{port}") == (200, b"page", "text/html; charset=utf-8")
        assert ask("/network.wasm?x", f"localhost:{port}")[2] == "application/wasm"
        assert ask("/", "elsewhere.example")[0] == 404
        assert ask("/../../etc/passwd", f"127.0.0.1:{port}")[0] == 404
    finally:
        server.shutdown()
        server.server_close()


def test_a_taken_port_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    server = serve({}, 0)
    try:
        with pytest.raises(mdlc.MdlcError, match="name another port"):
            serve({}, server.server_address[1])
    finally:
        server.server_close()
