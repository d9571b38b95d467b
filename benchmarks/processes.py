"""Processes that are told to run a network and answer, one line each."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

import click


class Worker:
    """A process of benchmarks/peer_worker.py or peer_runner.cpp; stopped unless it is asked.

    A runtime's threads may spin for a while after an inference: a stopped process cannot disturb
    the next one's.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        errors: Path,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Starts it and waits until its network is loaded and has run once."""
        self.name, self._errors = name, errors
        with errors.open("w") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True,
                env=environment,
            )  # fmt: skip
        if self._answer() != "ready":
            raise click.ClickException(f"{name} did not start")
        self._signal(signal.SIGSTOP)

    def ask(self, command: str) -> str:
        """The answer to a command."""
        assert self._process.stdin is not None
        self._signal(signal.SIGCONT)
        self._process.stdin.write(command + "\n")
        self._process.stdin.flush()
        answer = self._answer()
        self._signal(signal.SIGSTOP)
        return answer

    def _answer(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            reason = " ".join(self._errors.read_text(errors="replace")[-400:].split())
            raise click.ClickException(f"{self.name} ended: {reason or 'no message'}")
        return line.strip()

    def _signal(self, number: int) -> None:
        os.kill(self._process.pid, number)

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.communicate()
