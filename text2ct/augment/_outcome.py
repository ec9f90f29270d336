"""What a plan's volumes bring to each finding, and what they cannot do."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pandas as pd

from text2ct.augment._calibrate import Aims
from text2ct.augment._plan import FindingPlan, Plan
from text2ct.augment._scans import NAMES
from text2ct.augment.association import source_label_association
from text2ct.manifests.imbalance import detectable_auc_difference, irlbl


def tally(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Positive and known rows of each column."""
    return (labels == 1).sum(axis=0), (~np.isnan(labels)).sum(axis=0)


def associations(labels: np.ndarray, added: np.ndarray) -> dict[str, float | None]:
    """Phi of being synthetic and having each finding, over training scans and synthetic volumes."""
    both = pd.DataFrame(np.concatenate([labels, added]), columns=NAMES)
    return source_label_association(both.assign(source=["real"] * len(labels) + ["synthetic"] * len(added)))


def per_finding(
    labels: np.ndarray,
    added: np.ndarray,
    test: np.ndarray,
    aims: Aims,
    expected_gain: float,
    fidelity: Mapping[str, float],
    target_irlbl: float | None = None,
) -> dict[str, FindingPlan]:
    """What a plan does to each finding, and what the test scans can show of it.

    Args:
        labels: (scans, 18) training labels, NaN where unknown.
        added: (volumes, 18) labels of the synthetic volumes.
        test: (scans, 18) labels of the test scans; they decide ``detectable`` and nothing else.
        aims: What was aimed for.
        expected_gain: AUC difference that is hoped for, in (0, 1).
        fidelity: How much of a finding the generator keeps, in [0, 1], where that is known.
        target_irlbl: IRLbl aimed for, if one was.
    """
    association = associations(labels, added)
    imbalance = [
        [value if math.isfinite(value) else None for value in irlbl(pd.DataFrame(rows, columns=NAMES))]
        for rows in (labels, np.concatenate([labels, added]))
    ]
    (positive, known), (with_, seen), (ill, tested) = tally(labels), tally(added), tally(test)
    rows = {}
    for index, name in enumerate(NAMES):
        p, k, a, m = (int(counts[index]) for counts in (positive, known, with_, seen))
        after = (p + a) / (k + m) if k + m else None
        phi = association[name]
        before, later = (values[index] for values in imbalance)
        prevalent = after is not None and after >= aims.prevalence - 1e-12
        balanced = target_irlbl is None or (later is not None and later <= target_irlbl + 1e-9)
        gain = detectable_auc_difference(int(ill[index]), int(tested[index] - ill[index]))
        rows[name] = FindingPlan(
            target=index in aims.targets,
            positive_scans=p,
            known_scans=k,
            added_with=a,
            added_without=m - a,
            prevalence_before=p / k if k else None,
            prevalence_after=after,
            irlbl_before=before,
            irlbl_after=later,
            reached=index not in aims.targets or (prevalent and balanced),
            source_label_association=phi,
            association_kept=phi is None or abs(phi) <= aims.association,
            test_positive_scans=int(ill[index]),
            detectable_auc_difference=None if math.isnan(gain) else gain,
            detectable=gain <= expected_gain if tested[index] else None,
            fidelity=fidelity.get(name),
        )
    return rows


def notes_of(plan: Plan, needed: float) -> list[str]:
    """What the plan could not do; ``needed`` is the ratio with which each target alone could have all of its aims."""
    limit = (
        f"below {plan.target_prevalence:.1%}"
        if plan.target_irlbl is None
        else f"so that its IRLbl stays above {plan.target_irlbl:g}"
    )
    notes = [
        f"{name} stays at {row.prevalence_after or 0:.1%}, {limit}: the plan keeps to "
        f"{plan.max_ratio:g} synthetic volumes per training scan and to natural companions"
        for name, row in plan.findings.items()
        if not row.reached
    ]
    if not plan.total:
        return notes
    for target, kind in ((True, "targets"), (False, "companions")):
        loud = [
            f"{name} {row.source_label_association:+.2f}"
            for name, row in plan.findings.items()
            if row.target == target and not row.association_kept
        ]
        if loud:
            enough = f"{needed:.3g} synthetic volumes per training scan could do"
            enough = enough if needed > plan.total / plan.training_scans else "a larger --max-ratio may do"
            remedy = f"; {enough}, or a lower target" if target else ""
            notes.append(
                f"being synthetic says more of these {kind} than the {plan.max_association:g} allowed (phi): "
                f"{', '.join(loud)}{remedy}"
            )
    hidden = [
        f"{name} ({'no gain' if row.detectable_auc_difference is None else f'{row.detectable_auc_difference:.2f}'})"
        for name, row in plan.findings.items()
        if row.target and row.detectable is False
    ]
    if hidden:
        notes.append(
            f"the {plan.test_scans:,} test scans could not show a gain of {plan.expected_gain:g} in AUC; the smallest "
            f"they could show: {', '.join(hidden)}"
        )
    if not plan.test_scans:
        notes.append("the table has no test scans, so whether a gain could be detected is not known")
    return notes
