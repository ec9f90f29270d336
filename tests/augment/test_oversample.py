from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from augment_fakes import make_frame
from hypothesis import given, settings
from hypothesis import strategies as st

from text2ct.augment import ml_ros
from text2ct.augment._scans import label_matrix
from text2ct.findings import FINDINGS
from text2ct.manifests import imbalance


def ratios(labels: np.ndarray) -> np.ndarray:
    return imbalance.irlbl(pd.DataFrame(labels, columns=list(FINDINGS))).to_numpy()


@given(seed=st.integers(0, 500), share=st.floats(0, 2), unknown=st.sampled_from([0.0, 0.2]))
@settings(max_examples=12, deadline=None)
def test_clones_are_rows_of_rare_labels_within_the_share(seed, share, unknown):
    labels = label_matrix(make_frame(n_train=30, n_validation=2, n_test=2, seed=seed, unknown=unknown))
    before = ratios(labels)
    minority = np.isfinite(before) & (before > np.nanmean(before[np.isfinite(before)]))
    clones = ml_ros(labels, share, seed)
    assert len(clones) <= int(share * len(labels))
    assert (labels[clones][:, minority] == 1).any(axis=1).all()
    np.testing.assert_array_equal(clones, ml_ros(labels, share, seed))


def test_the_imbalance_falls():
    labels = label_matrix(make_frame(n_train=200))
    clones = ml_ros(labels, 0.25)
    assert 0 < len(clones) <= 0.25 * len(labels)
    frame = [pd.DataFrame(rows) for rows in (labels, np.concatenate([labels, labels[clones]]))]
    assert imbalance.mean_ir(frame[1]) < imbalance.mean_ir(frame[0])


def test_a_table_without_rare_labels_is_left_alone():
    assert len(ml_ros(np.eye(18), 1.0)) == 0
    assert len(ml_ros(np.zeros((5, 18)), 1.0)) == 0
    with pytest.raises(ValueError, match="share is -1"):
        ml_ros(np.eye(18), -1)
