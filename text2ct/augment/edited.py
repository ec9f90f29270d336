"""A real report made to show one finding more: denials of it taken out, a sentence and an item with it put in."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from text2ct.augment._denials import ABSENT, affirms, cut, denied_by_name, denies, shown_by_name
from text2ct.augment._scans import NAMES
from text2ct.simulation.text import Mention, compose_mention

# Between sentences, and around the marks before an Impression's items; kept, so that what is kept stays as it was.
_BORDERS = re.compile(r"""((?<=[.;:!?])\s+|(?<=[a-z)]\.)(?=[A-Z])|\s*["\u2022]\s*)""")
_MARK = re.compile(r"""["\u2022]""")
# Phrases tried until one neither denies the finding by mistake, nor shows another that the scan lacks, nor calls a
# nodule a mass, which other words deny.
_ATTEMPTS = 50
# After which words a region's sentences stand, for reports that say nothing against the finding.
_ANCHORS = {
    "airways": r"bronch|trachea|lung",
    "vessels": r"aort|vascular|coronary|pulmonary arter|\bheart\b|mediastin",
    "heart": r"\bheart\b|cardi|vascular|mediastin",
    "pericardium": r"pericard|\bheart\b|vascular",
    "esophagus": r"esophag|pericard|\bheart\b",
    "nodes": r"lymph|esophag|mediastin",
    "lung": r"\blungs?\b|parenchyma window|parenchyma of",
    "pleura": r"pleura|hemithora|\blungs?\b",
    "bones": r"\bbones?\b|vertebra",
}
# Sentences that speak of the one before, which nothing may come between.
_REFERS = re.compile(
    r"\s*(?:it|its|this|these|they|such|findings?|in addition|stable|no (?:significant )?(?:difference|change)|"
    r"the (?:described|appearance|largest|finding|lesion|view)\w*|(?:if|when) \w+ (?:clinically|evaluated|compared))\b",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Edited:
    """A report after editing.

    Attributes:
        findings: Its Findings, or the whole text where the report is one.
        impression: Its Impression, "" where it had none.
        mention: What was put in.
    """

    findings: str
    impression: str
    mention: Mention


def edit_report(
    findings_text: str, impression_text: str, finding: str, labels: np.ndarray, rng: np.random.Generator
) -> Edited | None:
    """Put a finding into the report of a scan that lacks it.

    Sentences that deny the finding are cut down to what else they deny, or taken out and what they denied of
    other absent findings said anew; every other sentence stays as it was. The new sentence takes the first
    place that was changed, or one beside its region's sentences; the new item ends the Impression.

    Args:
        findings_text: Findings; or the whole report, whose Impression begins at its first quotation mark or bullet.
        impression_text: Impression; "" where there is none.
        finding: One of ``FINDINGS``.
        labels: (18,) labels of the scan: 1, 0 or NaN; that of the finding is 0.
        rng: Decides severity, side, place and words.

    Returns:
        The edited report; None where it cannot be had without touching what a report affirms.
    """
    mention = _mention(finding, labels, rng)
    border = None if impression_text.strip() else _MARK.search(findings_text)
    split = border.start() if border and mention else len(findings_text)
    if mention is None or not findings_text[:split].strip():
        return None
    body = _without(findings_text[:split], finding, labels)
    if body is None:
        return None
    # What Findings deny still, Impression need not say anew.
    known = [name for name in NAMES if is_denied("".join(body.pieces), name)]
    tail = _without(findings_text[split:] if border else impression_text, finding, labels, known)
    if tail is None:
        return None
    text, items = _insert(body, mention), "".join(tail.pieces)
    if border:
        return Edited(f"{text.rstrip()} {_add_item(items, mention)}", "", mention)
    return Edited(text, _add_item(items, mention) if impression_text.strip() else "", mention)


def is_denied(text: str, finding: str) -> bool:
    """Whether any sentence of a report says that a finding is absent."""
    return any(denies(sentence, finding) for sentence in sentences(text))


def sentences(text: str) -> list[str]:
    """The sentences and items of a report, without what stands between them."""
    return [part for part in _BORDERS.split(text)[::2] if part.strip()]


@dataclass
class _Part:
    """Sentences and what stands between them, in turn, and the place of the first change."""

    pieces: list[str]
    changed: int | None = None


def _mention(finding: str, labels: np.ndarray, rng: np.random.Generator) -> Mention | None:
    absent = {name for name, label in zip(NAMES, labels, strict=True) if label == 0} - {finding}
    for _ in range(_ATTEMPTS):
        mention = compose_mention(finding, rng)
        words = f"{mention.sentence}. {mention.item}"
        shown = shown_by_name(mention.sentence) | shown_by_name(mention.item)
        if not (is_denied(words, finding) or shown & absent or re.search(r"\bmass\b", words, re.IGNORECASE)):
            return mention
    return None


def _without(text: str, finding: str, labels: np.ndarray, known: Collection[str] = ()) -> _Part | None:
    """The text without denials of the finding; None where one of them affirms something too.

    Args:
        text: Findings or Impression.
        finding: What must not be denied.
        labels: (18,) labels of the scan.
        known: Findings whose absence needs no saying anew.
    """
    part, said = _Part(_BORDERS.split(text)), set(known)
    present = [name for name, label in zip(NAMES, labels, strict=True) if label == 1]
    for place in range(0, len(part.pieces), 2):
        sentence = part.pieces[place]
        if not denies(sentence, finding):
            continue
        if affirms(sentence, present):
            return None
        shorter = cut(sentence, finding)
        lost = denied_by_name(sentence) - denied_by_name(shorter) - {finding} - said
        anew = [ABSENT[name] for index, name in enumerate(NAMES) if name in lost and labels[index] == 0]
        said |= lost
        part.pieces[place] = " ".join([shorter, *(f"{words}." for words in anew)]).strip()
        if not part.pieces[place] and place + 1 < len(part.pieces) and not _MARK.search(part.pieces[place + 1]):
            part.pieces[place + 1] = ""
        part.changed = place if part.changed is None else part.changed
    return part


def _insert(part: _Part, mention: Mention) -> str:
    """Findings with the sentence at the first change, else after the last sentence of its region, else at the end."""
    place = part.changed
    if place is None:
        anchor = re.compile(_ANCHORS[mention.region], re.IGNORECASE)
        ends = [place for place in range(0, len(part.pieces), 2) if part.pieces[place].rstrip().endswith(".")]
        fit = [place for place in ends if anchor.search(part.pieces[place])]
        place = (fit or ends or [len(part.pieces) - 1])[-1]
        while place + 2 < len(part.pieces) and _REFERS.match(part.pieces[place + 2]):
            place += 2
    before, here, rest = part.pieces[:place], part.pieces[place].rstrip(), "".join(part.pieces[place + 1 :])
    if here and here[-1] not in ".;:!?":
        here += "."
    gap = "" if not rest or rest[0].isspace() or _MARK.match(rest) else " "
    said = f"{here} {mention.sentence}.".lstrip()
    return f"{''.join(before)}{said}{gap}{rest}"


def _add_item(impression: str, mention: Mention) -> str:
    """The Impression with one item more, marked as the others are."""
    text = impression.rstrip()
    mark = _MARK.search(text)
    if mark is None:
        return f"{text} {mention.item}.".strip()
    if not re.search(r"\w", text):
        return f"{mark.group()} {mention.item}."
    return f"{text} {mention.item}." if text.endswith(mark.group()) else f"{text} {mark.group()} {mention.item}."
