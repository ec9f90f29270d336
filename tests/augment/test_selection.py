from __future__ import annotations

import numpy as np
import pandas as pd
from augment_fakes import FakeGenerator

from text2ct.augment import make_prompts, synthesize
from text2ct.augment.selection import select, underrepresented
from text2ct.findings import FINDINGS
from text2ct.manifests import read_manifest

RARE = FINDINGS[0]


def three_kinds(workspace, pack, frame) -> pd.DataFrame:
    """Twelve synthetic rows three times, their names beginning with a, b and c."""
    made = synthesize(
        make_prompts(frame, [RARE], 12), pack=pack, workspace=workspace, generate=FakeGenerator(), batch_size=8
    )
    synthetic = read_manifest(made["manifest"])
    kinds = [synthetic.assign(volume=[f"{kind}{i}" for i in range(len(synthetic))]) for kind in "abc"]
    return pd.concat(kinds, ignore_index=True)


def test_a_volume_of_unknown_targets_is_no_volume_without_them(workspace, pack, frame):
    rows = three_kinds(workspace, pack, frame)
    kind = rows["volume"].str[0]
    targets = underrepresented(frame)
    rows.loc[kind == "a", targets] = 1.0
    rows.loc[kind == "b", targets] = 0.0
    rows.loc[kind == "c", targets] = np.nan
    rows.loc[kind == "c", [name for name in FINDINGS if name not in targets]] = 0.0
    some = select(frame, rows, workspace, ratio=0.4).chosen
    assert not some["volume"].str.startswith("c").any()
    assert (some["volume"].str[0] == "a").sum() == (some["volume"].str[0] == "b").sum() == 12
    assert len(select(frame, rows, workspace, ratio=len(rows) / 60).chosen) == len(rows), "they come last"


def test_a_target_that_no_volume_knows_does_not_stop_the_turns(workspace, pack, frame):
    rows = three_kinds(workspace, pack, frame)
    rows = rows[rows["volume"].str[0] != "c"].reset_index(drop=True)
    targets = underrepresented(frame)
    assert len(targets) > 1
    rows.loc[rows["volume"].str[0] == "a", targets] = 1.0
    rows.loc[rows["volume"].str[0] == "b", targets] = 0.0
    rows[targets[0]] = np.nan
    some = select(frame, rows, workspace, ratio=0.2).chosen["volume"].str[0]
    assert (some == "a").sum() == (some == "b").sum() == 6
    rows[targets] = np.nan
    assert len(select(frame, rows, workspace, ratio=0.2).chosen) == 12
