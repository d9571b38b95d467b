"""Runs a peer inside an emulated machine, reading the clock around each inference.

python -m benchmarks.arm_worker RUNTIME MODEL INFERENCES OUTPUT

A plugin of the emulator writes its counts to the standard error at each reading of the clock;
the words written there from here say which readings are an inference's.
"""

import os
import sys
import time
from pathlib import Path

import numpy as np

from benchmarks.runtimes import SESSIONS, output_of

SCHED_YIELD = 124  # the system call's number on AArch64
BEGIN, END = "INFERENCE BEGINS", "INFERENCE ENDS"


def main() -> None:
    """Runs the inferences and saves the last output."""
    runtime, model, inferences, output = sys.argv[1:]
    run = SESSIONS[runtime](Path(model), 1)
    result = None
    # Plugins that are slow may look away until here.
    os.sched_yield()
    for _ in range(int(inferences)):
        os.write(2, f"{BEGIN}\n".encode())
        # The first two readings tell what a reading itself takes.
        time.clock_gettime(time.CLOCK_MONOTONIC)
        time.clock_gettime(time.CLOCK_MONOTONIC)
        result = run()
        time.clock_gettime(time.CLOCK_MONOTONIC)
        os.write(2, f"{END}\n".encode())
    np.save(output, output_of(result))


if __name__ == "__main__":
    main()
