"""The release workflow: everything pinned by digest, and no right where it is not needed."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WORKFLOW = (ROOT / ".github" / "workflows" / "release.yml").read_text()


def test_actions_are_pinned_by_digest() -> None:
    used = re.findall(r"uses: (\S+)(.*)", WORKFLOW)
    assert len(used) > 4
    for action, comment in used:
        assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", action), action
        assert re.fullmatch(r" # v\d+\.\d+\.\d+", comment), action


def test_tools_are_pinned_by_digest() -> None:
    lines = (ROOT / ".ci" / "release-requirements.txt").read_text().replace("\\\n", " ")
    for line in filter(None, (each.partition("#")[0].strip() for each in lines.splitlines())):
        assert re.fullmatch(r"[\w.-]+==[\w.]+\s+--hash=sha256:[0-9a-f]{64}", line), line
    assert "--require-hashes" in WORKFLOW


def test_only_the_job_that_publishes_has_an_identity() -> None:
    assert "\npermissions: {}\n" in WORKFLOW
    jobs = re.split(r"\n  (?=\w+:\n    )", WORKFLOW.split("\njobs:\n")[1])
    able = [job for job in jobs if "id-token: write" in job]
    assert [job.strip().split(":")[0] for job in able] == ["publish"]
    assert "checkout" not in able[0]
    assert "run:" not in able[0]


def test_documents_that_others_look_for() -> None:
    contributing = (ROOT / "CONTRIBUTING.md").read_text()
    for title in ("### An operator", "### A kernel", "### An instruction set", "### An option"):
        assert title in contributing
    for path in (ROOT / "SECURITY.md", ROOT / "CONTRIBUTING.md", ROOT / "docs" / "evidence.md"):
        for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", path.read_text()):
            assert (path.parent / link).exists(), (path.name, link)
