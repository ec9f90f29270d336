"""``fidelity.json``: how much of each finding a pack's volumes keep, as two judges read them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field, TypeAdapter, ValidationError

from text2ct.errors import UserError
from text2ct.files import read_json
from text2ct.findings import FINDINGS

FIDELITY_FILE = "fidelity.json"
_SHARES = TypeAdapter(dict[str, Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)]])


def read_fidelity(folder: Path) -> dict[str, float]:
    """The share of its own AUC that each finding keeps in the volumes of a pack, by the judge that reads least of it.

    The file stands beside ``pack.json`` and not in it: it is measured with the pack, whose identity it leaves alone.

    Args:
        folder: A pack's folder.

    Returns:
        Finding to share, 1 for volumes that a judge reads as well as patients' own; empty where nobody measured it.

    Raises:
        UserError: The file is damaged or names an unknown finding.
    """
    path = folder / FIDELITY_FILE
    if not path.exists():
        return {}
    try:
        shares = _SHARES.validate_python(read_json(path))
    except ValidationError as error:
        raise UserError(f"{path} is damaged; measure the pack again or delete it", [str(error)]) from error
    unknown = sorted(set(shares) - set(FINDINGS))
    if unknown:
        raise UserError(f"{path} names unknown findings", unknown)
    return shares
