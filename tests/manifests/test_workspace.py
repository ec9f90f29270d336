from __future__ import annotations

import os
import shutil

import pytest

from text2ct.errors import UserError
from text2ct.manifests import Workspace


@pytest.fixture
def workspace(tmp_path):
    return Workspace.open(tmp_path / "ws")


def test_opening_writes_nothing(workspace):
    assert not workspace.path.exists()
    assert workspace.roots == {"workspace": workspace.path}


def test_a_root_is_remembered(workspace, tmp_path):
    (tmp_path / "data").mkdir()
    assert workspace.add_root("ct-rate", tmp_path / "data") == "ct-rate"
    again = Workspace.open(workspace.path)
    assert again.roots["ct-rate"] == tmp_path / "data"
    assert again.resolve("ct-rate", "a/b.nii.gz") == tmp_path / "data" / "a" / "b.nii.gz"
    again.add_root("ct-rate", tmp_path / "data")
    (tmp_path / "other").mkdir()
    with pytest.raises(UserError, match=r"is .*data already"):
        again.add_root("ct-rate", tmp_path / "other")
    assert again.root_for(tmp_path / "other", "ct-rate") == ("ct-rate-2", "")
    assert again.root_for(tmp_path / "data", "anything") == ("ct-rate", "")


def test_a_workspace_can_be_moved(workspace, tmp_path):
    (workspace.path / "real").mkdir(parents=True)
    workspace.add_root("own", workspace.path / "real")
    shutil.move(workspace.path, tmp_path / "moved")
    moved = Workspace.open(tmp_path / "moved")
    assert moved.resolve("workspace", "x.csv") == tmp_path / "moved" / "x.csv"
    assert moved.roots["own"] == tmp_path / "moved" / "real"
    assert moved.root_for(tmp_path / "moved" / "real", "any") == ("workspace", "real/")
    assert moved.root_for(tmp_path / "moved", "any") == ("workspace", "")


@pytest.mark.parametrize("path", ["../x", "a/../../x", "/etc/passwd", "", "..", "..\\x", "C:\\x", "C:x", "\\x", "a\0b"])
def test_a_path_that_leaves_its_root_is_refused(workspace, path):
    with pytest.raises(UserError, match="is refused"):
        workspace.resolve("workspace", path)


def test_a_link_that_leaves_its_root_is_refused(workspace, tmp_path):
    workspace.path.mkdir()
    (tmp_path / "outside").mkdir()
    (workspace.path / "link").symlink_to(tmp_path / "outside")
    (workspace.path / "loop").symlink_to(workspace.path / "loop")
    with pytest.raises(UserError, match="a link in it leaves the root"):
        workspace.resolve("workspace", "link/x.nii.gz")
    with pytest.raises(UserError, match="cannot be followed"):
        workspace.resolve("workspace", "loop/x.nii.gz")
    (tmp_path / "outside" / "real").mkdir()
    (tmp_path / "alias").symlink_to(tmp_path / "outside")
    linked = Workspace.open(tmp_path / "alias")
    assert linked.resolve("workspace", "real/x").name == "x"  # the root itself may be a link


def test_an_undeclared_root_is_refused(workspace):
    with pytest.raises(UserError, match="the root 'lost' of 'x' is not declared"):
        workspace.resolve("lost", "x")


def test_bad_roots(workspace, tmp_path):
    with pytest.raises(UserError, match="cannot name a root"):
        workspace.add_root("a b", tmp_path)
    with pytest.raises(UserError, match="is no folder"):
        workspace.add_root("a", tmp_path / "none")
    with pytest.raises(UserError, match="already"):
        workspace.add_root("workspace", tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="is a file"):
        Workspace.open(tmp_path / "file")


@pytest.mark.parametrize("content", ["[]", '{"roots": []}', '{"roots": {"a": 1}}', "{"])
def test_a_damaged_table_of_roots(workspace, content):
    workspace.path.mkdir()
    (workspace.path / "workspace.json").write_text(content)
    with pytest.raises(UserError, match=r"workspace\.json is (damaged|not valid JSON)"):
        _ = workspace.roots


@pytest.mark.parametrize(
    ("kind", "old", "new", "found"),
    [
        ("real", "real/manifest.csv", "real/second/manifest.csv", "real/second/manifest.csv"),
        ("synthetic", "synthetic/z/manifest.csv", "synthetic/a/manifest.csv", "synthetic/a/manifest.csv"),
        ("mixed", "mixed/z/manifest.csv", "mixed/a/manifest.csv", "mixed/a/manifest.csv"),
        (
            "classifiers",
            "classifiers/z/model.safetensors",
            "classifiers/a/model.safetensors",
            "classifiers/a",
        ),
        ("scores", "scores/z.json", "scores/a.json", "scores/a.json"),
        ("reports", "reports/z/report.html", "reports/a/report.html", "reports/a"),
    ],
)
def test_the_newest_output(workspace, kind, old, new, found):
    with pytest.raises(UserError, match="run text2ct "):
        workspace.newest(kind)
    for age, name in ((100, old), (200, new)):
        path = workspace.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
        os.utime(path, (age, age))
    assert workspace.newest(kind) == workspace.path / found


def test_run_folders(workspace):
    assert workspace.run_dir("synthetic", "first") == workspace.path / "synthetic" / "first"
    assert workspace.run_dir("real") == workspace.path / "real"
    assert workspace.run_dir("synthetic", "benchmark/x") == workspace.path / "synthetic" / "benchmark" / "x"
    for run in ("../x", "a/b/c", "a/../b", "/a", ".hidden"):
        with pytest.raises(UserError, match="cannot name a run"):
            workspace.run_dir("synthetic", run)
    with pytest.raises(UserError, match="no kind of output"):
        workspace.newest("volumes")
