"""The page of ``evaluate``: the rows by which generators are compared, each with what it rests on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from text2ct.files import write_text
from text2ct.reports.page import png_uri, render


class Row(NamedTuple):
    """One measure.

    Attributes:
        group: What it is about.
        name: What is measured, with its unit.
        value: The figure, or None where it does not exist.
        digits: Decimals to show.
        ci: 95% interval, or None.
        beside: What to read it against: a floor, chance, the real volumes.
    """

    group: str
    name: str
    value: float | None
    digits: int
    ci: tuple[float, float] | None
    beside: str


_PLANES = ("axial", "coronal", "sagittal", "mean")
_SHARES = {
    "precision": "precision: synthetic volumes that look real",
    "recall": "recall: real volumes that are made",
    "density": "density",
    "coverage": "coverage",
}


def evaluation_rows(found: Mapping[str, Any]) -> list[Row]:
    """All figures of ``evaluate --json``, in the order in which they are published."""
    return [*_alignment(found), *_fidelity(found), *_volumes(found), *_factual(found), *_private(found)]


def _alignment(found: Mapping[str, Any]) -> list[Row]:
    rows = []
    if "clip_score" in found:
        scores = found["clip_score"]
        own = "; this CLIP conditioned the generator" if scores["scores_its_own"] else ""
        for key, name in (("text_image", "text to image"), ("image_image", "image to image")):
            rows.append(
                Row("Alignment", f"CLIP score, {name} (0 to 100)", scores[key], 2, scores.get(f"{key}_ci"),
                    scores["clip"] + own)
            )  # fmt: skip
    if "zero_shot" in found:
        zero = found["zero_shot"]
        rows += [
            Row(
                "3D CLIP",
                f"zero-shot {'AUC' if key == 'auc' else key}, real volumes",
                zero[key],
                3,
                zero.get(f"{key}_ci"),
                "" if zero["chance"][key] is None else f"{without} {zero['chance'][key]:.3f}",
            )
            for key, without in (
                ("auc", "chance"),
                ("accuracy", "always the commoner answer"),
                ("precision", "chance, which is the prevalence,"),
            )
        ]
    for key, name in (
        ("report_to_volume_recall", "report-to-volume recall@{k}"),
        ("volume_to_volume_map", "volume-to-volume MAP@{k}"),
    ):
        for k, chance in found.get(key, {}).get("chance", {}).items():
            beside = f"chance {chance:.3f}, gallery of {found[key]['gallery']}"
            rows.append(Row("3D CLIP", name.format(k=k), found[key][k], 3, found[key]["ci"][k], beside))
    return rows


def _volumes(found: Mapping[str, Any]) -> list[Row]:
    """The 3D distance."""
    if "fid_3d" not in found:
        return []
    rests = found["fid_3d_rests_on"]
    beside = rests["backbone"]
    if rests["floor"] is not None:
        at, each = rests["at_n_each"], rests["n_each"]
        beside += f"; of {each} volumes each: {at:.4g}, real against real {rests['floor']:.4g}"
    if rests["rank_deficient"]:
        beside += "; no more volumes than features: very biased"
    return [Row("Fidelity", "FID 3D", found["fid_3d"], 4, rests["ci"], beside)]


def _fidelity(found: Mapping[str, Any]) -> list[Row]:
    if "fid_2p5d" not in found:
        return []
    fid = found["fid_2p5d"]
    rows = _by_plane("Fidelity", "FID 2.5D", fid, fid["backbone"])
    if "infinity" in fid:
        line = fid["infinity"]
        beside = f"r² {line['r2']:.2f} of the line through {len(line['distances'])} numbers of volumes"
        rows.append(
            Row(
                "Fidelity",
                "FID 2.5D of infinitely many volumes",
                line["value"],
                4,
                line["ci"],
                beside + _of_leading(fid),
            )
        )
    for window, one in found["fid_window"].items():
        scale = f"{one['low_hu']:.0f} to {one['high_hu']:.0f} HU"
        rows += _by_plane("Fidelity by window", f"FID, {window.replace('_', ' ')}", one, scale)
    kid = found["kid"]
    rows.append(
        Row("Fidelity", "kernel distance (KID)", kid["value"], 5, kid["ci"], _at_floor(kid) or "0 where the sets agree")
    )
    rows += [
        Row("Fidelity", name, found[key]["value"], 3, found[key]["ci"], _at_floor(found[key]))
        for key, name in _SHARES.items()
        if key in found
    ]
    return rows


def _by_plane(group: str, name: str, fid: Mapping[str, Any], beside: str) -> list[Row]:
    """A 2.5D distance: each plane and the mean, which stands beside its floor."""
    floor = fid.get("floor")
    if floor is not None:
        at, each = floor["distance_at_n_each"], floor["n_each"]
        beside += f"; of {each} volumes each: {at:.4f}, real against real {floor['mean']:.4f}" + _of_leading(fid)
    cis = {"mean": fid["ci"]} | {plane: fid[f"{plane}_ci"] for plane in _PLANES if plane != "mean"}
    return [
        Row(group, f"{name}, {plane}", fid[plane], 4, cis[plane], beside if plane == "mean" else "")
        for plane in _PLANES
    ]


def _of_leading(fid: Mapping[str, Any]) -> str:
    """What floor, interval and extrapolation are of, where the network is too wide to resample all its features."""
    if fid["components"] is None:
        return ""
    return f" (of the {fid['components']} leading components, {fid['variance_kept']:.1%} of the variance)"


def _at_floor(one: Mapping[str, Any]) -> str:
    if "floor" not in one:
        return ""
    floor = one["floor"]
    return f"of {floor['n_each']} volumes each: {floor['at_n_each']:.4g}, real against real {floor['mean']:.4g}"


def _factual(found: Mapping[str, Any]) -> list[Row]:
    if "factual" not in found:
        return []
    facts = found["factual"]
    rows = []
    for key in ("macro_auc", "weighted_auc", "macro_precision", "weighted_precision"):
        real = facts[f"{key}_real"]
        beside = "" if real is None else f"real volumes {real:.3f}"
        ci = facts.get(f"{key}_synthetic_ci")
        rows.append(
            Row(
                "Factual correctness",
                key.replace("_", " ").replace("auc", "AUC"),
                facts[f"{key}_synthetic"],
                3,
                ci,
                beside,
            )
        )
    name = f"mean AUC of {facts['findings_compared']} findings, synthetic over real"
    rows.append(Row("Factual correctness", name, facts["ratio"], 3, facts["ratio_ci"], ""))
    return rows


def _private(found: Mapping[str, Any]) -> list[Row]:
    rows = []
    if "privacy" in found:
        one = found["privacy"]
        beside = f"nearer than {one['threshold_hu']:.0f} HU to one of {one['n_training']} training volumes"
        beside += f"; of new patients {one['rule']['false_positive_rate']:.1%} at most"
        rows.append(Row("Privacy", "memorised volumes", one["memorised"], 0, None, beside))
        if "membership_auc" in one:
            compared = (
                ("authenticity", "authenticity"),
                ("nearest_ratio", "nearest over second nearest, median"),
            )
            rows.append(
                Row(
                    "Privacy",
                    "membership inference AUC",
                    one["membership_auc"],
                    3,
                    one["membership_auc_ci"],
                    "0.5 tells nothing",
                )
            )
            rows += [
                Row("Privacy", name, one[key], 3, None, f"new patients {one[f'{key}_held_out']:.3f}")
                for key, name in compared
            ]
    if "diversity" in found:
        made, own = found["diversity"]["one_prompt"], found["diversity"].get("one_finding_real", {})
        for key, name in (("ms_ssim", "MS-SSIM"), ("embedding_spread", "embedding spread")):
            if key in made:
                beside = f"real volumes of one finding {own[key]:.3f}" if key in own else ""
                rows.append(Row("Diversity", f"{name} within one prompt", made[key], 3, None, beside))
    return rows


def _pictures(found: Mapping[str, Any], out_dir: Path) -> list[tuple[str, str]]:
    """Captions and pictures of the pairs that are most alike, where pictures were made."""
    return [
        (f"{one['synthetic']} above {one['training']}: {one['distance_hu']:.0f} HU apart",
         png_uri((out_dir / "pairs" / one["picture"]).read_bytes()))
        for one in found.get("privacy", {}).get("nearest", [])
        if one["picture"]
    ]  # fmt: skip


def write_evaluation_report(found: Mapping[str, Any], out_dir: Path, *, title: str, command: str) -> Path:
    """Write ``report.html`` and ``report.md``.

    Args:
        found: What :func:`text2ct.evaluation.generator.evaluate` returned.
        out_dir: Folder of the report.
        title: Heading.
        command: What runs it again.

    Returns:
        Path of ``report.html``.
    """
    fid = found.get("fid_2p5d")
    context = {
        "title": title,
        "tiles": [(f"{found[key]:,}", name) for key, name in (
            ("n_real", "real volumes"), ("n_synthetic", "synthetic volumes"), ("pairs", "of the same reports"))],
        "rows": evaluation_rows(found),
        "fid": fid,
        "findings": found.get("factual", {}).get("findings", {}),
        "nearest": found.get("privacy", {}).get("nearest", []),
        "pictures": _pictures(found, out_dir),
        "notes": found["notes"],
        "command": command,
    }  # fmt: skip
    write_text(out_dir / "report.md", render("evaluation.md.j2", **context))
    write_text(out_dir / "report.html", render("evaluation.html.j2", **context))
    return out_dir / "report.html"
