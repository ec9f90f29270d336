"""How chest CT reports deny a finding, and how a denial of several things is cut down to the others.

Learnt from 500 annotated reports of CT-RATE. Broad on purpose: a sentence taken for a denial by mistake costs a
normal statement, one that is missed makes a report contradict itself.
"""

from __future__ import annotations

import re
from collections.abc import Collection

_NO = re.compile(
    r"\b(?:no|not|nor|non|without|none|never|negative|normal|natural|clear|preserved|open|regular|absent|"
    r"absence of|free of|(?:is|are|was|were) free|unremarkable|ordinary|disappeared|resolved|regressed)\b",
    re.IGNORECASE,
)
# Words of negation that deny no finding.
_NO_DENIAL = re.compile(
    r"(?:than|above|over|exceed\w*|upper limits? of|limits? of) (?:the )?(?:normal|natural)|(?:can|could) ?not be \w+|"
    r"contrast (?:material|agent|medium)?\s*(?:is|was|were)? ?not (?:given|used|administered)|without (?:IV |"
    r"intravenous )?contrast|no (?:IV |intravenous )?contrast|non-?contrast|no (?:significant |obvious )?(?:change|"
    r"difference|progression)|not (?:specific|exceed\w*)|non-?specific|non-?calcifi\w+|free air|open(?:ing)? (?:to|"
    r"facing)|open heart|after normal",
    re.IGNORECASE,
)
# Organs whose nodules, fluid and cysts say nothing of the chest's.
_ELSEWHERE = re.compile(
    r"\b(?:liver|hepat\w+|splen\w*|spleen|kidneys?|renal|adrenal|surrenal|pancrea\w*|thyroid|breasts?|gall ?bladder|"
    r"bile|biliary|bowel|stomach|gastric|bones?|vertebra\w*|skin|subcutaneous|prostate|uter\w+|ovar\w+|periton\w+|"
    r"omentum|abdom\w*|pelvi\w*|bladder)\b",
    re.IGNORECASE,
)
_FLUID = r"(?:effusions?|fluid|efusion)"
_NODE = r"(?:lymph ?(?:nodes?|adenopath\w+)|lymphadenomegal\w+|\bLAPs?\b|adenopath\w+)"
_ALVEOLAR = r"(?:infiltrat\w*|pneumoni\w*|covid\w*)"

# Words by which a report names a finding. In a sentence with a word of negation they deny it.
NAMED: dict[str, str] = {
    "Medical material": r"catheter|pacemaker|\bstents?\b|\bclips?\b|prosthe\w+|implant\w*|\bport\b|sternotomy|"
    r"medical (?:material|device)|\btubes?\b",
    "Arterial wall calcification": r"\A(?!.*coronar).*athero\w*|(?:aort\w*|(?<!coronary )arter\w*|vascular|vessels?)"
    r"[^.]*calcif\w*|calcif\w*[^.]*(?:aort\w*|(?<!coronary )arter\w*|vascular|vessels?)",
    "Cardiomegaly": r"\bheart\b(?! (?:cavit|valve|chamber))|cardiothoracic|\bCTR\b|\bcardiac\b(?! (?:cavit|valve))|"
    r"cardiomegal\w*",
    "Pericardial effusion": rf"pericard\w*[^.]*{_FLUID}|{_FLUID}[^.]*pericard\w*",
    "Coronary artery wall calcification": r"\bcoronar\w*|\bLAD\b|\bRCA\b|\bLMCA\b|\A(?!.*aort).*athero\w*",
    "Hiatal hernia": r"(?:hiatal|hiatus|sliding)[^.]*herni\w*|herni\w*[^.]*(?:hiatal|hiatus)|\bhiatus\b",
    "Lymphadenopathy": _NODE,
    "Emphysema": r"emphysem\w*|\bbulla\w*",
    "Atelectasis": r"atelecta\w*|\bcollapse\b",
    "Lung nodule": r"nodul\w*",
    "Lung opacity": rf"ground.?glass|opacit\w*|opacif\w*|{_ALVEOLAR}",
    "Pulmonary fibrotic sequela": r"sequela\w*|fibro\w*|\bscar\w*",
    "Pleural effusion": rf"(?:pleur[ao]\w*|hemithora\w*|hydrothora\w*)[^.]*{_FLUID}|{_FLUID}[^.]*(?:pleur[ao]\w*|"
    rf"hemithora\w*)|hydrothora\w*|pleural (?:spaces?|cavit\w+|surfaces?|leaves)|costophrenic|\A(?!.*pericard)"
    rf"(?!.*\bfree\b).*\beffusions?\b",
    "Mosaic attenuation pattern": r"mosaic|air.?trapping",
    "Peribronchial thickening": r"(?:peribronchial|bronchial)[^.]*thick\w*|bronchial wall|broncho\w* distribution|"
    r"bronchial distribution",
    "Consolidation": rf"consolid\w*|{_ALVEOLAR}",
    "Bronchiectasis": r"bronchiecta\w*|dilat\w* (?:of the )?bronch\w*|bronchial (?:dilat\w*|distribution)",
    "Interlobular septal thickening": r"(?:interlobular|interstiti\w*|sept\w*)[^.]*(?:thick\w*|septa\b)|"
    r"interstitial (?:disease|changes?|patholog\w*)",
}
_NAMED = {name: re.compile(words, re.IGNORECASE | re.DOTALL) for name, words in NAMED.items()}
# Where words that serve to deny a finding do not show it: a normal heart denies cardiomegaly, heart failure is none.
_SHOWN = {
    name: re.compile(words, re.IGNORECASE | re.DOTALL)
    for name, words in (
        ("Cardiomegaly", r"cardiomegal\w*|enlarge\w*[^.]*\bheart\b|\bheart\b[^.]*(?:enlarg|larg|increas)\w*"),
        ("Lung nodule", r"\bnodules?\b"),
        ("Lung opacity", r"ground.?glass|opacit\w*|opacif\w*"),
        ("Pleural effusion", rf"pleur[ao]\w*[^.]*{_FLUID}|{_FLUID}[^.]*(?:pleur[ao]|hemithora)\w*|hydrothora\w*"),
        ("Consolidation", r"consolid\w*"),
    )
}
# Findings whose words other organs' sentences use too.
_NEEDS_CHEST = {"Lung nodule", "Lung opacity", "Pulmonary fibrotic sequela"}
_CHEST = re.compile(r"\b(?:lungs?|pulmonary|parenchyma of both|thora\w+|chest)\b", re.IGNORECASE)

_PARENCHYMA = {
    "Emphysema", "Atelectasis", "Lung nodule", "Lung opacity", "Pulmonary fibrotic sequela",
    "Mosaic attenuation pattern", "Peribronchial thickening", "Consolidation", "Bronchiectasis",
    "Interlobular septal thickening",
}  # fmt: skip
_AERATED = {"Emphysema", "Atelectasis", "Lung opacity", "Mosaic attenuation pattern", "Consolidation"}
_LUNGS_NORMAL = re.compile(
    r"(?:lungs?|parenchym\w*|lung fields?)(?: parenchym\w*| areas?| structures?| fields?)?\s*(?:\w+ )?"
    r"(?:is|are|was|were|appears?|looks?|has|have)\s+(?:an? |in |entirely |completely )*(?:normal|natural|clear|"
    r"unremarkable|ordinary)|(?:normal|clear|natural) lungs?|no (?:significant |obvious |active )?(?:patholog\w+|"
    r"abnormalit\w+|lesions?)[^.]*(?:lungs?|parenchym\w*)",
    re.IGNORECASE,
)
_AERATION_NORMAL = re.compile(r"(?:aeration|ventilation)[^.]*\b(?:normal|natural|preserved)\b", re.IGNORECASE)
_PARTS = "aort|esoph|oesoph|vert|spin|wall|inlet|bone|level|sect"
_EXAM = rf"(?:\b(?:thora(?:x|cic)|chest)\b(?! (?:{_PARTS}))|\bCT\b|\bexamination|\bfindings|\btomograph\w*)"
_ALL_NORMAL = re.compile(
    rf"{_EXAM}[^.]*within (?:the )?normal limits|\A\W*within (?:the )?normal limits|\b(?:normal|natural) {_EXAM}|"
    rf"\bno (?:significant |obvious |acute |active |pathological )*(?:patholog\w*|abnormalit\w+)[^.]{{0,30}}{_EXAM}|"
    rf"\A\W*(?:the )?{_EXAM}[^.,]{{0,20}}\b(?:is|are|was|were) (?:normal|natural)",
    re.IGNORECASE,
)

# Said again where a sentence is taken out that denied more than the finding, in CT-RATE's manner.
ABSENT: dict[str, str] = {
    "Medical material": "No catheter or other medical material is observed",
    "Arterial wall calcification": "No calcification is observed in the wall of the aorta",
    "Cardiomegaly": "Heart size is normal",
    "Pericardial effusion": "Pericardial effusion was not detected",
    "Coronary artery wall calcification": "No calcification is observed in the coronary arteries",
    "Hiatal hernia": "No hiatal hernia was detected",
    "Lymphadenopathy": "No pathologically enlarged lymph nodes were detected in the mediastinum",
    "Emphysema": "No emphysema was detected",
    "Atelectasis": "No atelectasis was detected",
    "Lung nodule": "No nodule was detected in both lungs",
    "Lung opacity": "No ground glass density was detected in both lungs",
    "Pulmonary fibrotic sequela": "No fibrotic sequela was detected",
    "Pleural effusion": "Pleural effusion was not detected",
    "Mosaic attenuation pattern": "No mosaic attenuation was detected",
    "Peribronchial thickening": "No peribronchial thickening was detected",
    "Consolidation": "No consolidation was detected in both lungs",
    "Bronchiectasis": "No bronchiectasis was detected",
    "Interlobular septal thickening": "No interlobular septal thickening was detected",
}

# Predicates that affirm something; after "no" the first kind denies, also across a list's commas.
_SEEN = re.compile(
    r"\b(?:is|are|was|were)\s+(?:also |clearly )?(?:observed|detected|seen|present|noted|evident|available|followed|"
    r"wider|larger|increased|enlarged|thicken\w+|dilated|decreased|consistent|compatible|evaluated)",
    re.IGNORECASE,
)
_THERE = re.compile(
    r"\bthere (?:is|are|was|were)\b(?! no)|\bmeasur\w+|\d\s*(?:mm|cm)\b|\bstable\b|\bcontinu\w+|\bexcept\b|"
    r"\bnot (?:typical|consistent|compatible|characteristic)",
    re.IGNORECASE,
)
_CLAUSES = re.compile(r",\s|[;:]\s|\b(?:and|but|with|which|however|although|while|whereas)\b", re.IGNORECASE)
_AIR_CLAUSE = re.compile(
    r"\A.*?\b(?:aeration|ventilation)\b[^.]*?\b(?:normal|natural|preserved)\b,? and (?=no\b)", re.IGNORECASE | re.DOTALL
)
_INFILTRATION = ("(?:active |pneumonic )?infiltrati(?:ve|ons?)", r"(?:active |pneumonic )?infiltrations?(?: areas?)?")
# How the finding is named within a list of things denied together, shortest first.
_LISTED: dict[str, tuple[str, ...]] = {
    "Pleural effusion": ("(?:bilateral )?pleural", "(?:bilateral )?pleural effusions?"),
    "Pericardial effusion": ("pericardial", "pericardial effusions?"),
    "Lung nodule": (r"(?:suspicious |solid )?nodul(?:es?|ar)(?: lesions?)?",),
    "Lung opacity": (*_INFILTRATION, r"ground.glass(?: \w+)?"),
    "Consolidation": (*_INFILTRATION, r"consolidations?(?: areas?)?"),
    "Cardiomegaly": (
        r"(?:the )?heart(?: contours?(?:,? (?:and )?sizes?)?| sizes?(?: and contours?)?| dimensions?)?",
        "cardiac",
    ),
}
_COMPOUND = re.compile(r"\b(pleur)o-?\s?(pericardial)\b", re.IGNORECASE)
_JOIN = r"\s*(?:,|-|/|\bor\b|\band\b)\s*(?:or |and )?"
_CUTS = {
    name: [
        re.compile(pattern, re.IGNORECASE)
        for pattern in (
            rf"\beffusions?{_JOIN}(?=(?:increased )?thick)",
            rf"(?<=thickening){_JOIN}effusions?\b",
            *(rf"{_JOIN}(?:{words})\b" for words in listed),
            *(rf"\b(?:{words}){_JOIN}" for words in listed),
            *(rf"(?<=mass |dule )(?:{words})\s" for words in listed),
        )
    ]
    for name, listed in _LISTED.items()
}
# What is left of a list must still deny something.
_LEFT = re.compile(r"mass|lesion|nodul|infiltr|thicken|pneumothora|effusion|vascular|vessel|mediastin", re.IGNORECASE)


def denies(sentence: str, finding: str) -> bool:
    """Whether a sentence says that a finding is absent, by its name or with everything like it."""
    elsewhere = _ELSEWHERE.search(sentence) and not _CHEST.search(sentence)
    if not elsewhere and _ALL_NORMAL.search(sentence):
        return True
    if finding in _PARENCHYMA and not elsewhere and _LUNGS_NORMAL.search(sentence):
        return True
    if finding in _AERATED and _AERATION_NORMAL.search(sentence):
        return True
    return denies_by_name(sentence, finding)


def denies_by_name(sentence: str, finding: str) -> bool:
    """Whether a sentence says that a finding is absent and uses a word for it."""
    if not _NAMED[finding].search(sentence) or not _NO.search(_NO_DENIAL.sub(" ", sentence)):
        return False
    return not (finding in _NEEDS_CHEST and _ELSEWHERE.search(sentence) and not _CHEST.search(sentence))


def denied_by_name(sentence: str) -> set[str]:
    """The findings that a sentence denies with a word for them."""
    return {name for name in NAMED if denies_by_name(sentence, name)}


def shown_by_name(sentence: str) -> set[str]:
    """The findings that an affirming sentence shows by a word for them."""
    return {name for name in NAMED if shows_by_name(sentence, name)}


def shows_by_name(sentence: str, finding: str) -> bool:
    """Whether a sentence, if it affirms, shows a finding by a word for it."""
    return _SHOWN.get(finding, _NAMED[finding]).search(sentence) is not None


def negates(sentence: str) -> bool:
    """Whether a sentence has a word of negation, whatever that denies."""
    return _NO.search(sentence) is not None


def elsewhere(sentence: str) -> bool:
    """Whether a sentence speaks of organs outside the chest."""
    return _ELSEWHERE.search(sentence) is not None


def affirms(sentence: str, present: Collection[str] = ()) -> bool:
    """Whether any clause of a sentence says that something is there.

    Args:
        sentence: As it stands in a report.
        present: Findings that the scan has; a clause that names one without denying it affirms it.
    """
    unfinished = False
    for clause in _CLAUSES.split(_NO_DENIAL.sub(" ", sentence)):
        negated = _NO.search(clause) is not None
        if _THERE.search(clause) and not (negated and _SEEN.search(clause) and "not " not in clause):
            return True
        seen = _SEEN.search(clause) is not None
        if not (negated or unfinished) and (seen or any(_NAMED[name].search(clause) for name in present)):
            return True
        unfinished = (negated or unfinished) and not seen
    return False


def cut(sentence: str, finding: str) -> str:
    """A denial of several things without the finding; "" where nothing sensible would be left.

    >>> cut("No pleural or pericardial effusion was detected.", "Pleural effusion")
    'No pericardial effusion was detected.'
    """
    kept = denied_by_name(sentence)
    shorter: list[str] = []
    sentence = _COMPOUND.sub(r"\1al or \2", sentence)
    for start in dict.fromkeys((sentence, _AIR_CLAUSE.sub("", sentence))):
        for pattern in (None, *_CUTS.get(finding, ())):
            text = (start if pattern is None else pattern.sub("", start)).strip()
            denial = _NO.search(text) and _LEFT.search(text) and not denies(text, finding)
            if text != sentence.strip() and denial:
                shorter.append(text[:1].upper() + text[1:])
    return min(shorter, key=lambda text: len(kept - denied_by_name(text)), default="")
