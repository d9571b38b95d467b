"""The Swift package. No machine of the tests has swiftc: clang reads what Swift imports, and the
manifest is held against the files that it names."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from mdlc.compiler.errors import MdlcError
from mdlc.package.write import write_package
from tests.emitted_code import NO_RUNTIME, require
from tests.test_packages import detector


@pytest.mark.parametrize("kind", ["boxes", "mask", ""])
def test_clang_imports_the_module_and_builds_its_sources(kind: str, tmp_path: Path) -> None:
    options = {"kind": kind} if kind else {"answer": None}
    write_package("swift", detector(**options), tmp_path)
    core = tmp_path / "Sources/CNet"
    (tmp_path / "use.m").write_text(
        "@import CNet;\nint main(void) {\n  NetFrame frame = {0};\n  NetMat mat = {0};\n"
        "  (void)frame, (void)mat;\n  return Net_create() == 0 ? NetOutOfMemory : NetOk;\n}\n"
    )
    words = [require("clang"), "-fmodules", f"-fmodules-cache-path={tmp_path / 'cache'}"]
    words += ["-fsyntax-only", "-Wall", "-Werror", f"-I{core / 'include'}", "use.m"]
    subprocess.run(words, cwd=tmp_path, check=True)
    # As the manifest has them: the folder and its public headers are searched.
    words = [require("clang++"), "-std=c++17", *NO_RUNTIME, "-fsyntax-only", f"-I{core}"]
    subprocess.run([*words, f"-I{core / 'include'}", core / "Net_c.cpp"], check=True)

    manifest = (tmp_path / "Package.swift").read_text()
    assert manifest.count("(") == manifest.count(")")
    for path in re.findall(r'path: "([^"]+)"', manifest):
        assert (tmp_path / path).is_dir()
    (resource,) = re.findall(r'\.copy\("([^"]+)"\)', manifest)
    assert (tmp_path / "Sources/Net" / resource).is_file()
    (left_out,) = re.findall(r'exclude: \["([^"]+)"\]', manifest)
    assert (core / left_out).is_file()
    left = {path.suffix for path in core.iterdir() if path.is_file()} - {".cpp", ".h"}
    assert left == {Path(left_out).suffix}

    # Every function and constant of C that the Swift calls is declared.
    swift = (tmp_path / "Sources/Net/Net.swift").read_text()
    for left_, right in ("()", "{}", "[]"):
        assert swift.count(left_) == swift.count(right)
    header = (core / "include/Net_c.h").read_text()
    used = set(re.findall(r"\bNet_?[A-Za-z]\w*", swift))
    assert {"Net_create", "Net_infer" if not kind else "Net_answer"} <= used
    assert not [name for name in used if not re.search(rf"\b{name}\b", header)]


def test_weights_are_a_resource(tmp_path: Path) -> None:
    with pytest.raises(MdlcError, match="has its weights as a resource"):
        write_package("swift", detector(embed_weights=True), tmp_path)
