"""Reports: true of their instances, varied; they deny nothing that is there, and teach to read real ones."""

from __future__ import annotations

import hashlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from text2ct.errors import UserError
from text2ct.findings import FINDINGS
from text2ct.simulation.distractors import REGISTRY
from text2ct.simulation.instance import SITES, Instance
from text2ct.simulation.labels import draw_age, draw_labels, draw_sex, scan_labels
from text2ct.simulation.patients import draw_patient, patient_number
from text2ct.simulation.text import compose, report, write_report
from text2ct.simulation.text.distractors import STATEMENTS
from text2ct.simulation.text.grammar import draw_style, expand, slots_of
from text2ct.simulation.text.places import instance_slots
from text2ct.simulation.text.slips import REPORT_RATE, slip
from text2ct.simulation.text.vocabulary import JOINTS, NORMALS, WORDINGS
from text2ct.simulation.text.wording import REGIONS

REAL = Path(__file__).resolve().parents[3] / "shared" / "real" / "ct_rate" / "annotated_reports_train.csv"
SIDED = ("Pleural effusion", "Medical material")

# What a reader would look for, to tell that a finding is mentioned.
MENTION = {
    "Medical material": r"pacemaker|pace "
    r"maker|cathet|port|wire|sutur|clips|valve|AVR|MVR|fixat|screw|stabil|implant|instrument|"
    r"tube|drain|ICD|battery|generator|electrodes|sternotomy|prosthe|fixator|rods|sternum|bypass|CABG",
    "Arterial wall calcification": r"plaque|calcific|atheroscl",
    "Cardiomegaly": r"cardiothoracic|CTR|cardiomegaly|heart|ventricle|atri",
    "Pericardial effusion": r"pericard|around the heart",
    "Coronary artery wall calcification": r"coronary|LAD|RCA|LMCA|descending arter",
    "Hiatal hernia": r"hernia",
    "Lymphadenopathy": r"lymph|LAP",
    "Emphysema": r"emphysem",
    "Atelectasis": r"atelect",
    "Lung nodule": r"nodul|mass",
    "Lung opacity": r"ground.glass|opacit|densit|pneumonia",
    "Pulmonary fibrotic sequela": r"sequel|fibro|bands",
    "Pleural effusion": r"effusion|fluid",
    "Mosaic attenuation pattern": r"mosaic",
    "Peribronchial thickening": r"bronch",
    "Consolidation": r"consolid|infiltrat",
    "Bronchiectasis": r"bronchi",
    "Interlobular septal thickening": r"sept",
}
DENIAL = re.compile(
    r"^No |^There (is|are) no |(was|is) not (observed|detected|seen)|within normal limits|^Normal |^Natural "
)
# Words that a denial uses for a finding.
DENIED = {
    "Pericardial effusion": r"pericardial",
    "Lymphadenopathy": r"lymph|LAP|Lymphad",
    "Lung nodule": r"nodul",
    "Lung opacity": r"infiltra|pneumonia",
    "Consolidation": r"infiltra|consolid|pneumonia",
    "Pleural effusion": r"pleural",
    "Coronary artery wall calcification": r"calcif",
    "Cardiomegaly": r"heart size",
}


def an_instance(name: str, rng: np.random.Generator, site: str = "", side: str = "", count: int = 1) -> Instance:
    site = site or SITES[name][int(rng.integers(len(SITES[name])))]
    side = side or (
        "right" if name in SIDED else next((word for word in ("right", "left") if site.startswith(word)), "")
    )
    return Instance(name, float(rng.random()), side, site, 13.2, count)


def sentences(text: str) -> list[str]:
    return [part.strip(' .-•"') for part in re.split(r'(?<=[a-z)0-9?])[.;:]\s|"|•', text) if part.strip(' .-•"')]


def simulated(count: int, first: int = 0) -> tuple[list[str], np.ndarray]:
    """Texts and labels of ``count`` patients' first scans, drawn like a cohort's."""
    texts, labels = [], []
    for index in range(first, first + count):
        patient = draw_patient(patient_number(77, index))
        texts.append(report(patient, patient.scans[0]).text)
        labels.append(scan_labels(patient.scans[0]))
    return texts, np.array(labels)


@pytest.fixture(scope="module")
def corpus() -> tuple[list[str], np.ndarray]:
    return simulated(600)


def test_every_finding_has_words():
    assert set(WORDINGS) == set(FINDINGS)
    for wording in WORDINGS.values():
        assert wording.region in REGIONS
        assert wording.findings.keys() == wording.impression.keys()
        assert all(len(set(templates)) >= 8 for templates in wording.findings.values())
    assert set(WORDINGS["Medical material"].findings) == set(SITES["Medical material"])


@pytest.mark.parametrize("name", FINDINGS)
def test_every_template_expands_and_mentions_its_finding(name):
    rng = np.random.default_rng(0)
    for site in SITES[name]:
        for count, side in ((1, "right"), (4, "left"), (9, "bilateral")):
            instance = an_instance(name, rng, site, side if name in SIDED else "", count)
            wording = WORDINGS[name]
            slots = draw_style(rng).slots() | instance_slots(instance, rng)
            templates = wording.findings[wording.variant(instance)] + wording.impression[wording.variant(instance)]
            usable = [template for template in templates if slots_of(template) <= slots.keys()]
            assert len(usable) >= 0.6 * len(templates)
            for template in usable:
                said = expand(template, slots, rng)
                assert not set("{}<>|") & set(said)
                assert "  " not in said
                assert re.search(MENTION[name], said, re.IGNORECASE), said


@pytest.mark.parametrize(
    "name", ["Lung nodule", "Lymphadenopathy", "Pleural effusion", "Pericardial effusion", "Cardiomegaly"]
)
def test_measurements_are_those_of_the_instance(name):
    rng = np.random.default_rng(1)
    measured = 0
    for _ in range(150):
        instance = an_instance(name, rng)
        slots = draw_style(rng).slots() | instance_slots(instance, rng)
        for template in WORDINGS[name].findings[WORDINGS[name].variant(instance)]:
            if not slots_of(template) <= slots.keys():
                continue
            said = expand(template, slots, rng)
            for number, unit in re.findall(r"(\d+(?:\.\d+)?) (mm|cm)", said):
                assert float(number) * (10 if unit == "cm" else 1) == pytest.approx(13.2, abs=0.5) or "x" in said
                measured += 1
            pair = re.search(r"(\d+)x(\d+) mm", said)
            if pair:
                assert "13" in pair.groups()
    assert measured > 100


@pytest.mark.parametrize("name", ["Atelectasis", "Consolidation", "Lung nodule", "Bronchiectasis", "Lung opacity"])
@pytest.mark.parametrize(
    ("site", "wrong"),
    [("right lower lobe", "left|upper|middle|both"), ("left upper lobe", "right|lower lobe|middle|both")],
    ids=["right lower", "left upper"],
)
def test_places_are_those_of_the_instance(name, site, wrong):
    rng = np.random.default_rng(2)
    for _ in range(20):
        instance = an_instance(name, rng, site)
        slots = draw_style(rng).slots() | instance_slots(instance, rng)
        for template in WORDINGS[name].findings[WORDINGS[name].variant(instance)]:
            said = expand(template, slots, rng)
            assert not re.search(rf"\b({wrong})\b", said), said


def test_sides_of_an_effusion_are_those_of_the_instance():
    rng = np.random.default_rng(3)
    for side, wrong in (("right", "left"), ("left", "right")):
        for template in WORDINGS["Pleural effusion"].findings["one"]:
            instance = an_instance("Pleural effusion", rng, side=side)
            said = expand(template, draw_style(rng).slots() | instance_slots(instance, rng), rng)
            assert wrong not in said


def test_what_is_present_is_never_denied():
    rng = np.random.default_rng(4)
    everything = [an_instance(name, rng) for name in FINDINGS]
    for _ in range(150):
        written = write_report(everything, rng)
        for part in sentences(written.text):
            if DENIAL.search(part):
                for name, words in DENIED.items():
                    assert not re.search(words, part), f"{name}: {part}"


# What is said, and what must not stand beside it in the same report.
CONTRADICTIONS = {
    "spleen": (
        r"spleen is (slightly )?larger|Splenomegaly",
        r"spleen (is of|and).* (normal|natural)|spleen is homogen|Spleen size is|"
        r"abdominal (organs|sections).*(natural|normal)",
    ),
    "vertebral height": (
        r"Loss of height|height loss",
        r"eights .*(preserved|natural|normal)|[Bb]ones? .*are (natural|normal)",
    ),
    "kyphosis": (r"kyphosis", r"alignment|[Bb]ones? .*are (natural|normal)"),
    "adrenal": (
        r"adrenal .*adenoma|Adrenal adenoma|in the left adrenal",
        r"No mass .*adrenal|[Aa]drenal .*natural|adrenal .*normal",
    ),
    "thyroid": (
        r"thyroid .*heterogeneous|goiter|nodule .*thyroid|Thyroid nodule",
        r"thyroid gland is (natural|of normal)|No mass .*thyroid",
    ),
    "trachea": (
        r"tracheal diverticulum|side of the trachea|Secretion",
        r"main bronchi .*(clear|open|patent)|[Nn]o (occl|obstr)\w+ (path|lesion)",
    ),
    "pulmonary trunk": (
        r"ulmonary .*wider than normal|Dilatation of the pulmonary",
        r"(great|main|major) .*(vessels|vascular structures) .*(natural|normal)|ascular structures have",
    ),
    "pleura": (
        r"[Pp]leural (calcification|plaques|thickening) (is|was|are|were)|Minimal pleural",
        r"Pleural .*hickening.* not (observed|detected|seen)|[Pp]leural( or |-).*effusion-thickening",
    ),
    "breast": (r"breast", r"[Ss]oft tissues .*(natural|normal)"),
    "air cyst": (r"air cyst", r"aeration, no |no (nodular|nodule) or|No (nodule, mass|infiltra).*both"),
    "aorta": (
        r"aorta is (ectatic|wide|dilated)|aorta.* (wider|increased)|(Ectasia|Dilatation) of the asc",
        r"[Tt]horacic aorta is of|[Aa]orta is (normal|within)",
    ),
    "liver": (r"iver .*(cyst|lesion)|steatosis", r"of the liver are|liver .*(natural|normal)"),
    "kidney": (r"(cyst|stone|calculus|lesion) .*kidney", r"kidneys .*(natural|normal)"),
    "gallbladder": (r"(calcul|stone).* gallbladder|gallbladder is operated", r"[Gg]allbladder and|biliary tract are"),
}


@pytest.fixture(scope="module")
def undiseased() -> list[tuple[str, str]]:
    """Findings and Impression of 4000 reports without any of the 18 findings, without slips."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("text2ct.simulation.text.slips.REPORT_RATE", 0.0)
        written = []
        for index in range(4000):
            patient = draw_patient(patient_number(78, index), labels=np.zeros(len(FINDINGS), bool))
            made = report(patient, patient.scans[0])
            written.append((made.findings, made.impression))
    return written


@pytest.mark.parametrize("name", CONTRADICTIONS)
def test_no_report_contradicts_itself(name: str, undiseased: list[tuple[str, str]]):
    said, denied = (re.compile(words) for words in CONTRADICTIONS[name])
    split = [sentences(findings) + sentences(impression) for findings, impression in undiseased]
    abnormal = [parts for parts in split if any(affirmed(said, part) for part in parts)]
    assert len(abnormal) > 15
    assert sum(any(denied.search(part) for part in parts) for parts in split) > 100
    for parts in abnormal:
        assert not [part for part in parts if denied.search(part)], parts


def affirmed(said: re.Pattern[str], part: str) -> bool:
    return said.search(part) is not None and not re.search(r"^No |no (focal|space)", part)


def test_normal_limits_are_said_only_of_reports_without_anything_else(undiseased: list[tuple[str, str]]):
    limits = re.compile(
        r"within normal limits|(Normal|Natural) (thoracic|thorax) CT|No (significant|obvious) pathology"
    )
    abnormal = [re.compile(said) for said, _ in CONTRADICTIONS.values()]
    normal = [(findings, impression) for findings, impression in undiseased if limits.search(impression)]
    assert len(normal) > 300
    for findings, impression in normal:
        assert len(sentences(impression)) == 1, impression
        assert not [part for part in sentences(findings) for said in abnormal if affirmed(said, part)], findings


@pytest.fixture(scope="module")
def alone() -> list[tuple[Instance, str]]:
    """Each instance of 2000 drawn patients, and what is said of it alone: no slips, no word of anything else."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("text2ct.simulation.text.slips.REPORT_RATE", 0.0)
        # By its module: the package gives a function of the same name.
        patch.setattr(sys.modules[write_report.__module__], "NORMALS", ())
        patch.setattr(sys.modules[write_report.__module__], "_draw_statements", lambda rng: [])
        for module in ("lungs", "distractors"):
            patch.setattr(f"text2ct.simulation.text.{module}.OPENINGS", ("Comment",))
        rng = np.random.default_rng(8)
        patients = [draw_patient(patient_number(79, index)) for index in range(2000)]
        instances = [instance for patient in patients for instance in patient.scans[0].instances]
        return [(instance, write_report([instance], rng).text) for instance in instances]


def test_no_other_side_is_said_than_that_of_the_instance(alone: list[tuple[Instance, str]]):
    wrong = {"right": "left|both|bilateral|lungs", "left": "right|both|bilateral|lungs", "bilateral": "right|left"}
    seen = set()
    for instance, text in alone:
        # The leads of devices end on the right, whichever side they come from.
        if instance.side and instance.finding != "Medical material":
            seen.add((instance.finding, instance.side))
            assert not re.search(rf"(?i)\b({wrong[instance.side]})\b", text), text
    assert len(seen) > 25


def test_nodes_are_said_only_where_they_are(alone: list[tuple[Instance, str]]):
    wrong = {
        "axillary": "mediast|hil[au]|paratrach|aort|prevasc|subcar",
        "hilar": "mediast|axill|paratrach|aort|prevasc|subcar",
        "subcarinal": "axill|hil[au]|paratrach|aort|prevasc",
        "prevascular": "axill|hil[au]|paratrach|aort|subcar",
        "right paratracheal": "axill|hil[au]|aort|prevasc|subcar|left",
        "mediastinal": "axill",
    }
    nodes = [(instance.site, text) for instance, text in alone if instance.finding == "Lymphadenopathy"]
    assert {site for site, _ in nodes} == set(SITES["Lymphadenopathy"])
    for site, text in nodes:
        assert not re.search(wrong[site], text, re.IGNORECASE), text


XY = re.compile(r"(\d+)x(\d+) mm")


def test_axes_are_those_that_are_painted(alone: list[tuple[Instance, str]]):
    axes = {
        "Lung nodule": lambda size: (size, round(0.95 * size)),
        "Lymphadenopathy": lambda size: (round(1.1 * size), size),
    }
    said = [(instance, pair) for instance, text in alone for pair in XY.findall(text)]
    assert len(said) > 100
    for instance, pair in said:
        assert tuple(map(int, pair)) == axes[instance.finding](instance.size_mm)


def test_nothing_is_measured_but_the_instance(alone: list[tuple[Instance, str]]):
    measured = 0
    for instance, text in alone:
        for number, unit in re.findall(r"(\d+(?:\.\d+)?) (mm|cm)", XY.sub("", text)):
            assert float(number) * (10 if unit == "cm" else 1) == pytest.approx(instance.size_mm), text
            measured += 1
    assert measured > 1000
    assert not [kind for kind in STATEMENTS if re.search(r"\d", " ".join((*kind.findings, *kind.impression)))]


def test_no_lead_and_no_valve_is_named_that_is_not_painted(alone: list[tuple[Instance, str]]):
    leads = [text for instance, text in alone if instance.site == "pacemaker" and instance.count == 1]
    valves = [text for instance, text in alone if instance.site == "valve prosthesis"]
    assert len(leads) > 5
    assert len(valves) > 5
    assert not [text for text in leads if re.search(r"pacemaker.*atrium|lead.*atrium", text)]
    assert not [text for text in valves if re.search(r"(?i)\b(aortic|mitral) (valve|position)|\b[AM]VR\b", text)]


def test_no_segment_of_a_lobe_is_named(alone: list[tuple[Instance, str]]):
    segments = r"(?<!apical )segments? of|(antero|postero|latero|medio)\w*basal|lingul"
    said = [found.group() for _, text in alone if (found := re.search(segments, text))]
    assert not said


def carriers(name: str, count: int) -> Iterator[tuple[Instance, list[str]]]:
    """The instance of ``count`` drawn patients who have one finding alone, and the sentences of a report."""
    rng = np.random.default_rng(9)
    for index in range(count):
        labels = np.array([finding == name for finding in FINDINGS])
        (instance,) = draw_patient(patient_number(80, index), labels=labels).scans[0].instances
        yield instance, sentences(write_report([instance], rng).text)


def test_a_smear_is_said_only_of_a_mild_effusion():
    said = [
        instance.grade
        for instance, parts in carriers("Pericardial effusion", 1000)
        if any("smear" in part.lower() for part in parts)
    ]
    assert len(said) > 10
    assert set(said) == {"mild"}


def test_no_mass_is_denied_beside_one(monkeypatch):
    monkeypatch.setattr("text2ct.simulation.text.slips.REPORT_RATE", 0.0)
    elsewhere, massive, denied = re.compile("adrenal|pancrea|thyroid|kidney"), 0, 0
    for _, parts in carriers("Lung nodule", 3000):
        said = [part for part in parts if not elsewhere.search(part)]
        denies = any(re.search(r"\bNo\b.* mass\b", part) for part in said)
        affirms = any(re.search(r"(?i)\bmass\b", part) and not DENIAL.search(part) for part in said)
        assert not (denies and affirms), said
        massive, denied = massive + affirms, denied + denies
    assert massive > 5
    assert denied > 300


def test_of_the_unknown_nothing_is_said():
    rng = np.random.default_rng(5)
    row = np.full(18, np.nan)
    for _ in range(100):
        for part in sentences(compose(row, rng).text):
            assert not any(re.search(words, part) for words in DENIED.values() if DENIAL.search(part)), part


def test_present_findings_are_mentioned_in_findings(monkeypatch):
    monkeypatch.setattr("text2ct.simulation.text.slips.REPORT_RATE", 0.0)
    rng = np.random.default_rng(6)
    for _ in range(100):
        labels = draw_labels(rng, draw_age(rng), draw_sex(rng))
        written = write_report([an_instance(FINDINGS[i], rng) for i in np.flatnonzero(labels)], rng)
        for index in np.flatnonzero(labels):
            assert re.search(MENTION[FINDINGS[index]], written.findings, re.IGNORECASE), FINDINGS[index]
        assert written.impression


def test_an_impression_says_all_findings_but_those_it_is_said_to_leave_out(monkeypatch):
    monkeypatch.setattr("text2ct.simulation.text.slips.REPORT_RATE", 0.0)
    # Words that stand for one finding alone.
    own = {"Emphysema": "emphysem", "Hiatal hernia": "hernia", "Lymphadenopathy": "lymph|LAP", "Cardiomegaly": "megaly"}
    present, unsaid = 0, 0
    for index in range(2000):
        patient = draw_patient(patient_number(81, index))
        made = report(patient, patient.scans[0])
        names = {instance.finding for instance in patient.scans[0].instances}
        assert set(made.unsaid) < names or not names
        for name in names - set(made.unsaid):
            assert re.search(MENTION[name], made.impression, re.IGNORECASE), (name, made.impression)
        for name in own.keys() & set(made.unsaid):
            assert not re.search(own[name], made.impression, re.IGNORECASE), (name, made.impression)
        present, unsaid = present + len(names), unsaid + len(made.unsaid)
    assert 0.1 < unsaid / present < 0.25


def test_a_patient_decides_the_text():
    patient = draw_patient(patient_number(1, 2))
    assert report(patient, patient.scans[0]) == report(draw_patient(patient_number(1, 2)), patient.scans[0])
    row = scan_labels(patient.scans[0])
    assert compose(row, np.random.default_rng(9)) == compose(row, np.random.default_rng(9))
    assert compose(row, np.random.default_rng(9)) != compose(row, np.random.default_rng(10))


def test_texts_vary(corpus):
    texts, _ = corpus
    assert len(set(texts)) == len(texts)
    assert 80 < np.median([len(text.split()) for text in texts]) < 300


@pytest.mark.parametrize(
    ("row", "message"),
    [(np.zeros(17), "shape"), (np.full(18, 2.0), "Medical material is 2")],
    ids=["short", "two"],
)
def test_rows_that_are_no_labels_are_refused(row, message):
    with pytest.raises(UserError, match=message):
        compose(row, np.random.default_rng(0))


def test_joints_and_normals_name_known_findings_and_distractors():
    for joint in JOINTS:
        assert set(joint.pair) <= set(FINDINGS)
        assert joint.region in REGIONS
    for normal in NORMALS:
        kinds = {*FINDINGS, *REGISTRY, *(statement.kind for statement in STATEMENTS)}
        assert set(normal.unless) <= {*kinds, *(name for wording in WORDINGS.values() for name in wording.findings)}
        assert normal.region in REGIONS


def test_expand_tidies():
    rng = np.random.default_rng(0)
    assert expand("a <mild> {effusion} , <size> .", {"mild": "", "size": "8 mm"}, rng) == "An effusion, 8 mm"
    assert expand("{one|{one|one}} lesion", {}, rng) == "One lesion"
    with pytest.raises(KeyError):
        expand("<absent>", {}, rng)


def test_slips_are_rare_and_small():
    rng = np.random.default_rng(0)
    text = "No significant pathology was detected in the mediastinal vascular structures"
    slipped = [slip(text, rng) for _ in range(1000)]
    assert np.mean([other != text for other in slipped]) == pytest.approx(REPORT_RATE, abs=0.05)
    assert all(abs(len(other) - len(text)) < 30 for other in slipped)


def development_reports() -> pd.DataFrame:
    """The 500 real reports to develop on, of the smallest SHA-256 of the text; the others are reserved."""
    real = pd.read_csv(REAL)
    return real.iloc[np.argsort([hashlib.sha256(text.encode()).hexdigest() for text in real["report_text"]])[:500]]


@pytest.mark.skipif(not REAL.is_file(), reason="the real reports are not on this machine")
def test_a_reader_of_simulated_reports_reads_real_ones(corpus):
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score

    texts, labels = corpus
    real = development_reports()
    words = TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True)
    known, unseen = words.fit_transform(texts), words.transform(real["report_text"])
    scores = {
        name: roc_auc_score(
            real[name],
            LogisticRegression(C=10, max_iter=1000).fit(known, labels[:, i]).decision_function(unseen),
        )
        for i, name in enumerate(FINDINGS)
    }
    assert np.mean(list(scores.values())) > 0.85
    assert min(scores.values()) > 0.7, scores


@pytest.mark.skipif(not REAL.is_file(), reason="the real reports are not on this machine")
def test_no_particular_sentence_is_a_real_one(corpus):
    """Stock phrases of radiology coincide by chance; a long sentence, or one with a number, must not."""
    real = {part.lower() for text in pd.read_csv(REAL)["report_text"] for part in sentences(text)}
    said = {part.lower() for text in corpus[0] for part in sentences(text)}
    copied = {part for part in said & real if len(part.split()) >= (6 if re.search("[0-9]", part) else 11)}
    assert not copied
    assert sum(len(part.split()) >= 6 for part in said & real) < 0.01 * len(said)
