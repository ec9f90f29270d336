"""Label: does a volume show the findings that were asked for, and none that were to be absent?

A classifier answers that was trained on real training patients alone. What it must answer is measured on real
validation patients; a finding that it does not recognise there is not judged by it.
"""

from __future__ import annotations

from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from text2ct.augment.gate.base import Score, Share, Strict, bounded
from text2ct.findings import FINDINGS


class LabelSettings(Strict):
    """What a classifier must say."""

    pass_share: Share = 0.8
    """Share of real positives that pass for a finding: the faintest fifth teaches least, and a higher share would
    let most volumes without the finding pass with a classifier of today's AUC."""
    negative_quantile: Share = 0.975
    """A volume looks unlike the negatives where its probability is above this quantile of theirs: one real scan in
    forty may look as if it had the finding."""
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
    """Thresholds of the 18 findings.

    A finding is present when it looks like the set share of positives, or unlike nearly all negatives: where the
    classifier tells the two apart well, a faint positive counts too, although the few of validation were plain.
    A finding that was to be absent is seen when it looks unlike the negatives and like a typical positive, and never
    below what is enough to count as present: no probability fails both for showing a finding and for not showing it.

    Args:
        probabilities: (n, 18) of real validation scans.
        labels: (n, 18) 1, 0 or NaN for unknown.
        settings: Shares and least numbers.
    """
    from scipy.stats import mannwhitneyu
    from sklearn.metrics import roc_auc_score

    found = {}
    for column, name in enumerate(FINDINGS):
        known = ~np.isnan(labels[:, column])
        truth, scores = labels[known, column] == 1, probabilities[known, column]
        positive, negative = scores[truth], scores[~truth]
        auc = float(roc_auc_score(truth, scores)) if len(positive) and len(negative) else None
        reason = ""
        if len(positive) < settings.min_positives:
            reason = f"{len(positive)} positive validation scans, {settings.min_positives} are needed"
        elif auc is None:
            reason = "no negative validation scan"
        elif auc < settings.min_auc:
            reason = f"validation AUC {auc:.3f}, {settings.min_auc:.3f} is needed"
        elif (p := float(mannwhitneyu(positive, negative, alternative="greater").pvalue)) > settings.max_p:
            reason = f"validation AUC {auc:.3f} may be luck (p = {p:.2f})"
        present = absent = None
        if not reason:
            # "lower" and "higher": at least the share passes, whatever the number of scans.
            unlike = float(np.quantile(negative, settings.negative_quantile, method="higher"))
            present = min(unlike, float(np.quantile(positive, 1 - settings.pass_share, method="lower")))
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


def judge(
    probabilities: NDArray[np.float64], labels: NDArray[np.float64], thresholds: dict[str, FindingThreshold]
) -> list[Score]:
    """The scores of a volume, one a finding; those unknown or not judged have no bounds.

    Args:
        probabilities: (18,) in [0, 1].
        labels: (18,) what was asked: 1, 0 or NaN.
        thresholds: Of :func:`calibrate`.
    """
    scores = []
    for name, value, asked in zip(FINDINGS, probabilities.tolist(), labels.tolist(), strict=True):
        bounds = thresholds[name]
        if asked == 1 and bounds.present is not None:
            scores.append(bounded("label", name, value, low=bounds.present, what=f"{name} is not seen"))
        elif asked == 0 and bounds.absent is not None:
            scores.append(
                bounded("label", name, value, high=bounds.absent, what=f"{name} is seen and was not asked for")
            )
        else:
            note = "" if np.isnan(asked) else f"not judged: {bounds.not_judged}"
            scores.append(Score("label", name, value, note=note))
    return scores
