"""Edited reports: they show the finding, deny it nowhere, and keep what they affirmed of everything else."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from text2ct.augment import make_plan, make_prompts
from text2ct.augment._denials import ABSENT, NAMED, affirms, cut, denied_by_name, denies
from text2ct.augment._scans import NAMES, label_matrix
from text2ct.augment.edited import edit_report, is_denied, sentences
from text2ct.augment.leaks import normalise_text
from text2ct.findings import FINDINGS
from text2ct.simulation.text import compose

REAL = Path(__file__).resolve().parents[3] / "shared" / "real" / "ct_rate" / "annotated_reports_train.csv"

BODY = (
    "Trachea, both main bronchi are open. Mediastinal main vascular structures, heart contour, size are normal. "
    "No pleural or pericardial effusion was detected. No enlarged lymph nodes in prevascular, subcarinal or hilar "
    "pathological dimensions were detected. A hiatal hernia is observed. When examined in the lung parenchyma window; "
    "Aeration of both lung parenchyma is normal and no nodular or infiltrative lesion is detected in the lung "
    "parenchyma. Upper abdominal organs included in the sections are normal. Bone structures in the examination area "
    "are natural."
)
LABELS = np.array([float(name == "Hiatal hernia") for name in FINDINGS])
# What a plain reader takes for a denial, and for the finding; written apart from what the editor reads with.
PLAIN_DENIAL = re.compile(r"\bno\b|\bnot (observed|detected|seen)|\b(is|are) (normal|natural|clear)", re.IGNORECASE)
PLAIN_NAME = {
    "Cardiomegaly": r"heart (contour|size)",
    "Pericardial effusion": r"pericardial effusion",
    "Lymphadenopathy": r"lymph node",
    "Lung nodule": r"nodul",
    "Lung opacity": r"infiltrati",
    "Consolidation": r"infiltrati|consolidation",
    "Pleural effusion": r"pleural effusion",
    "Emphysema": r"aeration",
    "Atelectasis": r"aeration",
    "Mosaic attenuation pattern": r"aeration",
}


def plainly_denied(text: str, finding: str) -> list[str]:
    name = PLAIN_NAME.get(finding, finding.lower())
    return [part for part in sentences(text) if PLAIN_DENIAL.search(part) and re.search(name, part, re.IGNORECASE)]


def of_simulated(count: int):
    """Reports of the simulation, whose words are not those that the editor was written by, with their labels."""
    rng = np.random.default_rng(5)
    for _ in range(count):
        labels = (rng.random(len(FINDINGS)) < 0.12).astype(float)
        report = compose(labels, rng)
        yield report.findings, report.impression, labels


@pytest.mark.parametrize("finding", [name for name in FINDINGS if name != "Hiatal hernia"])
def test_the_finding_is_shown_and_never_denied(finding):
    for seed in range(12):
        edited = edit_report(BODY, "Hiatal hernia.", finding, LABELS, np.random.default_rng(seed))
        assert f"{edited.mention.sentence}." in edited.findings
        assert edited.impression == f"Hiatal hernia. {edited.mention.item}."
        text = edited.findings.replace(edited.mention.sentence, "")
        assert not plainly_denied(text, finding)
        assert not is_denied(f"{edited.findings} {edited.impression}", finding)
        assert "A hiatal hernia is observed." in edited.findings
        for kept in ("Trachea, both main bronchi are open.", "Bone structures in the examination area are natural."):
            assert kept in edited.findings


def test_what_a_sentence_denied_of_others_stays_denied():
    before = set().union(*(denied_by_name(part) for part in sentences(BODY)))
    for finding in before:
        edited = edit_report(BODY, "", finding, LABELS, np.random.default_rng(1))
        after = set().union(*(denied_by_name(part) for part in sentences(edited.findings)))
        assert before - {finding} <= after


def test_simulated_reports_keep_every_sentence_that_denies_nothing():
    made = 0
    for index, (findings, impression, labels) in enumerate(of_simulated(60)):
        finding = FINDINGS[index % len(FINDINGS)]
        if labels[index % len(FINDINGS)]:
            continue
        edited = edit_report(findings, impression, finding, labels, np.random.default_rng(index))
        if edited is None:
            continue
        made += 1
        text = f"{edited.findings} {edited.impression}"
        assert not is_denied(text, finding)
        assert not plainly_denied(text.replace(edited.mention.sentence, ""), finding)
        kept = set(sentences(text))
        for part in sentences(findings):
            assert part in kept or denies(part, finding), part
            assert part in kept or not affirms(part)
    assert made > 40


def test_a_denial_that_affirms_something_else_is_not_touched():
    text = "There are emphysematous changes in both lungs and no nodule was detected. Heart size is normal."
    rng = np.random.default_rng(0)
    assert edit_report(text, "", "Lung nodule", np.zeros(len(FINDINGS)), rng) is None
    assert "emphysematous changes" in edit_report(text, "", "Cardiomegaly", np.zeros(len(FINDINGS)), rng).findings
    assert edit_report("", "", "Cardiomegaly", np.zeros(len(FINDINGS)), rng) is None


@pytest.mark.parametrize(
    ("sentence", "finding", "left"),
    [
        (
            "No pleural or pericardial effusion was detected.",
            "Pericardial effusion",
            "No pleural effusion was detected.",
        ),
        (
            "Pericardial effusion-thickening was not seen.",
            "Pericardial effusion",
            "Pericardial thickening was not seen.",
        ),
        ("No nodular or infiltrative lesion is seen.", "Consolidation", "No nodular lesion is seen."),
        ("No nodular or infiltrative lesion is seen.", "Lung nodule", "No infiltrative lesion is seen."),
        ("The heart and mediastinal vessels are normal.", "Cardiomegaly", "Mediastinal vessels are normal."),
        ("Pericardial effusion was not detected.", "Pericardial effusion", ""),
        ("No pleuro-pericardial effusion.", "Pericardial effusion", "No pleural effusion."),
        ("No pleuro-pericardial effusion.", "Pleural effusion", "No pericardial effusion."),
        ("Pleural spaces are free.", "Pleural effusion", ""),
        ("No infiltration was seen.", "Lung opacity", ""),
        ("Thoracic CT examination within normal limits.", "Bronchiectasis", ""),
    ],
)
def test_a_list_of_denials_is_cut_to_the_others(sentence, finding, left):
    assert denies(sentence, finding)
    assert cut(sentence, finding) == left


@pytest.mark.parametrize(
    ("sentence", "finding"),
    [
        ("The heart is larger than normal.", "Cardiomegaly"),
        ("Mediastinal structures cannot be evaluated because contrast material is not given.", "Medical material"),
        ("No nodular lesion was detected in the adrenal glands.", "Lung nodule"),
        ("Upper abdominal organs in the examination area are natural.", "Emphysema"),
        ("Thoracic aorta diameter is normal.", "Arterial wall calcification"),
        ("Pericardial effusion was not detected.", "Pleural effusion"),
        ("Free pleural effusion is observed.", "Pleural effusion"),
        ("Nonspecific nodules are observed.", "Lung nodule"),
    ],
)
def test_what_denies_nothing_is_let_stand(sentence, finding):
    assert not denies(sentence, finding)


@pytest.mark.parametrize("finding", FINDINGS)
def test_saying_one_finding_is_absent_denies_it_and_hardly_another(finding):
    assert denies(ABSENT[finding], finding)
    others = denied_by_name(ABSENT[finding]) - {finding}
    assert not others
    assert NAMED.keys() == ABSENT.keys() == set(FINDINGS)


def test_a_whole_report_gets_its_item_behind_its_own_mark():
    whole = f'{BODY} " Thoracic CT examination within normal limits"'
    text = edit_report(whole, "", "Pleural effusion", LABELS, np.random.default_rng(0)).findings
    body, items = text.split('"', 1)
    assert "within normal limits" not in text
    assert re.search("effusion|fluid", body, re.IGNORECASE)
    assert re.search("effusion", items, re.IGNORECASE)
    bullets = edit_report(f"{BODY} • Hiatal hernia.", "", "Pleural effusion", LABELS, np.random.default_rng(0)).findings
    assert bullets.count("•") == 2


SEVERITY = re.compile(r"mild|minimal|slight|moderate|medium|severe|advanced|marked|diffuse|extensive|prominent", re.I)
SIDE = re.compile(r"right|left|bilateral|both", re.IGNORECASE)
LOBE = re.compile(r"upper lobe|middle lobe|lower lobe|both lung", re.IGNORECASE)


@pytest.mark.parametrize("source", ["composed", "edited"])
def test_severity_side_and_place_vary(frame, source):
    frame["findings_text"], frame["impression_text"] = BODY, ""
    frame.loc[:, "findings_text"] += [f" Report {i}." for i in range(len(frame))]
    prompts = make_prompts(frame, ["Consolidation", "Pleural effusion"], 80, seed=2, source=source)
    assert len(prompts) == 80
    said = [
        [
            part
            for part in sentences(text)
            if re.search("consolid|effusion", part, re.IGNORECASE) and not denies(part, name)
        ]
        for text, name in zip(prompts["prompt"], ["Consolidation", "Pleural effusion"] * 40, strict=True)
    ]
    for words, least in ((SEVERITY, 5), (SIDE, 4), (LOBE, 3)):
        found = {match.lower() for parts in said for part in parts for match in words.findall(part)}
        assert len(found) >= least, found


def test_edited_prompts_keep_labels_origin_limit_and_held_out_reports(frame):
    train, test = frame["split"] == "train", frame["split"] == "test"
    frame["findings_text"] = [f"{BODY} Report number {i}." for i in range(len(frame))]
    lacking = frame.index[train & (frame["Pleural effusion"] == 0)]
    frame.loc[frame.index[test][0], "findings_text"] = frame.loc[lacking[0], "findings_text"].upper()
    prompts = make_prompts(frame, ["Pleural effusion"], 2 * len(lacking), source="edited", max_uses=2)
    origin = frame.set_index("volume").loc[prompts["volume"]]
    assert (origin["split"] == "train").all()
    edited = (origin["Pleural effusion"] == 0).to_numpy()
    assert edited.sum() == 2 * (len(lacking) - 1), "all but the report that a test patient shares, twice each"
    assert frame.loc[lacking[0], "volume"] not in set(prompts["volume"])
    assert prompts["volume"].value_counts().max() <= 2
    assert prompts["prompt"].map(normalise_text).is_unique
    assert (prompts["Pleural effusion"] == 1).all()
    others = [name for name in NAMES if name != "Pleural effusion"]
    assert (prompts.loc[edited, others].to_numpy() == origin.loc[edited, others].to_numpy()).all()
    assert not any(is_denied(text, "Pleural effusion") for text in prompts.loc[edited, "prompt"])
    again = make_prompts(frame, ["Pleural effusion"], 2 * len(lacking), source="edited", max_uses=2)
    pd.testing.assert_frame_equal(prompts, again)


def test_a_plan_with_unseen_label_sets_is_written_by_editing(frame):
    frame["findings_text"] = [f"{BODY} Report number {i}." for i in range(len(frame))]
    plan = make_plan(frame, unseen=True, max_association=1)
    unseen = [item for item in plan.label_sets if not item.training_scans]
    prompts = make_prompts(frame, plan, source="edited")
    rows = {tuple(row) for row in label_matrix(prompts)}
    assert len(prompts) == plan.total
    for item in unseen:
        assert tuple(float(name in item.positive) for name in NAMES) in rows
    assert (prompts["volume"] != "").all(), "an unseen set has a base, whose report is edited"


@pytest.mark.skipif(not REAL.is_file(), reason="the real reports are not on this machine")
def test_real_reports_are_edited_without_contradiction():
    real = pd.read_csv(REAL)
    labels = real[list(FINDINGS)].to_numpy(dtype=float)
    rng = np.random.default_rng(3)
    for index, finding in enumerate(FINDINGS):
        lacking = rng.permutation(np.flatnonzero(labels[:, index] == 0))[:30]
        made = 0
        for scan in lacking:
            whole = real["report_text"][scan]
            edited = edit_report(whole, "", finding, labels[scan], rng)
            if edited is None:
                continue
            made += 1
            kept = {part.rstrip(" .") for part in sentences(edited.findings)}
            assert edited.mention.sentence in edited.findings
            assert not is_denied(edited.findings, finding)
            assert all(part.rstrip(" .") in kept or denies(part, finding) for part in sentences(whole))
        assert made >= 0.8 * len(lacking), finding


@pytest.mark.parametrize(
    ("finding", "other", "words"),
    [
        ("Pleural effusion", "Atelectasis", "collapse|atelecta"),
        ("Pulmonary fibrotic sequela", "Atelectasis", "atelecta"),
    ],
)
def test_words_that_show_another_finding_are_for_scans_that_have_it(finding, other, words):
    having = LABELS.copy()
    having[FINDINGS.index(other)] = 1
    said = {
        value: [
            edit_report("Trachea is open.", "", finding, labels, np.random.default_rng(seed)).mention
            for seed in range(120)
        ]
        for value, labels in ((0, LABELS), (1, having))
    }
    shown = {v: [m for m in s if re.search(words, f"{m.sentence} {m.item}", re.I)] for v, s in said.items()}
    assert not shown[0]
    assert shown[1]


def test_reports_that_show_the_finding_follow_where_no_edit_is_left(frame):
    prompts = make_prompts(frame, ["Pleural effusion"], 1000, source="edited", max_uses=1, max_composed=1)
    train = frame[frame["split"] == "train"]
    reports = set(train.loc[train["Pleural effusion"] == 1, "findings_text"])
    assert len(reports) > 1
    assert sum(any(text in prompt for prompt in prompts["prompt"]) for text in reports) == len(reports)
