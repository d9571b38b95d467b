"""How a camera's frame becomes the picture that a network was trained on, as data."""

from __future__ import annotations

from dataclasses import dataclass

from mdlc.compiler.errors import MdlcError, choose

FITS = ("letterbox", "letterbox:top-left", "crop", "stretch")
RESAMPLES = ("bilinear", "area", "nearest", "bicubic")
MATCHES = ("pillow", "opencv", "tf")
YUV = ("bt601,full", "bt601,limited", "bt709,full", "bt709,limited", "bt2020,full",
       "bt2020,limited")  # fmt: skip

# Longest side of a frame, and most pixels for exact means: sums fit into 32 bits then.
LONGEST_SIDE = 8192
MOST_MEAN_PIXELS = (2**32 - 1) // 255

# Weights of red and blue in luma: ITU-R BT.601-7 (2.5.1), BT.709-6 (3.2), BT.2020-2 (table 4).
_LUMA = {"bt601": (0.299, 0.114), "bt709": (0.2126, 0.0722), "bt2020": (0.2627, 0.0593)}
COLOUR_BITS = 14


@dataclass(frozen=True)
class FrameSpec:
    """The network's side of a frame; the frame's own side comes with every call.

    Attributes:
        fit: how a picture of another shape goes into the network's: letterbox (whole, centred,
            the rest filled), letterbox:top-left, crop (the middle; crop:0.875 keeps that share of
            the shorter side), stretch.
        fill: what letterbox leaves, 0..255, one number or one per channel of the network.
        resample: the filter. match: whose version of it.
        yuv: matrix and range of frames in YUV.
    """

    fit: str = "stretch"
    fill: tuple[int, ...] = (114,)
    resample: str = "bilinear"
    match: str = "pillow"
    yuv: str = "bt601,full"

    def __post_init__(self) -> None:
        _ = self.share  # raises what is wrong with it
        if self.fit not in FITS and not self.fit.startswith("crop:"):
            raise MdlcError(
                f"there is no fit {self.fit!r}",
                node="--fit",
                hint=choose(self.fit, (*FITS, "crop:0.875")),
            )
        for flag, value, known in (
            ("--resample", self.resample, RESAMPLES),
            ("--match", self.match, MATCHES),
            ("--yuv", self.yuv, YUV),
        ):
            if value not in known:
                raise MdlcError(
                    f"there is no {flag.strip('-')} {value!r}",
                    node=flag,
                    hint=choose(value, known),
                )
        if len(self.fill) not in (1, 3, 4) or any(v not in range(256) for v in self.fill):
            raise MdlcError(
                f"{', '.join(map(str, self.fill)) or 'nothing'} is no colour",
                node="--fill",
                hint="give 1 number from 0 to 255, or one for each channel of the network",
            )

    @property
    def share(self) -> float:
        """The share of the shorter side that `crop` keeps.

        Raises:
            MdlcError: it is not above 0 and at most 1.
        """
        if not self.fit.startswith("crop:"):
            return 1.0
        try:
            share = float(self.fit.removeprefix("crop:"))
        except ValueError:
            share = 0.0
        if not 0.01 <= share <= 1:
            raise MdlcError(
                f"{self.fit!r} keeps no share of the picture",
                node="--fit",
                hint="write crop:0.875 for 0.875 of the shorter side",
            )
        return share

    @property
    def kernel(self) -> Kernel:
        """The arithmetic of resampling."""
        return KERNELS[self.match, self.resample]

    def filled(self, channels: int) -> tuple[int, ...]:
        """The colour of what letterbox leaves, one number per channel.

        Raises:
            MdlcError: there are neither 1 nor `channels` of them.
        """
        if len(self.fill) not in (1, channels):
            raise MdlcError(
                f"{len(self.fill)} values for {channels} channels",
                node="--fill",
                hint=f"give 1 or {channels}",
            )
        return self.fill if len(self.fill) == channels else self.fill * channels


@dataclass(frozen=True)
class Kernel:
    """Separable resampling in integers: along the picture's rows first, then along its columns.

    A sum over taps of samples (8 bits) times weights (of `bits` fractional bits) is rounded to
    `first` fewer bits and, along columns, the sum of those times weights to `second` fewer.

    Attributes:
        taps: taps of a pixel where their number is fixed; 0 where they are all samples within
            the filter's support, which grows as pictures shrink.
        bits: of weights' fractions; 0 for means, whose weights are whole numbers.
        first, second: bits that are rounded away.
        floors: `first` rounds down, and each product along columns loses 16 bits first (OpenCV's
            bilinear filter).
        bytes_between: what lies between the two is clamped to 8 bits (Pillow).
        divides: sums are divided by the number of samples, ties to even.
        support: half the filter's width, in samples of the picture or of the result.
    """

    taps: int
    bits: int = 0
    first: int = 0
    second: int = 0
    floors: bool = False
    bytes_between: bool = False
    divides: bool = False
    support: float = 0.0

    @property
    def between(self) -> str:
        """C++ type of what lies between the two sums."""
        if self.bytes_between or (self.bits == 0 and not self.divides):
            return "std::uint8_t"
        return (
            "std::int16_t" if self.floors else "std::uint32_t" if self.divides else "std::int32_t"
        )


def _pillow(support: float) -> Kernel:
    return Kernel(0, bits=22, first=22, second=22, bytes_between=True, support=support)


_MEAN = Kernel(0, divides=True, support=0.5)
_NEAREST = Kernel(1)
KERNELS = {
    ("pillow", "bilinear"): _pillow(1.0),
    ("pillow", "bicubic"): _pillow(2.0),
    ("pillow", "area"): _pillow(0.5),
    ("pillow", "nearest"): _NEAREST,
    ("opencv", "bilinear"): Kernel(2, bits=11, first=4, second=2, floors=True),
    ("opencv", "bicubic"): Kernel(4, bits=11, second=22),
    ("opencv", "area"): _MEAN,
    ("opencv", "nearest"): _NEAREST,
    ("tf", "bilinear"): Kernel(2, bits=14, first=7, second=21),
    ("tf", "bicubic"): Kernel(4, bits=14, first=7, second=21),
    ("tf", "area"): _MEAN,
    ("tf", "nearest"): _NEAREST,
}


@dataclass(frozen=True)
class Matrix:
    """YUV to RGB with COLOUR_BITS fractional bits.

    R = (luma (Y - black) + red_v (V - 128) + half) >> COLOUR_BITS, clamped to 0..255; likewise
    G with green_u and green_v, and B with blue_u.
    """

    black: int
    luma: int
    red_v: int
    green_u: int
    green_v: int
    blue_u: int


def exact_matrix(yuv: str) -> tuple[int, tuple[float, float, float, float, float]]:
    """Black, and (luma, red_v, green_u, green_v, blue_u), in double precision."""
    name, span = yuv.split(",")
    red, blue = _LUMA[name]
    green = 1 - red - blue
    luma, chroma = (1.0, 1.0) if span == "full" else (255 / 219, 255 / 224)
    red_v, blue_u = 2 * (1 - red) * chroma, 2 * (1 - blue) * chroma
    factors = luma, red_v, -blue_u * blue / green, -red_v * red / green, blue_u
    return (0 if span == "full" else 16), factors


def matrix(yuv: str) -> Matrix:
    """The same in integers."""
    black, factors = exact_matrix(yuv)
    return Matrix(black, *(round(factor * 2**COLOUR_BITS) for factor in factors))


# Red, green, blue to grey as each library converts: weights and fractional bits. Pillow:
# L24 of libImaging/Convert.c; OpenCV: color_rgb (15 bits); TensorFlow: rgb_to_grayscale.
GREY = {
    "pillow": ((19595, 38470, 7471), 16),
    "opencv": ((9798, 19235, 3735), 15),
    "tf": ((19589, 38470, 7471), 16),
}
