"""The gate: which synthetic volumes may be learnt from, by tests that are calibrated on real volumes."""

from text2ct.augment.gate.config import GATE_SEED, GateConfig, read_config
from text2ct.augment.gate.record import (
    GateRecord,
    gates_of,
    known_labels,
    read_record,
    refuse_judge,
    refuse_same_judge,
    refuse_unjudged,
)
from text2ct.augment.gate.run import gate
from text2ct.augment.gate.runs import newest_ungated, newest_usable

__all__ = [
    "GATE_SEED",
    "GateConfig",
    "GateRecord",
    "gate",
    "gates_of",
    "known_labels",
    "newest_ungated",
    "newest_usable",
    "read_config",
    "read_record",
    "refuse_judge",
    "refuse_same_judge",
    "refuse_unjudged",
]
