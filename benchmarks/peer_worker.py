"""One peer in a process of its own, for benchmarks/peers.py.

python -m benchmarks.peer_worker RUNTIME MODEL THREADS

Commands and answers are those of benchmarks/peer_runner.cpp; `baseline` is the peak resident
memory of this process before the runtime was imported.
"""

import os
import sys
import time
from pathlib import Path

from benchmarks.runtimes import SESSIONS, Session, example_input, output_of


def peak_kilobytes() -> int:
    """The process's peak resident memory, as Linux counts it."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1])
    return -1


def median_ns(run: Session, repeats: int) -> float:
    """Median nanoseconds, after one more inference that wakes the caches up."""
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter_ns()
        run()
        times.append(time.perf_counter_ns() - start)
    return sorted(times[1:])[repeats // 2]


def main() -> None:
    """Answers until the standard input ends."""
    runtime, model, threads = sys.argv[1:]
    # Runtimes talk; the answers have the real standard output to themselves.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    example_input()
    baseline = peak_kilobytes()
    run = SESSIONS[runtime](Path(model), int(threads))
    last = run()
    print("ready", file=answers)
    for line in sys.stdin:
        command, _, rest = line.strip().partition(" ")
        if command == "time":
            print(f"{median_ns(run, int(rest)):.0f}", file=answers)
        elif command == "memory":
            print(peak_kilobytes(), file=answers)
        elif command == "baseline":
            print(baseline, file=answers)
        elif command == "output":
            Path(rest).write_bytes(output_of(last).tobytes())
            print("written", file=answers)


if __name__ == "__main__":
    main()
