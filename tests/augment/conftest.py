from __future__ import annotations

import pandas as pd
import pytest
from augment_fakes import RARE, FakePack, make_frame, synthetic_set

from text2ct.augment import make_prompts
from text2ct.findings import FINDINGS
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


@pytest.fixture
def synthetic(workspace, pack, frame):
    """24 volumes, 12 with each of two rare findings in mind."""
    table = pd.concat([make_prompts(frame, [RARE], 12), make_prompts(frame, [FINDINGS[-1]], 12)], ignore_index=True)
    return synthetic_set(workspace, pack, table)
