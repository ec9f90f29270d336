"""Which of the real reports are only ever measured on, and a plain reader of findings from text."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from text2ct.errors import UserError
from text2ct.findings import FINDINGS

RESERVED = 300


def reserved_reports(frame: pd.DataFrame, count: int = RESERVED, column: str = "report_text") -> NDArray[np.bool_]:
    """The rows that nothing may be developed on: those whose text has the lowest SHA-256.

    The choice depends on the texts alone, not on their order, and equal texts fall on the same side: a text
    whose rows would exceed ``count`` is passed over.

    Args:
        frame: Annotated reports, one row each.
        count: Rows to reserve.
        column: Where the text is.

    Returns:
        (n,) bool.

    Raises:
        UserError: Fewer rows than ``count``, or no choice of whole texts has exactly that many.
    """
    if column not in frame:
        raise UserError(f"the reports have no column '{column}'; they have {', '.join(map(str, frame.columns))}")
    hashes = frame[column].map(lambda text: hashlib.sha256(str(text).encode()).hexdigest())
    chosen, rows = set(), 0
    for value, size in hashes.value_counts().sort_index().items():
        if rows + size <= count:
            chosen.add(value)
            rows += size
    if rows != count:
        raise UserError(f"{count} of {len(frame)} reports cannot be reserved without splitting equal texts")
    return hashes.isin(chosen).to_numpy()


class TextReader:
    """TF-IDF of words and pairs of words, and a logistic regression for each finding.

    Args:
        texts: Reports.
        labels: (n, 18) 0 or 1.
    """

    def __init__(self, texts: Sequence[str], labels: NDArray[np.generic]) -> None:
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.linear_model import LogisticRegression

        self._words = TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True)
        features = self._words.fit_transform(texts)
        self._readers: list[Any] = []
        for column in range(len(FINDINGS)):
            truth = np.asarray(labels)[:, column].astype(int)
            both = 0 < truth.sum() < len(truth)
            self._readers.append(LogisticRegression(C=10, max_iter=2000).fit(features, truth) if both else None)

    def scores(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """Probability of each finding, (n, 18); 0.5 for one of which the training had one class only."""
        features = self._words.transform(texts)
        columns = [
            np.full(len(texts), 0.5) if reader is None else reader.predict_proba(features)[:, 1]
            for reader in self._readers
        ]
        return np.stack(columns, axis=1)
