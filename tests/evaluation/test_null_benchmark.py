"""The benchmark of false verdicts, with a classifier whose luck is its seed's."""

import pytest

from text2ct.evaluation.benchmark import BenchmarkSettings
from text2ct.evaluation.benchmark.data import real_splits

from .benchmark_fakes import FakeClassifier, make_real
from .conftest import load_benchmark

null = load_benchmark("null")


@pytest.fixture
def repeat(workspace):
    real = make_real(60)
    settings = BenchmarkSettings(seeds=(0, 1), steps=3, n_bootstrap=40, train_patients=(20,))

    def repeat(number, fake):
        how = {"settings": settings, "splits": real_splits(real), "real": real}
        return null.repetition(workspace, number, train=fake.train, predict=fake.predict, **how)

    return repeat


def test_both_arms_see_the_same_patients_with_other_seeds(repeat):
    fake = FakeClassifier()
    comparisons = [repeat(k, fake) for k in range(3)]
    assert [one["seed"] for one in fake.trainings] == list(range(12)), "no seed serves twice"
    patients = [frozenset(one["manifest"].query("split == 'train'")["patient"]) for one in fake.trainings]
    assert [len(set(patients[4 * k : 4 * k + 4])) for k in range(3)] == [1, 1, 1]
    assert len(set(patients)) == 3
    idle = FakeClassifier()
    assert [repeat(k, idle) for k in range(3)] == comparisons
    assert idle.trainings == []
    assert max(null.alarms(comparisons).values()) <= 1
    assert "| any finding | 0 |" in null.table(comparisons)


def test_a_false_verdict_is_counted(repeat):
    comparison = repeat(0, FakeClassifier())
    comparison["findings"]["Emphysema"]["verdict"] = "gain"
    comparison["average_precision_verdict"] = "harm"
    counts = null.alarms([comparison, comparison])
    assert counts == dict(zip(null.VERDICTS, (2, 0, 0, 0, 2), strict=True))
    assert "any finding: Emphysema; macro average precision: harm" in null.table([comparison])
    assert null.any_of([comparison, comparison], null.AUC_VERDICTS) == 2
    comparison["findings"]["Emphysema"]["verdict"] = "no evidence"
    comparison |= {"delta_underrepresented_auc": -0.1, "underrepresented_p": 0.01}
    assert null.alarms([comparison])["under-represented findings (the endpoint)"] == 1
    assert null.any_of([comparison, repeat(1, FakeClassifier())], null.AUC_VERDICTS) == 1
