"""Two plans, one behind the other -> the files of one class; see codegen/answer/region.py."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from mdlc.codegen.answer.code import AnswerCode
from mdlc.codegen.answer.region import Region
from mdlc.codegen.cpp.class_text import comment_table, file_entries, frame_lines
from mdlc.codegen.cpp.emit import Info, answer_code, emit
from mdlc.codegen.cpp.format import format_cpp
from mdlc.codegen.cpp.kernels_file import source_files
from mdlc.codegen.plan import weights_file
from mdlc.codegen.plan.arena import lower_bound
from mdlc.codegen.plan.plan import ALIGNMENT, Plan
from mdlc.codegen.templates import render
from mdlc.codegen.tiles.formula import literal
from mdlc.compiler.errors import MdlcError
from mdlc.compiler.words import counted, work

_EXAMPLE_WIDTH = 95
_SIDES, _DIRECTIONS = ("width", "height"), ("right", "down")
# What the second network may answer with; a mask needs memory of the caller's.
SECONDS = ("Classes", "Boxes", "Keypoints", "Text", "Embedding", "Quads")
# What the class declares.
CHAIN_MEMBERS = frozenset({"Item", "Items", "Init", "infer", "Release", "Label", "ErrorText"})


@dataclass(frozen=True)
class Chain:
    """A network that finds, and one that looks at each of what was found.

    Attributes:
        name: of the class. first, second: the networks; both take frames and answer, and are
            part of the class. region: what the second one sees.
    """

    name: str
    first: Plan
    second: Plan
    region: Region

    @property
    def plans(self) -> tuple[Plan, Plan]:
        """Both networks."""
        return self.first, self.second

    @property
    def arena_bytes(self) -> int:
        """Working memory of the class: the networks compute one after the other."""
        return max(plan.working_bytes for plan in self.plans)

    def answers(self) -> tuple[AnswerCode, AnswerCode]:
        """What the networks answer with.

        Raises:
            MdlcError: the second one does not fit the first one.
        """
        first, second = answer_code(self.first), answer_code(self.second)
        assert first is not None
        assert second is not None
        self.region.check(first)
        if second.type not in SECONDS:
            raise MdlcError(
                f"the second network answers with a {second.type}, which is written into memory "
                "of the caller's",
                node="[second.answer]",
                hint=f"choose one of {', '.join(SECONDS)}",
            )
        return first, second


def emit_chain(chain: Chain, infos: tuple[Info, Info], command: str) -> dict[str, bytes]:
    """File names and contents: a header and a source, those of both networks, the weights of both
    in one file, a manifest and a build file.

    Args:
        infos: of the networks. command: the command line that made it.
    """
    first, second = chain.answers()
    files: dict[str, bytes] = {}
    weights = []
    for plan, info in zip(chain.plans, infos, strict=True):
        own = emit(plan, info)
        weights.append(own.pop(f"{plan.name}.weights"))
        del own["main.cpp"], own["CMakeLists.txt"], own[f"{plan.name}.json"]
        files |= own
    second_at = -(-len(weights[0]) // ALIGNMENT) * ALIGNMENT
    data = weights[0].ljust(second_at, b"\0") + weights[1]
    height, width, _ = chain.second.frame_port.dims if chain.second.frame_port else (1, 1, 1)
    limit = first.dtype[1].shape[0]
    most = min(chain.region.max or limit, limit)
    item = "Box" if first.type == "Boxes" else "Quad"
    turned = "corner" in (first.dtype[1].base.names or ())
    sources = [f"{chain.name}.cpp", *(n for plan in chain.plans for n in source_files(plan))]
    context = {
        "name": chain.name,
        "version": infos[0].version,
        "threads": chain.first.threads,
        "alignment": ALIGNMENT,
        "arena_bytes": chain.arena_bytes,
        "file_bytes": len(data),
        "second_at": second_at,
        "max": most,
        "first": {
            "name": chain.first.name,
            "type": first.type,
            "types": ["Corner", item] if turned else [item],
            "turned": turned,
            "item": item,
            "member": item.lower(),
            "labels": bool(chain.first.answer and chain.first.answer.labels),
            "file_bytes": len(weights[0]),
        },
        "second": {
            "name": chain.second.name,
            "type": second.type,
            "member": second.type.lower(),
            "file_bytes": len(weights[1]),
            "width": width,
            "height": height,
        },
        "fit": chain.region.fit,
        "scales": [
            (s, literal(v)) for s, v in zip(_SIDES, chain.region.scales, strict=True) if v != 1
        ],
        "shifts": [
            (direction, side, literal(v))
            for direction, side, v in zip(_DIRECTIONS, _SIDES, chain.region.shift, strict=True)
            if v
        ],
        "turn": list(chain.region.turn),
        "tall": literal(chain.region.tall) if chain.region.tall else "",
    }
    header = render(
        "cpp/chain/header.h.j2",
        **context,
        manual=_manual(chain, infos, command, len(data), most),
        example=_example(chain, (first, second), item.lower()),
    )
    files = {
        f"{chain.name}.h": format_cpp(header, reflow=False).encode(),
        f"{chain.name}.cpp": format_cpp(render("cpp/chain/source.cpp.j2", **context)).encode(),
        **files,
        "CMakeLists.txt": render(
            "cpp/chain/CMakeLists.txt.j2", **context, sources=sources
        ).encode(),
        f"{chain.name}.weights": data,
    }
    files[f"{chain.name}.json"] = _manifest(chain, infos, files)
    return files


def _manual(
    chain: Chain, infos: tuple[Info, Info], command: str, nbytes: int, most: int
) -> list[str]:
    """The table at the top of the header."""
    isa = chain.first.isa
    rows = [("command", command), ("target", f"{isa.name} ({isa.description})")]
    for label, plan, info in zip(("first", "then"), chain.plans, infos, strict=True):
        code = answer_code(plan)
        assert code is not None
        rows.append(
            (
                label,
                f"{plan.name}, of {info.model} (SHA-256 {info.sha256}): {work(plan.macs)}, "
                f"{counted(len(plan.steps), 'layer')}; {code.manual}",
            )
        )
    rows.append(("seen", _seen(chain.region, most)))
    rows.append(
        (
            "memory",
            f"{counted(chain.arena_bytes, 'byte')} of working memory for both networks, "
            f"{counted(nbytes, 'byte')} of weights",
        )
    )
    return comment_table(rows)


def _seen(region: Region, most: int) -> str:
    """What the second network sees, in words."""
    fits = {
        "grow": "grown to the shape of its input",
        "stretch": "stretched to its input",
        "pad": "at the height of its input, with fill on the right",
    }
    across, down = region.scales
    scaled = "" if across == down == 1 else f", {across:g} times as wide and {down:g} as high"
    turned = f", upright by key points {region.turn[0]} and {region.turn[1]}" if region.turn else ""
    return f"the second network sees the first {most} of them{scaled}{turned}, {fits[region.fit]}"


def _example(chain: Chain, codes: tuple[AnswerCode, AnswerCode], member: str) -> list[str]:
    """A program that uses the class, in lines."""
    name, second = chain.name, codes[1]
    shown = [line.format(name=chain.second.name) for line in second.shown]
    text = "\n".join(
        [
            "#include <cstdio>",
            "#include <vector>",
            "",
            f'#include "{name}.h"',
            "",
            "int main() {",
            *frame_lines(name),
            f"{name} network;",
            f"{name}::Items items;",
            f'int error = network.Init("{name}.weights");',
            f"if (error == {name}::kOk) error = network.infer(frame, items);",
            f"for (const {name}::Item& item : items) {{",
            f"const {name}::{second.type}& answer = item.{second.type.lower()};",
            f'std::printf("score %.2f\\n", static_cast<double>(item.{member}.score));',
            *shown,
            "}",
            f"if (error != {name}::kOk) std::puts({name}::ErrorText(error));",
            f"return error == {name}::kOk ? 0 : 1;",
            "}",
        ]
    )
    return format_cpp(text, columns=_EXAMPLE_WIDTH).splitlines()


def _manifest(chain: Chain, infos: tuple[Info, Info], files: Mapping[str, bytes]) -> bytes:
    """What was made from what, as JSON."""
    content = {
        "format": 1,
        "class": chain.name,
        "mdlc": infos[0].version,
        "target": chain.first.isa.name,
        "networks": [
            {
                "class": plan.name,
                "model": {"file": info.model, "sha256": info.sha256},
                "layers": len(plan.steps),
                "macs": plan.macs,
                "weight_bytes": weights_file.placed((plan,)).nbytes,
            }
            for plan, info in zip(chain.plans, infos, strict=True)
        ],
        "threads": chain.first.threads,
        "arena_bytes": chain.arena_bytes,
        "arena_lower_bound": max(lower_bound(plan.buffers) for plan in chain.plans),
        "files": file_entries(files),
    }
    return (json.dumps(content, indent=2) + "\n").encode()
