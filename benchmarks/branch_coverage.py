"""Which branches of the emitted loader and decoder the tests take, by gcov.

    python -m benchmarks.branch_coverage
    python -m benchmarks.branch_coverage --encoding raw

Runs the programs of the tests (calls that fail, weights in every form) and the fuzzer's corpus on
one build of a class, and prints, for each function of NAME.cpp, branches taken and the lines of
those that are not.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
import zlib
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from tests.emitted_code import DRIVERS, block_model, compile_to
from tests.fuzz.run import corpus
from tests.test_init_failures import WRAPPED


def edited(right: bytes) -> Iterator[bytes]:
    """The files that the corpus of the loader's fuzzer stands for; see tests/fuzz/loader.cpp."""
    for path in sorted(corpus("loader").iterdir()):
        data = path.read_bytes()
        if not data:
            continue
        mode, file = data[0], bytearray(data[1:])
        if mode & 2:
            file = bytearray(right)
            for i in range(1, len(data) - 2, 3):
                file[(data[i] << 8 | data[i + 1]) % len(file)] = data[i + 2]
            if mode & 4:
                file[56:60] = zlib.crc32(file[64:]).to_bytes(4, "little")
                file[60:64] = zlib.crc32(file[:60]).to_bytes(4, "little")
            if mode & 8:
                del file[len(data) * 97 % (len(file) + 1) :]
        yield bytes(file)


def measured(folder: Path, encoding: str) -> dict[str, list[tuple[int, bool]]]:
    """Branches of each function of Block.cpp: line, and whether it was taken."""
    compile_to(folder, block_model(), "generic", weights_encoding=encoding, threads=3)
    in_place = 4 if encoding == "raw" else 0
    flags = ["-std=c++17", "-O0", "-fno-exceptions", "-pthread", f"-I{folder}",
             f"-DIN_PLACE={in_place}"]  # fmt: skip

    def compiler(*words: str) -> None:
        subprocess.run(["g++", *flags, *words], cwd=folder, check=True)

    compiler("--coverage", "-c", "Block.cpp", "-o", "Block.o")
    compiler("-c", "Block_generic.cpp", "-o", "kernels.o")
    wraps = [f"-Wl,--wrap={name}" for name in WRAPPED]
    for name, more in (("failures", wraps), ("loading", []), ("init_files", [])):
        objects = [str(DRIVERS / f"{name}.cpp"), "Block.o", "kernels.o"]
        compiler(*objects, "--coverage", "-o", name, *more)
    weights = folder / "Block.weights"
    subprocess.run([folder / "failures", weights], check=True, capture_output=True)
    subprocess.run([folder / "loading", weights, folder], check=False, capture_output=True)
    right = weights.read_bytes()
    paths = []
    for number, content in enumerate([right, right + b"x", b"", *edited(right)]):
        paths.append(folder / f"{number}.bin")
        paths[-1].write_bytes(content)
    listed = "".join(f"{path}\n" for path in (*paths, folder, folder / "missing"))
    subprocess.run([folder / "init_files"], input=listed.encode(), check=True, capture_output=True)
    done = subprocess.run(
        ["gcov", "--json-format", "--stdout", "-b", "Block.o"], cwd=folder, capture_output=True,
        check=True,
    )  # fmt: skip
    found: dict[str, list[tuple[int, bool]]] = defaultdict(list)
    for document in map(json.loads, done.stdout.splitlines()):
        for file in document["files"]:
            if not file["file"].endswith("Block.cpp"):
                continue
            names = {each["name"]: each["demangled_name"] for each in file["functions"]}
            for line in file["lines"]:
                for branch in line["branches"]:
                    if not branch["throw"]:
                        name = _plain(names.get(line.get("function_name", ""), "?"))
                        found[name].append((line["line_number"], branch["count"] > 0))
    return found


def _plain(name: str) -> str:
    """A function's name without parameters and unnamed namespaces."""
    return name.replace("(anonymous namespace)::", "").partition("(")[0].split(" ")[-1]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--encoding", default="clustered:4+huffman")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        found = measured(Path(scratch), given.encoding)
        source = (Path(scratch) / "Block.cpp").read_text().splitlines()
    taken = total = 0
    for name, branches in sorted(found.items()):
        hit = sum(each for _, each in branches)
        taken, total = taken + hit, total + len(branches)
        print(f"{name}: {hit} of {len(branches)}")
        for line in sorted({line for line, each in branches if not each}):
            print(f"    {line}: {source[line - 1].strip()}")
    print(f"{taken} of {total} branches taken, {given.encoding}")


if __name__ == "__main__":
    main()
