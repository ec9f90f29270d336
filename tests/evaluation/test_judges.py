"""Every judge goes through the same battery, on tiny volumes whose findings are bright or dark blocks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

from text2ct.diffusion.training.cases import Cases, CaseText, write_cases
from text2ct.errors import UserError
from text2ct.evaluation.judges import (
    BlockJudge,
    BlockJudgeConfig,
    CnnConfig,
    CnnJudge,
    CnnJudgeTraining,
    Judge,
    aucs,
    macro,
    train_cnn_judge,
)
from text2ct.evaluation.judges.blocks import cases_features
from text2ct.evaluation.judges.features import lung_mask, volume_features
from text2ct.evaluation.reserved import TextReader, reserved_reports
from text2ct.files import write_json
from text2ct.findings import FINDINGS
from text2ct.simulation import draw_patient
from text2ct.simulation.patients import FIRST_JUDGED
from text2ct.simulation.render import render

from .conftest import load_benchmark

SIZE = (16, 16, 16)
# A finding is a cube of 5 voxels that is bright when it is present; four by four findings share a place.
PLACES = [(1, 1, 4), (10, 1, 4), (1, 10, 8), (10, 10, 8)]
CNN = CnnConfig(stem=6, widths=(8, 12, 16))
CNN_TRAINING = CnnJudgeTraining(
    steps=90,
    minutes=None,
    batch_size=16,
    learning_rate=1e-2,
    warmup_steps=5,
    ema_decay=0.9,
    shift=1,
    checkpoint_every=30,
)
TREES = BlockJudgeConfig(features=60, trees=20, rounds=20)


def case(number: int, unknown: bool = False) -> tuple[NDArray[np.int16], CaseText]:
    rng = np.random.default_rng(number)
    bright = (rng.random(len(PLACES)) < 0.4).astype(np.float32)
    labels = np.resize(bright, len(FINDINGS))
    hu = rng.normal(-300, 30, SIZE)
    for (x, y, z), present in zip(PLACES, bright, strict=True):
        hu[x : x + 5, y : y + 5, z : z + 5] += 600 * present
    if unknown:
        labels[3] = np.nan
    details = np.full((len(FINDINGS), 3), np.nan, dtype=np.float32)
    return np.clip(hu, -1000, 1000).astype(np.int16), CaseText(str(number), "", "", labels, details)


def make_cases(folder: Path, count: int, first: int = 0, unknown: bool = False) -> Cases:
    return write_cases(
        folder, lambda i: case(first + i, unknown and i == 2), count, size=SIZE, spacing_mm=(12, 12, 12), source="test"
    )


Train = Callable[[Cases, Path], Judge]


def train_blocks(cases: Cases, out: Path) -> Judge:
    judge = BlockJudge.train(cases, TREES, cache=out / "cache")
    judge.save(out)
    return judge


def train_cnn(cases: Cases, out: Path) -> Judge:
    return train_cnn_judge(cases, CNN_TRAINING, out, network=CNN, device="cpu")


TRAIN: dict[str, Train] = {"blocks": train_blocks, "cnn": train_cnn}
LOAD: dict[str, Callable[[Path], Judge]] = {"blocks": BlockJudge.load, "cnn": lambda f: CnnJudge.load(f, device="cpu")}
KINDS = pytest.mark.parametrize("kind", list(TRAIN))


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> Cases:
    return make_cases(tmp_path_factory.mktemp("judges") / "cases", 96)


@pytest.fixture(scope="module")
def new(tmp_path_factory: pytest.TempPathFactory) -> Cases:
    return make_cases(tmp_path_factory.mktemp("judges") / "new", 41, first=5000)


@pytest.fixture(scope="module")
def trained(cases: Cases, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Judge, Path]]:
    found = {}
    for kind, train in TRAIN.items():
        folder = tmp_path_factory.mktemp("trained") / kind
        found[kind] = train(cases, folder), folder
    return found


def volumes_of(cases: Cases) -> list[NDArray[np.int16]]:
    return [cases.volume_hu(i) for i in range(len(cases))]


@KINDS
def test_scores_are_probabilities(kind: str, trained: dict[str, tuple[Judge, Path]], new: Cases) -> None:
    judge, _ = trained[kind]
    scores = judge.scores(volumes_of(new))
    assert scores.shape == (len(new), len(FINDINGS))
    assert scores.dtype == np.float32
    assert scores.min() >= 0
    assert scores.max() <= 1
    assert judge.scores([]).shape == (0, len(FINDINGS))
    assert judge.name


@KINDS
def test_an_obvious_sign_is_learnt(kind: str, trained: dict[str, tuple[Judge, Path]], new: Cases) -> None:
    found = aucs(trained[kind][0].scores(volumes_of(new)), new.labels)
    assert len(found) == len(FINDINGS)
    assert (macro(found) or 0) > 0.9


@KINDS
def test_a_volume_scores_the_same_in_any_company(kind: str, trained: dict[str, tuple[Judge, Path]], new: Cases) -> None:
    judge, _ = trained[kind]
    volumes = volumes_of(new)[:11]
    np.testing.assert_array_equal(judge.scores(volumes)[9:10], judge.scores(volumes[9:10]))


@KINDS
def test_a_loaded_judge_scores_the_same(kind: str, trained: dict[str, tuple[Judge, Path]], new: Cases) -> None:
    judge, folder = trained[kind]
    np.testing.assert_array_equal(LOAD[kind](folder).scores(volumes_of(new)), judge.scores(volumes_of(new)))


@KINDS
def test_training_again_gives_the_same_judge(
    kind: str, trained: dict[str, tuple[Judge, Path]], cases: Cases, new: Cases, tmp_path: Path
) -> None:
    again = TRAIN[kind](cases, tmp_path)
    np.testing.assert_array_equal(again.scores(volumes_of(new)), trained[kind][0].scores(volumes_of(new)))


def test_an_interrupted_cnn_goes_on_to_the_same_weights(
    trained: dict[str, tuple[Judge, Path]], cases: Cases, new: Cases, tmp_path: Path
) -> None:
    train_cnn_judge(cases, CNN_TRAINING, tmp_path, network=CNN, device="cpu", stop_at=41)
    assert not (tmp_path / "judge.json").exists()  # half a judge cannot be loaded
    judge = train_cnn_judge(cases, CNN_TRAINING, tmp_path, network=CNN, device="cpu")
    np.testing.assert_array_equal(judge.scores(volumes_of(new)), trained["cnn"][0].scores(volumes_of(new)))


def test_cached_features_are_those_computed(cases: Cases, tmp_path: Path) -> None:
    train_blocks(cases, tmp_path)
    assert sorted(path.name for path in (tmp_path / "cache").iterdir()) == ["features-000000.npy", "features.json"]
    first = BlockJudge.train(cases, TREES).scores(volumes_of(cases))
    np.testing.assert_array_equal(
        BlockJudge.train(cases, TREES, cache=tmp_path / "cache").scores(volumes_of(cases)), first
    )


@pytest.mark.parametrize("kept", ["of other cases", "of fewer features", "of nobody knows what"])
def test_a_cache_of_other_features_is_replaced(kept: str, cases: Cases, new: Cases, tmp_path: Path) -> None:
    of_cases, of_new = cases_features(cases), cases_features(new, tmp_path)
    record = tmp_path / "features.json"
    if kept != "of other cases":
        np.save(tmp_path / "features-000000.npy", of_cases[:, :5])
        write_json(record, {"cases": cases.digest, "features": 5})
    if kept == "of nobody knows what":
        record.unlink()
    for _ in range(2):
        np.testing.assert_array_equal(cases_features(cases, tmp_path), of_cases)
    np.testing.assert_array_equal(cases_features(new, tmp_path), of_new)


@KINDS
def test_the_record_says_what_it_learnt_from(kind: str, trained: dict[str, tuple[Judge, Path]], cases: Cases) -> None:
    import json

    record = json.loads((trained[kind][1] / "judge.json").read_text("utf-8"))
    assert record["trained_on"]["digest"] == cases.digest
    assert record["kind"] == kind


def test_trees_fitted_by_another_scikit_learn_say_so(
    trained: dict[str, tuple[Judge, Path]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import json
    import shutil

    shutil.copytree(trained["blocks"][1], tmp_path / "judge")
    BlockJudge.load(tmp_path / "judge")
    assert "scikit-learn" not in capsys.readouterr().err
    record = json.loads((tmp_path / "judge" / "judge.json").read_text("utf-8"))
    (tmp_path / "judge" / "judge.json").write_text(json.dumps(record | {"scikit-learn": "0.1"}))
    BlockJudge.load(tmp_path / "judge")
    assert "fitted by scikit-learn 0.1" in " ".join(capsys.readouterr().err.split())


@KINDS
def test_unknown_labels_are_refused(kind: str, tmp_path: Path) -> None:
    cases = make_cases(tmp_path / "cases", 8, unknown=True)
    with pytest.raises(UserError, match=r"1 cases have unknown labels, the first is 2 \('Pericardial effusion'\)"):
        TRAIN[kind](cases, tmp_path / "out")


@KINDS
def test_a_grid_without_blocks_is_refused(kind: str, tmp_path: Path) -> None:
    def odd(number: int) -> tuple[NDArray[np.int16], CaseText]:
        hu, text = case(number)
        return np.pad(hu, ((0, 4), (0, 0), (0, 0))), text

    cases = write_cases(tmp_path / "cases", odd, 4, size=(20, 16, 16), spacing_mm=(12, 12, 12), source="test")
    with pytest.raises(UserError, match=r"their grid is 20x16x16; each axis must be a multiple of"):
        TRAIN[kind](cases, tmp_path / "out")


@KINDS
@pytest.mark.parametrize(
    ("volume", "message"),
    [(np.zeros((16, 16, 24)), "volume 1 has the grid 16x16x24"), (np.full(SIZE, np.nan), "volume 1 has voxels")],
    ids=["grid", "nan"],
)
def test_volumes_of_another_kind_are_refused(
    kind: str, volume: NDArray[np.float64], message: str, trained: dict[str, tuple[Judge, Path]]
) -> None:
    with pytest.raises(UserError, match=message):
        trained[kind][0].scores([np.zeros(SIZE), volume])


@KINDS
def test_a_folder_without_a_judge_is_refused(kind: str, trained: dict[str, tuple[Judge, Path]], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no judge"):
        LOAD[kind](tmp_path)
    (other,) = set(TRAIN) - {kind}
    with pytest.raises(UserError, match=f"of kind '{other}', not '{kind}'"):
        LOAD[kind](trained[other][1])


def test_aucs_leave_out_unknown_labels_and_single_classes() -> None:
    scores = np.tile(np.array([0.1, 0.2, 0.8, 0.9], dtype=np.float32)[:, None], (1, len(FINDINGS)))
    labels = np.zeros((4, len(FINDINGS)), dtype=np.float32)
    labels[2:, 0] = 1
    labels[:, 1] = [1, np.nan, 0, np.nan]
    found = aucs(scores, labels)
    assert found == {FINDINGS[0]: 1.0, FINDINGS[1]: 0.0}
    assert macro(found) == 0.5
    assert macro({}) is None


def test_features_see_a_nodule_and_where_the_lungs_are() -> None:
    hu = render(draw_patient(FIRST_JUDGED, labels=np.zeros(len(FINDINGS), bool)))
    hu = np.clip(hu, -1000, 1000)
    plain = volume_features(hu)
    assert np.isfinite(plain).all()
    assert 3 < plain[-1] * hu.size * 0.125 / 1000 < 7  # litres of lung, of voxels of 5 mm
    lung = distance_transform_edt(lung_mask(hu))
    x, y, z = np.unravel_index(lung.argmax(), lung.shape)
    sick = hu.copy()
    sick[x - 1 : x + 2, y - 1 : y + 2, z - 1 : z + 2] = 30
    found = volume_features(sick)
    # One more component at each of three thresholds, one more that is as small as a nodule, and its 27 voxels.
    components = slice(-7 - 3 * 9, -7)
    more = found[components].reshape(3, 9) - plain[components].reshape(3, 9)
    np.testing.assert_array_equal(more[:, :3], np.tile([1, 1, 27], (3, 1)))
    for features, volume in ((plain, hu), (found, sick)):
        parts = volume.reshape(8, 8, 8, 8, 8, 8).mean(axis=(1, 3, 5))
        np.testing.assert_allclose(features[: 8**3], parts.ravel(), atol=0.01)
    # A patient who lies 3 voxels further to the right: the lungs' box moves along x, and they are as large.
    moved = volume_features(np.roll(hu, 3, axis=0))
    np.testing.assert_allclose(moved[-7:] - plain[-7:], np.array([3, 0, 0, 3, 0, 0, 0]) / 64, atol=1e-6)


def reports() -> pd.DataFrame:
    texts = [f"report {k}" for k in range(40)] + ["report 3", "report 3", "report 7"]
    return pd.DataFrame({"report_text": texts})


def test_reserved_reports_depend_on_the_text_alone() -> None:
    frame = reports()
    chosen = reserved_reports(frame, 12)
    assert chosen.sum() == 12
    shuffled = frame.sample(frac=1, random_state=0)
    again = reserved_reports(shuffled, 12)
    assert set(frame.report_text[chosen]) == set(shuffled.report_text[again])
    assert set(frame.report_text[chosen]).isdisjoint(frame.report_text[~chosen])
    assert not set(np.flatnonzero(reserved_reports(frame, 8))) - set(np.flatnonzero(chosen))


def test_too_few_reports_are_refused() -> None:
    with pytest.raises(UserError, match="300 of 43 reports cannot be reserved"):
        reserved_reports(reports())
    with pytest.raises(UserError, match="no column 'text'"):
        reserved_reports(reports(), 3, column="text")


def test_a_text_reader_reads_what_it_was_shown() -> None:
    labels = np.zeros((40, len(FINDINGS)))
    labels[::2, 4] = 1
    texts = ["coronary calcification seen" if row[4] else "normal heart" for row in labels]
    scores = TextReader(texts, labels).scores(["coronary calcification seen", "normal heart"])
    assert scores[0, 4] > 0.9 > 0.1 > scores[1, 4]
    assert (scores[:, 0] == 0.5).all()


@pytest.mark.parametrize("options", [[], ["--develop"], ["--final"]], ids=["default", "develop", "final"])
def test_the_reserved_reports_are_read_only_when_asked_for(
    options: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cohort = load_benchmark("cohort")

    texts = [f"report {k}" for k in [*range(330), *range(0, 330, 5)]]  # some twice
    labels = dict(zip(texts, np.random.default_rng(0).integers(0, 2, (len(texts), len(FINDINGS))), strict=True))
    frame = pd.DataFrame([labels[text] for text in texts], columns=list(FINDINGS)).assign(report_text=texts)
    (tmp_path / "ct_rate").mkdir()
    frame.to_csv(tmp_path / "ct_rate" / "annotated_reports_train.csv", index=False)
    kept = reserved_reports(frame)
    reserved, others = set(frame.report_text[kept]), set(frame.report_text[~kept])

    learnt: list[list[str]] = []
    read: list[tuple[bool, list[str]]] = []

    class Reader:
        """Knows every label, and remembers what it was shown."""

        def __init__(self, texts: list[str], _: NDArray[np.float64]) -> None:
            self.simulated = texts == ["simulated"]
            if not self.simulated:
                learnt.append(texts)

        def scores(self, texts: list[str]) -> NDArray[np.float64]:
            read.append((self.simulated, texts))
            return np.array([labels[text] for text in texts], dtype=float)

    monkeypatch.setattr(cohort, "TextReader", Reader)
    monkeypatch.setattr(cohort, "simulated_reports", lambda *_: (["simulated"], np.zeros((1, len(FINDINGS)))))
    monkeypatch.setattr(cohort, "BOOTSTRAP", 5)
    arguments = cohort.make_parser().parse_args(["--work", "w", "--real", str(tmp_path), *options])
    found = cohort.part_c(tmp_path, arguments)

    wanted = reserved if options == ["--final"] else others
    for simulated in (True, False):
        shown = [text for by, part in read if by == simulated for text in part]
        assert set(shown) == wanted
        assert len(shown) == found["n"] == (300 if wanted is reserved else len(texts) - 300)
    # Nobody learns from the reserved reports, and nobody reads what it learnt from.
    assert set().union(*learnt) == others
    real = [part for by, part in read if not by]
    assert all(set(one).isdisjoint(other) for one, other in zip(learnt, real, strict=True))
    assert found["reports"] == ("reserved" if wanted is reserved else "development")
    assert found["simulated"]["macro_auc"] == found["real"]["macro_auc"] == 1  # texts stay with their labels


def test_litres_count_whole_tissues_and_hu_their_inside() -> None:
    """A body of 40 x 40 x 40 voxels of 5 mm, with a lung of 20 x 20 x 20 whose surface averages two tissues."""
    hu = np.full((60, 60, 60), -1000.0)
    hu[10:50, 10:50, 10:50] = 40
    hu[20:40, 20:40, 20:40] = -500
    hu[21:39, 21:39, 21:39] = -850
    found, litres = load_benchmark("cohort").tissues(hu)
    assert litres["body"] == pytest.approx(40**3 * 125e-6, rel=0.02)  # an opening rounds its corners
    assert litres["lungs"] == pytest.approx(20**3 * 125e-6)
    assert litres["soft tissue"] == pytest.approx(litres["body"] - litres["lungs"])
    assert set(found["lungs"]) == {-850}
    assert len(found["lungs"]) == 18**3
    assert set(found["soft tissue"]) == {40}
    assert litres["bone"] == 0


def test_a_patient_is_compared_with_the_pool_of_the_others() -> None:
    to_all, among = load_benchmark("cohort").pool_distances(
        np.array([10.0]), [np.array([0.0]), np.array([3.0]), np.array([6.0])]
    )
    assert to_all == pytest.approx((10 + 7 + 4) / 3)
    assert among == pytest.approx([4.5, 3.0, 4.5])
