"""Writing a package: whole, with a manifest, and over nothing that mdlc did not write."""

from __future__ import annotations

import contextlib
import hashlib
import json
from pathlib import Path

from mdlc.api import CompiledModel
from mdlc.compiler.errors import MdlcError
from mdlc.output import write_files
from mdlc.package.kind import find_kind
from mdlc.version import __version__

MANIFEST = "mdlc-package.json"


def package_files(kind: str, compiled: CompiledModel) -> dict[str, bytes]:
    """All files of a package by path, its manifest last.

    Raises:
        MdlcError: there is no such kind, or the class has several sizes.
    """
    if compiled.others:
        raise MdlcError(
            "a package's class has one size of its inputs",
            node="--shape",
            hint="give every input one shape, or use the emitted class itself (mdlc compile)",
        )
    files = dict(sorted(find_kind(kind).files(kind, compiled).items()))
    content = {
        "format": 1,
        "kind": kind,
        "class": compiled.name,
        "mdlc": __version__,
        "command": compiled.info.command,
        "model": {"file": compiled.info.model, "sha256": compiled.info.sha256},
        "files": {
            path: {"bytes": len(data), "sha256": _digest(data)} for path, data in files.items()
        },
    }
    return files | {MANIFEST: (json.dumps(content, indent=2) + "\n").encode()}


def write_package(kind: str, compiled: CompiledModel, folder: Path) -> list[Path]:
    """Writes a package; what an earlier one in the folder had besides is removed.

    Returns:
        the paths of its files.

    Raises:
        MdlcError: a file is in the way that mdlc did not write, or that was changed since.
    """
    files = package_files(kind, compiled)
    earlier = _earlier(folder)
    for path, data in files.items():
        found = _read(folder / path)
        if found is None or found == data or path == MANIFEST:
            continue
        if earlier.get(path) != _digest(found):
            raise MdlcError(
                f"{path} was changed since mdlc wrote it"
                if path in earlier
                else f"{path} was not written by mdlc package",
                node=str(folder),
                hint="move it away, or choose another folder",
            )
    paths = write_files(folder, files)
    for path, digest in earlier.items():
        found = None if path in files else _read(folder / path)
        if found is not None and _digest(found) == digest:
            with contextlib.suppress(OSError):
                (folder / path).unlink()
    return paths


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None


def _earlier(folder: Path) -> dict[str, str]:
    """Digests of what the folder's manifest lists, by path inside the folder.

    Raises:
        MdlcError: a file of its name is none.
    """
    found = _read(folder / MANIFEST)
    if found is None:
        return {}
    try:
        listed = {p: str(e["sha256"]) for p, e in json.loads(found)["files"].items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        raise MdlcError(
            f"{MANIFEST} is not a manifest of mdlc",
            node=str(folder),
            hint="move it away, or choose another folder",
        ) from None
    inside = folder.resolve()
    return {p: d for p, d in listed.items() if (inside / p).resolve().is_relative_to(inside)}
