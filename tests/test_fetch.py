"""Fetching a part of CT-RATE from a stand-in hub: what is chosen, what it takes, what goes on, what is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from stand_in_hub import Hub, serving
from typer.testing import CliRunner

from text2ct.cli import app
from text2ct.fetching import REPOSITORY, select_volumes, table_paths, volume_path
from text2ct.findings import FINDINGS
from text2ct.manifests import parse_volume_name, read

TABLES = table_paths("valid")
EFFUSION, NODULE = "Pleural effusion", "Lung nodule"
PATIENTS = 12
NO_CHEST = "valid_1_a"


def _labels() -> pd.DataFrame:
    """Patients with one or two scans of two reconstructions; every third patient has an effusion, in one of them."""
    rows = []
    for patient in range(1, PATIENTS + 1):
        for scan in "ab"[: 1 + patient % 2]:
            for reconstruction in (1, 2):
                row = dict.fromkeys(FINDINGS, 0) | {"VolumeName": f"valid_{patient}_{scan}_{reconstruction}.nii.gz"}
                row[EFFUSION] = int(patient % 3 == 0 and reconstruction == 2)
                row[NODULE] = int(patient == 5)
                rows.append(row)
    return pd.DataFrame(rows)[["VolumeName", *FINDINGS]]


LABELS = _labels()


def _served() -> dict[str, bytes]:
    names = LABELS["VolumeName"]
    rng = np.random.default_rng(0)
    reports = pd.DataFrame({"VolumeName": names, "Findings_EN": "Findings.", "Impressions_EN": "Not given."})
    metadata = pd.DataFrame({"VolumeName": names, "XYSpacing": "[0.7, 0.7]", "ZSpacing": 1.5, "RescaleSlope": 1})
    return {
        TABLES["labels"]: LABELS.to_csv(index=False).encode(),
        TABLES["no_chest"]: f"{NO_CHEST}_1.nii.gz\n{NO_CHEST}_2.nii.gz\n".encode(),
        TABLES["reports"]: reports.to_csv(index=False).encode(),
        TABLES["metadata"]: metadata.to_csv(index=False).encode(),
        **{volume_path(name): rng.bytes(3000 + 10 * at) for at, name in enumerate(names)},
    }


SERVED = _served()


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    # The library writes whole chunks, and waits a second before it asks for the rest.
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 1000)
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    hub = Hub(dict(SERVED), kind="dataset", repository=REPOSITORY, in_git={TABLES["no_chest"], TABLES["labels"]})
    with serving(hub):
        yield hub


def fetch(hub: Hub, *words: str | Path, code: int = 0) -> tuple[dict, str]:
    """Run the command; return its JSON, or {} for a mistake, and standard error."""
    done = CliRunner().invoke(
        app,
        ["fetch", "ct-rate", "--json", *map(str, words)],
        env={"HF_ENDPOINT": hub.url},
        catch_exceptions=False,
    )
    assert done.exit_code == code, done.stderr
    assert "Traceback" not in done.stderr
    assert "hf_secret" not in done.stderr + done.stdout
    return json.loads(done.stdout) if done.stdout else {}, done.stderr


def volumes_in(root: Path) -> set[str]:
    return {path.name for path in root.rglob("*.nii.gz")}


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    LABELS.to_csv(tmp_path / "labels.csv", index=False)
    return tmp_path / "labels.csv"


class TestChoice:
    def test_a_smaller_limit_is_the_beginning_of_a_larger_one(self, labels):
        everything = select_volumes(labels)
        assert everything[:5] == select_volumes(labels, limit=5)
        assert everything != sorted(everything)
        assert sorted(everything) == sorted(select_volumes(labels, seed=1))
        assert everything != select_volumes(labels, seed=1)

    def test_a_finding_keeps_the_order_of_the_patients(self, labels):
        chosen = select_volumes(labels, findings=[EFFUSION])
        patients = [parse_volume_name(name).patient for name in chosen]
        assert set(patients) == {"valid_3", "valid_6", "valid_9", "valid_12"}
        assert chosen == [name for name in select_volumes(labels) if name in set(chosen)]
        assert [at for at, name in enumerate(patients) if name != patients[at - 1]] == sorted(
            {patients.index(name) for name in patients}
        )

    def test_one_reconstruction_of_a_scan_or_all(self, labels):
        one, both = select_volumes(labels), select_volumes(labels, all_reconstructions=True)
        assert sorted(both) == sorted(LABELS["VolumeName"])
        assert sorted(one) == sorted(name for name in both if name.endswith("_1.nii.gz"))

    def test_a_scan_is_positive_if_any_reconstruction_is(self, labels):
        """The label stands on reconstruction 2, and reconstruction 1 is taken."""
        assert all(name.endswith("_1.nii.gz") for name in select_volumes(labels, findings=[EFFUSION]))

    def test_several_findings_take_scans_with_any_of_them(self, labels):
        either = select_volumes(labels, findings=[EFFUSION, NODULE])
        assert sorted(either) == sorted(
            select_volumes(labels, findings=[EFFUSION]) + select_volumes(labels, findings=[NODULE])
        )

    def test_what_is_no_chest_is_left_out(self, labels, tmp_path):
        (tmp_path / "no.txt").write_text(f"dataset/valid/valid_1/{NO_CHEST}/{NO_CHEST}_1.nii.gz\n")
        assert f"{NO_CHEST}_1.nii.gz" not in select_volumes(labels, tmp_path / "no.txt")
        assert f"{NO_CHEST}_2.nii.gz" in select_volumes(labels, tmp_path / "no.txt")


def test_the_folder_is_what_the_reader_takes(hub: Hub, tmp_path: Path) -> None:
    root = tmp_path / "ct-rate"
    result, said = fetch(hub, "--labels", "effusion", "--limit", "4", "--out", root)
    assert "means Pleural effusion" in said
    assert result | {"bytes": 0} == {
        "root": str(root), "commit": hub.commit, "volumes": 4, "scans": 4, "patients": result["patients"],
        "bytes": 0, "resumed": 0, "failed": [],
    }  # fmt: skip
    chosen = volumes_in(root)
    assert result["bytes"] == sum(len(SERVED[volume_path(name)]) for name in chosen) + sum(
        len(SERVED[table]) for table in TABLES.values()
    )
    frame = read(root)
    assert set(frame.loc[frame["path"] != "", "volume"]) == chosen
    assert set(frame["scan"]).isdisjoint({NO_CHEST})
    assert (frame["findings_text"] == "Findings.").all()
    carrying = frame.groupby("scan")[EFFUSION].transform("max") == 1
    assert carrying[frame["path"] != ""].all()
    assert all((root / path).read_bytes() == SERVED[path] for path in map(volume_path, chosen))
    assert set(hub.tokens) == {"Bearer hf_secret"}
    assert not (root / ".download").exists()


def test_metadata_only_brings_tables_and_lists(hub: Hub, tmp_path: Path) -> None:
    result, _ = fetch(hub, "--metadata-only", "--out", tmp_path / "ct-rate")
    assert result["volumes"] == 0
    files = {str(path.relative_to(tmp_path / "ct-rate")) for path in (tmp_path / "ct-rate").rglob("*.*")}
    assert files == set(TABLES.values())
    assert len(read(tmp_path / "ct-rate")) == len(LABELS) - 2


def test_a_dry_run_counts_what_a_run_fetches_and_writes_nothing(hub: Hub, tmp_path: Path) -> None:
    words = ("--limit", "6", "--workspace", tmp_path / "space")
    planned, _ = fetch(hub, *words, "--dry-run")
    assert list(tmp_path.iterdir()) == []
    assert {name for name, _ in hub.asked} == {TABLES["labels"], TABLES["no_chest"]}
    result, _ = fetch(hub, *words)
    assert result["root"] == str(tmp_path / "space" / "ct-rate")
    assert planned["dry_run"]
    assert {key: planned[key] for key in ("volumes", "scans", "patients", "bytes")} == {
        key: result[key] for key in ("volumes", "scans", "patients", "bytes")
    }
    again, _ = fetch(hub, *words, "--dry-run")
    assert (again["bytes"], again["resumed"], again["seconds"]) == (0, 6, 0)


def test_what_is_whole_is_not_asked_for_again_and_what_is_damaged_is(hub: Hub, tmp_path: Path) -> None:
    words = ("--limit", "3", "--out", tmp_path)
    fetch(hub, *words)
    broken = next(path for path in tmp_path.rglob("*.nii.gz"))
    good = broken.read_bytes()
    broken.write_bytes(bytes(len(good)))
    hub.asked.clear()
    result, _ = fetch(hub, *words)
    assert hub.asked == [(str(broken.relative_to(tmp_path)), "")]
    assert (result["volumes"], result["resumed"]) == (3, 2)
    assert broken.read_bytes() == good


def test_a_stopped_download_goes_on_from_its_last_byte(hub: Hub, labels: Path, tmp_path: Path) -> None:
    words = ("--labels", EFFUSION, "--limit", "1", "--out", tmp_path / "ct-rate")
    target = volume_path(select_volumes(labels, findings=[EFFUSION], limit=1)[0])
    hub.cut[target], hub.broken_after_cut = 2000, True
    result, said = fetch(hub, *words)
    assert result["failed"] == [Path(target).name]
    assert "is left out" in said
    assert volumes_in(tmp_path / "ct-rate") == set()
    hub.status.clear()
    hub.asked.clear()
    left = fetch(hub, *words, "--dry-run")[0]["bytes"]
    assert left == len(SERVED[target]) - 2000
    assert fetch(hub, *words)[0]["failed"] == []
    assert hub.asked == [(target, "bytes=2000-")]


def test_the_token_does_not_follow_a_file_to_another_host(hub: Hub, tmp_path: Path) -> None:
    """Large files lie behind the hub, at an address that signs itself."""
    with serving(Hub(dict(SERVED), kind="dataset", repository=REPOSITORY)) as store:
        hub.elsewhere = store.url.replace("127.0.0.1", "localhost")
        result, _ = fetch(hub, "--limit", "2", "--out", tmp_path)
    assert result["volumes"] == 2
    assert {name for name, _ in store.asked} >= {volume_path(name) for name in volumes_in(tmp_path)}
    assert set(store.tokens) == {""}


@pytest.mark.parametrize("wrong", ["gone", "tampered", "not on the hub"])
def test_one_file_that_fails_is_named_and_the_rest_goes_on(hub: Hub, tmp_path: Path, wrong: str) -> None:
    target = volume_path("valid_3_a_1.nii.gz")
    if wrong == "gone":
        hub.status[target] = 404
    elif wrong == "tampered":
        hub.tampered = {target}
    else:
        del hub.files[target]
    words = ("--labels", EFFUSION, "--out", tmp_path)
    result, said = fetch(hub, *words)
    assert result["failed"] == ["valid_3_a_1.nii.gz"]
    assert "valid_3_a_1.nii.gz" in said
    assert len(volumes_in(tmp_path)) == result["volumes"] > 3
    assert fetch(hub, *words, "--strict", code=1)[0]["failed"] == ["valid_3_a_1.nii.gz"]


def test_a_hub_that_is_down_is_given_up(hub: Hub, tmp_path: Path) -> None:
    hub.status |= {name: 503 for name in SERVED if name.endswith(".nii.gz")}
    _, said = fetch(hub, "--out", tmp_path, code=2)
    assert len({name for name, _ in hub.asked if name.endswith(".nii.gz")}) == 3
    assert "answered 503" in said.splitlines()[-1]


def test_a_full_disk_is_said_with_numbers_before_volumes_are_fetched(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage)
    _, said = fetch(hub, "--out", tmp_path, code=2)
    assert "GB free; free some space" in said.splitlines()[-1]
    assert not any(name.endswith(".nii.gz") for name, _ in hub.asked)


@pytest.mark.parametrize(
    ("at", "status", "code", "says"),
    [
        ("info", 401, "RepoNotFound", "there is no repository"),
        ("info", 403, "GatedRepo", "accept its terms first"),
        ("paths", 403, "", "the token does not allow it"),
        (TABLES["labels"], 401, "GatedRepo", "accept its terms first"),
        (TABLES["labels"], 401, "", "set HF_TOKEN"),
        (TABLES["labels"], 404, "EntryNotFound", "answered 404"),
        (TABLES["reports"], 404, "EntryNotFound", "answered 404"),
        (volume_path("valid_3_a_1.nii.gz"), 403, "GatedRepo", "accept its terms first"),
    ],
)
def test_what_the_hub_refuses_is_one_line(hub: Hub, tmp_path: Path, at, status, code, says: str) -> None:
    hub.status[at], hub.code[at] = status, code
    _, said = fetch(hub, "--labels", EFFUSION, "--out", tmp_path, code=2)
    assert says in said.splitlines()[-1]
    assert said.count("error:") == 1


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--revision", "v9"), "has no revision 'v9'"),
        (("--endpoint", "http://127.0.0.1:9"), "cannot be reached"),
        (("--endpoint", "hub.example"), "begins with http:// or https://"),
        (("--labels", "brittle nails"), "'brittle nails' is none of the 18 findings"),
        (("--labels", "Emphysema"), "carries Emphysema"),
    ],
)
def test_a_mistake_is_clear(hub: Hub, tmp_path: Path, words, says: str) -> None:
    assert says in fetch(hub, *words, "--out", tmp_path, code=2)[1]


def test_offline_mode_says_so(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert "unset HF_HUB_OFFLINE" in fetch(hub, "--out", tmp_path, code=2)[1]


def test_a_hub_without_the_label_table_is_no_copy_of_ct_rate(hub: Hub, tmp_path: Path) -> None:
    del hub.files[TABLES["labels"]]
    assert "is " + hub.url + " a whole copy?" in fetch(hub, "--out", tmp_path, code=2)[1]
    hub.files[TABLES["labels"]] = SERVED[TABLES["labels"]]
    del hub.files[TABLES["no_chest"]]
    result, said = fetch(hub, "--limit", "1", "--out", tmp_path)
    assert f"lacks {TABLES['no_chest']}" in said
    assert result["volumes"] == 1
