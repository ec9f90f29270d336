"""Parts of public data sets from their hub, in their own layout: the scans with the findings that are asked for."""

from text2ct.fetching.ct_rate import REPOSITORY, select_volumes, table_paths, volume_path
from text2ct.fetching.plan import Plan, plan_ct_rate
from text2ct.fetching.run import fetch_plan

__all__ = ["REPOSITORY", "Plan", "fetch_plan", "plan_ct_rate", "select_volumes", "table_paths", "volume_path"]
