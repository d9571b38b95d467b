"""Answers as part of the emitted class, of recipes and of the command line."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

import mdlc
from mdlc.answers import answer_words, as_answer
from mdlc.cli import main
from mdlc.codegen.cpp.emit import answer_code
from mdlc.compiler.errors import MdlcError
from tests.emitted_code import NO_RUNTIME, WARNINGS, build, sources
from tests.onnx_models import model, node, value, weight
from tests.test_header import example_of

DIGITS = Path(__file__).parent.parent.parent / "examples" / "digits_mobilenet.onnx"
DIGIT = DIGITS.parent / "digit.png"


def maps_model() -> Any:
    """1x3x8x12 to scores of four classes for every pixel, and their sums."""
    kernel = np.random.default_rng(0).normal(0, 1, (4, 3, 3, 3)).astype(np.float32)
    return model(
        [
            node("Conv", "x w", "maps", pads=[1, 1, 1, 1]),
            node("GlobalAveragePool", "maps", "pooled"),
            node("Flatten", "pooled", "vector"),
        ],
        [value("x", (1, 3, 8, 12))],
        [value("maps", (1, 4, 8, 12)), value("vector", (1, 4))],
        [weight("w", kernel)],
    )


ANSWERS: dict[str, dict[str, Any]] = {
    "classes": {"kind": "classes", "scores": "vector", "activation": "softmax"},
    "boxes": {
        "kind": "boxes",
        "scores": "maps[0,:,:]",
        "boxes": "maps",
        "strides": [1],
        "form": "offset",
        "threshold": 0.9,
        "suppression": "none",
    },
    "keypoints": {"kind": "keypoints", "maps": "maps"},
    "mask": {"kind": "mask", "map": "maps"},
    "embedding": {"kind": "embedding", "vector": "vector"},
}


@pytest.mark.parametrize("kind", ANSWERS)
def test_a_class_answers_as_its_tensors_say(kind: str) -> None:
    compiled = mdlc.compile(maps_model(), "generic", name="Net", answer=ANSWERS[kind])
    program = compiled.build()
    picture = np.random.default_rng(1).normal(0, 1, (1, 3, 8, 12)).astype(np.float32)
    tensors, answer = program({"x": picture}), program.answer({"x": picture})
    maps, vector = tensors["maps"][0], tensors["vector"][0]
    if kind == "classes":
        np.testing.assert_array_equal(answer["item"]["label"], np.argsort(-vector)[:4])
    elif kind == "boxes":
        assert answer["count"] == (maps[0] > 0.9).sum() > 0
        np.testing.assert_array_equal(
            answer["box"]["score"][: answer["count"]], np.sort(maps[0][maps[0] > 0.9])[::-1]
        )
    elif kind == "keypoints":
        peaks = [np.unravel_index(each.argmax(), each.shape) for each in maps]
        np.testing.assert_array_equal(answer["point"]["x"], [x for _, x in peaks])
        np.testing.assert_array_equal(answer["point"]["y"], [y for y, _ in peaks])
    elif kind == "mask":
        np.testing.assert_array_equal(answer, maps.argmax(0))
    else:
        np.testing.assert_allclose(answer["values"], vector / np.linalg.norm(vector), rtol=1e-5)


@pytest.mark.parametrize("kind", ANSWERS)
def test_the_headers_example_shows_the_answer(kind: str, tmp_path: Path) -> None:
    mdlc.compile(maps_model(), "generic", name="Net", answer=ANSWERS[kind]).write(tmp_path)
    (tmp_path / "example.cpp").write_text(example_of((tmp_path / "Net.h").read_text()))
    files = [tmp_path / "example.cpp", *sources(tmp_path, "Net")]
    program = build(tmp_path, "g++", files, ["-std=c++17", *WARNINGS, *NO_RUNTIME], "example")
    done = subprocess.run([program], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout or kind == "boxes"  # of zeros there are none


def test_answers_that_cannot_be_filled_are_an_error(tmp_path: Path) -> None:
    mdlc.compile(maps_model(), "generic", name="Net", answer="mask,map=maps").write(tmp_path)
    (tmp_path / "try.cpp").write_text(
        """
        #include "Net.h"
        static float pixels[3 * 8 * 12];
        static std::uint8_t labels[96];
        int main() {
          Net net;
          Net::Mat picture(pixels, 8, 12, 3);
          Net::Mask mask;
          if (net.infer(picture, mask) != Net::kNotInitialised) return 1;
          if (net.Init("Net.weights") != Net::kOk) return 2;
          if (net.infer(picture, mask) != Net::kBadOutput) return 3;
          mask.labels = labels;
          mask.width = 12;
          if (net.infer(picture, mask) != Net::kBadOutput) return 4;
          mask.height = 8;
          mask.stride = 11;
          if (net.infer(picture, mask) != Net::kBadOutput) return 5;
          mask.stride = 0;
          Net::Mat other(pixels, 8, 11, 3);
          if (net.infer(other, mask) != Net::kBadInput) return 6;
          return net.infer(picture, mask) == Net::kOk ? 0 : 7;
        }
        """
    )
    files = [tmp_path / "try.cpp", *sources(tmp_path, "Net")]
    program = build(tmp_path, "g++", files, ["-std=c++17", *WARNINGS, *NO_RUNTIME], "try")
    assert subprocess.run([program], cwd=tmp_path, check=False).returncode == 0


def test_labels_are_compiled_in(tmp_path: Path) -> None:
    names = ("zero", 'ein "s"', "二", *map(str, range(3, 10)))
    (tmp_path / "labels.txt").write_text("\n".join(names))
    compiled = mdlc.compile(
        DIGITS, "generic", answer={"kind": "classes", "labels": str(tmp_path / "labels.txt")}
    )
    assert compiled.plan.answer is not None
    assert compiled.plan.answer.labels == names
    source = compiled.files()["DigitsMobilenet.cpp"].decode()
    assert '"ein \\042s\\042"' in source
    assert '"\\344\\272\\214"' in source


def test_an_option_and_a_recipe_say_the_same(tmp_path: Path) -> None:
    """The model carries names of files that lie beside the recipe."""
    (tmp_path / "labels.txt").write_text("\n".join(map(str, range(10))))
    recipe = tmp_path / "digits.toml"
    recipe.write_text('[answer]\nkind = "classes"\ntop = 3\nlabels = "labels.txt"\n')
    from_recipe = mdlc.compile(DIGITS, "generic", recipe=recipe).plan.answer
    given = as_answer(f"classes,top=3,labels={tmp_path / 'labels.txt'}")
    assert from_recipe == given
    assert answer_words(given) == ["--answer", "classes,top=3,labels=labels.txt"]


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ("klasses", "did you mean classes"),
        ("classes,top", "'top' is not KEY=VALUE"),
        ("classes,labels=nowhere.txt", "there is no file nowhere.txt"),
        ("classes,top=0", "choose a number from 1 to 1000"),
        ("yolov8,strides=[8, 'a']", "is not a list of whole numbers"),
    ],
)
def test_what_is_wrong_with_the_option_is_told(given: str, reason: str) -> None:
    with pytest.raises(MdlcError) as caught:
        as_answer(given)
    assert reason in str(caught.value)


def test_a_class_is_not_called_as_a_part_of_its_answer() -> None:
    with pytest.raises(MdlcError, match="'Classes' names a part of a class that answers"):
        mdlc.compile(DIGITS, "generic", name="Classes", answer="classes")


def test_a_model_may_be_called_as_a_part_of_its_answer(tmp_path: Path) -> None:
    (tmp_path / "classes.onnx").write_bytes(DIGITS.read_bytes())
    model = tmp_path / "classes.onnx"
    assert mdlc.compile(model, "generic", answer="classes").name == "ClassesModel"
    assert mdlc.compile(model, "generic").name == "Classes"


def test_a_class_is_not_called_as_a_part_of_every_frame() -> None:
    with pytest.raises(MdlcError, match="'Transform' names a part"):
        mdlc.compile(DIGITS, "generic", name="Transform")


def test_metal_gives_tensors_alone() -> None:
    with pytest.raises(MdlcError, match="target metal gives tensors alone"):
        mdlc.compile(DIGITS, "metal", answer="classes")


@pytest.mark.parametrize("kind", ["classes,scores=vector", "mask,map=maps"])
def test_names_are_as_many_as_classes(kind: str, tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("a\nb\nc\n")
    with pytest.raises(MdlcError, match=r"names\.txt has 3 names, and the network tells 4 classes"):
        mdlc.compile(maps_model(), "generic", answer=f"{kind},labels={tmp_path / 'names.txt'}")


def _run(*arguments: str) -> int:
    try:
        main(list(arguments))
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def test_run_prints_the_answer(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["run", str(DIGITS), "-t", "generic", "--input", str(DIGIT), "--mean", "128"]
    words += ["--std", "64", "--input-format", "gray8", "--answer", "classes,top=2"]
    assert _run(*words, "--labels", str(DIGITS.parent / "digits_labels.txt")) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert lines[0].endswith(" 7")


def test_run_draws_a_mask(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    import onnx

    onnx.save(maps_model(), tmp_path / "maps.onnx")
    rng = np.random.default_rng(2)
    Image.fromarray(rng.integers(0, 256, (16, 24, 3), np.uint8)).save(tmp_path / "in.png")
    words = ["run", str(tmp_path / "maps.onnx"), "-t", "generic", "--input"]
    words += [str(tmp_path / "in.png"), "--answer", "mask,map=maps"]
    assert _run(*words, "--draw", str(tmp_path / "out.png")) == 0
    assert "%" in capsys.readouterr().out
    before, after = (np.asarray(Image.open(tmp_path / name)) for name in ("in.png", "out.png"))
    assert before.shape == after.shape
    assert (before != after).any()
    assert _run(*words, "--draw", str(tmp_path / "out.txt")) == 2
    assert "end the name in .png or .jpg" in capsys.readouterr().err


def test_run_takes_a_folder(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Every picture's answer, drawn into a folder; time and memory on stderr."""
    import onnx

    onnx.save(maps_model(), tmp_path / "maps.onnx")
    (tmp_path / "in").mkdir()
    rng = np.random.default_rng(2)
    for name in ("b", "a"):
        Image.fromarray(rng.integers(0, 256, (16, 24, 3), np.uint8)).save(
            tmp_path / f"in/{name}.png"
        )
    words = ["run", str(tmp_path / "maps.onnx"), "-t", "generic", "--input", str(tmp_path / "in")]
    drawn = tmp_path / "drawn"
    assert _run(*words, "--answer", "mask,map=maps", "--draw", str(drawn), "-v") == 0
    told = capsys.readouterr()
    lines = told.out.splitlines()
    assert [line for line in lines if "%" not in line] == ["a.png", "b.png"]
    assert sorted(path.name for path in drawn.iterdir()) == ["a.png", "b.png"]
    told_cost = (
        r"[\d.e-]+ ms an inference on generic, 10.2 KiB of working memory, 1.8 KiB of weights"
    )
    assert re.fullmatch(told_cost, told.err.splitlines()[-1])
    assert _run(*words, "--answer", "mask,map=maps", "--draw", "out.png") == 2
    assert "is not a folder, as --input is" in capsys.readouterr().err


@pytest.mark.parametrize("target", ["generic", "generic,arm-neon"])
def test_masks_of_boxes(tmp_path: Path, target: str) -> None:
    """YOLO's prototypes: a box's mask is where their sum is positive, at any size."""
    import onnx

    rng = np.random.default_rng(5)
    table = rng.uniform(0, 1, (1, 4 + 2 + 3, 40)).astype(np.float32)
    table[0, :2] *= [[48], [32]]
    table[0, 2:4] = table[0, 2:4] * 20 + 8
    table[0, 6:] -= 0.5
    prototypes = rng.normal(0, 1, (3, 3, 3, 3)).astype(np.float32)
    proto = model(
        [
            node("Conv", "x w", "prototypes", strides=[2, 2], pads=[1, 1, 1, 1]),
            node("ReduceMean", "x", "mean", keepdims=0),
            node("Mul", "mean zero", "nothing"),
            node("Add", "nothing table", "rows"),
        ],
        [value("x", (1, 3, 32, 48))],
        [value("rows", (1, 9, 40)), value("prototypes", (1, 3, 16, 24))],
        [weight("w", prototypes), weight("zero", [0.0]), weight("table", table)],
    )
    onnx.save(proto, tmp_path / "seg.onnx")
    compiled = mdlc.compile(tmp_path / "seg.onnx", target, name="Seg",
                            answer="yolov8-seg,threshold=0.8,max=4")  # fmt: skip
    compiled.write(tmp_path)
    (tmp_path / "masks.cpp").write_text(
        """
        #include <cstdio>
        #include "Seg.h"
        int main() {
          static float pixels[3 * 32 * 48];
          std::FILE* file = std::fopen("in.raw", "rb");
          if (std::fread(pixels, 4, 3 * 32 * 48, file) != 3 * 32 * 48) return 1;
          std::fclose(file);
          Seg net;
          Seg::Mat picture(pixels, 3, 32, 48);
          Seg::Boxes boxes;
          Seg::Mask mask;
          static std::uint8_t labels[64 * 100];
          if (net.Init("Seg.weights") != Seg::kOk) return 2;
          if (net.infer(picture, boxes) != Seg::kOk) return 6;
          if (net.MaskOf(boxes, 0, mask) != Seg::kBadOutput) return 3;
          mask.labels = labels;
          mask.width = 96;
          mask.height = 64;
          mask.stride = 100;
          if (net.MaskOf(boxes, boxes.count, mask) != Seg::kBadInput) return 4;
          std::FILE* out = std::fopen("out.raw", "wb");
          std::fwrite(&boxes, sizeof(boxes), 1, out);
          for (int i = 0; i < boxes.count; ++i) {
            if (net.MaskOf(boxes, i, mask) != Seg::kOk) return 5;
            std::fwrite(labels, 1, sizeof(labels), out);
          }
          return std::fclose(out);
        }
        """
    )
    picture = rng.normal(0, 1, (1, 3, 32, 48)).astype(np.float32)
    port = compiled.plan.inputs[0]
    dims = ", ".join(map(str, port.dims))
    text = (tmp_path / "masks.cpp").read_text().replace("(pixels, 3, 32, 48)", f"(pixels, {dims})")
    (tmp_path / "masks.cpp").write_text(text)
    (tmp_path / "in.raw").write_bytes(port.type.to_physical(picture).tobytes())
    files = [tmp_path / "masks.cpp", *sources(tmp_path, "Seg")]
    flags = ["-fsanitize=address,undefined", *WARNINGS, "-Wno-error=maybe-uninitialized"]
    program = build(tmp_path, "g++", files, flags, "masks")
    subprocess.run([program], cwd=tmp_path, check=True)
    dtype = answer_code(compiled.plan).dtype  # type: ignore[union-attr]
    data = (tmp_path / "out.raw").read_bytes()
    found = np.frombuffer(data[: dtype.itemsize], dtype)[0]
    masks = np.frombuffer(data[dtype.itemsize :], np.uint8).reshape(-1, 64, 100)[:, :, :96]
    assert len(masks) == found["count"] > 1
    maps = compiled.build()({"x": picture})["prototypes"][0].astype(float)
    for box, mask in zip(found["box"], masks, strict=False):
        summed = np.tensordot(box["coefficients"].astype(float), maps, 1)
        resized = cv2.resize(summed, (96, 64), interpolation=cv2.INTER_LINEAR)
        y, x = (np.arange(64) + 0.5) / 2, (np.arange(96) + 0.5) / 2
        inside = ((y >= box["top"]) & (y <= box["bottom"]))[:, None]
        inside = inside & (x >= box["left"]) & (x <= box["right"])
        clear = np.abs(resized) > 1e-3
        np.testing.assert_array_equal(mask[clear], (inside & (resized > 0))[clear])
        assert 0 < mask.sum() < inside.sum()
