"""Fuzzes import and compilation with atheris: python -m tests.fuzz.importer --seconds 600.

Needs atheris; the seeds are small models. Whatever a model is, mdlc says so in one MdlcError.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

MOST_BYTES = 4096


def compiled(data: bytes) -> bool:
    """Whether some bytes compile; MdlcError is the one way in which they may not."""
    import mdlc

    try:
        mdlc.compile(data, "generic").files()
    except mdlc.MdlcError:
        return False
    return True


def seeds() -> list[bytes]:
    """Small models between which and around which the fuzzer looks."""
    from tests.emitted_code import block_model, cast_model, chain_model, two_ways_model
    from tests.test_left_out import eight_bits, floats

    made = (block_model(), two_ways_model(), chain_model(["a"]), cast_model("int64"), floats(),
            eight_bits())  # fmt: skip
    return [each.SerializeToString() for each in made]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=int, default=600)
    given, rest = parser.parse_known_args()
    import atheris

    with atheris.instrument_imports(include=["mdlc"]):
        import mdlc.api  # noqa: F401
    with tempfile.TemporaryDirectory() as scratch:
        for number, data in enumerate(seeds()):
            (Path(scratch) / f"seed{number}").write_bytes(data)
        kept = Path(__file__).parent / "corpus" / "importer"
        atheris.Setup(
            [sys.argv[0], f"-max_total_time={given.seconds}", f"-max_len={MOST_BYTES}",
             "-timeout=60", "-rss_limit_mb=4096", *rest, scratch, str(kept)],
            lambda data: compiled(bytes(data)) and None,
        )  # fmt: skip
        atheris.Fuzz()


if __name__ == "__main__":
    main()
