"""What an instruction set gives where 8-bit activations are copied into panels before a product."""

from __future__ import annotations

from abc import ABC, abstractmethod

from mdlc.codegen.code import Microkernel
from mdlc.compiler.types import DType


class BytePanels(ABC):
    """Products whose activations are first copied into panels, in assembly.

    A panel of up to four pixels, or of up to eight, is [depth / 4][4 or 8 pixels][4].

    Attributes:
        rows: the most pixels of a tile.
    """

    rows: int

    @abstractmethod
    def fits(self, rows: int, vectors: int) -> bool:
        """Whether there are registers for a tile."""

    @abstractmethod
    def instructions(self, rows: int, vectors: int) -> float:
        """Instructions of 16 elements of the depth."""

    @abstractmethod
    def products(self, rows: int, vectors: int) -> float:
        """Dot products among them."""

    @abstractmethod
    def copy_instructions(self, rows: int) -> float:
        """Instructions of copying 16 elements of each pixel."""

    @abstractmethod
    def tag(self, depth: int) -> str:
        """What tells texts for different depths apart, in names of functions."""

    @abstractmethod
    def code(self, rows: int, vectors: int, depth: int, fields: int) -> str:
        """Statements that declare and set the accumulators, from the panel at `a`; kDepth long.

        Args:
            fields: vectors of i32 in `scale` for each vector of channels, the bias first.
        """

    @abstractmethod
    def copy_parameters(self, rows: int, taps: int) -> list[str]:
        """Names of the compile-time integers of `copy`, in order."""

    @abstractmethod
    def copy(self, rows: int, run: int, taps: int, source: DType, flip: bool) -> Microkernel:
        """The function (x, panel) that copies equally spaced pixels.

        Args:
            run: contiguous bytes, inside `taps` loops (0 to 2) of filter taps.
            flip: whether every byte is flipped.
        """

    @abstractmethod
    def gathers(self, run: int, taps: int, pixel: int) -> bool:
        """Whether `gather` serves pixels that are so many bytes apart."""

    @abstractmethod
    def gathered(self, run: int, taps: int) -> list[int]:
        """The depth in the order of `gather`, as positions in [tap][run]; -1 is padding."""

    @abstractmethod
    def gather(
        self, rows: int, run: int, taps: int, pixel: int, source: DType, flip: bool
    ) -> Microkernel:
        """The function (x, panel) that copies runs which are no whole groups without gaps.

        Its compile-time integer is the step from run to run.
        """
