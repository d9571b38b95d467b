"""The example program: a camera frame in, a name out, in fewer than 20 lines of the app's own."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from PIL import Image

import mdlc
from mdlc.cli import invoke
from mdlc.codegen.answer.code import Network
from mdlc.codegen.kernel import View
from mdlc.codegen.plan.plan import Port
from mdlc.compiler.types import DType, TensorType
from mdlc.inputs.pictures import load_frame, load_inputs
from mdlc.recipe import read_recipe
from tests.shared_data import SHARED, model_path, needs_shared

EXAMPLES = Path(__file__).parents[2] / "examples"
DIGITS = EXAMPLES / "digits_mobilenet.onnx"


def test_the_nv21_classifier(tmp_path: Path) -> None:
    source = EXAMPLES / "nv21_classifier.cpp"
    code = [line for line in source.read_text().splitlines() if line.strip()]
    body = code[next(i for i, line in enumerate(code) if line.startswith("int main")) + 1 : -1]
    assert len(body) < 20
    model = mdlc.compile(DIGITS, "generic", name="Digits", recipe=EXAMPLES / "digits.toml")
    model.write(tmp_path)
    flags = ["-std=c++17", "-O1", "-Wall", "-Wextra", "-Werror", "-I", "."]
    files = [source, "Digits.cpp", "Digits_generic.cpp"]
    subprocess.run(["g++", *flags, *files, "-o", "classifier"], cwd=tmp_path, check=True)
    # The picture as a phone that is held upright sees it: turned, and on a wider frame.
    image = Image.open(EXAMPLES / "digit.png").convert("L").resize((240, 240))
    upright = np.zeros((320, 240), np.uint8)
    upright[40:280] = image
    luma = np.rot90(upright)
    height, width = luma.shape
    chroma = np.full(width * height // 2, 128, np.uint8)
    (tmp_path / "frame.nv21").write_bytes(luma.tobytes() + chroma.tobytes())
    command = ["./classifier", "frame.nv21", str(width), str(height), "90"]
    ran = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True)
    found = re.fullmatch(r"(\d): (0\.\d+|1\.00)\n", ran.stdout)
    assert found
    assert found[1] == "7"
    assert float(found[2]) > 0.8


@needs_shared
def test_the_nv21_detector(tmp_path: Path) -> None:
    """UltraFace on Grace Hopper, upright and on a turned frame: the same box."""
    source = EXAMPLES / "nv21_detector.cpp"
    code = [line for line in source.read_text().splitlines() if line.strip()]
    body = code[next(i for i, line in enumerate(code) if line.startswith("int main")) + 1 : -1]
    assert len(body) < 20
    recipe = EXAMPLES / "recipes" / "ultraface_rfb320.toml"
    model = mdlc.compile(
        model_path("ultraface_rfb320"), "generic", name="Faces", recipe=recipe, optimise="speed"
    )
    model.write(tmp_path)
    flags = ["-std=c++17", "-O0", "-Wall", "-Wextra", "-Werror", "-I", "."]
    files = [source, "Faces.cpp", "Faces_generic.cpp"]
    subprocess.run(["g++", *flags, *files, "-o", "detector"], cwd=tmp_path, check=True)
    picture = Image.open(SHARED / "data/pictures/grace_hopper.png").convert("YCbCr")
    picture = picture.resize((picture.width // 2 * 2, picture.height // 2 * 2))
    boxes = []
    for rotation in (0, 90):
        luma, *chroma = picture.rotate(rotation, expand=True).split()
        half = [np.asarray(c.resize((c.width // 2, c.height // 2))) for c in chroma]
        planes = np.asarray(luma).tobytes() + np.stack(half[::-1], -1).tobytes()
        (tmp_path / "frame.nv21").write_bytes(planes)
        command = ["./detector", "frame.nv21", *map(str, luma.size), str(rotation)]
        ran = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True)
        (line,) = ran.stdout.splitlines()
        boxes.append([int(word) for word in line.split()])
    left, top, right, bottom = boxes[0]
    assert left > 0.2 * picture.width
    assert bottom < 0.7 * picture.height
    turned = [top, picture.width - right, bottom, picture.width - left]
    np.testing.assert_allclose(boxes[1], turned, atol=3)


RECIPES = sorted(path.stem for path in (EXAMPLES / "recipes").glob("*.toml"))


@needs_shared
@pytest.mark.parametrize("name", RECIPES)
def test_recipes_fit_their_networks(name: str) -> None:
    """Every recipe's answer is that of the network's outputs, as it was exported."""
    path = EXAMPLES / "recipes" / f"{name}.toml"
    tables = tomllib.loads(path.read_text())
    if "first" in tables:
        used = {tables[role]["recipe"].removesuffix(".toml") for role in ("first", "second")}
        assert used <= set(RECIPES)
        return
    recipe = read_recipe(path)
    file = model_path(name)
    session = onnxruntime.InferenceSession(file if file.exists() else model_path(f"{name}_random"))
    shapes, kinds = {}, {"tensor(float)": DType.F32, "tensor(int64)": DType.I64}
    for output in session.get_outputs():
        shape = [n if isinstance(n, int) else 1 for n in output.shape]
        if name == "ppocr_v3_det":
            shape = [1, 1, 320, 320]
        shapes[output.name] = TensorType(tuple(shape), kinds[output.type])
    sides = [n for n in session.get_inputs()[0].shape if isinstance(n, int) and n > 4] or [320]
    ports = {
        key: Port(key, f"tensor_{number}", View.of(kind, number))
        for number, (key, kind) in enumerate(shapes.items())
    }
    code = recipe.values["answer"].code(Network("Net", ports, sides[0], sides[-1]))
    assert code.source
    assert recipe.values["frame"]


def test_run_answers_in_pixels_of_the_picture(capsys: pytest.CaptureFixture[str]) -> None:
    recipe, digit = EXAMPLES / "digits.toml", EXAMPLES / "digit.png"
    words = ["run", DIGITS, "-t", "generic", "--recipe", recipe, "--input", digit]
    assert invoke([str(word) for word in words]) == 0
    assert re.search(r"0\.\d+  7\n", capsys.readouterr().out)


def test_pictures_go_through_the_same_arithmetic(tmp_path: Path) -> None:
    """What `run` and calibration read is what the class reads from the same picture as a frame."""
    pixels = np.random.default_rng(0).integers(0, 256, (70, 110, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "noise.png")
    model = mdlc.compile(DIGITS, "generic", frame=True, fit="letterbox")
    values = load_inputs(tmp_path / "noise.png", model.graph, model.how, "--input")
    frame = load_frame(tmp_path / "noise.png", model.graph, model.how)
    (ran,) = model.build().run_frames([frame])
    np.testing.assert_array_equal(ran.input, values["image"])


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"fit": "crop"}, "--fit: needs --frame; add --frame, or leave it out"),
        ({"match": "opencv"}, "--match: needs --frame"),
        ({"frame": True, "fit": "letterbx"}, "--fit: there is no fit 'letterbx'; did you mean"),
        ({"frame": True, "fit": "crop:2"}, "--fit: 'crop:2' keeps no share of the picture"),
        ({"frame": True, "fill": 256}, "--fill: 256 is no colour"),
        ({"frame": True, "fill": 0.5}, "--fill: is not a whole number"),
        ({"frame": True, "fill": (1, 2, 3)}, "--fill: 3 values for 1 channels; give 1 or 1"),
        ({"frame": True, "yuv": "bt601"}, "--yuv: there is no yuv 'bt601'; did you mean"),
        (
            {"frame": True, "resample": "cubic"},
            "there is no resample 'cubic'; did you mean bicubic",
        ),
        ({"frame": True, "input_format": "gray8"}, "--input-format: contradicts --frame"),
        ({"frame": True, "target": "metal"}, "--frame: target metal takes pictures as textures"),
    ],
)
def test_bad_options(options: dict[str, object], told: str) -> None:
    with pytest.raises(mdlc.MdlcError) as caught:
        mdlc.compile(DIGITS, **{"target": "generic", **options})
    assert told in str(caught.value)


def test_a_batch_is_refused() -> None:
    from tests.frames.samples import passthrough

    with pytest.raises(mdlc.MdlcError, match="--frame: the network takes 2 pictures at once"):
        mdlc.compile(passthrough(3, 8, 8, batch=2), "generic", frame=True)
