"""The one Jinja2 environment from which everything emitted is rendered."""

from __future__ import annotations

from functools import cache

import jinja2

from mdlc.codegen.code import advanced
from mdlc.compiler.words import counted


def _prefix(text: str, before: str) -> str:
    """Filter: `before` in front of the text."""
    return before + text


def _numbered(stem: str, count: int) -> list[str]:
    """Filter: a stem with the numbers from 0 on."""
    return [f"{stem}{number}" for number in range(count)]


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("mdlc.runtime_templates", ""),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )
    environment.globals.update(advanced=advanced, counted=counted)
    environment.filters["prefix"] = _prefix
    environment.filters["numbered"] = _numbered
    return environment


def render(template: str, /, **context: object) -> str:
    """The text of a template, such as cpp/kernels/gemm_tile.j2.

    Raises:
        jinja2.TemplateError: the template is missing or uses a name that is not given.
    """
    return _environment().get_template(template).render(**context)
