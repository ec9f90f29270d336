"""The model card of a built pack: how it was made and what was measured, nothing else."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from text2ct.diffusion.pack import Pack
from text2ct.files import write_text

COMMAND = "text2ct core pack --out DIR"


def write_model_card(
    path: Path,
    pack: Pack,
    config: Mapping[str, Any],
    runs: Mapping[str, Mapping[str, Any]],
    figures: Mapping[str, Any],
) -> None:
    """Write ``MODEL_CARD.md``.

    Args:
        path: Where to.
        pack: The pack described.
        config: The resolved configuration of the build and of the measurement.
        runs: Steps, minutes and device of each training.
        figures: What :func:`text2ct.evaluation.pack_figures.measure_pack` found.
    """
    info = pack.info
    data = info.trained_on[0]
    x, y, z = info.grid
    sizes = {name: round((pack.path / name).stat().st_size / 2**20, 2) for name in info.files}
    lines = [
        f"# {info.name} {info.version}",
        "",
        info.description,
        "",
        f"- Licence: {info.licence}",
        f"- Volumes: {x}×{y}×{z} voxels at {'×'.join(f'{s:g}' for s in info.spacing_mm)} mm, "
        f"{info.hu_range[0]:g} to {info.hu_range[1]:g} HU",
        f"- Trained on: {data.dataset} patients {data.first} to {data.last}, "
        "a range that no simulated cohort of any seed contains. No real patient was used.",
        f"- Conditioning: {info.conditioning}; defaults: {info.defaults.steps} steps ({info.defaults.solver}), "
        f"guidance {info.defaults.guidance_scale:g}",
        f"- Size: {sum(sizes.values()):.1f} MiB",
        "",
        "## Training",
        "",
        *_making(config, runs),
        "",
        "## Measured",
        "",
        "On simulated patients that neither the pack nor a judge has seen, at the default steps and guidance.",
        "",
        *_table(("", "figure"), _figures(figures)),
        "",
        *_findings(figures),
        "## Limits",
        "",
        "It knows simulated chests only, whose small findings (nodules, nodes, coronary calcium, bronchi) are drawn "
        "larger than most real ones, so that a coarse grid shows them: its volumes are for augmentation experiments "
        "on the simulated cohort and for trying the software. It has seen labelled simulated patients that a "
        "classifier trained beside it has not, so a gain may be that knowledge, transferred. FIDs are comparable only "
        "between sets that were measured with the same backbone, never with published ones. Not for clinical use.",
        "",
        "## Configuration",
        "",
        "```json",
        json.dumps(config, indent=1),
        "```",
        "",
    ]
    write_text(path, "\n".join(lines))


def _making(config: Mapping[str, Any], runs: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """How it was made: by which command, from which pack, and the trainings."""
    start = config["start"]
    table = _table(
        ("component", "steps", "minutes", "on"),
        [(name, run["steps"], run["minutes"], run["device"]) for name, run in runs.items() if run],
    )
    if start is None:
        how = (
            f"Made and measured by `{COMMAND}`, with the configuration at the end of this page. The autoencoder, and "
            "the Gaussian that the velocity network starts from, are fitted in closed form to the same patients."
        )
    else:
        how = (
            f"Made and measured by `{COMMAND} --start PACK`, with the configuration at the end of this page. PACK is "
            f"{start['name']} {start['version']} (SHA-256 {start['sha256'][:12]}…): tokenizer, autoencoder, 3D CLIP "
            "and the network's Gaussian are its own, and its velocity network was trained on."
        )
    return [how, *(line for note in config["notes"] for line in ("", note)), "", *table]


def _table(head: tuple[str, ...], rows: list[tuple[Any, ...]]) -> list[str]:
    return [
        f"| {' | '.join(head)} |",
        "|---" * len(head) + "|",
        *(f"| {' | '.join('–' if value is None else str(value) for value in row)} |" for row in rows),
    ]


def _with(unit: str, value: float | None) -> str:
    return "–" if value is None else f"{value} {unit}"


def _range(values: list[float] | None) -> str:
    return "" if values is None else f" [{values[0]}, {values[1]}]"


def _of(share: float | None) -> str:
    return "" if share is None else f": {share:.1%} of that"


def _place(generation: Mapping[str, Any]) -> str:
    device, cores = generation["device"], generation["cores"]
    if device is None:
        return "on a machine that was not recorded"
    return f"on {device}, {cores} core{'s' if cores != 1 else ''}" if device == "CPU" else f"on {device}"


def _figures(figures: Mapping[str, Any]) -> list[tuple[Any, ...]]:
    """Rows of the table of all figures but the findings'."""
    vae, clip, generation = figures["autoencoder"], figures["clip"], figures["generation"]
    recall, chance = clip["report_to_volume_recall"]["5"], clip["report_to_volume_recall_chance"]["5"]
    similar, by_chance = clip["volume_to_volume_map"]["5"], clip["volume_to_volume_map_chance"]["5"]
    rows: list[tuple[Any, ...]] = [
        (f"autoencoder: PSNR over 2000 HU, {vae['n']} patients", _with("dB", vae["psnr_db"])),
        ("autoencoder: mean error of voxels above 300 HU", _with("HU", vae["dense_bias_hu"])),
    ]
    if "real_chest_psnr_db" in vae:
        rows.append(
            (
                "autoencoder: a real chest on the pack's grid",
                f"{_with('dB', vae['real_chest_psnr_db'])}, "
                f"{_with('HU above 300 HU', vae['real_chest_dense_bias_hu'])}",
            )
        )
    rows += [
        (
            f"3D CLIP: macro AUC by words alone, {clip['n']} patients (it learnt from statements of that form)",
            clip["zero_shot_macro_auc"],
        ),
        ("the same by a wording that it did not learn from", clip["zero_shot_macro_auc_untaught"]),
        (f"3D CLIP: report-to-volume recall@5 of {clip['n']}", f"{recall:.1%} (chance {chance:.1%})"),
        ("3D CLIP: volume-to-volume mean overlap of findings@5", f"{similar:.3f} (chance {by_chance:.3f})"),
    ]
    if "real_reports_probe" in clip:
        probe = clip["real_reports_probe"]
        rows.append(
            (
                f"3D CLIP: linear probe on real reports ({probe['train']} to learn from, {probe['test']} others)",
                f"macro AUC {probe['macro_auc']}",
            )
        )
    rows.append((f"generation {_place(generation)}", f"{generation['seconds_per_volume']} s a volume"))
    for name, judge in figures["factual"]["judges"].items():
        rows += [
            (
                f"macro AUC of the judge '{name}' on {figures['factual']['n']} patients' own volumes",
                judge["macro_auc_real"],
            ),
            (
                "the same on volumes generated from their reports",
                f"{judge['macro_auc_synthetic']}{_range(judge['macro_auc_synthetic_ci'])}{_of(judge['share'])}",
            ),
        ]
        if judge["least_share"] is not None:
            finding, share = judge["least_share"]
            rows.append(("the finding that fares worst by it", f"{finding}{_of(share)}"))
    for name, judge in figures.get("real_reports", {"judges": {}})["judges"].items():
        count = figures["real_reports"]["n"]
        rows.append(
            (
                f"macro AUC of '{name}' on volumes generated from {count} real reports, against their labels",
                f"{judge['macro_auc_synthetic']}{_range(judge['macro_auc_synthetic_ci'])}",
            )
        )
    fid = figures["fidelity"]
    rows.append(
        (
            f"2.5D FID, {fid['n']} volumes (backbone {fid['backbone']})",
            f"{fid['fid_2p5d']['mean']}{_range(fid['fid_2p5d']['ci'])}, "
            f"{fid['ratio']} times that of the reports' own patients ({fid['floor']['mean']}), both against others",
        )
    )
    rows.append(
        (
            "MS-SSIM of pairs from one prompt, relative to patients with the finding",
            figures["diversity"]["ratio"],
        )
    )
    seen = figures.get("memorisation")
    if seen is None:
        rows.append(("memorised training patients", "not looked for: they were not at hand"))
    else:
        rows.append((f"memorised of {seen['n']}, against {seen['training']} training patients", seen["memorised"]))
    return rows


def _findings(figures: Mapping[str, Any]) -> list[str]:
    """One row a finding: what each judge reads from own and from generated volumes."""
    judges = figures["factual"]["judges"]
    if not judges:
        return []
    names = list(next(iter(judges.values()))["auc_real"])
    head = ("finding", *(f"{name}: {what}" for name in judges for what in ("own", "generated")))
    rows = [
        (
            name,
            *(value for judge in judges.values() for value in (judge["auc_real"][name], judge["auc_synthetic"][name])),
        )
        for name in names
    ]
    return [
        "The judges learnt from other patients than the pack. A finding that they read in the generated volumes as "
        "well as in the patients' own is rendered; one near 0.5 is not:",
        "",
        *_table(head, rows),
        "",
    ]
