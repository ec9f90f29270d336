"""The label sets that a plan may ask for: those of the training scans and, on request, plausible ones beside them."""

from __future__ import annotations

import numpy as np

from text2ct.augment._calibrate import LabelSets

# Only the commonest sets are combined with a finding that they lack: of rare ones too little is known.
_BASES = 200


def label_sets(labels: np.ndarray, targets: list[int], *, unseen: bool) -> LabelSets:
    """The distinct label sets of the training scans, and with ``unseen`` plausible ones that no scan has.

    An unseen set is one of the commonest fully known sets with one target finding put in, where each pair of its
    findings occurs together in some training scan. Chance asks for it as often as for its base times the target's
    odds, as if the finding came independently.

    Args:
        labels: (n, 18) of the training scans: 1, 0 or NaN.
        targets: Indices of the findings to raise.
        unseen: Whether to add sets that no training scan has.
    """
    coded, scans = np.unique(np.nan_to_num(labels, nan=2).astype(np.int8), axis=0, return_counts=True)
    rows, weights, counts = [coded], [scans.astype(float)], [scans]
    if unseen:
        together = (labels == 1).astype(int)
        together = together.T @ together > 0
        seen = {row.tobytes() for row in coded}
        whole = np.flatnonzero((coded != 2).all(axis=1))
        for base in whole[np.argsort(-scans[whole], kind="stable")][:_BASES]:
            for target in targets:
                row = coded[base].copy()
                row[target] = 1
                present = np.flatnonzero(row == 1)
                if row.tobytes() in seen or not together[np.ix_(present, present)].all():
                    continue
                seen.add(row.tobytes())
                share = np.nanmean(labels[:, target])
                rows.append(row[None])
                weights.append(np.array([scans[base] * share / (1 - share)]))
                counts.append(np.array([0]))
    coded, weight = np.concatenate(rows), np.concatenate(weights)
    return LabelSets(np.where(coded == 2, np.nan, coded), np.concatenate(counts), weight / weight.sum())
