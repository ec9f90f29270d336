"""The 18 findings of CT-RATE: names, order, aliases and forgiving look-up.

Names and order are those of CT-RATE's ``multi_abnormality_labels`` tables (Hamamci et al. 2024,
arXiv 2403.17834). Look-up never guesses in silence: a :class:`Match` keeps what was given and which
other findings it could have meant.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache

from text2ct.errors import UserError

FINDINGS: tuple[str, ...] = (
    "Medical material",
    "Arterial wall calcification",
    "Cardiomegaly",
    "Pericardial effusion",
    "Coronary artery wall calcification",
    "Hiatal hernia",
    "Lymphadenopathy",
    "Emphysema",
    "Atelectasis",
    "Lung nodule",
    "Lung opacity",
    "Pulmonary fibrotic sequela",
    "Pleural effusion",
    "Mosaic attenuation pattern",
    "Peribronchial thickening",
    "Consolidation",
    "Bronchiectasis",
    "Interlobular septal thickening",
)

ALIASES: dict[str, tuple[str, ...]] = {
    "Medical material": (
        "material", "medical device", "device", "devices", "hardware", "pacemaker", "catheter",
        "central line", "port", "stent", "sternotomy wires", "support devices", "implant", "tube",
    ),
    "Arterial wall calcification": (
        "arterial calcification", "aortic calcification", "vascular calcification", "atherosclerosis",
        "atheroma", "atheromatous plaque", "awc", "artery wall calcification",
    ),
    "Cardiomegaly": ("enlarged heart", "big heart", "cardiac enlargement", "heart enlargement"),
    "Pericardial effusion": ("pericardial fluid", "pericard effusion", "hydropericardium"),
    "Coronary artery wall calcification": (
        "coronary calcification", "coronary artery calcification", "coronary calcium", "cac", "cacs", "cawc",
        "coronary artery calcium",
    ),
    "Hiatal hernia": ("hiatus hernia", "hernia", "sliding hernia", "hh"),
    "Lymphadenopathy": (
        "adenopathy", "enlarged lymph nodes", "lymph nodes", "lymph node enlargement", "lap", "lad",
        "mediastinal lymphadenopathy", "lymphadenopathies",
    ),
    "Emphysema": ("emphysematous changes", "copd", "bullae", "emphysematous"),
    "Atelectasis": ("atelectases", "atelectatic changes", "collapse", "lung collapse", "plate atelectasis"),
    "Lung nodule": (
        "nodule", "nodules", "lung nodules", "pulmonary nodule", "pulmonary nodules", "spn", "nodular lesion",
    ),
    "Lung opacity": (
        "opacity", "opacities", "lung opacities", "pulmonary opacity", "ground glass opacity", "ground glass",
        "ground-glass", "ggo", "ggos", "infiltrate", "infiltration",
    ),
    "Pulmonary fibrotic sequela": (
        "fibrosis", "pulmonary fibrosis", "lung fibrosis", "fibrotic sequela", "fibrotic sequelae", "sequela",
        "sequelae", "pulmonary fibrotic sequelae", "scarring", "scar", "fibrotic changes",
    ),
    "Pleural effusion": (
        "effusion", "effusions", "pleural effusions", "pleural fluid", "hydrothorax", "pe", "pleff",
    ),
    "Mosaic attenuation pattern": (
        "mosaic", "mosaic attenuation", "mosaic pattern", "mosaic perfusion", "map", "air trapping",
    ),
    "Peribronchial thickening": (
        "bronchial wall thickening", "peribronchial cuffing", "bronchial thickening",
        "airway wall thickening", "peribronchovascular thickening", "pbt",
    ),
    "Consolidation": ("consolidations", "consolidative", "airspace consolidation", "pneumonia"),
    "Bronchiectasis": ("bronchiectases", "bronchiectatic", "bronchiectatic changes", "dilated bronchi"),
    "Interlobular septal thickening": (
        "septal thickening", "interlobular thickening", "interlobular septa", "septal lines", "kerley lines",
        "kerley b lines", "ist", "smooth septal thickening",
    ),
}  # fmt: skip
"""What radiologists, other data sets and hurried people call each finding, in lower case."""

AMBIGUOUS: dict[str, tuple[str, ...]] = {
    "calcification": ("Arterial wall calcification", "Coronary artery wall calcification"),
    "calcifications": ("Arterial wall calcification", "Coronary artery wall calcification"),
    "wall calcification": ("Arterial wall calcification", "Coronary artery wall calcification"),
    "pe": ("Pleural effusion", "Pericardial effusion"),
    "effusion": ("Pleural effusion", "Pericardial effusion"),
    "effusions": ("Pleural effusion", "Pericardial effusion"),
    "thickening": ("Peribronchial thickening", "Interlobular septal thickening"),
    "pneumonia": ("Consolidation", "Lung opacity"),
    "infiltrate": ("Lung opacity", "Consolidation"),
    "infiltration": ("Lung opacity", "Consolidation"),
}
"""Short words that could mean several findings: the one taken first, then the others."""

_MIN_SCORE = 84.0
"""Smallest rapidfuzz ratio (0..100) read as a misspelling; 84 is about two wrong letters in a dozen."""


@dataclass(frozen=True)
class Match:
    """A finding as resolved from what somebody typed.

    Attributes:
        finding: One of :data:`FINDINGS`.
        given: The text as typed.
        others: Further findings the text could have meant, likeliest first.
    """

    finding: str
    given: str
    others: tuple[str, ...] = ()

    @property
    def exact(self) -> bool:
        """Whether the text is the finding's own name, letter case and spacing aside."""
        return normalise(self.given) == normalise(self.finding)


def normalise(text: str) -> str:
    """Lower-case ``text``, turn ``_``, ``-``, ``/`` into spaces and squeeze them."""
    return re.sub(r"[\s_\-/.]+", " ", text).strip().lower()


def slug(finding: str) -> str:
    """The finding as a file name or URL part: ``Pleural effusion`` -> ``pleural-effusion``."""
    return re.sub(r"[^a-z0-9]+", "-", finding.lower()).strip("-")


@cache
def _vocabulary() -> dict[str, str]:
    """Every known spelling, normalised, to its finding; a finding's own name wins over an alias."""
    words = {normalise(alias): finding for finding, aliases in ALIASES.items() for alias in aliases}
    words.update({word: findings[0] for word, findings in AMBIGUOUS.items()})
    words.update({normalise(finding): finding for finding in FINDINGS})
    return words


def exact_name(text: str) -> str | None:
    """The finding whose own name ``text`` is, whatever its letter case and separators, or None."""
    name = normalise(text)
    return next((finding for finding in FINDINGS if normalise(finding) == name), None)


def nearest(text: str, limit: int = 3) -> tuple[str, ...]:
    """The findings whose names or aliases are spelled most like ``text``, best first."""
    return tuple(finding for finding, _ in _scored(text))[:limit]


def _scored(text: str) -> list[tuple[str, float]]:
    """All findings with the best spelling ratio (0..100) of their names, best first."""
    from rapidfuzz import fuzz

    wanted = normalise(text)
    best = dict.fromkeys(FINDINGS, 0.0)
    for word, finding in _vocabulary().items():
        score = fuzz.ratio(wanted, word)
        # An ambiguous word speaks for all it could mean, in its own order.
        for place, meant in enumerate(AMBIGUOUS.get(word, (finding,))):
            best[meant] = max(best[meant], score - 0.01 * place)
    return sorted(best.items(), key=lambda item: -item[1])


def resolve(text: str) -> Match:
    """Find the finding that ``text`` means: its name, an alias, an abbreviation or a misspelling of one.

    Args:
        text: For example ``"Pleural effusion"``, ``"effusion"``, ``"GGO"`` or ``"cardiomegally"``.

    Returns:
        The match; ``others`` names what else the text could have meant.

    Raises:
        UserError: No finding is spelled alike; the nearest names are given.

    Example:
        >>> resolve("effusion")
        Match(finding='Pleural effusion', given='effusion', others=('Pericardial effusion',))
    """
    wanted = normalise(text)
    if not wanted:
        raise UserError("a finding's name is empty; name one of: " + ", ".join(FINDINGS))
    known = _vocabulary().get(wanted)
    if known is not None:
        return Match(known, text, AMBIGUOUS.get(wanted, (known,))[1:])
    # Three letters or fewer are too short to be called a misspelling of anything.
    scored = _scored(text) if len(wanted) > 3 else []
    likely = [finding for finding, score in scored if score >= _MIN_SCORE]
    if likely:
        return Match(likely[0], text, tuple(likely[1:]))
    raise UserError(
        f"'{text}' is none of the 18 findings; nearest: {', '.join(nearest(text))}. All of them: {', '.join(FINDINGS)}"
    )


def resolve_list(text: str) -> list[Match]:
    """Resolve a comma- or semicolon-separated list, each finding kept once, in the order given.

    Raises:
        UserError: The list is empty, or names that nothing resembles; all of them are named at once.
    """
    parts = [part.strip() for part in re.split(r"[,;\n]", text) if part.strip()]
    if not parts:
        raise UserError("no finding is named; name one or more of: " + ", ".join(FINDINGS))
    matches: dict[str, Match] = {}
    problems: list[str] = []
    for part in parts:
        try:
            match = resolve(part)
        except UserError:
            problems.append(f"'{part}' is none of the 18 findings; nearest: {', '.join(nearest(part))}")
            continue
        matches.setdefault(match.finding, match)
    if problems:
        raise UserError("some findings are unknown; correct their names", problems)
    return list(matches.values())
