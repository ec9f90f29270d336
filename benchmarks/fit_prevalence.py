"""Fit the numbers of text2ct/simulation/prevalence.json: marginals, tetrachoric correlations, ages, scans.

Run once, by hand, on tables of CT-RATE's format; only summary statistics are stored, never a row:

    python benchmarks/fit_prevalence.py --labels label_matrix.csv --metadata validation_metadata.csv
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.optimize import brentq
from scipy.stats import multivariate_normal, norm

from text2ct.files import write_json
from text2ct.findings import FINDINGS

TARGET = Path(__file__).resolve().parents[1] / "text2ct" / "simulation" / "prevalence.json"
AGE_QUANTILES = (0.0, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 1.0)

# Correlation of each finding's latent liability with age and with male sex. The label table carries
# neither, so these are chosen, mild on purpose, from the direction of well-known associations: calcification,
# cardiac and degenerative findings rise with age; coronary calcification and emphysema are commoner in men.
AGE_LOADING = {
    "Arterial wall calcification": 0.55,
    "Coronary artery wall calcification": 0.50,
    "Cardiomegaly": 0.30,
    "Hiatal hernia": 0.25,
    "Emphysema": 0.20,
    "Medical material": 0.20,
    "Pleural effusion": 0.20,
    "Pulmonary fibrotic sequela": 0.20,
    "Atelectasis": 0.15,
    "Bronchiectasis": 0.15,
    "Interlobular septal thickening": 0.15,
    "Mosaic attenuation pattern": 0.10,
    "Peribronchial thickening": 0.10,
    "Pericardial effusion": 0.10,
    "Lung nodule": 0.10,
    "Lymphadenopathy": 0.05,
}
SEX_LOADING = {"Coronary artery wall calcification": 0.15, "Emphysema": 0.20, "Hiatal hernia": -0.05}


def tetrachoric(labels: np.ndarray) -> np.ndarray:
    """Correlations of the bivariate normal that give each pair's joint frequency (continuity-corrected)."""
    count = len(labels)
    thresholds = norm.ppf(labels.mean(axis=0))
    joint = np.clip(labels.T @ labels, 0.5, None) / count
    size = labels.shape[1]
    correlation = np.eye(size)
    for i in range(size):
        for j in range(i):
            point = thresholds[[i, j]]

            def excess(rho: float, point: np.ndarray = point, target: float = joint[i, j]) -> float:
                return float(multivariate_normal.cdf(point, cov=[[1.0, rho], [rho, 1.0]])) - target

            correlation[i, j] = correlation[j, i] = brentq(excess, -0.99, 0.99, xtol=1e-4)
    return correlation


def nearest_correlation(matrix: np.ndarray, floor: float = 0.02, rounds: int = 200) -> np.ndarray:
    """Nearest correlation matrix, eigenvalues at least ``floor`` (Higham 2002, alternating projections)."""
    estimate, correction = matrix.copy(), np.zeros_like(matrix)
    for _ in range(rounds):
        shifted = estimate - correction
        values, vectors = np.linalg.eigh(shifted)
        projected = (vectors * np.maximum(values, floor)) @ vectors.T
        correction = projected - shifted
        estimate = projected.copy()
        np.fill_diagonal(estimate, 1.0)
    scale = np.sqrt(np.diag(projected))
    return projected / np.outer(scale, scale)


def loadings(correlation: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Age and sex loadings, shrunk together until the correlation left over stays positive-definite."""
    age = np.array([AGE_LOADING.get(name, 0.0) for name in FINDINGS])
    sex = np.array([SEX_LOADING.get(name, 0.0) for name in FINDINGS])
    for shrink in np.linspace(1.0, 0.0, 101):
        rest = correlation - shrink**2 * (np.outer(age, age) + np.outer(sex, sex))
        if np.linalg.eigvalsh(rest).min() > 0.01:
            return shrink * age, shrink * sex
    raise ValueError("the correlation matrix is not positive-definite")


def frequencies(counts: pd.Series, largest: int) -> list[float]:
    """Share of 1, 2, ... ``largest`` (and more) items."""
    share = counts.clip(upper=largest).value_counts(normalize=True)
    return [round(float(share.get(number, 0.0)), 5) for number in range(1, largest + 1)]


def fit(labels: pd.DataFrame, metadata: pd.DataFrame) -> dict[str, object]:
    table = labels[list(FINDINGS)].to_numpy(dtype=float)
    correlation = nearest_correlation(tetrachoric(table))
    age_loading, sex_loading = loadings(correlation)
    names = metadata["VolumeName"].str.extract(r"^((\w+_\d+)_[a-z]+)_\d+")
    scans = metadata.assign(scan=names[0], patient=names[1]).groupby("scan").first()
    ages = scans["PatientAge"].dropna().astype(str).str.extract(r"(\d+)")[0].astype(float)
    return {
        "source": "fitted by benchmarks/fit_prevalence.py on the labels and metadata of CT-RATE's validation volumes",
        "volumes": len(table),
        "findings": list(FINDINGS),
        "prevalence": [round(float(value), 5) for value in table.mean(axis=0)],
        "joint": np.round(table.T @ table / len(table), 5).tolist(),
        "correlation": np.round(correlation, 4).tolist(),
        "age_loading": np.round(age_loading, 4).tolist(),
        "sex_loading": np.round(sex_loading, 4).tolist(),
        "male_share": round(float((scans["PatientSex"] == "M").mean()), 4),
        "age_quantiles": [[q, float(np.quantile(ages, q))] for q in AGE_QUANTILES],
        "scans_per_patient": frequencies(scans.groupby("patient").size(), 4),
        "reconstructions_per_scan": frequencies(names.groupby(0).size(), 3),
    }


def read_table(parser: argparse.ArgumentParser, path: Path, columns: Sequence[str]) -> pd.DataFrame:
    """Read a CSV that must have the columns; the parser ends the run with one line where it cannot."""
    try:
        table = pd.read_csv(path, low_memory=False)
    except (OSError, ValueError) as error:
        parser.error(f"cannot read {path}: {error}")
    missing = [column for column in columns if column not in table]
    if missing:
        parser.error(f"{path} lacks the columns {', '.join(missing)}")
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--labels", type=Path, required=True, help="a CSV with the 18 findings, one volume a row")
    parser.add_argument("--metadata", type=Path, required=True, help="CT-RATE's metadata CSV of the same volumes")
    parser.add_argument("--out", type=Path, default=TARGET)
    options = parser.parse_args()
    labels = read_table(parser, options.labels, FINDINGS)
    if not labels[list(FINDINGS)].isin([0, 1]).all(axis=None):
        parser.error(f"{options.labels} has labels other than 0 and 1")
    metadata = read_table(parser, options.metadata, ("VolumeName", "PatientAge", "PatientSex"))
    write_json(options.out, fit(labels, metadata))


if __name__ == "__main__":
    main()
