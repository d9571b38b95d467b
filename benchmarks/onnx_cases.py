"""The official cases of the onnx package on emitted code: right, refused, wrong, crashed.

python -m benchmarks.onnx_cases [--target generic] [--filter TEXT] [--sample N] [--results FILE]

Models are compiled as they are: what the package's runner hands over at run time is handed over
at run time, and open dimensions are fixed by the data. Where mdlc says that it must know the value
of an input, such as the sizes of a Resize, that one is given with `fix`; the table counts these.
Of outputs whose length depends on data, as many entries are compared as the class counts. Many
networks make one program, and every batch has a process of its own, so that a crash costs one case.
"""

from __future__ import annotations

import json
import multiprocessing
import re
import signal
import tempfile
import time
import traceback
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import click
import numpy as np
from rich.console import Console
from rich.table import Table

import mdlc
from benchmarks.cli import Plain
from benchmarks.onnx_case_program import Member, build
from benchmarks.onnx_official import KINDS, Case, difference, official_cases
from mdlc.api import CompiledModel
from mdlc.codegen.run.toolchain import find_toolchain
from mdlc.compiler.errors import MdlcError

RIGHT, REFUSED, WRONG, CRASHED = "right", "refused", "wrong", "crashed"
OUTCOMES = (RIGHT, REFUSED, WRONG, CRASHED)
# Seconds: to compile one case, and for a batch of them with the C++ compiler.
CASE_LIMIT, BATCH_LIMIT = 60, 900
# Elements of an input that is a parameter and not data.
MOST_FIXED = 32
BATCH = 24


@dataclass(frozen=True)
class Outcome:
    """What became of a case."""

    name: str
    kind: str
    outside: str
    outcome: str
    reason: str = ""
    fixed: Sequence[str] = ()


def compile_case(case: Case, target: str, class_name: str) -> CompiledModel:
    """The case's network, its open dimensions fixed by the first data set, and parameters that
    must be known, too.

    Raises:
        MdlcError: the network is refused.
    """
    given, _ = case.frames[0]
    for name, value in given.items():
        if not isinstance(value, np.ndarray):
            raise MdlcError("is not a tensor", node=f"input {name!r}")
    shapes = {name: value.shape for name, value in given.items()}
    fixed: dict[str, list[float]] = {}
    while True:
        try:
            return mdlc.compile(case.model, target, shapes=shapes, name=class_name, fix=fixed)
        except MdlcError as error:
            asked = {n: given[n] for n in error.inputs if n not in fixed and n in given}
            small = all(v.ndim <= 1 and v.size <= MOST_FIXED for v in asked.values())
            same = all(np.array_equal(f[n], v) for f, _ in case.frames for n, v in asked.items())
            if not asked or not small or not same:
                raise
            fixed |= {name: value.reshape(-1).tolist() for name, value in asked.items()}


def run_batch(
    cases: Sequence[Case], target: str, folder: Path, *, compile_only: bool = False
) -> Iterable[Outcome]:
    """What becomes of cases; one program for all of them, one each where that does not compile."""
    compiled: list[tuple[Case, CompiledModel]] = []
    for number, case in enumerate(cases):
        try:
            with _limit(CASE_LIMIT):
                compiled.append((case, compile_case(case, target, f"Case{number}")))
        except MdlcError as error:
            yield _outcome(case, REFUSED, str(error))
        except Exception:
            yield _outcome(case, CRASHED, _last_lines(traceback.format_exc()))
    if compile_only:
        yield from (replace(_outcome(c, RIGHT, ""), fixed=sorted(m.fixed)) for c, m in compiled)
        return
    if not compiled:
        return
    for group in _programs(compiled, folder):
        if isinstance(group, Outcome):
            yield group
            continue
        for case, model, member in group:
            try:
                yield replace(_judge(case, model, member), fixed=sorted(model.fixed))
            except MdlcError as error:
                yield _outcome(case, CRASHED, str(error))
            except Exception:
                yield _outcome(case, CRASHED, _last_lines(traceback.format_exc()))


def _programs(
    compiled: Sequence[tuple[Case, CompiledModel]], folder: Path
) -> Iterable[list[tuple[Case, CompiledModel, Member]] | Outcome]:
    """The classes in one program; halves of them where the compiler rejects it."""
    plans = [model.plan for _, model in compiled]
    toolchain = find_toolchain(plans[0].isa)
    # Straight-line vector code wants registers; plain loops only want to be compiled fast.
    flags = ["-O0"] if plans[0].isa.f32.lanes == 1 else ["-O1"]
    folder.mkdir(parents=True, exist_ok=True)
    try:
        members = build(plans, Path(tempfile.mkdtemp(dir=folder)), toolchain, flags)
    except Exception as error:
        if len(compiled) == 1:
            text = str(error) if isinstance(error, MdlcError) else traceback.format_exc()
            yield _outcome(compiled[0][0], CRASHED, _last_lines(text))
            return
        half = len(compiled) // 2
        yield from _programs(compiled[:half], folder)
        yield from _programs(compiled[half:], folder)
        return
    yield [(*both, member) for both, member in zip(compiled, members, strict=True)]


def _judge(case: Case, model: CompiledModel, member: Member) -> Outcome:
    names = {port.name for port in member.plan.inputs}
    for given, wanted in case.frames:
        results = member({name: value for name, value in given.items() if name in names})
        actual = model.imported.cut(results)
        for name, expected in wanted.items():
            wrong = difference(case, name, actual[name], expected)
            if wrong:
                return _outcome(case, WRONG, wrong)
    return _outcome(case, RIGHT, "")


def _outcome(case: Case, outcome: str, reason: str) -> Outcome:
    return Outcome(case.name, case.kind, case.outside, outcome, reason)


def _last_lines(text: str) -> str:
    return " | ".join(line.strip() for line in text.strip().splitlines()[-5:])[:600]


class _limit:
    """Ends what takes longer than some seconds."""

    def __init__(self, seconds: int) -> None:
        self._seconds = seconds

    def __enter__(self) -> None:
        signal.signal(signal.SIGALRM, self._late)
        signal.alarm(self._seconds)

    def _late(self, *_: object) -> None:
        raise TimeoutError(f"takes more than {self._seconds} s")

    def __exit__(self, *_: object) -> None:
        signal.alarm(0)


def _work(cases: Sequence[Case], target: str, results: Path, compile_only: bool) -> None:
    """A batch in a process of its own; every outcome is a line of `results` at once."""
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder, results.open("a") as file:
        for outcome in run_batch(cases, target, Path(folder), compile_only=compile_only):
            file.write(json.dumps(asdict(outcome)) + "\n")
            file.flush()


def run_cases(
    cases: Sequence[Case],
    target: str,
    results: Path,
    *,
    jobs: int = 1,
    compile_only: bool = False,
    console: Console | None = None,
) -> list[Outcome]:
    """Outcomes of all cases; those that `results` has already are not run again.

    Args:
        results: a file of JSON lines, continued.
        jobs: processes at a time.
    """
    known = read_results(results)
    waiting = [case for case in cases if case.name not in known]
    batches = [waiting[at : at + BATCH] for at in range(0, len(waiting), BATCH)]
    context = multiprocessing.get_context("fork")
    while batches:
        processes = []
        for batch in batches[:jobs]:
            process = context.Process(target=_work, args=(batch, target, results, compile_only))
            process.start()
            processes.append((process, batch))
        del batches[:jobs]
        deadline = time.monotonic() + BATCH_LIMIT
        for process, batch in processes:
            process.join(max(0.0, deadline - time.monotonic()))
            ended = not process.is_alive()
            if not ended:
                process.kill()
                process.join()
            known = read_results(results)
            lost = [case for case in batch if case.name not in known]
            if len(lost) > 1:
                batches += [[case] for case in lost]
            elif lost:
                why = f"exit code {process.exitcode}" if ended else f"more than {BATCH_LIMIT} s"
                with results.open("a") as file:
                    file.write(json.dumps(asdict(_outcome(lost[0], CRASHED, why))) + "\n")
        if console is not None:
            console.print(f"{sum(len(b) for b in batches)} cases left", highlight=False)
    known = read_results(results)
    return [known[case.name] for case in cases if case.name in known]


def read_results(path: Path) -> dict[str, Outcome]:
    """Outcomes by the case's name."""
    if not path.exists():
        return {}
    found = (Outcome(**json.loads(line)) for line in path.read_text().splitlines())
    return {outcome.name: outcome for outcome in found}


def category(outcome: Outcome) -> str:
    """Where a case is counted: what no tensor compiler is asked for has rows of its own."""
    return f"outside: {outcome.outside}" if outcome.outside else outcome.kind


def kind_of_reason(reason: str) -> str:
    """A reason without the names and figures of one case."""
    missing = re.search(r"operators that mdlc does not have: (.*)", reason)
    if missing:
        names = sorted(set(re.findall(r"([\w.]+) \(\d+x", missing[1])))
        return f"no operator {', '.join(names)}"
    text = re.sub(r"^(node|input|output|tensor) '[^']*'", "", reason.split("\n")[0]).strip(" :")
    text = re.sub(r"\[[^\]]*\]", "[]", re.sub(r"'[^']*'", "''", text))
    return re.sub(r"-?\d+", "N", text)[:110]


def tables(outcomes: Sequence[Outcome]) -> list[Table]:
    """Outcomes by category, and the reasons of what is not right."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for outcome in outcomes:
        counts[category(outcome)][outcome.outcome] += 1
        counts["all" if outcome.outside else "all inside"][outcome.outcome] += 1
        if outcome.fixed and outcome.outcome == RIGHT:
            for row in (category(outcome), "all" if outcome.outside else "all inside"):
                counts[row]["fixed"] += 1
    inside = counts.pop("all inside", Counter())
    everything = inside + counts.pop("all", Counter())
    first = Table("cases", "number", *OUTCOMES, "right with fixed inputs")
    order = [*KINDS, *sorted(name for name in counts if name not in KINDS)]
    rows: list[tuple[str, Mapping[str, int]]] = [(n, counts[n]) for n in order if n in counts]
    rows += [("all but outside", inside), ("all", everything)]
    for name, row in rows:
        figures = [row.get(outcome, 0) for outcome in OUTCOMES]
        first.add_row(name, *map(str, (sum(figures), *figures, row.get("fixed", 0))))
    second = Table("outcome", "number", "reason", "first")
    reasons: dict[tuple[str, str], list[str]] = defaultdict(list)
    for outcome in outcomes:
        if outcome.outcome != RIGHT and not outcome.outside:
            reasons[outcome.outcome, kind_of_reason(outcome.reason)].append(outcome.name)
    for (result, reason), names in sorted(reasons.items(), key=lambda i: (i[0][0], -len(i[1]))):
        second.add_row(result, str(len(names)), reason, names[0])
    return [first, second]


@click.command(cls=Plain)
@click.option("--target", default="generic", show_default=True)
@click.option("--filter", "pattern", default="", help="Only cases whose name has this pattern.")
@click.option("--sample", default=1, show_default=True, help="Every N-th case only.")
@click.option("--results", type=Path, help="File of outcomes: continued where it exists.")
@click.option("--jobs", default=1, show_default=True, help="Processes at a time.")
@click.option("--compile-only", is_flag=True, help="Compile, but do not build and run.")
@click.option("--list", "listed", is_flag=True, help="Also every case that is not right.")
def main(
    target: str, pattern: str, sample: int, results: Path | None, jobs: int, **flags: Any
) -> None:
    """Prints how many of the official cases are right on emitted code, and why others are not."""
    console = Console(width=160)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = [c for c in official_cases() if re.search(pattern, c.name)][::sample]
    with tempfile.TemporaryDirectory() as scratch:
        file = results or Path(scratch) / "results.jsonl"
        outcomes = run_cases(
            found, target, file, jobs=jobs, compile_only=flags["compile_only"], console=console
        )
    for table in tables(outcomes):
        console.print(table)
    if flags["listed"]:
        for outcome in outcomes:
            if outcome.outcome != RIGHT:
                console.print(f"{outcome.name}: {outcome.outcome}: {outcome.reason}", markup=False)


if __name__ == "__main__":
    main()
