"""Many volumes to one grid: resumable, past bad files, with a manifest of what came out."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from text2ct.console import progress, warn
from text2ct.engines import LOCAL, Engine
from text2ct.errors import UserError
from text2ct.files import atomic_path
from text2ct.suffixes import without_suffix
from text2ct.volumes.grid import FITS, Fit
from text2ct.volumes.jobs import Job, Outcome, Settings, run, run_part
from text2ct.volumes.readers import READERS, find_reader
from text2ct.volumes.reading import MARKED_WORDS
from text2ct.volumes.scales import Scale, read_scales
from text2ct.volumes.writing import FORMATS

if TYPE_CHECKING:
    import pandas as pd

# The dataset of volumes that come as bare paths.
LOCAL_DATASET = "local"
# So many remarks on sources are shown; a cohort may have thousands.
_SHOWN_NOTES = 5
# Jobs handed to a process at a time, where there are enough for all.
_MOST_AT_A_TIME = 8


class Roots(Protocol):
    """The part of a workspace that this needs: where the files of a manifest lie."""

    def resolve(self, root: str, path: str) -> Path:
        """The absolute path of a manifest row's file."""
        ...

    def root_for(self, folder: Path, preferred: str) -> tuple[str, str]:
        """The root that a folder belongs to and the folder's place in it ("" or "some/folder/")."""
        ...


@dataclass(frozen=True)
class Preprocessed:
    """What `preprocess` made.

    Args:
        manifest: One row a volume, in the order given; the columns of `text2ct.manifests.COLUMNS`.
        manifest_path: The same as a file.
        quarantine: ``dataset, volume, source, reasons`` of every volume that was left out.
        quarantine_path: The same as a file; it is written even when it is empty.
        resumed: How many outputs were there already.
        not_chest: How many volumes seem to show no chest, in the manifest or left out.
    """

    manifest: pd.DataFrame
    manifest_path: Path
    quarantine: pd.DataFrame
    quarantine_path: Path
    resumed: int
    not_chest: int


def find_volumes(paths: Sequence[Path | str], leave_out: Path | None = None) -> list[Path]:
    """Files and DICOM folders under the paths given, sorted within each path.

    Args:
        paths: Volumes, or folders that are searched for them.
        leave_out: An output folder, in whose ``volumes`` nothing is sought: earlier outputs are no inputs.

    Raises:
        UserError: Paths are absent or hold nothing readable; every one of them is named.
    """
    own = (leave_out / "volumes").resolve() if leave_out else None
    found: list[Path] = []
    problems: list[str] = []
    for path in map(Path, paths):
        try:
            find_reader(path)
            found.append(path)
        except UserError as error:
            inside = [
                item
                for item in sorted(path.rglob("*"))
                if _may_be_volume(item) and not (own and item.resolve().is_relative_to(own))
            ]
            found.extend(inside)
            if not inside:
                problems.append(str(error))
    if problems:
        raise UserError("not every input is a volume or holds one", problems)
    return list(dict.fromkeys(found))


def preprocess(
    inputs: Sequence[Path | str] | pd.DataFrame,
    out_dir: Path | str,
    *,
    size: tuple[int, int, int] = (64, 64, 64),
    spacing_mm: tuple[float, float, float] = (5.0, 5.0, 5.0),
    fit: Fit = "crop-pad",
    format: str = "nii.gz",
    metadata: Path | str | pd.DataFrame | None = None,
    workspace: Roots | None = None,
    engine: Engine = LOCAL,
    leave_out_non_chest: bool = False,
) -> Preprocessed:
    """Convert volumes to one grid of HU and write a manifest of them.

    Writes ``volumes/<dataset>/<name>``, ``records/<dataset>/<name>.json`` (evidence and geometry of
    each), ``manifest.csv`` and ``quarantine.csv`` under ``out_dir``. A volume that cannot be read or
    fails `check` is quarantined and the rest go on. In the manifest ``intensity`` says how a volume's voxels
    were found to be HU, ``notes`` what else is remarkable, such as one that seems to show no chest. Outputs
    whose source content, metadata and settings are unchanged are kept, so the same command continues what was
    interrupted.

    Args:
        inputs: Files, DICOM folders or folders of these; or a manifest (rows without a file are left out).
        out_dir: Where the outputs go.
        size: Voxels along x, y, z.
        spacing_mm: See `text2ct.volumes.to_grid`.
        fit: ``crop-pad`` or ``resize``.
        format: One of `text2ct.volumes.FORMATS`.
        metadata: CT-RATE's metadata CSV, or what `text2ct.manifests.read_metadata` makes of it; volumes
            of the first generation need it.
        workspace: Resolves a manifest's files, and gives the outputs their root. Without it the root is
            named after ``out_dir`` and still has to be declared.
        engine: Where volumes are converted; the outputs do not depend on it.
        leave_out_non_chest: Quarantine volumes that seem to show no chest; by default they are kept and flagged.

    Raises:
        UserError: A setting is impossible, two inputs have one name, an output would overwrite its
            source, or the outputs cannot be written.
    """
    import pandas as pd

    from text2ct.manifests import write_manifest

    out_dir = Path(out_dir)
    settings = _settings(size, spacing_mm, fit, format)
    rows, sources = _rows(inputs, out_dir, workspace, format)
    scales = {} if metadata is None else read_scales(metadata)
    jobs = [_job(row, source, out_dir, settings, scales) for row, source in zip(rows, sources, strict=True)]
    _refuse_collisions(jobs)
    outcomes = list(_run_all(jobs, engine))
    _tell_notes(outcomes)
    out_dir.mkdir(parents=True, exist_ok=True)
    root, prefix = _root(out_dir, workspace)
    kept, left_out = [], []
    for row, job, outcome in zip(rows, jobs, outcomes, strict=True):
        if outcome.record is None:
            left_out.append([row["dataset"], row["volume"], str(job.source), "; ".join(outcome.reasons)])
            continue
        if leave_out_non_chest and outcome.record["not_chest"]:
            left_out.append([row["dataset"], row["volume"], str(job.source), outcome.record["not_chest"]])
            continue
        geometry = zip("xyz", outcome.record["size"], outcome.record["spacing_mm"], strict=True)
        for axis, extent, spacing in geometry:
            row |= {f"size_{axis}": float(extent), f"spacing_{axis}": float(spacing)}
        path = prefix + job.target.relative_to(out_dir).as_posix()
        row |= {"intensity": _evidence(row, outcome.record), "notes": "; ".join(outcome.record["notes"])}
        kept.append(row | {"root": root, "path": path, "sha256": outcome.record["sha256"]})
    quarantine = pd.DataFrame(left_out, columns=["dataset", "volume", "source", "reasons"])
    with atomic_path(out_dir / "quarantine.csv") as temporary:
        quarantine.to_csv(temporary, index=False, lineterminator="\n")
    manifest = _frame(kept)
    write_manifest(manifest, out_dir / "manifest.csv")
    return Preprocessed(
        manifest=manifest,
        manifest_path=out_dir / "manifest.csv",
        quarantine=quarantine,
        quarantine_path=out_dir / "quarantine.csv",
        resumed=sum(outcome.resumed for outcome in outcomes),
        not_chest=sum(bool(outcome.record and outcome.record["not_chest"]) for outcome in outcomes),
    )


def _settings(size: tuple[int, int, int], spacing_mm: tuple[float, float, float], fit: Fit, format: str) -> Settings:
    problems = []
    if len(size) != 3 or any(n < 1 or int(n) != n for n in size):
        problems.append(f"size {tuple(size)}: expected three whole numbers above 0")
    if len(spacing_mm) != 3 or not all(0 < s < math.inf for s in spacing_mm):
        problems.append(f"spacing {tuple(spacing_mm)}: expected three numbers of mm above 0")
    if fit not in FITS:
        problems.append(f"fit '{fit}': expected {' or '.join(FITS)}")
    if format not in FORMATS:
        problems.append(f"format '{format}': expected {', '.join(FORMATS)}")
    if problems:
        raise UserError("the preprocessing is impossible as asked", problems)
    x, y, z = (int(n) for n in size)
    dx, dy, dz = (float(s) for s in spacing_mm)
    return Settings((x, y, z), (dx, dy, dz), fit, format)


def _rows(
    inputs: Sequence[Path | str] | pd.DataFrame, out_dir: Path, workspace: Roots | None, format: str
) -> tuple[list[dict], list[Path]]:
    """Manifest rows and their sources."""
    import pandas as pd

    from text2ct.manifests import parse_volume_name

    if not isinstance(inputs, pd.DataFrame):
        rows = []
        paths = find_volumes(inputs, leave_out=out_dir)
        for path in paths:
            name = f"{without_suffix(path.name)}.{format}"
            patient, scan, _ = parse_volume_name(name)
            identity = {"dataset": LOCAL_DATASET, "volume": name, "patient": patient, "scan": scan}
            rows.append(identity | {"split": "", "source": "real"})
        return rows, paths
    if workspace is None:
        raise UserError("a manifest names its files by root; give the workspace that declares the roots")
    with_file = inputs[inputs["path"] != ""]
    if with_file.empty:
        raise UserError("no row of the manifest has a file; read the data set again with its volumes' folder")
    if len(with_file) < len(inputs):
        warn(f"{len(inputs) - len(with_file)} of {len(inputs)} rows have no file and are left out")
    rows = [{str(key): value for key, value in row.items()} for row in with_file.to_dict("records")]
    return rows, [workspace.resolve(row["root"], row["path"]) for row in rows]


def _job(row: dict, source: Path, out_dir: Path, settings: Settings, scales: dict[str, Scale]) -> Job:
    folder, name = re.sub(r"[^A-Za-z0-9._-]", "_", row["dataset"]) or LOCAL_DATASET, without_suffix(row["volume"])
    return Job(
        source=source,
        target=out_dir / "volumes" / folder / f"{name}.{settings.format}",
        record=out_dir / "records" / folder / f"{name}.json",
        settings=settings,
        scale=scales.get(name, Scale()),
        expected_sha256=row.get("sha256", ""),
    )


def _refuse_collisions(jobs: Sequence[Job]) -> None:
    by_target: dict[Path, list[Path]] = {}
    for job in jobs:
        by_target.setdefault(job.target, []).append(job.source)
    double = [f"{target.name}: {', '.join(map(str, of))}" for target, of in by_target.items() if len(of) > 1]
    if double:
        raise UserError("several inputs have one name; rename them or convert them into separate folders", double)
    own = [str(job.source) for job in jobs if job.target.resolve() == job.source.resolve()]
    if own:
        raise UserError("outputs would overwrite their sources; choose another folder", own)


def _run_all(jobs: Sequence[Job], engine: Engine) -> Iterator[Outcome]:
    """Outcomes in the order of the jobs; a worker takes several at a time, to read one while it converts another."""
    workers = min(engine.workers, len(jobs))
    length = min(_MOST_AT_A_TIME, max(1, len(jobs) // (4 * workers))) if workers > 1 else 1
    parts = [jobs[start : start + length] for start in range(0, len(jobs), length)]
    with progress("volumes to the grid", len(jobs)) as advance:
        for outcome in run(jobs) if engine == LOCAL else itertools.chain.from_iterable(engine.map(run_part, parts)):
            yield outcome
            advance(1)


def _tell_notes(outcomes: Sequence[Outcome]) -> None:
    """Say what was remarkable about new outputs: some in full, the rest by number."""
    made = [outcome.record for outcome in outcomes if outcome.record and not outcome.resumed]
    remarks = [f"{record['source']}: {note}" for record in made for note in record["notes"]]
    for remark in remarks[:_SHOWN_NOTES]:
        warn(remark)
    if len(remarks) > _SHOWN_NOTES:
        warn(f"{len(remarks) - _SHOWN_NOTES} more remarks of this kind; see the folder records")


def _evidence(row: dict, record: dict) -> str:
    """How the voxels were found to be HU: of a volume converted before, what was found then."""
    earlier = row.get("intensity") or ""
    return earlier if earlier and record["intensity"].startswith(MARKED_WORDS) else record["intensity"]


def _root(out_dir: Path, workspace: Roots | None) -> tuple[str, str]:
    preferred = re.sub(r"[^A-Za-z0-9._-]", "-", out_dir.resolve().name).lstrip("._-") or "preprocessed"
    return (preferred, "") if workspace is None else workspace.root_for(out_dir, preferred)


def _frame(rows: list[dict]) -> pd.DataFrame:
    """A manifest of rows; columns that they lack are unknown."""
    import pandas as pd

    from text2ct.manifests import COLUMNS, validate

    return validate(pd.DataFrame(rows, columns=None if rows else list(COLUMNS)), "the preprocessed volumes")


def _may_be_volume(path: Path) -> bool:
    try:
        return not path.name.startswith(".") and any(reader.accepts(path) for reader in READERS.values())
    except OSError:
        return True  # a folder that may not be listed: reading it says so, and quarantines it
