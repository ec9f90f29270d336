"""Label: does a volume show the findings that were asked for, and which of its labels are in doubt?

A volume that does not show what it was asked to show is rejected. One that seems to show more than that is not: the
label of that finding becomes unknown, which no training learns from, and the others stay. A classifier answers that was
trained on real training patients alone. What it must answer is measured on real validation patients; a finding that it
does not recognise there is not judged by it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from text2ct.augment.gate.base import Score, Share, Strict, bounded
from text2ct.findings import FINDINGS

_EASINGS = 41  # steps from the settings' shares to none: a fortieth of a fifth is half a percent of the positives


class LabelSettings(Strict):
    """What a classifier must say."""

    max_doubts: Annotated[int, Field(ge=0, le=18)] = 3
    """So many findings a volume may seem to show which were to be absent: their labels become unknown, and the others
    stay. With more it is not what was asked for, and rejected; 0 rejects at the first. Among 18 labels one is soon in
    doubt, most of all where there are many findings: 0 left 42 of 130 volumes that were to show a pleural effusion,
    and 39 of 154 with thickened septa."""
    min_fidelity: Share = 0.85
    """A finding that the classifier cannot judge is unknown in all volumes where the pack is known to keep less than
    this of it: nobody vouches for such a label."""
    real_pass_share: Share = 0.8
    """Share of real validation scans that pass the whole test, without a doubt. A scan has several findings and lacks
    many, so that a fifth who fail each of them would leave few: the two shares below are eased together until this one
    is reached."""
    pass_share: Share = 0.8
    """Share of real positives that pass for a finding, at least: the faintest fifth teaches least."""
    negative_quantile: Share = 0.975
    """A volume looks unlike the negatives where its probability is above this quantile of theirs, or a higher one: one
    real scan in forty may look as if it had the finding."""
    typical_quantile: Share = 0.5
    """A finding that was to be absent must also be above this quantile of real positives to be seen: few negatives
    have the rare findings that the volume was asked to show, so looking unlike them alone is no evidence."""
    min_positives: Annotated[int, Field(ge=2)] = 3
    """Positive validation scans below which a finding is not judged: the faintest of n is passed by n / (n + 1) of new
    positives, which for three is about the share above, and for fewer far less."""
    min_auc: Share = 0.65
    """Validation AUC below which a finding is not judged: such a classifier lets 80% of positives pass only together
    with more than half of the negatives."""
    max_p: Share = 0.05
    """Of the Mann-Whitney test that the AUC is above 0.5: with a few positives a high one may be luck."""

    def unsure(self, finding: str, fidelity: Mapping[str, float]) -> bool:
        """Whether a pack of this fidelity is known to render a finding poorly."""
        return fidelity.get(finding, 1.0) < self.min_fidelity


class FindingThreshold(Strict):
    """What a finding's probability is compared with.

    Attributes:
        present: A volume asked to show the finding needs at least this; None where it is not judged.
        absent: A volume asked not to show it must not exceed this; None likewise.
        positives: Validation scans with it.
        negatives: Validation scans without it.
        auc: Of the classifier on these; None where one kind is missing.
        not_judged: Why the finding is not judged by the classifier; "" when it is.
    """

    present: float | None
    absent: float | None
    positives: int
    negatives: int
    auc: float | None
    not_judged: str = ""


def calibrate(
    probabilities: NDArray[np.float64], labels: NDArray[np.float64], settings: LabelSettings
) -> dict[str, FindingThreshold]:
    """Thresholds of the 18 findings, the strictest ones that enough real scans pass.

    A finding is present when it looks like the set share of positives, or unlike nearly all negatives: where the
    classifier tells the two apart well, a faint positive counts too, although the few of validation were plain.
    A finding that was to be absent is seen when it looks unlike the negatives and like a typical positive, and never
    below what is enough to count as present: no probability fails both for showing a finding and for not showing it.

    Args:
        probabilities: (n, 18) of real validation scans.
        labels: (n, 18) 1, 0 or NaN for unknown.
        settings: Shares and least numbers.
    """
    reasons = _not_judged(probabilities, labels, settings)
    for strictness in np.linspace(1.0, 0.0, _EASINGS):
        found = _thresholds(probabilities, labels, settings, float(strictness), reasons)
        if _pass(probabilities, labels, found).mean() >= settings.real_pass_share:
            break
    return found


def _not_judged(
    probabilities: NDArray[np.float64], labels: NDArray[np.float64], settings: LabelSettings
) -> dict[str, tuple[float | None, str]]:
    """Of each finding the classifier's AUC, and why it is not judged; "" where it is."""
    from scipy.stats import mannwhitneyu
    from sklearn.metrics import roc_auc_score

    found = {}
    for column, name in enumerate(FINDINGS):
        positive, negative = _by_label(probabilities, labels, column)
        auc = None
        if len(positive) and len(negative):
            truth = np.repeat([True, False], [len(positive), len(negative)])
            auc = float(roc_auc_score(truth, np.concatenate([positive, negative])))
        reason = ""
        if len(positive) < settings.min_positives:
            reason = f"{len(positive)} positive validation scans, {settings.min_positives} are needed"
        elif auc is None:
            reason = "no negative validation scan"
        elif auc < settings.min_auc:
            reason = f"validation AUC {auc:.3f}, {settings.min_auc:.3f} is needed"
        elif (p := float(mannwhitneyu(positive, negative, alternative="greater").pvalue)) > settings.max_p:
            reason = f"validation AUC {auc:.3f} may be luck (p = {p:.2f})"
        found[name] = (auc, reason)
    return found


def _thresholds(
    probabilities: NDArray[np.float64],
    labels: NDArray[np.float64],
    settings: LabelSettings,
    strictness: float,
    known: dict[str, tuple[float | None, str]],
) -> dict[str, FindingThreshold]:
    """The thresholds at a strictness in [0, 1]: at 1 the settings' shares fail, at 0 no scan does."""
    found = {}
    for column, (name, (auc, reason)) in enumerate(known.items()):
        positive, negative = _by_label(probabilities, labels, column)
        present = absent = None
        if not reason:
            # "lower" and "higher": at least the share passes, whatever the number of scans.
            unlike = float(np.quantile(negative, 1 - strictness * (1 - settings.negative_quantile), method="higher"))
            faint = float(np.quantile(positive, strictness * (1 - settings.pass_share), method="lower"))
            present = min(unlike, faint)
            absent = max(unlike, float(np.quantile(positive, settings.typical_quantile)))
        found[name] = FindingThreshold(
            present=present,
            absent=absent,
            positives=len(positive),
            negatives=len(negative),
            auc=auc,
            not_judged=reason,
        )
    return found


def _by_label(
    probabilities: NDArray[np.float64], labels: NDArray[np.float64], column: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """A finding's probabilities of scans that have it, and of scans that lack it."""
    return probabilities[labels[:, column] == 1, column], probabilities[labels[:, column] == 0, column]


def _pass(
    probabilities: NDArray[np.float64], labels: NDArray[np.float64], thresholds: dict[str, FindingThreshold]
) -> NDArray[np.bool_]:
    """(n,) whether each scan passes for every finding."""
    present = np.array([-np.inf if one.present is None else one.present for one in thresholds.values()])
    absent = np.array([np.inf if one.absent is None else one.absent for one in thresholds.values()])
    fails = ((labels == 1) & (probabilities < present)) | ((labels == 0) & (probabilities > absent))
    return ~fails.any(axis=1)


def judge(
    probabilities: NDArray[np.float64],
    labels: NDArray[np.float64],
    thresholds: Mapping[str, FindingThreshold],
    settings: LabelSettings,
    fidelity: Mapping[str, float],
) -> list[Score]:
    """The scores of a volume, one a finding; those unknown or not judged have no bounds.

    Args:
        probabilities: (18,) in [0, 1].
        labels: (18,) what was asked: 1, 0 or NaN.
        thresholds: Of :func:`calibrate`.
        settings: What a doubt leads to.
        fidelity: How much of a finding the pack keeps, as far as it is known.
    """
    scores, doubts = [], []
    for column, (name, value, asked) in enumerate(zip(FINDINGS, probabilities.tolist(), labels.tolist(), strict=True)):
        bounds = thresholds[name]
        if asked == 1 and bounds.present is not None:
            score = bounded("label", name, value, low=bounds.present, what=f"{name} is not seen")
        elif asked == 0 and bounds.absent is not None:
            score = bounded("label", name, value, high=bounds.absent, what=f"{name} is seen and was not asked for")
            doubts += [] if score.passed or np.isnan(value) else [column]
        elif np.isnan(asked):
            score = Score("label", name, value)
        else:
            unsure = settings.unsure(name, fidelity)
            note = f"not judged: {bounds.not_judged}"
            note += f"; the pack keeps {fidelity[name]:.0%} of it: unknown" if unsure else ""
            score = Score("label", name, value, note=note, unknown=unsure)
        scores.append(score)
    if len(doubts) <= settings.max_doubts:
        for column in doubts:
            doubtful = scores[column]
            scores[column] = replace(doubtful, reason="", note=f"unknown: {doubtful.reason}", unknown=True)
    return scores
