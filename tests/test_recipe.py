"""Recipes: options from a file or from the model's metadata."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

import mdlc
from mdlc.inputs.preprocess import Preprocess
from mdlc.option import options_of
from mdlc.options import CompileOptions
from mdlc.recipe import METADATA_KEY, SECTIONS, parse_recipe, read_recipe

DIGITS = Path(__file__).parent.parent / "examples" / "digits_mobilenet.onnx"
TEXT = """
[input]
input-format = "gray8"
mean = 128
std = [64.0]
"""


def with_metadata(text: str) -> onnx.ModelProto:
    model = onnx.load(DIGITS)
    onnx.helper.set_model_props(model, {METADATA_KEY: text})
    return model


def test_a_file_stands_for_options(tmp_path: Path) -> None:
    path = tmp_path / "digits.toml"
    path.write_text(TEXT)
    compiled = mdlc.compile(DIGITS, "generic", recipe=path)
    assert compiled.how == Preprocess("gray8", (128.0,), (64.0,))
    assert compiled.info.command.endswith("--recipe digits.toml")
    assert b"8-bit grey pixels" in compiled.files()["DigitsMobilenet.h"]


def test_options_go_before_the_file_and_the_file_before_the_model(tmp_path: Path) -> None:
    path = tmp_path / "digits.toml"
    path.write_text("[input]\nmean = 100\n")
    model = with_metadata(TEXT)
    assert mdlc.compile(model, "generic").how == Preprocess("gray8", (128.0,), (64.0,))
    both = mdlc.compile(model, "generic", recipe=path, std=32)
    assert both.how == Preprocess("gray8", (100.0,), (32.0,))


def test_every_option_of_a_section_may_stand_in_it() -> None:
    for section, group in SECTIONS.items():
        for field, entry in options_of(CompileOptions):
            assert entry.group is not group or field.default in (None, False), field.name
        with pytest.raises(mdlc.MdlcError, match=r"'recipe'|no kind is given"):
            parse_recipe(f'[{section}]\nrecipe = "x"', "text")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[input", "r.toml: is not TOML: expected ']'"),
        ("[inputs]", "there is no section [inputs]; did you mean input"),
        ("input = 3", "input is not a section; write [input] on its own line"),
        ("[input]\nmeen = 3", "[input] has no key 'meen'; did you mean mean, or one of"),
        ('[input]\nmean = "x"', "r.toml: [input] mean: 'x' is not a list of numbers"),
        ("[input]\nmean = {a = 1}", "r.toml: [input] mean: "),
        ("[input]\nstd = true", "[input] std: True is not a value of it"),
        ('[input]\ninput-format = "rgb9"', "[input] input-format: there is no input format 'rgb9'"),
        ("[input]\ninput-format = 3", "[input] input-format: there is no input format 3"),
        ('[input]\nshape = "x"', "[input] shape: "),
        ("[input]\nshape = 5", "[input] shape: 5 is not a value of it"),
        ("[input]\nthreads = 2", "[input] has no key 'threads'"),
    ],
)
def test_bad_recipes(text: str, told: str) -> None:
    with pytest.raises(mdlc.MdlcError) as caught:
        parse_recipe(text, "r.toml")
    assert told in str(caught.value)


def test_bad_files(tmp_path: Path) -> None:
    with pytest.raises(mdlc.MdlcError, match="there is no such file"):
        read_recipe(tmp_path / "absent.toml")
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(mdlc.MdlcError, match="not a readable text file"):
        read_recipe(tmp_path / "bytes.toml")


def test_the_models_own_recipe_is_named_in_errors() -> None:
    with pytest.raises(mdlc.MdlcError, match=r"metadata mdlc\.recipe: there is no"):
        mdlc.compile(with_metadata("[out]"), "generic")
