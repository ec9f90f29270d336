"""Prompts for synthetic volumes: reports of training scans, such reports edited, or texts composed from label sets."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import cycle, islice
from typing import Literal

import numpy as np
import pandas as pd

from text2ct.augment._scans import NAMES, label_matrix, labels_digest, training_scans
from text2ct.augment.edited import edit_report
from text2ct.augment.leaks import HeldOut, normalise_text, report_prompt
from text2ct.augment.plan import LabelSet, Plan
from text2ct.console import warn
from text2ct.errors import UserError

# (labels (18,) of 1, 0 or NaN, generator) -> text
Compose = Callable[[np.ndarray, np.random.Generator], str]
Source = Literal["reports", "edited", "composed"]

PROMPT_COLUMNS = ("prompt", *NAMES, "dataset", "volume", "patient", "split")
# More volumes of one text add the generator's noise and no new disease.
MAX_USES_PER_PROMPT = 4
# Phrasings tried before a composed text is taken to have no unused variant left.
_COMPOSE_ATTEMPTS = 20


def make_prompts(
    frame: pd.DataFrame,
    plan: Plan | Sequence[str],
    count: int | None = None,
    seed: int = 0,
    source: Source = "reports",
    *,
    max_uses: int = MAX_USES_PER_PROMPT,
    compose: Compose | None = None,
    max_composed: int | None = None,
) -> pd.DataFrame:
    """Write one prompt per volume asked for, with its 18 labels and the training scan it came from.

    Reports are used in turn, least used first. A text is used at most ``max_uses`` times, also when
    several scans have the same report; a text that validation or test patients have too is never
    used, nor edited. ``edited`` puts the finding asked for into reports of scans that lack it, each edited at most
    ``max_uses`` times, and goes on with reports of scans that have it; label sets of a plan that show none of its
    targets keep their reports as they are. Where no report is left, the text is composed from the scan's labels.

    Args:
        frame: A manifest; only training rows are used.
        plan: A plan, or findings by their full names, of which each volume shows one in turn.
        count: Prompts to make; by default the plan's total (findings need a count).
        seed: Same manifest, plan and seed give the same table.
        source: ``reports``, ``edited`` or ``composed``.
        max_uses: Limit per text.
        compose: Text from labels; by default :func:`text2ct.simulation.text.compose`.
        max_composed: Limit of composed texts; by default none.

    Returns:
        Columns :data:`PROMPT_COLUMNS`. Fewer rows than asked, with a warning, when a limit forbids more.

    Raises:
        UserError: No training row, an unknown finding, a finding without training scan, or a bad count.
    """
    if source not in ("reports", "edited", "composed"):
        raise UserError(f"prompt source is '{source}'; expected reports, edited or composed")
    if max_uses < 1:
        raise UserError(f"the limit of uses per prompt is {max_uses}; expected at least 1")
    if count is None and isinstance(plan, Plan):
        count = plan.total
    if count is None or count < 0:
        raise UserError(f"the number of prompts is {count}; expected 0 or more")
    scans = training_scans(frame)
    rng = np.random.default_rng([seed, 1])
    edited = source == "edited"
    if isinstance(plan, Plan):
        if plan.training_labels not in ("", labels_digest(label_matrix(scans))):
            warn(
                f"the plan was made from {plan.training_scans:,} training scans whose labels are not those of the "
                f"{len(scans):,} here; its counts do not fit them: make it anew with `text2ct report`"
            )
        groups = _plan_groups(plan, scans, count, rng, edited=edited)
    else:
        groups = _finding_groups(plan, scans, count, edited=edited)
    writer = _Writer(
        scans, HeldOut(frame), rng, source, max_uses, compose or _compose_by_default, max_composed or math.inf
    )
    rows = [row for row in (writer.next(group) for group in groups) if row is not None]
    if writer.composed == max_composed and len(rows) < count:
        warn(
            f"wrote {len(rows):,} of {count:,} prompts: {max_composed:,} texts were composed where the table has no "
            "report; `text2ct synthesize --plan` composes the others as it goes"
        )
    elif len(rows) < count:
        warn(
            f"made {len(rows)} of {count} prompts: training scans hold no more texts within {max_uses} uses "
            "each; raise the limit or ask for fewer"
        )
    return pd.DataFrame(rows, columns=list(PROMPT_COLUMNS)).astype(dict.fromkeys(NAMES, "float64"))


def _compose_by_default(labels: np.ndarray, rng: np.random.Generator) -> str:
    from text2ct.simulation.text import compose

    report = compose(labels, rng)
    return report_prompt(report.findings, report.impression)


@dataclass
class _Group:
    """Interchangeable requests.

    Attributes:
        key: Names the group.
        scans: Training scans whose labels fit.
        labels: (18,) labels asked for, for when no scan has them.
        edits: (scan, finding) pairs: reports that fit once the finding is put in; they are used before ``scans``.
    """

    key: str
    scans: list[int]
    labels: np.ndarray
    edits: list[tuple[int, int]] = field(default_factory=list)


def _set_labels(labels: LabelSet) -> np.ndarray:
    values = np.zeros(len(NAMES))
    values[[NAMES.index(name) for name in labels.positive]] = 1
    values[[NAMES.index(name) for name in labels.unknown]] = np.nan
    return values


def _label_key(labels: np.ndarray) -> str:
    return "".join("?" if math.isnan(value) else "01"[value == 1] for value in labels.tolist())


def _plan_groups(
    plan: Plan, scans: pd.DataFrame, count: int, rng: np.random.Generator, *, edited: bool
) -> Iterator[_Group]:
    scans_of: dict[str, list[int]] = {}
    for scan, row in enumerate(label_matrix(scans)):
        scans_of.setdefault(_label_key(row), []).append(scan)
    groups: list[_Group] = []
    for item in plan.label_sets:
        wanted = _set_labels(item)
        key = _label_key(wanted)
        group = _Group(key, scans_of.get(key, []), wanted)
        for index in [NAMES.index(name) for name in plan.targets if edited and name in item.positive]:
            without = wanted.copy()
            without[index] = 0
            group.edits += [(scan, index) for scan in scans_of.get(_label_key(without), [])]
        groups += [group] * item.count
    if not groups and count:
        raise UserError("the plan asks for no volume; name findings, or raise the target prevalence")
    order = rng.permutation(len(groups))
    return islice(cycle([groups[i] for i in order]), count)


def _finding_groups(findings: Sequence[str], scans: pd.DataFrame, count: int, *, edited: bool) -> Iterator[_Group]:
    if isinstance(findings, str):
        findings = [findings]
    unknown = [name for name in findings if name not in NAMES]
    if unknown or not findings:
        raise UserError("prompts need findings by their full names", unknown or ["no finding is named"])
    groups = []
    for name in dict.fromkeys(findings):
        index = NAMES.index(name)
        column = label_matrix(scans)[:, index]
        wanted = np.full(len(NAMES), np.nan)
        wanted[index] = 1
        lacking = np.flatnonzero(column == 0).tolist() if edited else []
        groups.append(_Group(name, np.flatnonzero(column == 1).tolist(), wanted, [(scan, index) for scan in lacking]))
    absent = [f"no training scan shows {group.key}" for group in groups if not group.scans and not group.edits]
    if absent:
        raise UserError("there is no scan to take a report or co-findings from; write a prompt with --text", absent)
    return islice(cycle(groups), count)


class _Writer:
    """Chooses a scan and a text for one request after another, and counts how often each text was used."""

    def __init__(
        self,
        scans: pd.DataFrame,
        held_out: HeldOut,
        rng: np.random.Generator,
        source: Source,
        max_uses: int,
        compose: Compose,
        max_composed: float,
    ) -> None:
        self._labels, self._held_out = label_matrix(scans), held_out
        self._origins = list(zip(scans["dataset"], scans["volume"], scans["patient"], strict=True))
        self._rng, self._max_uses, self._compose = rng, max_uses, compose
        self.composed, self._max_composed = 0, max_composed
        reports = list(zip(scans["findings_text"], scans["impression_text"], strict=True))
        self._reports = reports if source != "composed" else [("", "")] * len(scans)
        self._keys: dict[int, str] = {}
        self._uses: Counter[str] = Counter()
        # Per group a heap of (uses when it was put there, turn, scan, finding to put in or -1): the report used least
        # comes first.
        self._queues: dict[tuple[str, bool], list[tuple[int, int, int, int]]] = {}
        self._turn = 0
        self._composed_for: dict[str, list[int]] = {}

    def next(self, group: _Group) -> list[object] | None:
        """A row of the prompts' table, or None when the limit leaves nothing."""
        return self._next_report(group, edit=True) or self._next_report(group, edit=False) or self._next_composed(group)

    def _next_report(self, group: _Group, *, edit: bool) -> list[object] | None:
        if (group.key, edit) not in self._queues:
            offers = group.edits if edit else [(scan, -1) for scan in group.scans]
            order = self._rng.permutation(len(offers)).tolist()
            self._queues[group.key, edit] = [(0, turn, *offers[i]) for turn, i in enumerate(order, start=self._turn)]
            self._turn += len(order)
        queue = self._queues[group.key, edit]
        while queue:
            seen, _, scan, finding = heappop(queue)
            key = self._key(scan)
            uses = self._uses[key]
            if not key or uses >= self._max_uses or self._held_out.has_key(key):
                continue
            self._turn += 1
            if uses > seen:  # another scan or group has used the same text meanwhile
                heappush(queue, (uses, self._turn, scan, finding))
                continue
            row = self._edited(scan, finding) if finding >= 0 else self._as_it_is(scan)
            if row is None:
                continue
            self._uses[key] += 1
            heappush(queue, (uses + 1, self._turn, scan, finding))
            return row
        return None

    def _key(self, scan: int) -> str:
        if scan not in self._keys:
            self._keys[scan] = normalise_text(report_prompt(*self._reports[scan]))
        return self._keys[scan]

    def _as_it_is(self, scan: int) -> list[object]:
        return self._row(report_prompt(*self._reports[scan]), self._labels[scan], scan)

    def _edited(self, scan: int, finding: int) -> list[object] | None:
        """A row of a scan's report with the finding put in; None where the report does not bear it."""
        findings_text, impression_text = self._reports[scan]
        report = edit_report(findings_text, impression_text, NAMES[finding], self._labels[scan], self._rng)
        if report is None:
            return None
        text = report_prompt(report.findings, report.impression)
        if not self._take(normalise_text(text)):
            return None
        labels = self._labels[scan].copy()
        labels[finding] = 1
        return self._row(text, labels, scan)

    def _take(self, key: str) -> bool:
        """Count a use of a text, unless it is empty, used up or held out."""
        if not key or self._uses[key] >= self._max_uses or self._held_out.has_key(key):
            return False
        self._uses[key] += 1
        return True

    def _next_composed(self, group: _Group) -> list[object] | None:
        if self.composed >= self._max_composed:
            return None
        chosen, labels = None, group.labels
        if group.scans:
            waiting = self._composed_for.setdefault(group.key, [])
            if not waiting:
                waiting += self._rng.permutation(group.scans).tolist()
            chosen = waiting.pop()
            labels = self._labels[chosen]
        for _ in range(_COMPOSE_ATTEMPTS):
            text = self._compose(labels, self._rng)
            if self._take(normalise_text(text)):
                self.composed += 1
                return self._row(text, labels, chosen)
        return None

    def _row(self, text: str, labels: np.ndarray, scan: int | None) -> list[object]:
        origin = ("", "", "") if scan is None else self._origins[scan]
        return [text, *labels, *origin, "train"]
