"""What a benchmark's page says of how it was done, ready for a paper, and of what it does not show."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

PRETRAINED = "real+classifier-pretrained"


def benchmark_methods(result: Mapping[str, Any], real: pd.DataFrame, made: pd.DataFrame | None) -> str:
    """Training, choice, test set and statistics in one paragraph.

    Args:
        result: The numbers of ``benchmark --json``.
        real: The manifest that the test patients are from.
        made: The synthetic manifest, or None.
    """
    settings, patients = result["settings"], result["test"]["patients"]
    kind = _kind(real)
    strangers = "arm"
    if made is not None:
        strangers = "arm, prompt or generator" if (made["pack_sha256"] != "").all() else "arm or prompt"
    sentences = [
        f"Every arm trained the classifier {settings['classifier']} for {settings['steps']} steps of "
        f"{settings['batch_size']} volumes with {len(settings['seeds'])} seed(s); the checkpoint was chosen by macro "
        f"AUC on {kind} validation patients."
    ]
    if PRETRAINED in result["arms"]:
        sentences.append(
            f"The arm {PRETRAINED} alone had another {settings['steps']} steps before these, on "
            f"{settings['pretrain_patients']} patients of the pack."
        )
    until = settings.get("synthetic_until", 1)
    if until < 1:
        sentences.append(
            f"Synthetic volumes were drawn in the first {until:.0%} of the steps, real ones alone after that."
        )
    sentences += [
        f"Arms are compared on {patients} {kind} test patients, none of whom any {strangers} has seen.",
        "Reconstructions of a scan are averaged.",
        f"Intervals (95%) join a bootstrap over patients ({settings['n_bootstrap']} samples, paired between arms) with "
        "the spread between trainings; p-values follow Student's t with Welch-Satterthwaite degrees of freedom.",
        "By Holm's method those of findings are corrected over the findings of their comparison, and those of the "
        "macro AUC and of the macro average precision, each measure apart, over the comparisons.",
    ]
    if result.get("endpoint"):
        sentences.append("That of the declared endpoint is a single test and is not corrected.")
    return " ".join(sentences)


def benchmark_limitations(result: Mapping[str, Any], real: pd.DataFrame, made: pd.DataFrame | None) -> list[str]:
    """What the benchmark does not show, a sentence each; arguments as for :func:`benchmark_methods`."""
    lines = []
    if (real["source"] == "simulated").any():
        lines.append(
            "The cohort is simulated: neither a gain nor a loss here says anything about patients. It shows that the "
            "pipeline runs and what its statistics can tell."
        )
    lines.extend(
        f"The pack {pack} has learnt from patients that the classifiers have not seen: a gain may be its knowledge, "
        "transferred, and not information that was in your training data."
        for pack in sorted(set() if made is None else set(made["pack"]))
    )
    lines.append(
        f"The test set has {result['test']['patients']} patients; differences smaller than the intervals cannot be "
        "seen with it."
    )
    return lines


def _kind(real: pd.DataFrame) -> str:
    """What those are that judge: real or simulated patients, or both."""
    sources = set(real.loc[real["split"].isin(["validation", "test"]), "source"])
    return " and ".join(sorted(sources))
