"""What ``text2ct report`` says about a manifest, as numbers."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any

import pandas as pd

from text2ct.errors import UserError
from text2ct.findings import FINDINGS
from text2ct.manifests import imbalance
from text2ct.manifests._columns import SPLITS
from text2ct.manifests._scans import by_scan, labels_by_patient


@dataclass(frozen=True)
class UnderrepresentedRule:
    """When a finding counts as under-represented: one condition that holds is enough.

    Attributes:
        max_prevalence: Prevalence by scan below this, in [0, 1]; None switches the condition off.
        max_irlbl: IRLbl above this; None takes the table's MeanIR (Charte et al. 2015).
        use_irlbl: Whether IRLbl counts at all.
        min_positive_scans: Fewer positive scans than this.
    """

    max_prevalence: float | None = 0.10
    max_irlbl: float | None = None
    use_irlbl: bool = True
    min_positive_scans: int = 1

    def __post_init__(self) -> None:
        """Refuse values that no table can meet."""
        if self.max_prevalence is not None and not 0 <= self.max_prevalence <= 1:
            raise UserError(f"max_prevalence is {self.max_prevalence:g}; expected a share between 0 and 1")
        if self.max_irlbl is not None and not self.max_irlbl >= 1:
            raise UserError(f"max_irlbl is {self.max_irlbl:g}; IRLbl is never below 1")

    def __str__(self) -> str:
        """The rule as a sentence."""
        parts = []
        if self.use_irlbl:
            parts.append("IRLbl > " + ("MeanIR" if self.max_irlbl is None else f"{self.max_irlbl:g}"))
        if self.max_prevalence is not None:
            parts.append(f"prevalence < {_percent(self.max_prevalence)}")
        if self.min_positive_scans > 0:
            parts.append(f"fewer than {self.min_positive_scans} positive scans")
        return " or ".join(parts) or "never"

    def reasons(self, positive_scans: int, prevalence: float, irlbl: float, mean_ir: float) -> tuple[str, ...]:
        """Why a finding is under-represented; nothing if it is not, or if it was never labelled."""
        if math.isnan(prevalence):
            return ()
        found = []
        limit = mean_ir if self.max_irlbl is None else self.max_irlbl
        if self.use_irlbl and irlbl > limit:
            name = "MeanIR" if self.max_irlbl is None else "the limit"
            found.append(f"IRLbl {irlbl:.2f} is above {name} {limit:.2f}")
        if self.max_prevalence is not None and prevalence < self.max_prevalence:
            found.append(f"prevalence {_percent(prevalence)} is below {_percent(self.max_prevalence)}")
        if positive_scans < self.min_positive_scans:
            found.append(f"{positive_scans} positive scans are fewer than {self.min_positive_scans}")
        return tuple(found)


@dataclass(frozen=True)
class FindingSummary:
    """One finding in numbers; NaN where nothing is known.

    Attributes:
        positive_volumes: Volumes labelled 1.
        positive_scans: Scans with a positive reconstruction.
        known_scans: Scans with a known label.
        positive_patients: Patients with a positive scan.
        prevalence: ``positive_scans / known_scans``.
        prevalence_by_patient: The same share of patients.
        irlbl: Imbalance ratio, by scan.
        underrepresented: Whether the rule says so.
        reasons: Why it does.
        detectable_auc_difference: At this many positive and negative scans.
    """

    positive_volumes: int
    positive_scans: int
    known_scans: int
    positive_patients: int
    prevalence: float
    prevalence_by_patient: float
    irlbl: float
    underrepresented: bool
    reasons: tuple[str, ...]
    detectable_auc_difference: float


@dataclass(frozen=True)
class Summary:
    """A manifest in numbers. Measures of imbalance and co-occurrence are by scan.

    Attributes:
        volumes: Rows.
        scans: Different (dataset, scan).
        patients: Different (dataset, patient).
        mean_ir: Mean IRLbl; large is unbalanced.
        cvir: Variation of IRLbl.
        scumble: Concurrence of rare and common findings, in [0, 1].
        rule: The rule for under-represented, as a sentence.
        findings: The numbers of each finding, in CT-RATE's order.
        cooccurrence: (18, 18) numbers of scans that have both findings.
        splits: Volumes, scans and patients of each split ("" is none).
        disagreeing_scans: Scans whose reconstructions were labelled differently.
    """

    volumes: int
    scans: int
    patients: int
    mean_ir: float
    cvir: float
    scumble: float
    rule: str
    findings: dict[str, FindingSummary]
    cooccurrence: pd.DataFrame
    splits: dict[str, dict[str, int]]
    disagreeing_scans: list[str] = field(default_factory=list)

    @property
    def underrepresented(self) -> list[str]:
        """The under-represented findings, rarest first."""
        rare = [name for name, numbers in self.findings.items() if numbers.underrepresented]
        return sorted(rare, key=lambda name: self.findings[name].prevalence)

    def to_json(self) -> dict[str, Any]:
        """The ``report`` object of the command line: numbers that cannot be computed are None."""
        return {
            "volumes": self.volumes,
            "scans": self.scans,
            "patients": self.patients,
            "mean_ir": _plain(self.mean_ir),
            "cvir": _plain(self.cvir),
            "scumble": _plain(self.scumble),
            "rule": self.rule,
            "findings": {
                name: {key: _plain(value) for key, value in asdict(numbers).items()}
                for name, numbers in self.findings.items()
            },
            "cooccurrence": {
                str(name): {str(other): int(count) for other, count in row.items()}
                for name, row in self.cooccurrence.iterrows()
            },
            "splits": self.splits,
            "disagreeing_scans": self.disagreeing_scans,
        }


def _percent(share: float) -> str:
    """Four digits, so that a prevalence just below a limit does not read like the limit."""
    return f"{100 * share:.4g}%"


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return list(value) if isinstance(value, tuple) else value


def summarise(frame: pd.DataFrame, rule: UnderrepresentedRule | None = None) -> Summary:
    """Count a manifest by volume, scan and patient and measure its imbalance.

    Args:
        frame: A validated manifest.
        rule: When a finding is under-represented; by default IRLbl above MeanIR or prevalence below 10%.

    Raises:
        UserError: The manifest has no rows.
    """
    if frame.empty:
        raise UserError("the manifest has no rows, so there is nothing to report")
    rule = rule or UnderrepresentedRule()
    scans, disagreeing = by_scan(frame)
    labels = scans[list(FINDINGS)]
    by_patient = labels_by_patient(frame)
    ratios, mean_ir = imbalance.irlbl(labels), imbalance.mean_ir(labels)
    findings = {}
    for name in FINDINGS:
        column = labels[name]
        positive, known = int((column == 1).sum()), int(column.notna().sum())
        share = positive / known if known else math.nan
        reasons = rule.reasons(positive, share, float(ratios[name]), mean_ir)
        patients = by_patient[name].dropna()
        findings[name] = FindingSummary(
            positive_volumes=int((frame[name] == 1).sum()),
            positive_scans=positive,
            known_scans=known,
            positive_patients=int((patients == 1).sum()),
            prevalence=share,
            prevalence_by_patient=float(patients.mean()) if len(patients) else math.nan,
            irlbl=float(ratios[name]),
            underrepresented=bool(reasons),
            reasons=reasons,
            detectable_auc_difference=imbalance.detectable_auc_difference(positive, known - positive),
        )
    return Summary(
        volumes=len(frame),
        scans=len(scans),
        patients=len(by_patient),
        mean_ir=mean_ir,
        cvir=imbalance.cvir(labels),
        scumble=imbalance.scumble(labels),
        rule=str(rule),
        findings=findings,
        cooccurrence=imbalance.cooccurrence(labels),
        splits=_split_sizes(frame),
        disagreeing_scans=disagreeing,
    )


def _split_sizes(frame: pd.DataFrame) -> dict[str, dict[str, int]]:
    sizes = {}
    for split in (*SPLITS, ""):
        rows = frame[frame["split"] == split]
        if len(rows):
            sizes[split] = {
                "volumes": len(rows),
                "scans": len(rows.drop_duplicates(["dataset", "scan"])),
                "patients": len(rows.drop_duplicates(["dataset", "patient"])),
            }
    return sizes
