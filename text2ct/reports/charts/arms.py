"""Charts that set training sets side by side: scores, gains by ratio or by patients, calibration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes

from text2ct.reports.charts._base import (
    ACCENT,
    GAIN,
    GOLD,
    INK,
    LINE,
    MUTED,
    SECOND,
    VIOLET,
    Chart,
    draw_chart,
    rows_axis,
)

# Colour and marker both tell lines apart, so that neither is needed to.
_LOOKS = (
    (ACCENT, "o", "-"),
    (VIOLET, "D", "--"),
    (MUTED, "s", ":"),
    (GOLD, "^", "-."),
    (GAIN, "v", "--"),
    (INK, "P", ":"),
)
_USUAL = {
    "real+synthetic": 0,
    "real+oracle": 1,
    "real+shuffled": 2,
    "real+ungated": 3,
    "real+own-generator": 4,
    "real": 5,
}


@dataclass(frozen=True)
class Gain:
    """A difference in AUC from ``real``.

    Attributes:
        x: Synthetic volumes per real one, or training patients.
        delta: The difference.
        ci: Its 95% interval, or None.
    """

    x: float
    delta: float
    ci: Sequence[float] | None


def seeds_chart(arms: Mapping[str, Mapping[str, Any]]) -> Chart:
    """Macro AUC of every training, with each arm's mean and interval.

    Args:
        arms: The benchmark's ``arms``.
    """
    rows = [
        {"arm": name, "training": k, "macro_auc": value, "low": low, "mean": arm["macro_auc"], "high": high}
        for name, arm in arms.items()
        for low, high in [arm["ci"] or (None, None)]
        for k, value in enumerate(arm["per_seed"])
    ]

    def draw(axes: Axes) -> None:
        for y, arm in enumerate(arms.values()):
            if arm["ci"] is not None:
                axes.plot(arm["ci"], [y, y], color=ACCENT, linewidth=2, solid_capstyle="round")
            points = [value for value in arm["per_seed"] if value is not None]
            axes.plot(points, [y + 0.22] * len(points), "o", color=SECOND, markersize=4.5)
            if arm["macro_auc"] is not None:
                axes.plot(arm["macro_auc"], y, "D", color=ACCENT, markersize=6)
        axes.plot([], [], "D-", color=ACCENT, label="mean, 95% interval", markersize=6)
        axes.plot([], [], "o", color=SECOND, label="one training", markersize=4.5)
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, borderaxespad=0.2)
        rows_axis(axes, list(arms))
        axes.set_xlabel("macro AUC on the test scans")

    caption = "Macro AUC of every single training and the mean of each arm."
    return draw_chart("seeds", caption, rows, (7.2, 0.9 + 0.36 * max(len(arms), 2)), draw, "Macro AUC by arm and seed")


def gain_chart(name: str, lines: Mapping[str, Sequence[Gain]], x_label: str, measure: str) -> Chart:
    """Gains over ``real`` with intervals as lines over a few values, at equal distances.

    Args:
        name: File name of the chart.
        lines: For each arm, or kind of arm, its gains.
        x_label: What the values are.
        measure: What the gain is in, for example ``macro AUC``.
    """
    rows = [
        {"arm": arm, "x": gain.x, "gain": gain.delta, "low": low, "high": high}
        for arm, gains in lines.items()
        for gain in gains
        for low, high in [gain.ci or (None, None)]
    ]
    values = sorted({gain.x for gains in lines.values() for gain in gains})
    looks = _looks(lines)

    def draw(axes: Axes) -> None:
        axes.axhline(0, color=MUTED, linewidth=1)
        for k, (arm, gains) in enumerate(lines.items()):
            colour, marker, dash = looks[arm]
            shift = 0.09 * (k - (len(lines) - 1) / 2)  # side by side, so that intervals do not cover each other
            ordered = sorted(gains, key=lambda gain: gain.x)
            at = [values.index(gain.x) + shift for gain in ordered]
            for x, gain in zip(at, ordered, strict=True):
                if gain.ci is not None:
                    axes.plot([x, x], gain.ci, color=colour, linewidth=1.6, solid_capstyle="round")
            deltas = [gain.delta for gain in ordered]
            axes.plot(at, deltas, marker=marker, linestyle=dash, color=colour, markersize=5.5, linewidth=1.3, label=arm)
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, borderaxespad=0.2)
        axes.set_xticks(range(len(values)), [f"{value:,g}" for value in values])
        axes.set_xlim(-0.5, len(values) - 0.5)
        axes.tick_params(axis="y", colors=MUTED)
        axes.grid(axis="y", color=LINE, linewidth=0.7)
        axes.set_xlabel(x_label)
        axes.set_ylabel(f"gain over real, {measure}")

    caption = f"Difference in {measure} from real volumes alone, with 95% intervals."
    return draw_chart(name, caption, rows, (5.4, 3.9), draw, f"Gain in {measure} over real by {x_label}")


def _looks(lines: Mapping[str, Any]) -> dict[str, tuple[str, str, str]]:
    """Colour, marker and dash of each line: the usual arms always look the same."""
    found = {arm: _USUAL[arm.split("@")[0]] for arm in lines if arm.split("@")[0] in _USUAL}
    free = [k for k in range(len(_LOOKS)) if k not in found.values()]
    others = [arm for arm in lines if arm not in found]
    found |= {arm: free[k % len(free)] if free else k % len(_LOOKS) for k, arm in enumerate(others)}
    return {arm: _LOOKS[k] for arm, k in found.items()}


def calibration_chart(arms: Mapping[str, Mapping[str, Any]]) -> Chart:
    """Share of positives over the predicted probability, a line for each arm.

    Args:
        arms: For each arm its ``calibration``: ``bins`` of ``predicted`` and ``observed`` in [0, 1] and ``count``.
    """
    rows = [
        {"arm": name, **{key: bin_[key] for key in ("predicted", "observed", "count")}}
        for name, calibration in arms.items()
        for bin_ in calibration["bins"]
    ]
    looks = _looks(arms)

    def draw(axes: Axes) -> None:
        axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1)
        for name, calibration in arms.items():
            colour, marker, dash = looks[name]
            points = [(bin_["predicted"], bin_["observed"]) for bin_ in calibration["bins"]]
            look: dict[str, Any] = {"marker": marker, "linestyle": dash, "color": colour}
            axes.plot(*zip(*points, strict=True), markersize=5, linewidth=1.3, label=name, **look)
        axes.legend(loc="upper left")
        top = min(1.0, 1.08 * max(max(row["predicted"], row["observed"]) for row in rows))
        axes.set_xlim(0, top)
        axes.set_ylim(0, top)
        axes.set_aspect("equal")
        axes.tick_params(axis="y", colors=MUTED)
        axes.grid(color=LINE, linewidth=0.7)
        axes.set_xlabel("predicted probability")
        axes.set_ylabel("share of positives")

    caption = (
        "Predicted probability, after temperature scaling on validation patients, against the share of positives on "
        "the test scans, all findings together; on the line both agree."
    )
    return draw_chart("calibration", caption, rows, (5.4, 5.0), draw, "Reliability diagram by arm")
