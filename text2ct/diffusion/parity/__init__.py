"""Ours against arrays that the released code computed: one file for each kind of fixture, found by its files."""

from text2ct.diffusion.parity.check import ParityReport, check_parity
from text2ct.diffusion.parity.result import ArrayResult

__all__ = ["ArrayResult", "ParityReport", "check_parity"]
