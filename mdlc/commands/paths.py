"""Paths that a command writes to, checked before its work begins."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from mdlc.compiler.errors import MdlcError


class Written(click.Path):
    """A file or folder that the command will write; what stands in its way is told at once.

    Args:
        folder: whether it is a folder, which is made where it is missing; None for either.
    """

    def __init__(self, *, folder: bool | None = False) -> None:
        super().__init__(path_type=Path, dir_okay=folder is not False, file_okay=folder is not True)
        self.folder = folder

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """The path.

        Raises:
            MdlcError: it cannot be written.
        """
        path: Path = super().convert(value, param, ctx)  # type: ignore[assignment]
        check_writable(path, is_folder=self.folder is True)
        return path


def check_writable(path: Path, *, is_folder: bool) -> None:
    """Whether a file, or files in a folder, can be written there, as far as one can tell.

    Raises:
        MdlcError: they cannot.
    """
    there = path if path.exists() else next((p for p in path.parents if p.exists()), Path("/"))
    what, hint = ("a folder", "a folder") if is_folder else ("a file", "a path")
    if there != path and not there.is_dir():
        raise MdlcError(
            f"cannot be written: {there} is not a folder", node=str(path), hint=f"give {hint}"
        )
    allowed = os.W_OK | os.X_OK if there.is_dir() else os.W_OK
    if not os.access(there, allowed):
        raise MdlcError(
            f"cannot be written: there is no permission to write to {there}",
            node=str(path),
            hint=f"choose {what} elsewhere",
        )
