from __future__ import annotations

from collections import Counter

import numpy as np
import pandas as pd
import pytest
from augment_fakes import make_frame

from text2ct.augment import make_plan, make_prompts, read_plan, read_requests, report_prompt
from text2ct.augment._scans import NAMES, label_matrix
from text2ct.augment.leaks import normalise_text
from text2ct.augment.prompts import PROMPT_COLUMNS
from text2ct.augment.requests import REQUEST_COLUMNS, check_requests, text_request
from text2ct.errors import UserError
from text2ct.files import write_json
from text2ct.findings import FINDINGS

RARE = FINDINGS[0]


def compose(labels: np.ndarray, rng: np.random.Generator) -> str:
    words = [name for name, value in zip(FINDINGS, labels, strict=True) if value == 1]
    return f"Composed {rng.integers(10**9)}: {', '.join(words)}"


def test_prompts_follow_the_plan_and_come_from_training_scans(frame):
    plan = make_plan(frame, target_prevalence=0.2)
    prompts = make_prompts(frame, plan, seed=3, max_uses=100)
    assert tuple(prompts.columns) == PROMPT_COLUMNS
    assert len(prompts) == plan.total > 0
    wanted = Counter()
    for item in plan.label_sets:
        wanted[item.positive] += item.count
    got = Counter(tuple(n for n, v in zip(NAMES, row, strict=True) if v == 1) for row in label_matrix(prompts))
    assert got == wanted
    scans = frame.set_index("volume")
    for row in prompts.to_dict("records"):
        origin = scans.loc[row["volume"]]
        assert origin["split"] == row["split"] == "train"
        assert origin["patient"] == row["patient"]
        assert row["prompt"] == report_prompt(origin["findings_text"], origin["impression_text"])
        assert [row[n] for n in NAMES] == [origin[n] for n in NAMES]
    pd.testing.assert_frame_equal(prompts, make_prompts(frame, plan, seed=3, max_uses=100))
    assert not prompts.equals(make_prompts(frame, plan, seed=4))


def test_reports_take_turns_and_a_text_has_a_limit(frame):
    carriers = int((frame.loc[frame["split"] == "train", RARE] == 1).sum())
    prompts = make_prompts(frame, [RARE], carriers * 2, max_uses=2)
    assert set(prompts["prompt"].value_counts()) == {2}
    more = make_prompts(frame, [RARE], carriers * 3, max_uses=2, compose=compose)
    assert more["prompt"].value_counts().max() == 2
    composed = more[more["prompt"].str.startswith("Composed")]
    assert len(composed) == carriers
    assert (composed[RARE] == 1).all()
    assert set(composed["volume"]) <= set(frame.loc[frame["split"] == "train", "volume"])


def test_the_limit_counts_texts_and_not_scans(frame, capsys):
    frame["findings_text"], frame["impression_text"] = "The same   report.", ""
    frame.loc[frame["split"] != "train", "findings_text"] = "Another one."
    prompts = make_prompts(frame, [RARE, FINDINGS[1]], 9, max_uses=4, compose=lambda labels, rng: "the same report")
    assert len(prompts) == 4
    assert "made 4 of 9 prompts" in capsys.readouterr().err


def test_reports_that_held_out_patients_share_are_never_used(frame):
    train, test = frame["split"] == "train", frame["split"] == "test"
    carriers = frame.index[train & (frame[RARE] == 1)]
    frame.loc[carriers[0], "findings_text"] = "A report of two people."
    frame.loc[carriers[0], "impression_text"] = "Unchanged."
    frame.loc[frame.index[test][0], "findings_text"] = "findings: a REPORT of two people"
    frame.loc[frame.index[test][0], "impression_text"] = "unchanged"
    prompts = make_prompts(frame, [RARE], 3 * len(carriers), compose=compose)
    assert not prompts["prompt"].str.contains("two people").any()
    shared = make_prompts(frame, [RARE], 4, source="composed", compose=lambda labels, rng: "A report of two people.")
    assert shared.empty


def test_findings_take_turns_and_unknown_stays_unknown():
    frame = make_frame(unknown=0.3)
    prompts = make_prompts(frame, list(FINDINGS[2:5]), 9)
    for position, name in enumerate(FINDINGS[2:5]):
        assert (prompts.loc[position::3, name] == 1).all()
    assert np.isnan(label_matrix(prompts)).any()


def test_composed_prompts_speak_the_reports_language(frame):
    prompts = make_prompts(frame, [FINDINGS[12]], 3, source="composed")
    assert prompts["prompt"].str.contains("effusion", case=False).all()
    assert prompts["prompt"].is_unique


@pytest.mark.parametrize(
    ("wanted", "count", "options", "message"),
    [
        ([], 1, {}, "no finding is named"),
        (["Nodule"], 1, {}, "Nodule"),
        ([RARE], None, {}, "number of prompts is None"),
        ([RARE], -1, {}, "number of prompts is -1"),
        ([RARE], 1, {"source": "dreams"}, "source is 'dreams'"),
        ([RARE], 1, {"max_uses": 0}, "limit of uses"),
    ],
    ids=["none", "unknown", "no-count", "negative", "source", "limit"],
)
def test_bad_requests_are_refused(frame, wanted, count, options, message):
    with pytest.raises(UserError, match=message):
        make_prompts(frame, wanted, count, **options)


def test_an_edited_plan_with_a_label_set_nobody_has_is_composed(frame):
    plan = make_plan(frame, findings=[RARE], target_prevalence=0.2)
    item = plan.label_sets[0].model_copy(update={"positive": (RARE, *FINDINGS[7:14]), "count": 2})
    prompts = make_prompts(frame, plan.model_copy(update={"label_sets": (item,)}), compose=compose)
    assert prompts["prompt"].str.startswith("Composed").all()
    assert (prompts["volume"] == "").all()
    assert (prompts[FINDINGS[8]] == 1).all()


def test_texts_are_compared_by_their_words():
    assert normalise_text("Findings:\n Normal, lungs.  IMPRESSION: none") == normalise_text("normal lungs none")
    assert normalise_text("no effusion") != normalise_text("effusion")


HARD = [
    '=HYPERLINK("x")',
    "+1 nodule",
    "-5 HU, fat",
    "@here",
    'a "quoted" word',
    "two\nlines",
    "NA",
    "ü€漢;,\t.",
]


def test_prompts_csv_is_read_back_exactly(frame, tmp_path):
    prompts = make_prompts(frame, [RARE], len(HARD), compose=compose)
    prompts["prompt"] = HARD
    prompts.to_csv(tmp_path / "prompts.csv", index=False)
    read = read_requests(tmp_path / "prompts.csv")
    assert tuple(read.columns) == REQUEST_COLUMNS
    pd.testing.assert_frame_equal(read[list(PROMPT_COLUMNS)], prompts, check_dtype=False)


def test_a_person_may_edit_prompts_csv(tmp_path, frame):
    path = tmp_path / "prompts.csv"
    header = f"prompt,{','.join(FINDINGS)}\n"
    path.write_text(f"{header}A pacemaker.,1{',' * 17}\nNothing.{',' * 18}\n", encoding="utf-8")
    read = read_requests(path)
    assert read[RARE].tolist()[0] == 1
    assert read[list(FINDINGS)].isna().sum().sum() == 2 * 18 - 1
    assert read_requests(path, findings=[RARE])["prompt"].tolist() == ["A pacemaker."]
    with pytest.raises(UserError, match=f"no prompt labelled with {FINDINGS[3]}"):
        read_requests(path, findings=[FINDINGS[3]])
    path.write_text(f"{header},1{',' * 17}\nNothing.,2{',' * 17}\n", encoding="utf-8")
    with pytest.raises(UserError, match="empty") as error:
        read_requests(path)
    assert "is 2" in str(error.value) or "'2'" in str(error.value)
    path.write_text("prompt,Emphysema\nEmphysema.,1\nNone.,0\n", encoding="utf-8")
    read = read_requests(path)
    assert read["Emphysema"].tolist() == [1, 0]
    assert read[[name for name in FINDINGS if name != "Emphysema"]].isna().all(axis=None)
    path.write_text("prompt\nA pacemaker.\n", encoding="utf-8")
    assert read_requests(path)[list(FINDINGS)].isna().all().all()


def test_challenge_prompts_name_their_output(tmp_path):
    path = tmp_path / "prompts.json"
    path.write_text('[{"input_image_name": "65f4-ed.mha", "report": "Findings: normal."}]', encoding="utf-8")
    read = read_requests(path)
    assert read["name"].tolist() == ["65f4-ed"]
    assert read["prompt"].tolist() == ["Findings: normal."]
    assert read[list(FINDINGS)].isna().all().all()


def test_annotated_reports_give_prompts(tmp_path):
    path = tmp_path / "reports.csv"
    table = pd.DataFrame({"AccessionNo": ["a", "b", "c"], "report_text": ["One.", "Two.", "Three."]})
    for name in FINDINGS:
        table[name] = [1, 0, 1] if name == RARE else 0
    table.to_csv(path, index=False)
    assert read_requests(path)["prompt"].tolist() == ["One.", "Two.", "Three."]
    assert read_requests(path, count=2)["prompt"].tolist() == ["One.", "Two."]
    assert sorted(read_requests(path, findings=[RARE])["prompt"]) == ["One.", "Three."]
    assert sorted(read_requests(path, findings=[RARE], count=4)["prompt"]) == [
        "One.",
        "One.",
        "Three.",
        "Three.",
    ]


def test_requests_are_checked_in_one_go():
    table = pd.DataFrame({"prompt": ["", "fine", "bad\x07bell", "\ud800"], "effusion": 1})
    table[RARE] = [0, 2, 1, None]
    with pytest.raises(UserError, match="cannot be used as prompts") as error:
        check_requests(table.assign(name=["", "../x", "", ".hidden"]), "the test")
    expected = ["column 'effusion'", "row 1: the prompt is empty", f"row 2: '{RARE}' is 2", "row 2: '../x'"]
    expected += ["row 3: the prompt has control", "row 4: the prompt has control", "row 4: '.hidden'"]
    for problem in expected:
        assert problem in str(error.value)
    with pytest.raises(UserError, match="there is no prompt"):
        check_requests(pd.DataFrame({"prompt": []}), "the test")
    assert text_request("A small effusion.\r\nRight.", [FINDINGS[12]])["prompt"].item() == "A small effusion.\nRight."


def test_a_plan_of_other_training_scans_is_named(frame, capsys):
    plan = make_plan(frame)
    make_prompts(frame.sample(frac=1, random_state=2), plan, compose=compose)
    assert not capsys.readouterr().err.count("the plan was made from")
    fewer = frame[(frame["split"] != "train") | (frame.groupby("split").cumcount() < 20)]
    make_prompts(fewer, plan, compose=compose)
    assert "made from 60 training scans whose labels are not those of the 20 here" in capsys.readouterr().err


def test_the_counts_of_an_edited_plan_decide_how_many_prompts_are_made(frame, tmp_path, capsys):
    plan = make_plan(frame)
    stored = plan.model_dump(mode="json")
    stored["label_sets"] = [stored["label_sets"][0] | {"count": 3}]
    write_json(tmp_path / "plan.json", stored)
    edited = read_plan(tmp_path / "plan.json")
    assert f"says {plan.total} volumes in all, but its label sets ask for 3" in capsys.readouterr().err
    assert len(make_prompts(frame, edited, compose=compose)) == edited.total == 3
    stored["label_sets"][0] |= {"positive": [RARE], "unknown": [RARE]}
    write_json(tmp_path / "plan.json", stored)
    with pytest.raises(UserError, match=f"{RARE} cannot be both positive and unknown"):
        read_plan(tmp_path / "plan.json")
