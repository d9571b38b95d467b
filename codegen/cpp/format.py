"""Emitted C++ through clang-format, so that it is clean by construction and its diffs are small."""

from __future__ import annotations

import subprocess
from pathlib import Path

import clang_format

from mdlc.compiler.errors import MdlcError

COLUMNS = 100
_STYLE = (
    "{{BasedOnStyle: Google, ColumnLimit: {columns}, DerivePointerAlignment: false, "
    "PointerAlignment: Left, AllowShortFunctionsOnASingleLine: Empty, SortIncludes: false, "
    "ReflowComments: {reflow}}}"
)


def format_cpp(text: str, *, columns: int = COLUMNS, reflow: bool = True) -> str:
    """The text in the style of emitted code.

    Args:
        reflow: break long comments; a header's are not touched, for they hold code to copy.

    Raises:
        MdlcError: clang-format, a dependency of mdlc, does not run.
    """
    style = _STYLE.format(columns=columns, reflow=str(reflow).lower())
    binary = Path(clang_format.__file__).parent / "data" / "bin" / "clang-format"
    try:
        done = subprocess.run(
            [str(binary), f"--style={style}", "--assume-filename=emitted.cpp"],
            input=text,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError) as error:
        raise MdlcError(
            f"clang-format failed ({error})", hint="reinstall the clang-format package"
        ) from error
    return done.stdout
