"""What the benchmarks' command lines share: one sentence for what goes wrong, and exit code 2."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from benchmarks.networks import NETWORKS
from mdlc.compiler.errors import MdlcError


class Missing(click.ClickException):
    """Something is not installed; the message says what and how to get it."""

    exit_code = 2


class Plain(click.Command):
    """A command whose errors of the compiler are sentences."""

    def invoke(self, context: click.Context) -> Any:
        """Runs it."""
        try:
            return super().invoke(context)
        except MdlcError as error:
            failure = click.ClickException(str(error))
            failure.exit_code = 2
            raise failure from None


def model_of(name: str) -> Any:
    """A network of benchmarks/networks.py by name, or a path to an ONNX file."""
    if name in NETWORKS:
        return NETWORKS[name]()
    if not Path(name).exists():
        raise click.BadParameter(f"{name} is neither a file nor one of {', '.join(NETWORKS)}")
    return name
