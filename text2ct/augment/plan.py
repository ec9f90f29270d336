"""How many synthetic volumes of which label set bring rare findings to a target prevalence."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from scipy.optimize import linprog

from text2ct.augment._scans import NAMES, label_matrix, training_scans
from text2ct.errors import UserError
from text2ct.files import read_json, write_json
from text2ct.manifests import UnderrepresentedRule, summarise

# Rare findings of CT-RATE lie at 7 to 10 %; 15 % doubles them and keeps the ratio below 1.
DEFAULT_TARGET_PREVALENCE = 0.15
DEFAULT_WITHOUT_SHARE = 0.5
# Gains were seen up to one synthetic volume per real one; more costs hours and brings nothing.
DEFAULT_MAX_RATIO = 1.0
# Of what a judge sees of a finding in real volumes; below it the labels of synthetic volumes are not to be trusted.
MIN_FIDELITY = 0.85


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class LabelSet(_Strict):
    """Volumes to make of one label set, which occurs as it stands in the training scans."""

    drawn_for: str = Field(description="The finding that the set was drawn for; empty for volumes without any target")
    positive: tuple[str, ...] = Field(description="Findings present, in CT-RATE's order")
    unknown: tuple[str, ...] = Field(default=(), description="Findings whose label is unknown in those scans")
    count: int = Field(ge=1, description="Volumes to make")
    training_scans: int = Field(ge=1, description="Training scans with exactly these labels")


class FindingPlan(_Strict):
    """What the plan does to one finding; prevalences are by training scan, among known labels."""

    target: bool
    positive_scans: int
    known_scans: int
    added_with: int
    added_without: int
    prevalence_before: float | None
    prevalence_after: float | None
    reached: bool = Field(description="The target prevalence is met; true for findings that are no target")


class Plan(_Strict):
    """A resolved plan: explicit counts that a person can inspect and edit (``plan.json``)."""

    version: int = 1
    target_prevalence: float
    without_share: float
    max_ratio: float
    seed: int
    training_scans: int
    targets: tuple[str, ...]
    total: int
    label_sets: tuple[LabelSet, ...]
    findings: dict[str, FindingPlan]
    notes: tuple[str, ...] = ()

    def write(self, path: Path) -> None:
        """Write ``plan.json`` atomically."""
        write_json(path, self.model_dump(mode="json"))


def read_plan(path: Path) -> Plan:
    """Read a ``plan.json``, also one that a person edited.

    Raises:
        UserError: The file is absent, is not JSON, or a field is wrong; every problem is named.
    """
    try:
        plan = Plan.model_validate(read_json(path))
    except ValidationError as error:
        problems = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()]
        raise UserError(f"{path} is no plan", problems) from error
    strange = sorted({name for s in plan.label_sets for name in (*s.positive, *s.unknown)} - set(NAMES))
    if strange:
        raise UserError(f"{path} names unknown findings", strange)
    return plan


def make_plan(
    frame: pd.DataFrame,
    *,
    findings: Sequence[str] | None = None,
    rule: UnderrepresentedRule | None = None,
    target_prevalence: float = DEFAULT_TARGET_PREVALENCE,
    without_share: float = DEFAULT_WITHOUT_SHARE,
    max_ratio: float = DEFAULT_MAX_RATIO,
    seed: int = 0,
) -> Plan:
    """Plan synthetic volumes that bring findings to a target prevalence among the training scans.

    A small linear programme over pools of training scans (those with each target finding, and those
    with none) minimises the number of volumes, counting the companions that each pool brings along.
    Label sets are then drawn from those scans, so that co-findings stay as they occur, and the draw
    is mended until the exact counts, not the expected ones, meet the target. A synthetic volume
    counts as one scan.

    Args:
        frame: A manifest; only its training rows are used.
        findings: Target findings by their full names; by default the ones under-represented by ``rule`` among
            the training scans.
        rule: When a finding counts as under-represented; by default :class:`UnderrepresentedRule`'s own values.
        target_prevalence: In (0, 1); findings that have it already are left alone.
        without_share: At least this share of the synthetic volumes lacks each target finding, so that
            looking synthetic does not predict it.
        max_ratio: At most this many synthetic volumes per training scan; what cannot be reached within
            it is said in the notes.
        seed: Seed of the draw of label sets.

    Raises:
        UserError: A value is out of range, a finding is unknown, or no training scan shows one named.
    """
    _check_settings(findings, target_prevalence, without_share, max_ratio)
    scans = training_scans(frame)
    labels = label_matrix(scans)
    notes: list[str] = []
    targets = _targets(scans, labels, findings, rule or UnderrepresentedRule(), target_prevalence, notes)
    drawn = _draw(labels, targets, target_prevalence, without_share, int(max_ratio * len(scans)), seed)
    added = labels[[row for row, _ in drawn]] if drawn else labels[:0]
    per_finding = _per_finding(labels, added, targets, target_prevalence)
    for name, row in per_finding.items():
        if not row.reached:
            notes.append(
                f"{name} stays at {row.prevalence_after or 0:.1%}, below {target_prevalence:.1%}: the plan "
                f"keeps to {max_ratio:g} synthetic volumes per training scan and to natural companions"
            )
    return Plan(
        target_prevalence=target_prevalence,
        without_share=without_share,
        max_ratio=max_ratio,
        seed=seed,
        training_scans=len(scans),
        targets=tuple(NAMES[t] for t in targets),
        total=len(drawn),
        label_sets=_label_sets(labels, drawn),
        findings=per_finding,
        notes=tuple(notes),
    )


def _check_settings(findings: Sequence[str] | None, target: float, without: float, max_ratio: float) -> None:
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
    if not 0 < max_ratio < float("inf"):
        problems.append(f"maximal ratio is {max_ratio:g}; expected more than 0")
    if problems:
        raise UserError("the plan cannot be made", problems)


def _targets(
    scans: pd.DataFrame,
    labels: np.ndarray,
    findings: Sequence[str] | None,
    rule: UnderrepresentedRule,
    target: float,
    notes: list[str],
) -> list[int]:
    """Indices of findings to add, after dropping those without examples or already frequent."""
    if findings is None:
        summary = summarise(scans, rule=rule).to_json()["findings"]
        names = [name for name in NAMES if summary[name]["underrepresented"]]
        if not names:
            notes.append("no finding is under-represented by the rule; name findings to plan for them anyway")
    else:
        names = [name for name in NAMES if name in set(findings)]
    positive = np.nansum(labels, axis=0)
    known = (~np.isnan(labels)).sum(axis=0)
    absent = [name for name in names if positive[NAMES.index(name)] == 0]
    if absent and findings is not None:
        problems = [f"no training scan shows {name}" for name in absent]
        raise UserError("there is nothing to draw label sets from; ask for other findings or write prompts", problems)
    notes.extend(f"{name} is left out: no training scan shows it" for name in absent)
    chosen = []
    for name in names:
        index = NAMES.index(name)
        if name in absent:
            continue
        if positive[index] / known[index] >= target:
            notes.append(f"{name} is left out: {positive[index] / known[index]:.1%} of training scans show it already")
        else:
            chosen.append(index)
    return chosen


def _solve(
    pools: list[np.ndarray], labels: np.ndarray, targets: list[int], target: float, without: float, cap: int
) -> tuple[np.ndarray, np.ndarray]:
    """Volumes per pool by a linear programme, and which targets can be reached.

    Shortfalls are allowed, at a price above any volume's.

    Variables are the volumes ``x_p`` of each pool and the shortfall ``s_f`` of each target:
    minimise ``sum x + 1000 sum s`` with, in expectation over a pool's scans,
    ``P_f + x.with_f + s_f >= target * (K_f + x.known_f)``, ``x.without_f >= without * sum x``
    and ``sum x <= cap``.
    """
    mean_with = np.array([(labels[p][:, targets] == 1).mean(axis=0) for p in pools])
    mean_without = np.array([(labels[p][:, targets] == 0).mean(axis=0) for p in pools])
    positive = (labels[:, targets] == 1).sum(axis=0)
    known = (~np.isnan(labels[:, targets])).sum(axis=0)
    n_pools, n_targets = len(pools), len(targets)
    reach = np.hstack([(target * (mean_with + mean_without) - mean_with).T, -np.eye(n_targets)])
    lack = np.hstack([(without - mean_without).T, np.zeros((n_targets, n_targets))])
    total = np.hstack([np.ones((1, n_pools)), np.zeros((1, n_targets))])
    solution = linprog(
        np.hstack([np.ones(n_pools), np.full(n_targets, 1000.0)]),
        A_ub=np.vstack([reach, lack, total]),
        b_ub=np.hstack([positive - target * known, np.zeros(n_targets), [cap]]),
        method="highs",
    )
    return np.floor(solution.x[:n_pools] + 1e-9).astype(int), solution.x[n_pools:] < 1e-6


def _draw(
    labels: np.ndarray, targets: list[int], target: float, without: float, cap: int, seed: int
) -> list[tuple[int, int]]:
    """Training scans whose label sets are asked for, each with the target it was drawn for (-1: none)."""
    if not targets or cap == 0:
        return []
    reasons = [*targets, -1]
    pools = [np.flatnonzero(labels[:, t] == 1) for t in targets]
    pools.append(np.flatnonzero((labels[:, targets] == 0).all(axis=1)))
    if not len(pools[-1]):
        pools, reasons = pools[:-1], reasons[:-1]
    counts, reachable = _solve(pools, labels, targets, target, without, cap)
    rng = np.random.default_rng([seed, len(labels)])
    draws = {reason: _Cycle(rng, pool) for reason, pool in zip(reasons, pools, strict=True)}
    drawn = [(draws[r].next(), r) for r, count in zip(reasons, counts, strict=True) for _ in range(count)]
    known = labels[:, targets]
    positive, seen = (known == 1).sum(axis=0), (~np.isnan(known)).sum(axis=0)
    added = known[[row for row, _ in drawn]]
    with_, without_ = (added == 1).sum(axis=0), (added == 0).sum(axis=0)
    # Mend what the draw's chance left short. Each step adds a scan, so the cap bounds the loop.
    while len(drawn) < cap:
        short = np.where(reachable, target * (seen + with_ + without_) - (positive + with_), 0.0)
        lacking = without * len(drawn) - without_
        if lacking.max() > 1e-9 and -1 in draws:
            reason = -1
        elif short.max() > 1e-9:
            reason = targets[int(short.argmax())]
        else:
            break
        row = draws[reason].next()
        drawn.append((row, reason))
        with_ = with_ + (known[row] == 1)
        without_ = without_ + (known[row] == 0)
    return drawn


class _Cycle:
    """Draws from a pool without repeating an item before all others had their turn."""

    def __init__(self, rng: np.random.Generator, pool: np.ndarray) -> None:
        self._rng, self._pool, self._left = rng, pool, list[int]()

    def next(self) -> int:
        if not self._left:
            self._left = self._rng.permutation(self._pool).tolist()
        return self._left.pop()


def _label_sets(labels: np.ndarray, drawn: list[tuple[int, int]]) -> tuple[LabelSet, ...]:
    keys = [row.tobytes() for row in np.where(np.isnan(labels), 2, labels).astype(np.int8)]
    scans = Counter(keys)
    examples: dict[tuple[int, bytes], int] = {}
    counts: Counter[tuple[int, bytes]] = Counter()
    for row, reason in drawn:
        examples.setdefault((reason, keys[row]), row)
        counts[reason, keys[row]] += 1
    order = sorted(counts, key=lambda k: (k[0] == -1, k[0], -counts[k], k[1]))
    return tuple(
        LabelSet(
            drawn_for=NAMES[reason] if reason >= 0 else "",
            positive=tuple(n for n, v in zip(NAMES, labels[examples[reason, key]], strict=True) if v == 1),
            unknown=tuple(n for n, v in zip(NAMES, labels[examples[reason, key]], strict=True) if np.isnan(v)),
            count=counts[reason, key],
            training_scans=scans[key],
        )
        for reason, key in order
    )


def _per_finding(labels: np.ndarray, added: np.ndarray, targets: list[int], target: float) -> dict[str, FindingPlan]:
    rows = {}
    for index, name in enumerate(NAMES):
        positive, known = int((labels[:, index] == 1).sum()), int((~np.isnan(labels[:, index])).sum())
        with_, without = int((added[:, index] == 1).sum()), int((added[:, index] == 0).sum())
        after = (positive + with_) / (known + with_ + without) if known + with_ + without else None
        rows[name] = FindingPlan(
            target=index in targets,
            positive_scans=positive,
            known_scans=known,
            added_with=with_,
            added_without=without,
            prevalence_before=positive / known if known else None,
            prevalence_after=after,
            reached=index not in targets or (after is not None and after >= target - 1e-12),
        )
    return rows
