"""Normal and negative statements on the lung parenchyma."""

from __future__ import annotations

from text2ct.simulation.text.nodules import MASS
from text2ct.simulation.text.wording import Normal

_ANY = (
    "Emphysema",
    "Atelectasis",
    "Lung nodule",
    "Lung opacity",
    "Pulmonary fibrotic sequela",
    "Mosaic attenuation pattern",
    "Peribronchial thickening",
    "Consolidation",
    "Bronchiectasis",
    "Interlobular septal thickening",
)
_ACUTE = ("Lung opacity", "Consolidation")

NORMALS = (
    Normal(
        "lung",
        (
            "{Aeration of both lungs|The aeration of both lung parenchyma|Both lung parenchyma aeration} "
            "is {normal|natural} and no {nodular|nodule} "
            "or {infiltrative lesion|infiltration} <no>",
            "No {nodule, mass or infiltration|infiltration-nodule-mass|infiltrative or nodular lesion} "
            "<no> in {both lungs|both lung parenchyma}",
            "{Both lungs are|Lung parenchyma is} {natural|normal} in aeration, no {focal|space-occupying} lesion <no>",
        ),
        unless=(*_ANY, "lung air cyst"),
        chance=0.97,
    ),
    Normal(
        "lung",
        (
            "No {mass|mass lesion} or {infiltrative lesion|active infiltration} <no> in {either lung|the "
            "lungs|the parenchyma}",
            "No {active infiltration|pneumonic infiltration|consolidation or infiltration|infiltrative "
            "lesion} <no> {in the parenchyma|in either lung|}",
            "{There is no finding|No finding} {compatible with|suggesting} pneumonia {in both lungs|}",
        ),
        unless=(*_ACUTE, MASS),
        chance=0.5,
    ),
    Normal(
        "lung",
        (
            "No {mass|mass lesion with distinguishable borders|suspicious mass} <no> in {either lung|the lungs}",
            "No {other |}{mass|mass lesion} <no> {in both lung parenchyma|in the remaining parenchyma}",
        ),
        unless=(MASS,),
        chance=0.2,
    ),
    Normal(
        "lung",
        (
            "No {nodule|nodular lesion|suspicious nodule} <no> {in both lungs|in the lung parenchyma}",
            "{There is no|No} {parenchymal |}nodule {in either lung|in both lungs}",
        ),
        unless=("Lung nodule",),
        chance=0.06,
    ),
)

OPENINGS = (
    "When {examined|evaluated|viewed} {with|at} the {lung parenchyma|parenchyma} window",
    "In the {evaluation|examination} of the {parenchyma of both lungs|lungs}",
    "In the {lung window|lung window settings|parenchyma window of the lungs}",
    "",
    "",
)
