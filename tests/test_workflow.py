"""What commands do with a workspace, without the command line around it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from text2ct import augment, manifests, planning, volumes, workflow
from text2ct.errors import UserError
from text2ct.fidelity import read_fidelity
from text2ct.files import read_json, write_json
from text2ct.findings import FINDINGS
from text2ct.manifests import UnderrepresentedRule, Workspace


def label_table(path: Path, scans: int = 60, split: str | None = None) -> Path:
    """A label table without reports in which every fifth scan has a nodule and every tenth an effusion."""
    frame = pd.DataFrame({"VolumeName": [f"own_{i}.nii.gz" for i in range(scans)]})
    for finding in FINDINGS:
        frame[finding] = 0
    frame.loc[::5, "Lung nodule"] = 1
    frame.loc[::10, "Pleural effusion"] = 1
    if split is not None:
        frame["split"] = split
    frame.to_csv(path, index=False)
    return path


def real_rows(scans: int) -> pd.DataFrame:
    rows = [
        {"dataset": "own", "volume": f"v{i}.nii.gz", "patient": f"p{i}", "scan": f"s{i}", "split": "train"}
        | {"source": "real", "root": "workspace", "path": f"real/{i}.nii.gz"}
        for i in range(scans)
    ]
    return pd.DataFrame(rows).assign(**dict.fromkeys(FINDINGS, 0.0))


def other_table(folder: Path, scans: int) -> Path:
    """A manifest outside the workspace, of so many scans with files."""
    path = folder / f"other-{scans}.csv"
    manifests.write_manifest(manifests.validate(real_rows(scans), "the test"), path)
    return path


@pytest.fixture
def space(tmp_path: Path) -> Workspace:
    return Workspace.open(tmp_path / "workspace")


def test_a_table_without_splits_is_planned_from_as_a_whole(
    space: Workspace, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    result = planning.report(space, label_table(tmp_path / "own.csv"))
    assert "leave your test patients out of it" in capfd.readouterr().err
    plan = augment.read_plan(Path(result["plan"]))
    prompts = pd.read_csv(result["prompts"])
    assert plan.training_scans == 60
    assert len(prompts) == plan.total == result["planned_volumes"] > 0
    page = Path(result["report"]).read_text(encoding="utf-8")
    assert "own.csv" in page
    assert "text2ct synthesize --prompts" in page
    assert f"text2ct mix --ratio {result['mix_ratio']:.17g}" in page
    assert round(result["mix_ratio"] * 60) == plan.total


@given(total=st.integers(1, 10**6), real=st.integers(1, 10**5))
def test_the_ratio_named_takes_every_planned_volume(total: int, real: int) -> None:
    frame = pd.DataFrame({"dataset": "own", "patient": [str(i) for i in range(3)], "split": "train", "source": "real"})
    frame = frame.assign(path=["a", "b", ""])
    assert round(planning._mix_ratio(total, frame) * 2) == total
    assert round(planning.shortest_ratio(total, real) * real) == total


@pytest.mark.parametrize("texts", [{"text": "An effusion."}, {"prompts": Path("p.csv")}], ids=["text", "prompts"])
def test_options_that_would_do_nothing_are_refused(space: Workspace, texts: dict) -> None:
    with pytest.raises(UserError, match="--source and --max-uses would do nothing"):
        planning.requests_for(space, source="edited", max_uses=2, **texts)


def test_a_dry_run_of_report_writes_nothing(space: Workspace, tmp_path: Path) -> None:
    table = label_table(tmp_path / "own.csv")
    result = planning.report(space, table, dry_run=True)
    assert result["findings"]["Lung nodule"]["positive_scans"] == 12
    assert result["plan"] is None
    assert sorted(path.name for path in tmp_path.iterdir()) == ["own.csv"]
    with pytest.raises(UserError, match="no real data yet"):
        planning.report(space, dry_run=True)


def test_the_rule_decides_what_is_planned_for(space: Workspace, tmp_path: Path) -> None:
    rule = UnderrepresentedRule(max_prevalence=0.12, max_irlbl=100)
    result = planning.report(space, label_table(tmp_path / "own.csv"), rule=rule)
    assert augment.read_plan(Path(result["plan"])).targets == ("Pleural effusion",)


def test_the_pack_decides_what_is_planned_for_and_what_it_costs(
    space: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = label_table(tmp_path / "own.csv")
    weak = space.path / "packs" / "weak"
    write_json(weak / "pack.json", {"name": "weak", "grid": [4, 4, 4]})
    write_json(weak / "fidelity.json", {"Lung nodule": 0.4, "Pleural effusion": 0.99})
    rule = UnderrepresentedRule(max_prevalence=0.25, max_irlbl=100)
    result = planning.report(space, table, rule=rule, model="weak", target_prevalence=0.3)
    plan = augment.read_plan(Path(result["plan"]))
    assert plan.targets == ("Pleural effusion",)
    assert any(note.startswith("Lung nodule is left out") for note in result["plan_notes"])
    assert result["plan_cost"]["bytes"] == plan.total * 4**3 * 2
    assert result["plan_cost"]["hours"] is None
    monkeypatch.setattr(planning, "_seconds_per_volume", lambda pack, device: 36.0)
    result = planning.report(space, table, labels="nodule", model="weak", target_prevalence=0.3, estimate=True)
    plan = augment.read_plan(Path(result["plan"]))
    assert plan.targets == ("Lung nodule",)
    assert plan.cost is not None
    assert plan.cost.hours == pytest.approx(plan.total / 100)
    assert "hours on this device" in Path(result["report"]).read_text(encoding="utf-8")
    with pytest.raises(UserError, match="'strong' is neither a pack's folder nor a bundled pack"):
        planning.report(space, table, model="strong")


def test_the_bundled_pack_is_known_without_being_opened(space: Workspace) -> None:
    folder = planning.pack_folder(space, workflow.BUNDLED_PACK)
    assert read_json(folder / "pack.json")["name"] == workflow.BUNDLED_PACK
    assert read_fidelity(folder)


def test_composed_prompts_are_limited_and_said(
    space: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(planning, "MAX_COMPOSED", 3)
    result = planning.report(space, label_table(tmp_path / "own.csv"))
    assert len(pd.read_csv(result["prompts"])) == 3
    assert "composes the others" in capfd.readouterr().err


def test_a_dry_run_of_synthesis_makes_no_cohort(space: Workspace, capfd: pytest.CaptureFixture[str]) -> None:
    requests = planning.requests_for(space, labels="effusion", count=5, dry_run=True)
    assert len(requests) == 5
    assert (requests["Pleural effusion"] == 1).all()
    assert "the embedded cohort is simulated first" in capfd.readouterr().err
    assert not space.path.exists()


@pytest.mark.parametrize("command", [partial(workflow.mix, ratio=0.5), workflow.gate], ids=["mix", "gate"])
def test_a_dry_run_replaces_no_real_data(space: Workspace, tmp_path: Path, command: Callable[..., dict]) -> None:
    synthetic = tmp_path / "none.csv"
    manifests.write_manifest(manifests.validate(real_rows(3), "t").iloc[:0], synthetic)
    with pytest.raises(UserError, match=r"there is no real data in .* give --real"):
        command(space, synthetic=synthetic, dry_run=True)
    workflow.real_manifest(space, other_table(tmp_path, 8))
    before = {path: path.read_bytes() for path in space.path.rglob("*") if path.is_file()}
    with pytest.raises(UserError):  # there is nothing to mix or to judge
        command(space, synthetic=synthetic, real=other_table(tmp_path, 4), dry_run=True)
    assert {path: path.read_bytes() for path in space.path.rglob("*") if path.is_file()} == before


def test_no_real_data_that_was_replaced_is_lost(space: Workspace, tmp_path: Path) -> None:
    for scans in (4, 5, 6):
        workflow.real_manifest(space, other_table(tmp_path, scans))
    folder = space.run_dir("real")
    kept = {path.stem: len(manifests.read_manifest(path)) for path in folder.glob("*.csv")}
    assert kept == {"manifest": 6, "manifest-previous": 4, "manifest-previous-2": 5}


def test_a_dry_run_of_preprocess_measures_one_volume(space: Workspace, tmp_path: Path) -> None:
    hu = np.random.default_rng(0).integers(-1000, 500, (24, 24, 24)).astype(np.float32)
    volumes.write(volumes.Volume(hu, np.diag([4.0, 4.0, 4.0, 1.0])), tmp_path / "in" / "a.nii.gz")
    result = workflow.preprocess(space, [tmp_path / "in"], size=(16, 16, 16), dry_run=True)
    assert (result["volumes"], result["bytes"]) == (1, 2 * 16**3)
    assert not space.path.exists()
