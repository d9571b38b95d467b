"""Builds the wheel of a release, the same bytes each time, with a bill of materials inside.

    SOURCE_DATE_EPOCH=$(git log -1 --format=%ct) python .ci/wheel.py DIST

setuptools builds it; then the bill goes into its .dist-info/sboms/ (PEP 770), and the archive is
written anew with its entries in order, all of the one time.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
import os
import subprocess
import sys
import tempfile
import time
import tomllib
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def bill(version: str, requirements: list[str]) -> bytes:
    """CycloneDX 1.6: the package, and what it asks for. Nothing else is in the wheel."""
    parts = [
        {"type": "library", "bom-ref": f"asked:{each}", "name": each.split("=")[0].rstrip("><~"),
         "scope": "required", "properties": [{"name": "mdlc:asked-for", "value": each}]}
        for each in sorted(requirements)
    ]  # fmt: skip
    document = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "component": {"type": "library", "bom-ref": "mdlc", "name": "mdlc", "version": version,
                          "licenses": [{"license": {"id": "Apache-2.0"}}],
                          "purl": f"pkg:pypi/mdlc@{version}"},
        },
        "components": parts,
        "dependencies": [{"ref": "mdlc", "dependsOn": [part["bom-ref"] for part in parts]}],
    }  # fmt: skip
    return (json.dumps(document, indent=1) + "\n").encode()


def rewritten(wheel: bytes, sbom: bytes, epoch: int) -> bytes:
    """The wheel with the bill in it."""
    with zipfile.ZipFile(io.BytesIO(wheel)) as archive:
        files = {name: archive.read(name) for name in archive.namelist() if name[-1] != "/"}
    (record,) = (name for name in files if name.endswith(".dist-info/RECORD"))
    folder = record.rpartition("/")[0]
    files[f"{folder}/sboms/mdlc.cdx.json"] = sbom
    rows = io.StringIO()
    writer = csv.writer(rows, lineterminator="\n")
    for name in sorted(files):
        if name != record:
            digest = base64.urlsafe_b64encode(hashlib.sha256(files[name]).digest()).rstrip(b"=")
            writer.writerow([name, f"sha256={digest.decode()}", len(files[name])])
    writer.writerow([record, "", ""])
    files[record] = rows.getvalue().encode()
    made = io.BytesIO()
    stamp = time.gmtime(max(epoch, 315532800))[:6]  # archives begin in 1980
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(files, key=lambda each: (each.startswith(folder), each)):
            entry = zipfile.ZipInfo(name, stamp)
            entry.external_attr = 0o644 << 16
            entry.create_system = 3
            archive.writestr(entry, files[name], zipfile.ZIP_DEFLATED)
    return made.getvalue()


def main() -> None:
    """Builds into the folder named."""
    target = Path(sys.argv[1])
    epoch = int(os.environ.get("SOURCE_DATE_EPOCH", "315532800"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch) / "source"
        listed = subprocess.run(
            ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True
        )
        for name in filter(None, listed.stdout.decode().split("\0")):
            if (ROOT / name).is_file() and not name.startswith(("tests/", "benchmarks/")):
                (copy / name).parent.mkdir(parents=True, exist_ok=True)
                (copy / name).write_bytes((ROOT / name).read_bytes())
        command = (
            "import sys; from setuptools import build_meta; "
            "print(build_meta.build_wheel(sys.argv[1]), file=sys.stderr)"
        )
        done = subprocess.run(
            [sys.executable, "-c", command, scratch], cwd=copy, capture_output=True, text=True,
            check=False,
        )  # fmt: skip
        if done.returncode:
            sys.exit(done.stderr)
        (built,) = Path(scratch).glob("*.whl")
        sbom = bill(project["version"], project["dependencies"])
        target.mkdir(parents=True, exist_ok=True)
        (target / built.name).write_bytes(rewritten(built.read_bytes(), sbom, epoch))
        print(target / built.name)


if __name__ == "__main__":
    main()
