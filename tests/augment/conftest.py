from __future__ import annotations

import pytest
from augment_fakes import FakePack, make_frame

from text2ct.manifests import Workspace


@pytest.fixture
def workspace(tmp_path):
    return Workspace(tmp_path / "ws")


@pytest.fixture
def frame():
    return make_frame()


@pytest.fixture
def pack(tmp_path):
    return FakePack.write(tmp_path / "pack")
