"""Are these voxels HU? Decided per file from its header, its voxels and its metadata.

CT-RATE exists in two generations. The voxels of v1 need ``RescaleSlope`` and ``RescaleIntercept`` of
the metadata table; those of v2 (folders ending in ``_fixed``) are HU already, and the table still lists
the same intercepts (-1024 or -8192). Applying them twice, or never, is the most reported error. So each
possible reading is tried on the voxels: a chest CT in HU has gas (air about -1000, lung about -800) and
tissue (fat about -100, water 0, muscle 50), and nothing but constant padding far below air. What surrounds
the scanner's field of view may be filled with any one value; it is no evidence for gas or tissue.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from text2ct.errors import UserError

# Below any tissue or air, also with the noise of a sharp kernel, lies only padding (-2000, -3024, -8192).
PADDING_BELOW_HU = -1200.0
# Padding is outside the body, and becomes air.
AIR_HU = -1000.0
# The largest value of a 12-bit scanner with intercept -1024 is 3071; beyond lie metal and errors.
METAL_ABOVE_HU = 3100.0
# A chest holds far more gas and tissue than this; a tight crop of it still holds as much.
MIN_GAS, MIN_TISSUE, MAX_METAL, MAX_PADDING = 0.01, 0.05, 0.02, 0.9
# No tissue holds one HU value in so many voxels (a smooth reconstruction's fat reaches 2%): it is a fill.
MAX_FILL = 0.1
# Two readings whose air lies this near to each other cannot be told apart.
AIR_RESOLUTION_HU = 15.0
_SAMPLE_VOXELS = 400_000


@dataclass(frozen=True)
class Levels:
    """Where the voxels lie on the HU scale, were they HU.

    Args:
        padding: Fraction of all voxels below -1200 HU.
        padding_hu: The value of most of these; NaN if there are none.
        padding_constant: Whether they are one value, as padding is.
        fill: Fraction of the voxels that are no padding which share the most common value.
        fill_hu: That value; NaN if all are padding.
        gas: Fraction of the voxels that are no padding in [-1100, -600] HU; ``fill_hu`` does not count.
        tissue: Fraction of the voxels that are no padding in [-200, 300] HU.
        metal: The same, above 3100 HU.
        air_hu: Median of the voxels in [-1100, -850] HU; NaN if there are none.
        range_hu: Lowest and highest voxel that is no padding; NaN if all are padding.
    """

    padding: float
    padding_hu: float
    padding_constant: bool
    fill: float
    fill_hu: float
    gas: float
    tissue: float
    metal: float
    air_hu: float
    range_hu: tuple[float, float]

    @property
    def plausible(self) -> bool:
        """Whether a chest CT in HU can look like this."""
        return not self.problems

    @property
    def problems(self) -> tuple[str, ...]:
        """What no chest CT in HU shows, in words."""
        found = []
        if self.padding > MAX_PADDING:
            found.append(f"{self.padding:.0%} of voxels below {PADDING_BELOW_HU:.0f}")
        elif self.padding > 0.02 and not self.padding_constant:
            found.append(f"{self.padding:.0%} of voxels spread below {PADDING_BELOW_HU:.0f}, where no tissue lies")
        if self.fill > MAX_FILL and not -1100 <= self.fill_hu <= -850:
            found.append(f"{self.fill:.0%} of voxels are exactly {self.fill_hu:g}, a fill that is not air")
        if self.gas < MIN_GAS:
            found.append(f"{self.gas:.1%} of voxels at air or lung level")
        if self.tissue < MIN_TISSUE:
            found.append(f"{self.tissue:.1%} of voxels at fat or soft-tissue level")
        if self.metal > MAX_METAL:
            found.append(f"{self.metal:.0%} of voxels above {METAL_ABOVE_HU:.0f}")
        return tuple(found)

    @property
    def words(self) -> str:
        """The evidence in one clause."""
        low, high = self.range_hu
        text = f"sampled range {low:.0f} to {high:.0f}, {self.gas:.0%} at air or lung level"
        text += f", {self.tissue:.0%} at tissue level"
        if self.padding:
            text += f", {self.padding:.1%} padding at {self.padding_hu:.0f}"
        return text


@dataclass(frozen=True)
class Decision:
    """How stored voxels become HU: ``hu = slope * stored + intercept``, and why, in words."""

    slope: float
    intercept: float
    words: str


def lattice(shape: tuple[int, ...]) -> tuple[slice, ...]:
    """The index of some 400,000 voxels at equal distances over a whole volume of this shape."""
    step = max(1, int(np.ceil((np.prod(shape, dtype=float) / _SAMPLE_VOXELS) ** (1 / len(shape)))))
    return (slice(None, None, step),) * len(shape)


def levels(hu: npt.NDArray[np.number]) -> Levels:
    """Measure where voxels lie on the HU scale; NaN and infinite voxels are left out."""
    return levels_of_sample(_sample(hu))


def levels_of_sample(values: npt.NDArray[np.number]) -> Levels:
    """The same, of voxels that are a sample already (`lattice`)."""
    values = _finite(values)
    if values.size == 0:
        return Levels(0.0, np.nan, False, 0.0, np.nan, 0.0, 0.0, 0.0, np.nan, (np.nan, np.nan))
    low = values < PADDING_BELOW_HU
    padding_hu, constant = np.nan, False
    if low.any():
        padding_hu, share = _most_common(values[low])
        constant = share >= 0.9
    body = values[~low]
    if body.size == 0:
        return Levels(float(low.mean()), padding_hu, constant, 0.0, np.nan, 0.0, 0.0, 0.0, np.nan, (np.nan, np.nan))
    fill_hu, fill = _most_common(body)
    air = body[(body >= -1100) & (body <= -850)]
    return Levels(
        padding=float(low.mean()),
        padding_hu=padding_hu,
        padding_constant=constant,
        fill=fill,
        fill_hu=fill_hu,
        gas=float(((body >= -1100) & (body <= -600) & (body != fill_hu)).mean()),
        tissue=float(((body >= -200) & (body <= 300)).mean()),
        metal=float((body > METAL_ABOVE_HU).mean()),
        air_hu=float(np.median(air)) if air.size else np.nan,
        range_hu=(float(body.min()), float(body.max())),
    )


def decide(
    stored: npt.NDArray[np.number],
    *,
    header_scale: tuple[float, float] = (1.0, 0.0),
    metadata_scale: tuple[float, float] | None = None,
    fixed: bool = False,
) -> Decision:
    """Find the one reading of stored voxels that is a chest CT in HU.

    Args:
        stored: (X, Y, Z), the numbers in the file.
        header_scale: Slope and intercept of the file's own header.
        metadata_scale: Slope and intercept of a metadata table; None if there is none.
        fixed: Whether the file lies in a folder of CT-RATE's second generation. It settles only what
            the voxels leave open.

    Raises:
        UserError: No reading fits, or two fit and cannot be told apart.
    """
    sample = _sample(stored)
    if sample.size and sample.min() == sample.max():
        raise UserError(f"all voxels are {sample.min():g}: a constant volume cannot be HU of a patient")
    fits: list[tuple[Decision, Levels]] = []
    misfits: list[str] = []
    for words, (slope, intercept) in _readings(header_scale, metadata_scale):
        seen = levels(sample * slope + intercept)
        if seen.plausible:
            fits.append((Decision(slope, intercept, f"{words}: {seen.words}"), seen))
        else:
            misfits.append(f"{words}: {', '.join(seen.problems)}")
    if not fits:
        raise UserError(f"the voxels are not HU: {_guess(sample, header_scale, metadata_scale)}", misfits)
    chosen = fits[0][0] if len(fits) == 1 else _choose(fits, fixed)
    if misfits:
        return Decision(chosen.slope, chosen.intercept, f"{chosen.words}; rejected {'; '.join(misfits)}")
    return chosen


def _readings(
    header: tuple[float, float], metadata: tuple[float, float] | None
) -> list[tuple[str, tuple[float, float]]]:
    """The different readings of stored voxels as (words, (slope, intercept)), the most natural first."""
    scaled = header != (1.0, 0.0)
    own = f"scaled by the header (slope {header[0]:g}, intercept {header[1]:g})" if scaled else "HU as stored"
    readings = [(own, header)]
    if metadata is not None:
        words = f"slope {metadata[0]:g} and intercept {metadata[1]:g} of the metadata applied"
        both = (metadata[0] * header[0], metadata[0] * header[1] + metadata[1])
        readings.append((f"{words} to voxels {own}" if scaled else words, both))
        if scaled:
            readings.append((f"{words} instead of the header's", metadata))
    if scaled:
        readings.append(("HU as stored, the header's scale ignored", (1.0, 0.0)))
    different: list[tuple[str, tuple[float, float]]] = []
    for words, scale in readings:
        if not any(np.allclose(scale, other, rtol=1e-6, atol=1e-3) for _, other in different):
            different.append((words, scale))
    return different


def _choose(fits: list[tuple[Decision, Levels]], fixed: bool) -> Decision:
    """Of several readings that fit, the one whose air is nearest to -1000 HU."""
    if fixed:
        return Decision(fits[0][0].slope, fits[0][0].intercept, f"{fits[0][0].words}; the folder says _fixed")
    errors = [abs(seen.air_hu - AIR_HU) if np.isfinite(seen.air_hu) else np.inf for _, seen in fits]
    first, second = np.argsort(errors, kind="stable")[:2]
    if not errors[second] - errors[first] >= AIR_RESOLUTION_HU:
        raise UserError(
            "the voxels fit two readings as HU; say which by slope and intercept in the metadata "
            "(1 and 0 if they are HU already)",
            [decision.words for decision, _ in fits],
        )
    return Decision(
        fits[first][0].slope, fits[first][0].intercept, f"{fits[first][0].words}; its air is nearest to -1000"
    )


def _guess(sample: npt.NDArray[np.float32], header: tuple[float, float], metadata: tuple[float, float] | None) -> str:
    """What the voxels may be instead of HU, and what to do."""
    if sample.size == 0:
        return "no voxel is a finite number"
    values = sample * header[0] + header[1]
    low, high = float(values.min()), float(values.max())
    for intercept in (-1024.0, -8192.0, -1000.0, -2048.0):
        if levels(values + intercept).plausible:
            given = "is missing" if metadata is None else f"says {metadata[1]:g}"
            return (
                f"they look like CT-RATE v1, stored without the intercept, which should be near "
                f"{intercept:.0f} but {given}; give the right metadata CSV (RescaleSlope, RescaleIntercept)"
            )
        if levels(values - intercept).plausible:
            return f"an intercept of {intercept:.0f} seems to have been applied twice; convert the file again"
    fill, share = _most_common(values)
    if share > MAX_FILL and levels(values[values != fill]).plausible:
        return f"{share:.0%} of them are {fill:g}, a fill that is not air; set it to {AIR_HU:.0f} first"
    if high - low <= 2.0 + 1e-3:
        return f"they lie in [{low:g}, {high:g}], as after normalisation; give the volume before it"
    if low >= 0 and high <= 255:
        return f"they lie in [{low:g}, {high:g}], as in an 8-bit picture; give the CT itself"
    return f"they lie in [{low:g}, {high:g}] and no known scale makes a chest CT of them; check the file"


def _most_common(values: npt.NDArray[np.float32]) -> tuple[float, float]:
    """The value that occurs most, and the fraction of ``values`` that it is."""
    distinct, counts = np.unique(values, return_counts=True)
    return float(distinct[counts.argmax()]), float(counts.max() / values.size)


def _sample(values: npt.NDArray[np.number]) -> npt.NDArray[np.float32]:
    """The finite voxels of the lattice over a whole volume, as float32."""
    return _finite(values[lattice(values.shape)])


def _finite(values: npt.NDArray[np.number]) -> npt.NDArray[np.float32]:
    flat = np.asarray(values, dtype=np.float32).ravel()
    return flat[np.isfinite(flat)]
