"""The documentation: built without a broken link, and in step with the code."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from mdlc.cli import cli
from mdlc.codegen.target import SETS, targets
from mdlc.option import options_of
from mdlc.options import CompileOptions

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"


def read(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


def test_the_site_is_built_without_a_broken_link(tmp_path: Path) -> None:
    pytest.importorskip("material", reason="the docs extra is not installed")
    pytest.importorskip("mkdocstrings", reason="the docs extra is not installed")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "-q", "-d", str(tmp_path)],
        cwd=ROOT,
        env={"PATH": "", "NO_MKDOCS_2_WARNING": "1", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    options = (tmp_path / "reference" / "options" / "index.html").read_text()
    assert all(f'id="{name}"' in options for name in cli.commands)
    operators = (tmp_path / "reference" / "operators" / "index.html").read_text()
    row = re.search(r"<tr>\s*<td>Conv2D</td>.*?</tr>", operators, re.DOTALL)
    assert row is not None
    assert row[0].count("<td>yes</td>") == len(targets())
    python = (tmp_path / "reference" / "python" / "index.html").read_text()
    assert 'id="mdlc.api.compile"' in python
    assert 'id="mdlc.codegen.run.executable.Executable"' in python


def test_the_command_line_has_every_command_and_target() -> None:
    text = read("cli.md")
    assert [name for name in cli.commands if f"`mdlc {name}" not in text] == []
    assert [name for name in targets() if f"`{name}`" not in text] == []
    told = read("targets.md")
    assert [name for name in SETS if f"`{name}`" not in told] == []


def test_every_command_that_is_shown_has_its_options() -> None:
    seen = 0
    for page in (*sorted(DOCS.glob("*.md")), ROOT / "README.md"):
        for line in page.read_text(encoding="utf-8").splitlines():
            shown = re.match(r"(?:    |`)(?:\.venv/bin/)?mdlc ([^`]+)", line)
            if shown is None:
                continue
            words = shlex.split(shown[1].split("  #")[0].split(" | ")[0].replace("\\", ""))
            name = words[0] if words[0] in cli.commands else "compile"
            parameters = (*cli.commands[name].params, *cli.params)
            known = {option for each in parameters for option in each.opts} | {"-h", "--help"}
            given = [w.split("=")[0] for w in words if re.match(r"--?[a-z]", w)]
            assert [word for word in given if word not in known] == [], f"{page.name}: {line}"
            seen += 1
    assert seen > 40


def test_the_library_has_every_argument() -> None:
    text = read("library.md")
    known = [field.name for field, _ in options_of(CompileOptions)]
    assert [name for name in known if f"`{name}`" not in text and f"`{name}=" not in text] == []


def test_the_plot_shows_what_was_measured() -> None:
    sys.path.insert(0, str(DOCS))
    try:
        import plots  # type: ignore[import-not-found]
    finally:
        sys.path.remove(str(DOCS))
    rows = plots.rows()
    assert len(rows) == 6 * len(plots.ENGINES)
    drawn = read("speed.svg")
    for row in rows:
        assert f"| {row['network']} |" in read("benchmarks.md")
        assert row["network"] in drawn
    shown = sorted(float(ms) for ms in re.findall(r'aria-label="([\d.]+)"', drawn))
    assert shown == sorted(row["ms"] for row in rows)
