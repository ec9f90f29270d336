"""From under-represented findings to a mixed training set: plan -> prompts -> synthesize -> mix."""

from text2ct.augment.leaks import HeldOut
from text2ct.augment.mix import mix
from text2ct.augment.oversample import ml_ros
from text2ct.augment.plan import Plan, make_plan, read_plan
from text2ct.augment.prompts import make_prompts, report_prompt
from text2ct.augment.requests import read_requests
from text2ct.augment.synthesize import synthesize

__all__ = [
    "HeldOut",
    "Plan",
    "make_plan",
    "make_prompts",
    "mix",
    "ml_ros",
    "read_plan",
    "read_requests",
    "report_prompt",
    "synthesize",
]
