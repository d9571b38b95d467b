"""A folder with an aarch64 Python and the peers' aarch64 wheels, run by qemu-aarch64.

Debian's arm64 packages are unpacked, not installed: apt works on lists of its own in a scratch
folder, and nothing on this machine changes but the user's cache folder.
"""

from __future__ import annotations

import importlib.metadata
import json
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import platformdirs

from benchmarks.cli import Missing

PACKAGES = ("python3", "libgomp1", "libstdc++6")
WHEELS = ("numpy", "ncnn", "MNN", "ai-edge-litert")
# A Cortex-A72 of one core, as Linux describes it; programs that find an x86 processor here fail.
CPUINFO = """processor\t: 0
BogoMIPS\t: 108.00
Features\t: fp asimd evtstrm crc32 cpuid
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x0
CPU part\t: 0xd08
CPU revision\t: 3

"""


@dataclass(frozen=True)
class ArmMachine:
    """The unpacked folder: `root` is a file system, `site` has the wheels."""

    folder: Path
    versions: dict[str, str]

    @property
    def root(self) -> Path:
        """What qemu's -L takes."""
        return self.folder / "root"

    def qemu(self, cpu: str) -> list[str]:
        """The emulator with its arguments."""
        return [str(emulator()), "-L", str(self.root), "-cpu", cpu]

    def python(self, module: str, arguments: Sequence[str]) -> list[str]:
        """A command that runs a module of this repository."""
        # No site packages, nothing that depends on this machine's settings.
        return [str(self.root / "usr/bin/python3"), "-S", "-B", "-m", module, *arguments]

    def environment(self) -> dict[str, str]:
        """Environment of such a command, the same everywhere: counts are exact then."""
        path = f"{Path(__file__).parents[1]}:{self.folder / 'site'}"
        return {"PYTHONPATH": path, "PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1", "LC_ALL": "C"}


def emulator() -> Path:
    """qemu-aarch64 on this machine."""
    found = shutil.which("qemu-aarch64") or shutil.which("qemu-aarch64-static")
    if found is None:
        raise Missing("qemu-aarch64 is missing: install qemu-user (7.2 or newer)")
    return Path(found)


def home() -> Path:
    """Where the folder lies."""
    return Path(platformdirs.user_cache_dir("mdlc")) / "arm-peers"


def find(folder: Path | None = None) -> ArmMachine:
    """The folder prepared before."""
    folder = folder or home()
    marker = folder / "versions.json"
    if not marker.exists():
        raise Missing(
            "the peers' aarch64 packages are missing: `python -m benchmarks.arm --fetch` gets them "
            "(apt-get, dpkg-deb and pip; about 150 MB in the user's cache folder), "
            "`--runtime mdlc` does without"
        )
    return ArmMachine(folder, json.loads(marker.read_text()))


def fetch(folder: Path | None = None) -> ArmMachine:
    """Downloads and unpacks everything, or raises and leaves nothing."""
    folder = folder or home()
    lacking = [name for name in ("apt-get", "dpkg-deb") if shutil.which(name) is None]
    if lacking:
        raise Missing(f"{' and '.join(lacking)} is missing: --fetch needs Debian or Ubuntu")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as name:
        scratch, made = Path(name), Path(name) / "made"
        archives = _debian(scratch)
        (made / "root").mkdir(parents=True)
        for archive in archives:
            _call(["dpkg-deb", "-x", str(archive), str(made / "root")])
        (made / "root/proc").mkdir()
        (made / "root/proc/cpuinfo").write_text(CPUINFO)
        found = re.search(r"libc6_(\d+)\.(\d+)", " ".join(a.name for a in archives))
        if found is None:
            raise click.ClickException("apt-get brought no libc6")
        versions = {}
        for wheel in _wheels(scratch, made, int(found[2])):
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(made / "site")
            package, version = wheel.name.split("-")[:2]
            versions[package.lower()] = version
        (made / "versions.json").write_text(json.dumps(versions, indent=2) + "\n")
        shutil.rmtree(folder, ignore_errors=True)
        made.rename(folder)
    return find(folder)


def _debian(scratch: Path) -> list[Path]:
    (scratch / "lists/partial").mkdir(parents=True)
    (scratch / "archives/partial").mkdir(parents=True)
    (scratch / "status").touch()
    settings = {
        "APT::Architecture": "arm64",
        "APT::Architectures": "arm64",
        "APT::Sandbox::User": "",
        "Dir::State::lists": scratch / "lists",
        "Dir::State::status": scratch / "status",
        "Dir::Cache": scratch,
        "Dir::Cache::archives": scratch / "archives",
    }
    apt = ["apt-get", "-qq", *(f"-o{key}={value}" for key, value in settings.items())]
    _call([*apt, "update"])
    _call([*apt, "install", "-y", "--download-only", "--no-install-recommends", *PACKAGES])
    return sorted((scratch / "archives").glob("*.deb"))


def _wheels(scratch: Path, made: Path, glibc: int) -> list[Path]:
    minors = [
        int(found[1])
        for path in (made / "root/usr/bin").iterdir()
        if (found := re.fullmatch(r"python3\.(\d+)", path.name))
    ]
    version = f"{max(minors)}"
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:"]
    command += ["--python-version", f"3.{version}", "--implementation", "cp"]
    command += ["--abi", f"cp3{version}", "--abi", "abi3", "--abi", "none"]
    for minor in range(17, glibc + 1):
        command += ["--platform", f"manylinux_2_{minor}_aarch64"]
    command += ["--platform", "manylinux2014_aarch64", "-d", str(scratch / "wheels")]
    _call([*command, *map(_pinned, WHEELS)])
    return sorted((scratch / "wheels").glob("*.whl"))


def _pinned(package: str) -> str:
    """The version of this Python's own, so that both machines are measured on the same."""
    try:
        return f"{package}=={importlib.metadata.version(package)}"
    except importlib.metadata.PackageNotFoundError:
        return package


def _call(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = " ".join((done.stderr or done.stdout)[-400:].split())
        raise click.ClickException(f"{command[0]} failed: {reason}")
