"""A report as one page: text, tables and charts in a file that loads nothing."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import importlib.util
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import platformdirs

from mdlc.codegen.templates import render
from mdlc.compiler.errors import MdlcError
from mdlc.compiler.words import byte_count
from mdlc.output import write_file

INSTALL = "pip install 'mdlc[report]'"
_PARTS = ("vl_convert", "grandalf")
# What the page calls to draw a chart.
_SNIPPET = "window.mdlcEmbed = vegaEmbed;"


@dataclass(frozen=True)
class Table:
    """A table of a page: heads and rows of texts, folded away until it is asked for.

    Attributes:
        title: of what unfolds it; numbers: columns that stand at the right.
        opened: whether it is unfolded at first.
    """

    title: str
    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    numbers: frozenset[int] = frozenset()
    opened: bool = False


@dataclass(frozen=True)
class Chart:
    """A chart of a page: what is said above it, and its Vega-Lite specification."""

    title: str
    spec: Mapping[str, Any]


@dataclass(frozen=True)
class Figure:
    """A picture that can be zoomed: a title and SVG."""

    title: str
    svg: str


@dataclass(frozen=True)
class Section:
    """A part of a page: paragraphs, then charts, pictures and tables in order."""

    title: str
    paragraphs: Sequence[str] = ()
    parts: Sequence[Table | Chart | Figure | Details] = ()


@dataclass(frozen=True)
class Details:
    """Entries to unfold: a summary each, with lines and a table under it."""

    title: str
    entries: Sequence[tuple[str, Sequence[str], Table | None]]


@dataclass(frozen=True)
class Page:
    """A page.

    Attributes:
        title, subtitle: above all sections.
        facts: figures at the top, by name.
    """

    title: str
    subtitle: str
    facts: Mapping[str, str]
    sections: Sequence[Section]
    drawn: bool = field(default=True)

    def html(self) -> bytes:
        """The file; charts need the extra `report`, without which the page says so."""
        script = bundle() if self.drawn and can_draw() else ""
        return render(
            "html/report.html.j2",
            page=self,
            script=script.replace("</script", "<\\/script"),
            kind=lambda part: type(part).__name__,
            json=_json,
            install=INSTALL,
        ).encode()


def can_draw() -> bool:
    """Whether charts and laid out graphs can be made."""
    return all(importlib.util.find_spec(name) is not None for name in _PARTS)


def check_can_draw(asked_by: str) -> None:
    """Before the work of a report that is nothing without its charts.

    Raises:
        MdlcError: what draws them is not installed.
    """
    if not can_draw():
        raise MdlcError("charts need the extra `report`", node=asked_by, hint=INSTALL)


def bundle() -> str:
    """Vega, Vega-Lite and Vega-Embed as one script, made once and kept in the user's cache."""
    import vl_convert

    version = importlib.metadata.version("vl-convert-python")
    digest = hashlib.sha256(f"{version} {_SNIPPET}".encode()).hexdigest()[:16]
    kept = Path(platformdirs.user_cache_dir("mdlc")) / f"vega-{digest}.js"
    try:
        return kept.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        text = str(vl_convert.javascript_bundle(_SNIPPET))
    with contextlib.suppress(MdlcError):  # a cache that cannot be written to is none
        write_file(kept, text.encode())
    return text


def _json(value: object) -> str:
    """JSON that may stand in a script of a page."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).replace("<", "\\u003c")


def mib(nbytes: float) -> str:
    """Bytes for people."""
    return byte_count(round(nbytes)) if nbytes >= 0 else f"-{byte_count(round(-nbytes))}"
