"""Coverage-guided fuzzing: of what devices are given (libFuzzer) and of models (atheris).

    python -m tests.fuzz.run loader --seconds 600
    python -m tests.fuzz.run interface --seconds 600
    python -m tests.fuzz.importer --seconds 600

A crash is written to crash-* in the folder it runs in. Corpora are in tests/fuzz/corpus/; each
crash found once is a file there, which the suite runs.
"""
