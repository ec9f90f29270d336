"""A linear probe: what findings a representation of volumes holds, as far as a linear model can read them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from text2ct.errors import UserError
from text2ct.evaluation._inputs import label_table
from text2ct.evaluation.bootstrap import auc_samples
from text2ct.findings import FINDINGS

# Inverse strengths of the L2 penalty that are tried, weakest last: from near-constant to nearly free.
STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
MAX_FOLDS = 5


@dataclass(frozen=True, eq=False)
class Probe:
    """What the linear probe reached.

    Attributes:
        auc: On the test rows, of each finding; None where there is none, and ``reasons`` says why.
        macro_auc: Mean over the findings that have one; None if none has.
        strength: Inverse penalty chosen for each finding by cross-validation within the training rows.
        reasons: Why a finding has no AUC, in words.
        scores: (n_test, F) float64 probabilities; NaN in the columns of findings that could not be learnt.
        n_train: Training rows.
        n_test: Test rows.
    """

    auc: dict[str, float | None]
    macro_auc: float | None
    strength: dict[str, float]
    reasons: dict[str, str]
    scores: NDArray[np.float64]
    n_train: int
    n_test: int


def linear_probe(
    train_features: ArrayLike,
    train_labels: ArrayLike,
    test_features: ArrayLike,
    test_labels: ArrayLike,
    *,
    findings: Sequence[str] = FINDINGS,
    seed: int = 0,
) -> Probe:
    """Fit a logistic regression per finding on frozen features and score it on other rows.

    The protocol of linear probes (Alain and Bengio 2016, arXiv 1610.01644; Radford et al. 2021, arXiv 2103.00020,
    section 3.2): features are standardised with the training rows' mean and deviation, the L2 penalty is chosen
    among ``STRENGTHS`` by stratified cross-validation on training rows alone (best mean AUC, the stronger penalty
    of equals), then the model is fitted on all of them. Test rows decide nothing. Training and test rows must be
    of different patients, which only the caller can see to.

    Args:
        train_features: (n, d), finite.
        train_labels: (n, F) 1, 0 or NaN; rows with an unknown label are left out of that finding.
        test_features: (m, d), finite.
        test_labels: (m, F) likewise.
        findings: Names of the F columns.
        seed: Of the folds.

    Returns:
        AUC of each finding and their mean. A finding with one class only in the test rows, or with fewer than 2
        rows of a class in the training rows, has None.

    Raises:
        UserError: Shapes do not fit, there are no rows, or values are not finite.
    """
    train, test = _features(train_features, "train_features"), _features(test_features, "test_features")
    if train.shape[1] != test.shape[1]:
        raise UserError(f"train features have {train.shape[1]} columns, test features {test.shape[1]}; use one encoder")
    taught = label_table(train_labels, len(train), findings, "train_labels")
    asked = label_table(test_labels, len(test), findings, "test_labels")
    scores = np.full((len(test), len(findings)), np.nan)
    strength: dict[str, float] = {}
    reasons: dict[str, str] = {}
    auc: dict[str, float | None] = dict.fromkeys(findings)
    for column, name in enumerate(findings):
        known = ~np.isnan(taught[:, column])
        positive = taught[known, column] == 1
        smaller = int(min(positive.sum(), (~positive).sum()))
        if smaller < 2:
            reasons[name] = (
                f"{int(positive.sum())} of {len(positive)} known training rows are positive; 2 of each needed"
            )
            continue
        scores[:, column], strength[name] = _fit(train[known], positive, test, min(MAX_FOLDS, smaller), seed)
        area = auc_samples(scores[:, [column]], asked[:, [column]], np.ones((len(test), 1)))[0, 0]
        if np.isnan(area):
            reasons[name] = "the test rows have one class only"
        else:
            auc[name] = float(area)
    reached = [area for area in auc.values() if area is not None]
    macro = float(np.mean(reached)) if reached else None
    return Probe(auc, macro, strength, reasons, scores, len(train), len(test))


def _fit(
    train: NDArray[np.float64], positive: NDArray[np.bool_], test: NDArray[np.float64], folds: int, seed: int
) -> tuple[NDArray[np.float64], float]:
    # Heavy, and wanted by nobody who only imports the package.
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV, StratifiedKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=5000))
    splits = StratifiedKFold(folds, shuffle=True, random_state=seed)
    search = GridSearchCV(model, {"logisticregression__C": list(STRENGTHS)}, scoring="roc_auc", cv=splits)
    search.fit(train, positive)
    return search.predict_proba(test)[:, 1], float(search.best_params_["logisticregression__C"])


def _features(features: ArrayLike, name: str) -> NDArray[np.float64]:
    array = np.asarray(features, dtype=np.float64)
    if array.ndim != 2 or array.size == 0:
        raise UserError(f"{name} has shape {array.shape}; expected one or more rows, (n, d)")
    if not np.isfinite(array).all():
        raise UserError(f"{name} holds NaN or infinite values; make the features again")
    return array
