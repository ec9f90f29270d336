"""Label tables, reports and metadata as one validated manifest; volume ids, splits, imbalance, workspace."""

from text2ct.manifests import imbalance
from text2ct.manifests._columns import COLUMNS, SOURCES, SPLITS, SYNTHETIC_COLUMNS
from text2ct.manifests._ids import VolumeId, parse_volume_name, parse_volume_names
from text2ct.manifests._manifest import read_manifest, write_manifest
from text2ct.manifests._scans import by_scan
from text2ct.manifests._schema import validate
from text2ct.manifests._splits import assign_splits, ct_rate_split_by_name, split_by_patient
from text2ct.manifests._summary import FindingSummary, Summary, UnderrepresentedRule, summarise
from text2ct.manifests._tables import read_metadata, read_names, read_reports
from text2ct.manifests.readers import READERS, read
from text2ct.manifests.workspace import Workspace

__all__ = [
    "COLUMNS",
    "READERS",
    "SOURCES",
    "SPLITS",
    "SYNTHETIC_COLUMNS",
    "FindingSummary",
    "Summary",
    "UnderrepresentedRule",
    "VolumeId",
    "Workspace",
    "assign_splits",
    "by_scan",
    "ct_rate_split_by_name",
    "imbalance",
    "parse_volume_name",
    "parse_volume_names",
    "read",
    "read_manifest",
    "read_metadata",
    "read_names",
    "read_reports",
    "split_by_patient",
    "summarise",
    "validate",
    "write_manifest",
]
