"""What a report says plainly of the findings, to set beside its labels.

Where `_denials` would rather take too much for a denial, this would rather stay silent: each contradiction is for a
person to look at.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from text2ct.augment import _denials
from text2ct.augment.edited import sentences
from text2ct.findings import FINDINGS

# Letters of which a sentence holds one if any pattern of the finding matches it: most sentences name few findings.
_STEMS: dict[str, tuple[str, ...]] = {
    "Medical material": (
        *("catheter", "pacemaker", "stent", "clip", "prosthe", "implant", "port", "sternotomy", "medical", "tube"),
    ),
    "Arterial wall calcification": ("athero", "calcif"),
    "Cardiomegaly": ("heart", "cardi", "ctr"),
    "Pericardial effusion": ("pericard",),
    "Coronary artery wall calcification": ("coronar", "lad", "rca", "lmca", "athero"),
    "Hiatal hernia": ("hiat", "sliding"),
    "Lymphadenopathy": ("lymph", "lap", "adenopath"),
    "Emphysema": ("emphysem", "bulla"),
    "Atelectasis": ("atelecta", "collapse"),
    "Lung nodule": ("nodul",),
    "Lung opacity": ("glass", "opacit", "opacif", "infiltrat", "pneumoni", "covid"),
    "Pulmonary fibrotic sequela": ("sequel", "fibro", "scar"),
    "Pleural effusion": ("pleur", "thora", "costophrenic", "effusion", "efusion"),
    "Mosaic attenuation pattern": ("mosaic", "trapping"),
    "Peribronchial thickening": ("bronch",),
    "Consolidation": ("consolid", "infiltrat", "pneumoni", "covid"),
    "Bronchiectasis": ("bronch",),
    "Interlobular septal thickening": ("interlobular", "interstiti", "sept"),
}
_ALL_STEMS = sorted({stem for stems in _STEMS.values() for stem in stems})
# What is true of another day, of all but something, or only perhaps.
_NOT_PLAIN = re.compile(
    r"\b(?:previous\w*|prior|earlier|compar\w+|regress\w+|disappear\w+|resolv\w+|remov\w+|apart from|other than|"
    r"except\w*|besides|others?|suspicio\w+|suspect\w*|possib\w+|probabl\w+|may|might|can ?not|could not|favou?r|"
    r"differential|in terms of|history|operat\w+|biops\w+)\b|\?",
    re.IGNORECASE,
)
# Narrower than the words that deny: what names the finding and nothing that labels count as another.
_DENIED_AS = {"Lung opacity": re.compile(r"ground.?glass|opacit", re.IGNORECASE)}
_SHOWN_AS = {
    name: re.compile(words, re.IGNORECASE | re.DOTALL)
    for name, words in {
        "Medical material": r"\bcentral venous catheter|\bport catheter|pacemaker|sternotomy|\bvalve prosthe",
        "Arterial wall calcification": r"\A(?!.*(?:abdom|coronar|\bLAD|\bRCA|lymph|valv|\bnod))"
        r".*(?:calcif\w*[^.]*\baort|\baort\w*[^.]*calcif)",
        "Cardiomegaly": r"cardiomegal|\bheart (?:size|dimension|is)[^.]*(?:increas|enlarg|larg)",
        "Coronary artery wall calcification": r"calcif\w*[^.]*\bcoronar\w+ arter|\bcoronar\w+ arter\w*[^.]*calcif",
        "Lymphadenopathy": r"\blymphadenopath|\bpathological(?:ly)? (?:enlarged |size)[^.]*lymph",
        "Atelectasis": r"\A(?!.*fibro).*\batelecta",
        "Lung nodule": r"\A(?!.*(?:centri|acinar|tree|lobe of the (?:thyroid|liver))).*\bnodules?\b[^.]*\blungs?\b",
        "Lung opacity": r"\A(?!.*nodul).*ground.?glass[^.]*\b(?:lungs?|lobes?)\b",
        "Pulmonary fibrotic sequela": r"(?:sequela|fibrotic)\w*[^.]*\b(?:lungs?|lobes?|apex|apical)\b",
        "Peribronchial thickening": r"\bperibronchial (?:wall )?thick|\bbronchial wall thick",
        "Interlobular septal thickening": r"\binterlobular (?:-\s?intralobular )?sept\w+ thick",
        "Consolidation": r"\A(?!.*nodular).*consolid\w*",
    }.items()
}


@dataclass(frozen=True)
class Said:
    """What a report says of the findings in plain words; of most it says nothing.

    Attributes:
        denied: Findings that a sentence denies by name and none shows, with that sentence.
        shown: Findings that a sentence shows and none denies, with that sentence.
    """

    denied: dict[str, str]
    shown: dict[str, str]


# Two checks read each report; CT-RATE has 25,692.
@lru_cache(maxsize=1 << 15)
def read_report(text: str) -> Said:
    """Take the plain statements out of a report.

    >>> said = read_report("Bilateral pleural effusion is observed. No pericardial effusion was detected.")
    >>> sorted(said.shown), sorted(said.denied)
    (['Pleural effusion'], ['Pericardial effusion'])
    """
    denied: dict[str, str] = {}
    shown: dict[str, str] = {}
    named: set[str] = set()
    for sentence in sentences(text):
        says = _statements(sentence)
        denied |= {name: sentence for name in says.denied if name not in denied}
        shown |= {name: sentence for name in says.shown if name not in shown}
        named |= says.affirmed
    return Said(
        {name: sentence for name, sentence in denied.items() if name not in named},
        {name: sentence for name, sentence in shown.items() if name not in denied},
    )


@dataclass(frozen=True)
class _Statements:
    """One sentence: findings that it denies, that it shows, and that it may show."""

    denied: frozenset[str] = frozenset()
    shown: frozenset[str] = frozenset()
    affirmed: frozenset[str] = frozenset()


# Radiologists repeat themselves: half of the sentences of 800 reports are others' too.
@lru_cache(maxsize=1 << 18)
def _statements(sentence: str) -> _Statements:
    lower = sentence.lower()
    stems = {stem for stem in _ALL_STEMS if stem in lower}
    about = [name for name in FINDINGS if not stems.isdisjoint(_STEMS[name])] if stems else []
    if not about:
        return _Statements()
    named = {name for name in about if _denials.shows_by_name(sentence, name)}
    if not _denials.negates(sentence):
        denied, affirmed = set(), named
    else:
        denied = {name for name in about if _denials.denies_by_name(sentence, name)}
        # "The heart is natural" names the heart and shows no cardiomegaly, whatever its clauses say.
        affirmed = {name for name in named | denied if _denials.affirms(sentence, named & {name})}
    if not (denied or affirmed) or _NOT_PLAIN.search(sentence):
        return _Statements(affirmed=frozenset(affirmed & named))
    plain = {name for name in denied - affirmed if name not in _DENIED_AS or _DENIED_AS[name].search(sentence)}
    shown = set() if _denials.elsewhere(sentence) else (affirmed & named) - denied
    shown = {name for name in shown if name not in _SHOWN_AS or _SHOWN_AS[name].search(sentence)}
    return _Statements(frozenset(plain), frozenset(shown), frozenset(affirmed & named))
