"""How many synthetic volumes of which label set bring rare findings to a target prevalence."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from text2ct.augment._calibrate import Aims, LabelSets, choose_counts, volumes_needed
from text2ct.augment._label_sets import label_sets
from text2ct.augment._outcome import associations, notes_of, per_finding, tally
from text2ct.augment._plan import Cost, FindingPlan, LabelSet, Plan, read_plan
from text2ct.augment._scans import NAMES, label_matrix, labels_digest, training_scans
from text2ct.console import warn
from text2ct.errors import UserError
from text2ct.manifests import UnderrepresentedRule, by_scan, summarise

__all__ = ["MIN_FIDELITY", "Cost", "FindingPlan", "LabelSet", "Plan", "make_plan", "read_plan"]

# Rare findings of CT-RATE lie at 7 to 10 %; 15 % doubles them.
DEFAULT_TARGET_PREVALENCE = 0.15
# With less, a classifier that tells synthetic from real would know the finding in most synthetic volumes.
DEFAULT_WITHOUT_SHARE = 0.5
# Gains were seen up to one synthetic volume per real one; more costs hours and brings nothing.
DEFAULT_MAX_RATIO = 1.0
# Cohen's (1988) conventional small association.
DEFAULT_MAX_ASSOCIATION = 0.1
# New real-looking patients of the wanted labels, the most that a generator can be, brought about this much AUC.
DEFAULT_EXPECTED_GAIN = 0.05
# Below this share of the judges' AUC, a pack's volumes of a finding teach the classifier something else.
MIN_FIDELITY = 0.85
# Steps by which more volumes are tried where the targets' aims stand in each other's way.
_MORE = 1.25
# Rounds in which a target IRLbl follows the commonest finding, whose prevalence a small association hardly moves.
_ROUNDS = 6


def make_plan(
    frame: pd.DataFrame,
    *,
    findings: Sequence[str] | None = None,
    rule: UnderrepresentedRule | None = None,
    target_prevalence: float | None = None,
    target_irlbl: float | None = None,
    without_share: float = DEFAULT_WITHOUT_SHARE,
    max_ratio: float = DEFAULT_MAX_RATIO,
    max_association: float = DEFAULT_MAX_ASSOCIATION,
    expected_gain: float = DEFAULT_EXPECTED_GAIN,
    unseen: bool = False,
    fidelity: Mapping[str, float] | None = None,
    seed: int = 0,
) -> Plan:
    """Plan synthetic volumes that bring findings to a target prevalence among the training scans.

    The label sets of the training scans are asked for in other proportions than they occur in, changed as
    little as the aims allow (:func:`text2ct.augment._calibrate.choose_counts`): so companions come along as
    usual, and what they come to is held down. In this order: every target has the target prevalence; at least
    ``without_share`` of the synthetic volumes lacks it and being synthetic is hardly associated with any label;
    as few volumes as that needs. A synthetic volume counts as one scan.

    Args:
        frame: A manifest; its training rows decide the plan, its test rows only what could be detected.
        findings: Target findings by their full names; by default the ones under-represented by ``rule`` among
            the training scans that the pack renders faithfully.
        rule: When a finding counts as under-represented; by default :class:`UnderrepresentedRule`'s own values.
        target_prevalence: In (0, 1), by default 0.15; findings that have it already are left alone.
        target_irlbl: In its place the largest IRLbl that a target should have, at least 1: the target prevalence is
            then that of the commonest finding, after the plan, divided by it.
        without_share: In [0, 1); among volumes whose label is known.
        max_ratio: At most this many synthetic volumes per training scan; what cannot be reached within
            it is said in the notes.
        max_association: Largest absolute phi of source and label, in (0, 1]; 1 plans the fewest volumes.
        expected_gain: AUC that a target is hoped to gain, in (0, 1); targets whose test scans could not show
            it are marked.
        unseen: Also ask for plausible label sets that no training scan has.
        fidelity: Per finding the share in [0, 1] of the judges' AUC that the pack's volumes keep; below
            :data:`MIN_FIDELITY` a finding is no target unless it is named.
        seed: Seed of the draw of label sets.

    Raises:
        UserError: A value is out of range, a finding is unknown, or no training scan shows one named.
    """
    scans = training_scans(frame)
    labels = label_matrix(scans)
    target = _target(labels, target_prevalence, target_irlbl)
    _check_settings(findings, target, without_share, max_ratio, max_association, expected_gain)
    notes: list[str] = []
    names = _wanted(scans, findings, rule or UnderrepresentedRule(), fidelity or {}, notes)
    targets = _targets(labels, names, findings is not None, target, notes)
    sets = label_sets(labels, targets, unseen=unseen)
    most = int(max_ratio * len(scans))
    test = label_matrix(by_scan(frame[(frame["split"] == "test") & (frame["source"] != "synthetic")])[0])
    for _ in range(_ROUNDS):
        aims = Aims(targets, target, without_share, max_association)
        counts = _counts(labels, sets, aims, most, seed)
        added = sets.labels.repeat(counts, axis=0)
        rows = per_finding(labels, added, test, aims, expected_gain, fidelity or {}, target_irlbl)
        raised = max(row.prevalence_after or 0 for row in rows.values()) / (target_irlbl or math.inf)
        if not target < raised < 1 - without_share:
            break
        target = raised
    plan = Plan(
        target_prevalence=aims.prevalence,
        target_irlbl=target_irlbl,
        without_share=without_share,
        max_ratio=max_ratio,
        max_association=max_association,
        expected_gain=expected_gain,
        unseen=unseen,
        seed=seed,
        training_scans=len(scans),
        training_labels=labels_digest(labels),
        test_scans=len(test),
        targets=tuple(NAMES[t] for t in targets),
        label_sets=_to_make(sets, counts),
        findings=rows,
    )
    needed = volumes_needed(labels, aims) / len(scans) if targets else 0.0
    return plan.model_copy(update={"notes": (*notes, *notes_of(plan, needed))})


def _target(labels: np.ndarray, prevalence: float | None, irlbl: float | None) -> float:
    """The target prevalence, given or that of the commonest finding over the target IRLbl."""
    if irlbl is None:
        return DEFAULT_TARGET_PREVALENCE if prevalence is None else prevalence
    if prevalence is not None:
        raise UserError("a target prevalence and a target IRLbl exclude each other; give one of them")
    if not 1 <= irlbl < math.inf:
        raise UserError(
            f"target IRLbl is {irlbl:g}; expected at least 1, where a finding is as common as the commonest"
        )
    positive, known = tally(labels)
    if not positive.any():
        raise UserError("no training scan shows any finding, so there is no IRLbl to bring down")
    return float((positive / np.maximum(known, 1)).max()) / irlbl


def _check_settings(
    findings: Sequence[str] | None, target: float, without: float, ratio: float, association: float, gain: float
) -> None:
    problems = [f"unknown finding '{name}'" for name in findings or () if name not in NAMES]
    if findings is not None and not findings:
        problems.append("no finding is named")
    if not 0 < target < 1:
        problems.append(f"target prevalence is {target:g}; expected between 0 and 1")
    if not 0 <= without < 1:
        problems.append(f"share without the finding is {without:g}; expected at least 0 and below 1")
    elif target >= 1 - without > 0:
        problems.append(
            f"a prevalence of {target:g} cannot be reached when {without:g} of the synthetic volumes lack "
            f"the finding; lower one of them so that together they stay below 1"
        )
    if not 0 < ratio < float("inf"):
        problems.append(f"maximal ratio is {ratio:g}; expected more than 0")
    if not 0 < association <= 1:
        problems.append(f"maximal association is {association:g}; expected more than 0 and at most 1")
    if not 0 < gain < 1:
        problems.append(f"expected gain is {gain:g}; expected an AUC difference between 0 and 1")
    if problems:
        raise UserError("the plan cannot be made", problems)


def _wanted(
    scans: pd.DataFrame,
    findings: Sequence[str] | None,
    rule: UnderrepresentedRule,
    fidelity: Mapping[str, float],
    notes: list[str],
) -> list[str]:
    """The findings named, or those that are rare and that the pack renders faithfully."""
    unfaithful = [name for name in NAMES if fidelity.get(name, 1.0) < MIN_FIDELITY]
    if findings is not None:
        names = [name for name in NAMES if name in set(findings)]
        for name in [name for name in names if name in unfaithful]:
            notes.append(
                f"{name} is planned for because it was named, but the pack's volumes keep only {fidelity[name]:.0%} of "
                f"the AUC by which judges know it, below {MIN_FIDELITY:.0%}: expect no gain"
            )
            warn(notes[-1])
        return names
    summary = summarise(scans, rule=rule).to_json()["findings"]
    rare = [name for name in NAMES if summary[name]["underrepresented"]]
    if not rare:
        notes.append("no finding is under-represented by the rule; name findings to plan for them anyway")
    notes.extend(
        f"{name} is left out: the pack's volumes keep only {fidelity[name]:.0%} of the AUC by which judges know it, "
        f"below {MIN_FIDELITY:.0%}; name the finding to plan for it anyway"
        for name in rare
        if name in unfaithful
    )
    return [name for name in rare if name not in unfaithful]


def _targets(labels: np.ndarray, names: Sequence[str], named: bool, target: float, notes: list[str]) -> list[int]:
    """Indices of findings to add, after dropping those without examples or already frequent."""
    positive, known = (labels == 1).sum(axis=0), (~np.isnan(labels)).sum(axis=0)
    absent = [name for name in names if positive[NAMES.index(name)] == 0]
    if absent and named:
        problems = [f"no training scan shows {name}" for name in absent]
        raise UserError("there is nothing to draw label sets from; ask for other findings or write prompts", problems)
    notes.extend(f"{name} is left out: no training scan shows it" for name in absent)
    chosen = []
    for index in [NAMES.index(name) for name in names if name not in absent]:
        share = positive[index] / known[index]
        if share >= target:
            notes.append(f"{NAMES[index]} is left out: {share:.1%} of training scans show it already")
        else:
            chosen.append(index)
    return chosen


def _counts(labels: np.ndarray, sets: LabelSets, aims: Aims, most: int, seed: int) -> np.ndarray:
    """Volumes per label set: as few as reach the aims, or ``most`` where none do."""
    if not aims.targets or most < 1:
        return np.zeros(len(sets.share), dtype=int)
    volumes = min(max(volumes_needed(labels, aims), 1), most)
    while True:
        counts = choose_counts(labels, sets, aims, volumes, np.random.default_rng([seed, len(labels)]))
        # What targets reach one by one may not be reached by all together: then more volumes are tried.
        if volumes == most or _are_met(labels, sets.labels.repeat(counts, axis=0), aims):
            return counts
        volumes = min(math.ceil(volumes * _MORE), most)


def _are_met(labels: np.ndarray, added: np.ndarray, aims: Aims) -> bool:
    """Whether every target has its prevalence, enough volumes without it, and a small association with the source."""
    positive, known = tally(np.concatenate([labels, added])[:, aims.targets])
    with_, asked = tally(added[:, aims.targets])
    phi = associations(labels, added)
    return bool(
        (positive >= aims.prevalence * known - 1e-9).all()
        and (asked - with_ >= aims.without * asked - 1e-9).all()
        and all(abs(phi[NAMES[target]] or 0) <= aims.association for target in aims.targets)
    )


def _to_make(sets: LabelSets, counts: np.ndarray) -> tuple[LabelSet, ...]:
    """The sets with a count, the most frequent first."""
    return tuple(
        LabelSet(
            positive=tuple(n for n, v in zip(NAMES, sets.labels[i], strict=True) if v == 1),
            unknown=tuple(n for n, v in zip(NAMES, sets.labels[i], strict=True) if np.isnan(v)),
            count=int(counts[i]),
            training_scans=int(sets.scans[i]),
        )
        for i in np.argsort(-counts, kind="stable")
        if counts[i]
    )
