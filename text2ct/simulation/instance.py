"""One finding in one scan: what was drawn, before it is painted or put into words."""

from __future__ import annotations

from dataclasses import dataclass

LOBES = ("right upper lobe", "right middle lobe", "right lower lobe", "left upper lobe", "left lower lobe")
SIDES = ("right", "left", "bilateral", "")
# The largest nodule's other axes by its diameter, and a node's axes by its short one, as they are painted and said.
NODULE_RATIO, NODE_RATIO = 0.95, 1.1

# Where each finding may sit: the whole vocabulary of `Instance.site`. A site that names a side agrees with
# `Instance.side`; sites without a side (or findings without one) have side "" unless noted otherwise.
SITES: dict[str, tuple[str, ...]] = {
    # A kind of device; the pacemaker and the port also have a side, the pleural drain always has one.
    "Medical material": (
        "pacemaker",
        "port catheter",
        "sternal wires",
        "spinal fixation",
        "valve prosthesis",
        "pleural drain",
    ),
    "Arterial wall calcification": ("aortic arch", "descending aorta", "thoracic aorta"),
    "Cardiomegaly": ("heart",),
    "Pericardial effusion": ("pericardium",),
    "Coronary artery wall calcification": (
        "left anterior descending artery",
        "right coronary artery",
        "left main and left anterior descending arteries",
        "three vessels",
    ),
    "Hiatal hernia": ("oesophageal hiatus",),
    "Lymphadenopathy": (
        "right paratracheal",
        "prevascular",
        "subcarinal",
        "hilar",
        "axillary",
        "mediastinal",
    ),
    "Emphysema": ("upper lobes", "both lungs", "right upper lobe", "left upper lobe"),
    "Atelectasis": (*LOBES, "both lower lobes"),
    "Lung nodule": (*LOBES, "both lungs"),
    "Lung opacity": (*LOBES, "both lower lobes", "both lungs"),
    "Pulmonary fibrotic sequela": ("right apex", "left apex", "both apices"),
    "Pleural effusion": ("pleural space",),
    "Mosaic attenuation pattern": ("both lungs", "lower lobes", "upper lobes"),
    "Peribronchial thickening": ("both lungs", "lower lobes", "right lower lobe", "left lower lobe"),
    "Consolidation": (*LOBES, "both lower lobes"),
    "Bronchiectasis": (*LOBES, "both lower lobes", "both upper lobes"),
    "Interlobular septal thickening": ("both lungs", "lower lobes", "upper lobes"),
}


@dataclass(frozen=True)
class Distractor:
    """Something outside the 18 findings that is in the image and in the report.

    Args:
        kind: Its name in `text2ct.simulation.distractors.REGISTRY`.
        side: "right", "left" (the patient's) or "" where a side means nothing.
        size_mm: The diameter that a report states, None where it states none.
        count: How many; 1 where counting means nothing.
    """

    kind: str
    side: str = ""
    size_mm: float | None = None
    count: int = 1


@dataclass(frozen=True)
class Instance:
    """One finding of one scan.

    Args:
        finding: Its name in `text2ct.findings.FINDINGS`.
        severity: Extent or grade in [0, 1]: below 1/3 mild, below 2/3 moderate, otherwise severe.
        side: "right", "left" (the patient's), "bilateral" or "" where a side means nothing.
        site: One of ``SITES[finding]``.
        size_mm: The size a report would measure, None where it would give none: a nodule's largest
            diameter, a node's short axis, the depth of an effusion, the transverse heart diameter,
            the width of a hernia, the calibre of the widest ectatic bronchus.
        count: How many lesions (nodules, nodes, foci, leads); 1 where counting means nothing.
    """

    finding: str
    severity: float
    side: str
    site: str
    size_mm: float | None = None
    count: int = 1

    @property
    def grade(self) -> str:
        """The severity in a word: "mild", "moderate" or "severe"."""
        return "mild" if self.severity < 1 / 3 else "moderate" if self.severity < 2 / 3 else "severe"

    def lobes(self) -> tuple[str, ...]:
        """The lobes that the site covers, in the order of `LOBES`; empty for sites outside the lungs."""
        site = self.site
        if site in LOBES:
            return (site,)
        if site == "both lungs":
            return LOBES
        if site in ("both lower lobes", "lower lobes"):
            return ("right lower lobe", "left lower lobe")
        if site in ("both upper lobes", "upper lobes", "both apices"):
            return ("right upper lobe", "left upper lobe")
        return {"right apex": ("right upper lobe",), "left apex": ("left upper lobe",)}.get(site, ())
