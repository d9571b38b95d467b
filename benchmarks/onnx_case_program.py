"""Many emitted classes in one program: a C++ compiler starts once for all of them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from mdlc.codegen.cpp.kernels_file import source_files
from mdlc.codegen.plan.plan import Plan
from mdlc.codegen.run.executable import Executable, program_files
from mdlc.codegen.run.toolchain import BUILD_FLAGS, LocalToolchain

_SYSTEM_HEADER = re.compile(r"^\s*#\s*include\s*<([^>]+)>", re.MULTILINE)


class Member(Executable):
    """One class of a program that holds several: its number is the program's last argument."""

    def __init__(
        self, plan: Plan, program: Path, directory: Path, toolchain: LocalToolchain, number: int
    ) -> None:
        """A class of a program that is built already.

        Args:
            directory: where its weights file lies.
        """
        self.plan, self.program, self.directory = plan, program, directory
        self.toolchain, self._number = toolchain, number

    def _arguments(self) -> list[str]:
        return [str(self._number)]


def build(
    plans: Sequence[Plan], folder: Path, toolchain: LocalToolchain, flags: Sequence[str]
) -> list[Member]:
    """The plans' classes, built as one program in an empty folder.

    Every class and its runner are in a namespace of their own, behind all headers that any needs.

    Raises:
        MdlcError: the compiler rejects the text.
    """
    headers: set[str] = {"cstdlib"}
    parts, cases = [], []
    for number, plan in enumerate(plans):
        place = folder / str(number)
        place.mkdir()
        for name, data in program_files(plan).items():
            (place / name).write_bytes(data)
            if name.endswith((".h", ".cpp")):
                headers.update(_SYSTEM_HEADER.findall(data.decode()))
        sources = [name for name in (*source_files(plan), "runner.cpp")]
        lines = [f'#include "{number}/{source}"' for source in sources]
        parts.append("\n".join([f"namespace case{number} {{", *lines, "}"]))
        cases.append(f"    case {number}: return case{number}::RunnerMain(argc - 1, argv);")
    # Those of other systems stand in conditions, which are false here.
    text = [f"#if __has_include(<{n}>)\n#include <{n}>\n#endif" for n in sorted(headers)]
    text += ["#define main RunnerMain", *parts, "#undef main"]
    text += ["int main(int argc, char** argv) {", "  switch (std::atoi(argv[argc - 1])) {"]
    text += [*cases, "  }", "  return 2;", "}"]
    source, program = folder / "cases.cpp", folder / "cases"
    source.write_text("\n".join(text) + "\n")
    toolchain.compile([source], program, [*BUILD_FLAGS, f"-I{folder}", *flags])
    return [
        Member(plan, program, folder / str(number), toolchain, number)
        for number, plan in enumerate(plans)
    ]
