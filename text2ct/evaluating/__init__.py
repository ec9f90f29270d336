"""What ``evaluate`` does: finds the sets and what measures them, and writes what it found."""

from text2ct.evaluating.measures import Names
from text2ct.evaluating.profiles import PROFILES, profile
from text2ct.evaluating.sets import evaluate_sets
from text2ct.evaluating.vlm3d import evaluate_vlm3d

__all__ = ["PROFILES", "Names", "evaluate_sets", "evaluate_vlm3d", "profile"]
