"""Settings of Hypothesis, and which tests may skip in continuous integration."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# That a machine is busy makes no test fail.
settings.register_profile("mdlc", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("mdlc")

# A file of regular expressions; set by .ci/run, where everything that tests need is installed.
ALLOWED_SKIPS = os.environ.get("MDLC_ALLOWED_SKIPS")

_unexpected: list[str] = []


def _allowed() -> list[re.Pattern[str]]:
    lines = Path(ALLOWED_SKIPS or os.devnull).read_text().splitlines()
    return [re.compile(line) for line in lines if line and not line.startswith("#")]


def _remember(report: pytest.TestReport | pytest.CollectReport) -> None:
    if ALLOWED_SKIPS and report.skipped and isinstance(report.longrepr, tuple):
        reason = report.longrepr[2].removeprefix("Skipped: ")
        text = f"{report.nodeid.split('::')[0]}: {reason}"
        if not any(pattern.fullmatch(text) for pattern in _allowed()):
            _unexpected.append(f"{report.nodeid}: {reason}")


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Remembers a test that was skipped."""
    _remember(report)


def pytest_collectreport(report: pytest.CollectReport) -> None:
    """Remembers a file that was skipped as a whole."""
    _remember(report)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fails the run where a test was skipped that should have run."""
    if _unexpected and not hasattr(session.config, "workerinput"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Lists those tests."""
    if _unexpected:
        terminalreporter.section("skipped, but not in the list of allowed skips")
        for line in _unexpected:
            terminalreporter.line(line)
