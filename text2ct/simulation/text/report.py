"""A whole radiology report, region by region, true of the instances it describes."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from text2ct.simulation.distractors import NUMBER_SHARES, PAINTED_SHARE, REGISTRY
from text2ct.simulation.instance import Distractor, Instance
from text2ct.simulation.text import devices, lungs
from text2ct.simulation.text import distractors as statements
from text2ct.simulation.text.distractors import STATEMENTS, Statement
from text2ct.simulation.text.grammar import Style, choose, draw_style, expand, slots_of
from text2ct.simulation.text.places import instance_slots, size_text
from text2ct.simulation.text.slips import slip
from text2ct.simulation.text.vocabulary import JOINTS, NORMALS, WORDINGS
from text2ct.simulation.text.wording import REGIONS

_LUNG_FIRST = (
    "airways",
    "lung",
    "pleura",
    "vessels",
    "heart",
    "pericardium",
    "esophagus",
    "nodes",
    "abdomen",
    "bones",
)
_COMPLAINTS = (
    "{Cough|Shortness of breath|Chest pain|Fever|Back pain|Fatigue|Weight loss}",
    "{Pneumonia|Covid-19 pneumonia|Malignancy|Interstitial lung disease|Pulmonary edema}?",
    "{Control|Follow-up|Preoperative evaluation|Screening}",
)


@dataclass(frozen=True)
class Report:
    """The four texts of CT-RATE's report table.

    Attributes:
        clinical: Why the examination was made, or "Not given.".
        technique: How it was made.
        findings: What is seen.
        impression: What it amounts to.
        unsaid: Findings that are present, and described in ``findings``, but left out of ``impression``.
    """

    clinical: str
    technique: str
    findings: str
    impression: str
    unsaid: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """Findings and Impression, one after the other."""
        return f"{self.findings} {self.impression}"


@dataclass(frozen=True)
class Mention:
    """What one finding adds to a report.

    Attributes:
        region: Where in the report it belongs, one of ``REGIONS``.
        sentence: The sentence of Findings, without a full stop.
        item: The item of Impression, without a full stop.
    """

    region: str
    sentence: str
    item: str


def mention(instance: Instance, rng: np.random.Generator) -> Mention:
    """One finding in words, as in :func:`write_report`, for a report that somebody else wrote."""
    slots = draw_style(rng).slots() | instance_slots(instance, rng)
    wording = WORDINGS[instance.finding]
    variant = wording.variant(instance)
    said = choose(_fitting(wording.findings[variant], slots), rng)
    item = choose(_fitting(wording.impression[variant], slots), rng)
    return Mention(wording.region, expand(said, slots, rng), expand(item, slots, rng))


@dataclass
class _Draft:
    """Sentences by region, items of the Impression and findings it leaves out, as they are collected."""

    sentences: dict[str, list[str]]
    items: list[str]
    unsaid: list[str]

    def say(self, region: str, sentence: str) -> None:
        self.sentences[region].append(sentence)


def write_report(
    instances: Sequence[Instance],
    rng: np.random.Generator,
    *,
    distractors: Sequence[Distractor] = (),
    unknown: Collection[str] = (),
    motion: bool = False,
    contrast: bool = False,
    slice_thickness_mm: float = 1.5,
) -> Report:
    """Put instances into words.

    Args:
        instances: The findings present, each at most once.
        rng: Decides every word; the same stream and instances give the same text.
        distractors: What else is in the image, each said with its side and size.
        unknown: Findings of which nothing is known, so that nothing denies them.
        motion: Whether the patient breathed or moved during the scan.
        contrast: Whether intravenous contrast was given.
        slice_thickness_mm: Named in the technique.
    """
    style = draw_style(rng)
    draft = _Draft({region: [] for region in REGIONS}, [], [])
    _say_findings(draft, instances, style, rng)
    chosen = _draw_statements(rng)
    beside = {item.kind for item in distractors} | {statement.kind for statement in chosen}
    _say_normals(draft, _undeniable(instances, unknown) | beside, style, rng)
    _say_distractors(draft, distractors, style, rng)
    _say_statements(draft, chosen, style, rng)
    return Report(
        clinical=_clinical(rng),
        technique=_technique(contrast, slice_thickness_mm, rng),
        findings=slip(_findings_text(draft, contrast, motion, style, rng), rng),
        impression=slip(_impression_text(draft, bool(beside), bool(unknown), style, rng), rng),
        unsaid=tuple(draft.unsaid),
    )


def _undeniable(instances: Sequence[Instance], unknown: Collection[str]) -> set[str]:
    """Findings, and variants of their wordings, that are present or of which nothing is known."""
    variants = {WORDINGS[instance.finding].variant(instance) for instance in instances}
    variants.update(*(WORDINGS[name].findings for name in unknown))
    return {instance.finding for instance in instances} | set(unknown) | variants


def _fitting(templates: Sequence[str], slots: dict[str, str]) -> list[str]:
    """The templates whose slots can all be filled."""
    return [template for template in templates if slots_of(template) <= slots.keys()]


def _say_findings(draft: _Draft, instances: Sequence[Instance], style: Style, rng: np.random.Generator) -> None:
    by_name = {instance.finding: instance for instance in instances}
    slots = {name: style.slots() | instance_slots(instance, rng) for name, instance in by_name.items()}
    said: set[str] = set()
    mentions: list[tuple[tuple[str, ...], tuple[str, ...], dict[str, str]]] = []
    for joint in JOINTS:
        first, second = joint.pair
        if first not in by_name or second not in by_name or said & set(joint.pair) or rng.random() >= joint.chance:
            continue
        both = slots[first] | {f"{key}_b": value for key, value in slots[second].items()}
        sentences = _fitting(joint.findings, both)
        if not sentences:
            continue
        draft.say(joint.region, expand(choose(sentences, rng), both, rng))
        mentions.append((joint.pair, tuple(_fitting(joint.impression, both)), both))
        said |= set(joint.pair)
    for name, instance in by_name.items():
        if name in said:
            continue
        wording = WORDINGS[name]
        variant = wording.variant(instance)
        draft.say(
            wording.region,
            expand(choose(_fitting(wording.findings[variant], slots[name]), rng), slots[name], rng),
        )
        mentions.append(((name,), tuple(_fitting(wording.impression[variant], slots[name])), slots[name]))
    if "Medical material" in by_name and rng.random() < 0.4:
        draft.say("vessels", expand(choose(devices.SMALL_DEVICES, rng), style.slots(), rng))
    keep = rng.random(len(mentions)) < 0.8
    for (names, templates, words), kept in zip(mentions, keep | (not keep.any()), strict=True):
        if kept:
            draft.items.append(expand(choose(templates, rng), words, rng))
        else:
            draft.unsaid.extend(names)
    for sentences in draft.sentences.values():
        rng.shuffle(sentences)
    rng.shuffle(draft.items)


def _say_normals(draft: _Draft, unsayable: set[str], style: Style, rng: np.random.Generator) -> None:
    for normal in NORMALS:
        if normal.detail and not style.thorough:
            continue
        chance = normal.chance * (0.6 if style.terse else 1.0)
        if rng.random() >= chance or unsayable & set(normal.unless):
            continue
        sentence = expand(choose(normal.text, rng), style.slots(), rng)
        sentences = draft.sentences[normal.region]
        # What is abnormal in the lungs and vessels comes first; elsewhere the order varies.
        sentences.insert(len(sentences) if normal.region == "lung" or rng.random() < 0.5 else 0, sentence)


def _say_distractors(draft: _Draft, items: Sequence[Distractor], style: Style, rng: np.random.Generator) -> None:
    """What is painted beside the findings."""
    for item in items:
        model = REGISTRY[item.kind]
        findings, impression = model.say(item)
        slots = style.slots() | {"side": item.side}
        if item.size_mm is not None:
            slots["size"] = size_text(item.size_mm, rng)
        draft.say(model.region, expand(choose(findings, rng), slots, rng))
        if rng.random() < 0.5:
            draft.items.append(expand(choose(impression, rng), slots, rng))


def _draw_statements(rng: np.random.Generator) -> list[Statement]:
    """What is said without being painted; drawn before the normal statements, which must not deny it."""
    weights = np.array([statement.weight for statement in STATEMENTS])
    number = int(rng.binomial(rng.choice(len(NUMBER_SHARES), p=NUMBER_SHARES), 1.0 - PAINTED_SHARE))
    chosen = rng.choice(len(STATEMENTS), size=number, replace=False, p=weights / weights.sum())
    return [STATEMENTS[int(index)] for index in chosen]


def _say_statements(draft: _Draft, chosen: Sequence[Statement], style: Style, rng: np.random.Generator) -> None:
    for statement in chosen:
        draft.say(statement.region, expand(choose(statement.findings, rng), style.slots(), rng))
        if statement.impression and rng.random() < 0.5:
            draft.items.append(expand(choose(statement.impression, rng), style.slots(), rng))


def _findings_text(draft: _Draft, contrast: bool, motion: bool, style: Style, rng: np.random.Generator) -> str:
    sentences: list[str] = []
    if motion and rng.random() < 0.8:
        sentences.append(f"{expand(choose(statements.MOTION, rng), {}, rng)}.")
    elif rng.random() < 0.35:
        options = statements.OPENINGS[2:] if contrast else statements.OPENINGS
        sentences.append(f"{expand(choose(options, rng), {}, rng)}.")
    for region in _LUNG_FIRST if style.lung_first else REGIONS:
        spoken = [f"{sentence}." for sentence in draft.sentences[region]]
        if region == "lung" and spoken:
            opening = expand(choose(lungs.OPENINGS, rng), {}, rng)
            if opening:
                spoken[0] = f"{opening}; {spoken[0]}"
        sentences.extend(spoken)
    if rng.random() < 0.12:
        sentences.append(f"{expand(choose(statements.ENDINGS, rng), {}, rng)}.")
    return " ".join(sentences)


def _impression_text(draft: _Draft, beside: bool, unknown: bool, style: Style, rng: np.random.Generator) -> str:
    """The items; without any, that nothing is wrong, unless of something nothing is known.

    Args:
        draft: Its items are the Impression's.
        beside: Whether Findings describes anything beside the 18 findings.
        unknown: Whether there is a finding that must not be denied.
        style: Marks before and after each item.
        rng: Decides the words.
    """
    items = list(draft.items)
    if not items and not unknown:
        options = statements.NOTHING_ACUTE if beside else statements.HEALTHY
        items.append(expand(choose(options, rng), {}, rng))
    elif rng.random() < 0.12:
        items.append(expand(choose(statements.ENDINGS, rng), {}, rng))
    if not items:
        items.append("Findings as described")
    return " ".join(f"{style.opening}{item}{style.closing}" for item in items)


def _clinical(rng: np.random.Generator) -> str:
    if rng.random() < 0.45:
        return "Not given."
    complaint = expand(choose(_COMPLAINTS, rng), {}, rng)
    return complaint if complaint.endswith("?") else f"{complaint}."


def _technique(contrast: bool, slice_thickness_mm: float, rng: np.random.Generator) -> str:
    contrast_text = (
        "{After intravenous contrast|Following IV contrast administration}," if contrast else "Without contrast,"
    )
    template = (
        f"{contrast_text} {{axial|thin axial}} {{sections|images}} of {slice_thickness_mm:g} mm "
        f"{{thickness|slice thickness}} were "
        "{obtained|taken} {through the thorax|from the chest}"
    )
    return f"{expand(template, {}, rng)}."
