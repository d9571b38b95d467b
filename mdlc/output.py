"""Writing files so that all of them appear, or none."""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from mdlc.compiler.errors import MdlcError


def write_files(directory: Path, files: Mapping[str, bytes]) -> list[Path]:
    """Writes files into a folder, which is made where it is missing, as are those inside it.

    All contents are written beside their destinations first and only then renamed, so that an
    error (a full disk, say) leaves nothing new behind and no file is ever seen half-written.

    Returns:
        the paths, in the order given.

    Raises:
        MdlcError: the folder cannot be written to.
    """
    pending: list[tuple[str, Path]] = []
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            path = directory / name
            if path.is_dir():
                raise IsADirectoryError(None, f"{name} is a folder")
            path.parent.mkdir(parents=True, exist_ok=True)
            pending.append((_temporary(path.parent, path.name, content), path))
        while pending:
            temporary, path = pending[0]
            os.replace(temporary, path)
            pending.pop(0)
    except OSError as error:
        raise MdlcError(
            f"cannot write: {error.strerror}", node=str(directory), hint="choose another folder"
        ) from error
    finally:
        for temporary, _ in pending:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
    return [directory / name for name in files]


def write_file(path: Path, content: bytes) -> None:
    """Writes one file, whole or not at all; see write_files."""
    write_files(path.parent, {path.name: content})


def _temporary(directory: Path, name: str, content: bytes) -> str:
    """A new file with the contents; the caller renames or removes it."""
    handle, temporary = tempfile.mkstemp(dir=directory, prefix=f".{name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.chmod(temporary, 0o666 & ~_umask())
    except BaseException:
        os.unlink(temporary)
        raise
    return temporary


def _umask() -> int:
    """The process's umask, from the file system of processes where there is one.

    os.umask can only be read by setting it, which is not safe with threads.
    """
    with contextlib.suppress(OSError):
        found = re.search(r"^Umask:\s*(\d+)", Path("/proc/self/status").read_text(), re.MULTILINE)
        if found:
            return int(found[1], 8)
    return 0o022


def depfile(outputs: Sequence[Path], inputs: Sequence[Path]) -> bytes:
    """A dependency file as Make and Ninja read it: every output depends on every input."""
    targets = " ".join(_escaped(path) for path in outputs)
    sources = " ".join(_escaped(path) for path in inputs)
    return f"{targets}: {sources}\n".encode()


def _escaped(path: Path) -> str:
    text = path.as_posix().replace("$", "$$").replace("#", "\\#")
    return text.replace(" ", "\\ ")
