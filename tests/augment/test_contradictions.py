"""What reports say plainly of a finding: seldom at odds with labels made by hand, often with labels that are wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from text2ct.augment import _denials
from text2ct.augment.contradictions import _STEMS, read_report
from text2ct.augment.edited import sentences
from text2ct.evaluation.reserved import reserved_reports
from text2ct.findings import FINDINGS
from text2ct.simulation.text import compose_mention

REAL = Path(__file__).resolve().parents[3] / "shared" / "real" / "ct_rate" / "annotated_reports_train.csv"


@pytest.mark.parametrize(
    ("text", "finding"),
    [
        ("No pleural or pericardial effusion was detected.", "Pleural effusion"),
        ("No pleural or pericardial effusion was detected.", "Pericardial effusion"),
        ("Heart contour, size are normal.", "Cardiomegaly"),
        ("No enlarged lymph nodes in pathological dimensions were detected.", "Lymphadenopathy"),
        ("No nodular or infiltrative lesion is detected in the lung parenchyma.", "Lung nodule"),
    ],
)
def test_denied(text, finding):
    said = read_report(text)
    assert said.denied[finding] == text
    assert finding not in said.shown


@pytest.mark.parametrize(
    ("text", "finding"),
    [
        ("Minimal pleural effusion is observed on the left.", "Pleural effusion"),
        ("Emphysematous changes in both lungs.", "Emphysema"),
        ("There are a few nonspecific nodules in both lungs.", "Lung nodule"),
        ("Cardiomegaly.", "Cardiomegaly"),
        ("Linear atelectasis is observed in the lower lobes.", "Atelectasis"),
    ],
)
def test_shown(text, finding):
    said = read_report(text)
    assert said.shown[finding] == text
    assert finding not in said.denied


@pytest.mark.parametrize(
    ("text", "finding"),
    [
        ("", "Pleural effusion"),
        ("The pleural effusion of the previous examination is not observed.", "Pleural effusion"),
        ("No pleural effusion on the right. Pleural effusion is observed on the left.", "Pleural effusion"),
        ("Apart from this, no nodular lesion was detected in the lungs.", "Lung nodule"),
        ("A hypodense nodule is observed in the left thyroid lobe.", "Lung nodule"),
        ("The appearance may be compatible with emphysema.", "Emphysema"),
        ("There is no thickening in the esophagus, and there is a hiatal hernia at the lower end.", "Hiatal hernia"),
        ("Calcified lymph nodes are observed in the aortopulmonary window.", "Arterial wall calcification"),
        ("No active infiltration was detected.", "Lung opacity"),
    ],
)
def test_silent_or_not_plain(text, finding):
    said = read_report(text)
    assert finding not in said.shown
    assert finding not in said.denied


def test_simulated_sentences_show_what_they_mention():
    rng = np.random.default_rng(0)
    for finding in FINDINGS:
        mentions = [compose_mention(finding, rng) for _ in range(30)]
        said = [read_report(f"{mention.sentence}.") for mention in mentions]
        assert not any(finding in one.denied for one in said), finding


def test_every_word_for_a_finding_has_one_of_its_stems():
    """A sentence without the stems is not looked at, so no pattern may match it."""
    rng = np.random.default_rng(1)
    texts = [compose_mention(finding, rng).sentence for finding in FINDINGS for _ in range(20)]
    if REAL.is_file():
        texts += [sentence for text in pd.read_csv(REAL)["report_text"] for sentence in sentences(text)]
    for sentence in set(texts):
        for finding in FINDINGS:
            if not any(stem in sentence.lower() for stem in _STEMS[finding]):
                assert not _denials.denies_by_name(sentence, finding), (finding, sentence)
                assert not _denials.shows_by_name(sentence, finding), (finding, sentence)


def test_real_labels_are_seldom_contradicted_and_wrong_ones_are_found():
    if not REAL.is_file():
        pytest.skip("the annotated reports are not beside this repository")
    table = pd.read_csv(REAL)
    table = table[~reserved_reports(table)]
    said = [read_report(text) for text in table["report_text"]]
    labels = table[list(FINDINGS)].to_numpy() == 1
    denied = np.array([[name in one.denied for name in FINDINGS] for one in said])
    shown = np.array([[name in one.shown for name in FINDINGS] for one in said])
    assert (denied & labels).sum() <= 0.005 * labels.sum()
    assert (shown & ~labels).sum() <= 0.01 * (~labels).sum()
    # A label turned round is found where the report has plain words for it.
    assert (denied & ~labels).sum() >= 0.2 * (~labels).sum()
    assert (shown & labels).sum() >= 0.5 * labels.sum()
