"""Real reports and a real chest that a pack is measured on."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from text2ct.errors import UserError
from text2ct.evaluation.reserved import reserved_reports
from text2ct.files import sha256_file
from text2ct.findings import FINDINGS
from text2ct.volumes import read


class RealData:
    """Real reports and a real chest, both optional.

    Args:
        reports: CSV of annotated reports (``report_text`` and the 18 findings).
        chest: A CT volume in any format that :func:`text2ct.volumes.read` knows.

    Raises:
        UserError: The CSV is no table, lacks columns, holds other labels than 0 and 1 or too few reports; the
            volume cannot be read. Both are read here, before hours of training.
    """

    def __init__(self, reports: Path | None = None, chest: Path | None = None) -> None:
        self.reports = None if reports is None else _annotated(reports)
        self.chest = None if chest is None else read(chest)
        self.sha256 = [None if path is None else sha256_file(path) for path in (reports, chest)]
        if self.reports is not None:
            self.split()

    def split(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Reports that may be developed on, and those that are only read for the final figures."""
        assert self.reports is not None
        reserved = reserved_reports(self.reports)
        return self.reports[~reserved], self.reports[reserved]


def _annotated(path: Path) -> pd.DataFrame:
    try:
        frame = pd.read_csv(path, compression=None)
    except ValueError as error:  # what pandas raises for an empty file, broken rows and other encodings
        raise UserError(f"{path} is no table of comma-separated values: {error}") from error
    missing = [name for name in ("report_text", *FINDINGS) if name not in frame]
    if missing:
        raise UserError(f"{path} lacks the columns {', '.join(missing)}")
    others = [name for name in FINDINGS if not frame[name].isin([0, 1]).all()]
    if others:
        raise UserError(f"{path} holds other labels than 0 and 1 in the columns {', '.join(others)}")
    return frame
