"""Judge a synthetic run and write what was found: the manifest, every score, and who judged."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from numpy.typing import NDArray

from text2ct.augment.gate import classifier as judging
from text2ct.augment.gate.again import make_again
from text2ct.augment.gate.base import TESTS
from text2ct.augment.gate.config import GATE_SEED, GateConfig
from text2ct.augment.gate.judges import Judges, Predict
from text2ct.augment.gate.record import RECORD, GateRecord, Try, as_identities, read_record
from text2ct.augment.gate.rounds import Round, copies, counts, findings, not_judged, write
from text2ct.augment.synthesize import Generate
from text2ct.console import info, warn
from text2ct.engines import LOCAL, Engine
from text2ct.errors import UserError
from text2ct.fidelity import read_fidelity
from text2ct.findings import FINDINGS
from text2ct.locks import working_in
from text2ct.manifests import Workspace, read_manifest

if TYPE_CHECKING:
    from text2ct.diffusion import Pack


def gate(
    source: Path,
    real: pd.DataFrame,
    workspace: Workspace,
    *,
    run: str | None = None,
    config: GateConfig | None = None,
    classifier: Path | None = None,
    pack: Pack | None = None,
    best_of: int = 1,
    seed: int = GATE_SEED,
    device: str = "auto",
    engine: Engine = LOCAL,
    predict: Predict | None = None,
    generate: Generate | None = None,
    dry_run: bool = False,
) -> dict[str, Any]:
    """Judge every volume of a synthetic manifest and write ``synthetic/<run>/``; the input stays as it is.

    There stand ``manifest.csv`` (every judged volume, with its verdict in the column ``gate``, which also names the
    labels in doubt), ``gate.csv`` (every score with its bounds), ``gate.json`` (:class:`GateRecord`) and ``copies/``
    (pictures of copies). The same request again changes nothing. After an interruption volumes on the grid, the
    classifier and volumes made again are kept, and the rest gives the same once more.

    Args:
        source: Manifest of a run of ``synthesize``.
        real: The real manifest, with its splits.
        workspace: Resolves roots and holds the result.
        run: Name of the gated folder; by default that of the source with ``-gated``.
        config: What is tested, and how strictly.
        classifier: A finished run that judges labels; by default the gate trains its own.
        pack: The pack that made the volumes: its 3D CLIP searches for copies, and ``best_of`` needs it.
        best_of: How often a volume may be made until it is accepted, the first time included.
        seed: Of the classifier that the gate trains.
        device: ``auto``, ``cpu``, ``cuda``, ...
        engine: Where volumes are looked at, and made again.
        predict: By default :func:`text2ct.classifiers.predict`.
        generate: By default :func:`text2ct.diffusion.generate`.
        dry_run: Say what would be judged, how long and how much disk, and write nothing.

    Returns:
        ``accepted``, ``rejected``, ``reasons`` (volumes rejected by test), ``manifest``; also ``run``, ``findings``,
        ``copies``, ``tries``, ``unmet`` (requests without an accepted volume), ``real_rejected`` and ``notes``.

    Raises:
        UserError: Volumes that were judged already, a classifier that knows too much, another request's folder,
            a missing split, or a pack that did not make the volumes.
    """
    config = config or GateConfig()
    rows = _checked(read_manifest(source), source)
    own = Path(source).resolve().parent
    name = run or f"{own.name}-gated"
    folder = workspace.run_dir("synthetic", name)
    if folder.resolve() == own:
        raise UserError("a gate never changes its input; give another --run")
    _check_pack(rows, pack, best_of)
    if classifier is not None:
        classifier = workspace.find_run("classifiers", classifier)
        judging.refuse_unfit(classifier, real)
    judge = None if "label" not in config.tests else classifier
    fidelity = read_fidelity(own)  # as `synthesize` keeps it beside the volumes
    request = _digest(rows, real, config, judge, pack, best_of, seed, workspace, fidelity)
    finished = _finished(folder, request)
    with working_in(folder, unless=dry_run or finished is not None):
        finished = finished or _finished(folder, request)  # by another command since
        if finished is not None:
            info(f"{folder} holds this already; nothing to do")
            return _result(finished, folder) | ({"dry_run": True, "seconds": 0.0, "bytes": 0} if dry_run else {})
        own_classifier = "label" in config.tests and classifier is None
        if dry_run:
            training = (
                judging.train_own(real, workspace, config, seed, device=device, dry_run=True) if own_classifier else {}
            )
            return _estimate(rows, real, workspace, config, training, folder)
        real, quarantined = judging.sift(real, workspace, config, engine)
        for problem in quarantined:
            warn(f"quarantined {problem}")
        if own_classifier:
            judge = Path(judging.train_own(real, workspace, config, seed, device=device)["run"])
        described = None if judge is None else judging.describe(judge, workspace)
        embed, notes = _embedding(pack, config, device)
        judges = Judges(
            real,
            workspace,
            config,
            classifier=judge,
            fidelity=fidelity,
            embed=embed,
            device=device,
            predict=predict,
            engine=engine,
        )
        rounds = [Round(own.name, rows, judges.judge(rows))]
        for attempt in range(2, best_of + 1):
            again = rounds[-1].rejected
            if not again or pack is None:
                break
            info(f"{len(again)} volumes are rejected: making them again, try {attempt} of {best_of}")
            try_run = f"{name.removesuffix('-gated')}-try{attempt}"
            options: dict[str, Any] = {
                "pack": pack,
                "workspace": workspace,
                "device": device,
                "engine": engine,
                "generate": generate,
            }
            made = make_again(again, own, try_run, attempt, **options)
            rounds.append(Round(try_run, made, judges.judge(made)))
        record = GateRecord(
            run=name,
            request_sha256=request,
            classifier=described,
            trained_on=as_identities(judges.training),
            calibrated_on=as_identities(judges.validation),
            config=config,
            thresholds=judges.thresholds,
            counts=counts(rounds),
            findings=findings(rounds, judges),
            copies=tuple(copies(rounds, judges, folder)),
            tries=tuple(
                Try(run=one.run, judged=len(one.rows), accepted=len(one.rows) - len(one.rejected)) for one in rounds
            ),
            unmet=len(rounds[-1].rejected),
            real_rejected=judges.real_rejected,
            notes=(*notes, *not_judged(judges)),
            quarantined=tuple(quarantined),
        )
        write(folder, rounds, record)
        for note in record.notes:
            info(f"note: {note}")
        return _result(record, folder)


def _checked(rows: pd.DataFrame, source: Path) -> pd.DataFrame:
    if rows.empty or (rows["source"] != "synthetic").any():
        raise UserError(f"{source} is no manifest of synthetic volumes; give one of `text2ct synthesize`")
    judged = rows[rows["gate"] != ""]
    if len(judged):
        raise UserError(
            f"{len(judged)} volumes of {source} were judged already; give the run that they come from",
            [f"{row.volume}: {row.gate}" for row in judged.head(5).itertuples()],
        )
    return rows


def _check_pack(rows: pd.DataFrame, pack: Pack | None, best_of: int) -> None:
    if best_of < 1:
        raise UserError(f"--best-of is {best_of}; expected 1 or more")
    if best_of > 1 and pack is None:
        raise UserError("--best-of makes volumes again and needs the pack that made them; name it with --model")
    if pack is not None and set(rows["pack_sha256"]) != {pack.sha256}:
        raise UserError(f"the pack '{pack.info.name}' did not make these volumes; give the one that did with --model")


def _digest(
    rows: pd.DataFrame,
    real: pd.DataFrame,
    config: GateConfig,
    classifier: Path | None,
    pack: Pack | None,
    best_of: int,
    seed: int,
    workspace: Workspace,
    fidelity: Mapping[str, float],
) -> str:
    """SHA-256 of all that decides the result; the device is none of it."""
    described = None if classifier is None else judging.describe(classifier, workspace).sha256
    used = ["dataset", "volume", "split", "sha256", *FINDINGS]
    asked = {
        "config": config.model_dump(mode="json"),
        "classifier": described,
        "pack": None if pack is None else pack.sha256,
        "best_of": best_of,
        "seed": seed,
        "fidelity": dict(fidelity),
        "synthetic": _table(rows[used]),
        "real": _table(real.loc[real["source"] != "synthetic", used]),
    }
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()


def _table(frame: pd.DataFrame) -> str:
    return hashlib.sha256(frame.to_csv(index=False).encode()).hexdigest()


def _finished(folder: Path, request: str) -> GateRecord | None:
    """The record if this request was answered in the folder, or None if nothing was finished there.

    Raises:
        UserError: Another request, or another command, has been there.
    """
    if not (folder / RECORD).is_file():
        if (folder / "manifest.csv").is_file():
            raise UserError(f"{folder} holds another run; give another --run")
        return None
    found = read_record(folder)
    if found.request_sha256 != request:
        raise UserError(
            f"{folder} was judged otherwise (other volumes, real data, settings or classifier); give another --run, or "
            "delete it"
        )
    return found if (folder / "manifest.csv").is_file() else None


def _embedding(pack: Pack | None, config: GateConfig, device: str) -> tuple[Any, list[str]]:
    """The pack's 3D CLIP as an embedding of volumes on the gate's grid, or None and why not."""
    if "memorised" not in config.tests:
        return None, []
    if pack is None or not pack.has("clip"):
        return None, ["copies are searched by block means alone: there is no pack with a 3D CLIP"]
    grid, spacing = tuple(pack.info.grid), tuple(pack.info.spacing_mm)
    if (grid, spacing) != (config.size, config.spacing_mm):
        return None, [
            f"copies are searched by block means alone: the pack's 3D CLIP reads {grid} voxels of {spacing} mm"
        ]
    from text2ct.compute import pick_device

    where = pick_device(device)
    return partial(_embed, pack, where), []


def _embed(pack: Pack, where: Any, hu: NDArray[Any]) -> NDArray[Any]:
    from text2ct.evaluation.pack_sections import embed_volumes

    return embed_volumes(pack, [hu], where)[0]


def _estimate(
    rows: pd.DataFrame,
    real: pd.DataFrame,
    workspace: Workspace,
    config: GateConfig,
    training: Mapping[str, Any],
    folder: Path,
) -> dict[str, Any]:
    """What a dry run says: one volume is brought to the grid and looked at, and multiplied."""
    from text2ct import volumes
    from text2ct.augment.gate.geometry import anatomy

    began = time.perf_counter()
    first = rows.iloc[0]
    on_grid = volumes.to_grid(
        volumes.read(workspace.resolve(first["root"], first["path"])), config.size, config.spacing_mm
    )
    anatomy(on_grid.hu)
    per_volume = time.perf_counter() - began
    used = real["split"].isin(("train", "validation")) & (real["path"] != "")
    count = len(rows) + int(used.sum())
    bytes_grid = on_grid.hu.size * 2
    return {
        "accepted": 0,
        "rejected": 0,
        "reasons": dict.fromkeys(TESTS, 0),
        "manifest": str(folder / "manifest.csv"),
        "run": folder.name,
        "dry_run": True,
        "volumes": len(rows),
        "seconds": training.get("seconds", 0.0) + per_volume * count,
        "bytes": int(training.get("bytes", 0)) + bytes_grid * count,
    }


def _result(record: GateRecord, folder: Path) -> dict[str, Any]:
    counts = record.counts.model_dump(mode="json")
    kept = {"run", "findings", "copies", "tries", "unmet", "real_rejected", "classifier", "notes"}
    told = record.model_dump(mode="json", include=kept) | {"quarantined": len(record.quarantined)}
    return {**counts, "manifest": str(folder / "manifest.csv"), **told}
