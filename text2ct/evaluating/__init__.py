"""What ``evaluate`` does: finds the sets and what measures them, and writes what it found."""

from text2ct.evaluating.compare import compare_sets
from text2ct.evaluating.guidance import sweep_guidance
from text2ct.evaluating.measures import Names
from text2ct.evaluating.profiles import PROFILES, profile
from text2ct.evaluating.sets import evaluate_sets
from text2ct.evaluating.vlm3d import evaluate_vlm3d

__all__ = ["PROFILES", "Names", "compare_sets", "evaluate_sets", "evaluate_vlm3d", "profile", "sweep_guidance"]
