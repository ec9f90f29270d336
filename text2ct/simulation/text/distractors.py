"""Statements on what neither the findings nor the image cover: other organs, the technique, the past."""

from __future__ import annotations

from dataclasses import dataclass

from text2ct.simulation.text.wording import Normal


@dataclass(frozen=True)
class Statement:
    """An abnormal statement that belongs to none of the 18 findings and is not painted, so it gives no number.

    Attributes:
        kind: Its name, which `Normal.unless` knows.
        region: Where in the report it stands.
        findings: Templates of the sentence.
        impression: Templates of the item, empty where it is not worth one.
        weight: How often it is chosen relative to others.
    """

    kind: str
    region: str
    findings: tuple[str, ...]
    impression: tuple[str, ...] = ()
    weight: float = 1.0


# Distractors and statements that make a normal statement of an organ untrue.
_LIVER = ("hepatic cyst", "hepatosteatosis")
_BILIARY = ("gallstone", "cholecystectomy")
_KIDNEYS = ("renal cyst", "kidney stone")
_SPLEEN = ("splenomegaly",)
_ADRENALS = ("adrenal lesion",)
_ALIGNMENT = ("scoliosis", "kyphosis", "vertebral height loss")
_BONES = (*_ALIGNMENT, "osteophytes", "old rib fracture", "vertebral haemangioma", "compact bone island")

# What is painted too has its words in `text2ct.simulation.distractors`.
STATEMENTS = (
    Statement(
        "kyphosis",
        "bones",
        ("{Dorsal|Thoracic} kyphosis {is|has} increased",),
        ("Increased kyphosis",),
        weight=0.75,
    ),
    Statement(
        "vertebral height loss",
        "bones",
        ("Loss of height <is> in a {mid-thoracic|lower thoracic} vertebral body",),
        ("Vertebral height loss",),
        weight=0.5,
    ),
    Statement(
        "splenomegaly",
        "abdomen",
        ("The spleen is {slightly |}larger than normal",),
        ("Splenomegaly",),
        weight=0.5,
    ),
    Statement(
        "adrenal lesion",
        "abdomen",
        (
            "A hypodense nodular {lesion|thickening} <is> in the {left|right} adrenal gland (adenoma?)",
            "{Thickening|Fullness} <is> in the left adrenal gland",
        ),
        ("{Adrenal adenoma?|Nodular thickening of the adrenal gland}",),
    ),
    Statement(
        "goitre",
        "airways",
        ("The thyroid {gland is|lobes are} {enlarged|large} and heterogeneous",),
        ("Multinodular goiter?",),
        weight=0.75,
    ),
    Statement(
        "tracheal diverticulum or secretions",
        "airways",
        (
            "A {tracheal diverticulum|diverticular air image} <is> on the right posterolateral side of the trachea",
            "Secretion {densities|material} <is> in the tracheal lumen",
        ),
    ),
    Statement(
        "wide pulmonary trunk",
        "vessels",
        ("{Pulmonary trunk|Pulmonary artery} {diameter|caliber} is wider than normal",),
        ("Dilatation of the pulmonary trunk",),
        weight=0.75,
    ),
    Statement(
        "thymic remnant",
        "nodes",
        (
            "{Thymic|Residual thymic} tissue <is> in the anterior mediastinum",
            "A triangular density of thymic remnant <is> in the anterior mediastinum",
        ),
        weight=1.5,
    ),
    Statement(
        "azygos lobe",
        "lung",
        ("An azygos {lobe|fissure} <is> as a variation",),
        weight=0.5,
    ),
    Statement(
        "pleural thickening",
        "pleura",
        (
            "{Pleural calcification|Calcified pleural plaques|Focal pleural thickening} <is> in the "
            "{right|left} hemithorax",
            "Minimal pleural thickening <is> on the {right|left}",
        ),
        weight=0.7,
    ),
    Statement(
        "breast change",
        "bones",
        ("{Calcifications|Millimetric calcification} <is> in the {right|left} breast",),
        weight=0.7,
    ),
)

OPENINGS = (
    "{Mediastinal|The mediastinal} structures {cannot be evaluated optimally|were evaluated suboptimally} "
    "{since|because} contrast {agent|material} was not given",
    "The {examination|study} is non-contrast, {evaluation|assessment} of the mediastinum is {limited|suboptimal}",
    "{The current study|This examination} was {compared|evaluated in comparison} with the {previous|former} CT",
)

# Said only of scans whose image is blurred by motion.
MOTION = (
    "{Optimal evaluation|Evaluation} could not be made {because of|due to} {respiratory|motion|breathing} artifacts",
    "{Respiratory|Motion|Breathing} artifacts {limit|reduce} {evaluation|assessment} of the {lung bases|lower zones}",
)

ENDINGS = (
    "{Clinical|Laboratory and clinical} {correlation|evaluation} is {recommended|appropriate}",
    "{Follow-up|Control} is {recommended|appropriate}",
    "{Interpretation|Assessment} together with {clinical and laboratory findings|clinical findings} {is recommended|}",
)

# An Impression without a single item: of a report that describes nothing, and of one with trifles only.
HEALTHY = (
    "{Thoracic CT|Thorax CT|Chest CT} findings within normal limits",
    "{Examination|CT examination|The examination} is within normal limits",
    "No {significant|obvious} pathology was {detected|observed} in the {thorax|chest}",
    "{Normal|Natural} {thoracic|thorax} CT",
    "No {finding|findings} in favor of pneumonia",
)
NOTHING_ACUTE = (
    "No {finding|findings} in favor of pneumonia",
    "No {acute|active} {thoracic |}pathology was {detected|observed}",
)

NORMALS = (
    Normal(
        "abdomen",
        (
            "{Upper abdominal|The upper abdominal} {organs|sections} {in the field of study|entering the "
            "sections|covered by the examination} are {normal|natural}",
            "No {significant |}pathology <no> in the {upper abdominal sections|sections through the upper abdomen}",
            "{Liver, spleen and pancreas|The visible liver and spleen} {are|appear} {natural|normal}",
        ),
        unless=(*_LIVER, *_BILIARY, *_KIDNEYS, *_SPLEEN, *_ADRENALS),
        chance=0.75,
    ),
    Normal(
        "abdomen",
        (
            "{Both|The right and left|Bilateral} adrenal {glands|gland calibrations} are {natural|normal} "
            "{, no space-occupying lesion <no>|}",
            "No {mass|space-occupying lesion} <no> in the adrenal glands",
            "No {free fluid|fluid collection|free fluid or collection} <no> in the upper abdomen",
        ),
        unless=_ADRENALS,
        chance=0.6,
    ),
    Normal(
        "bones",
        (
            "{Bone structures|The bone structures|Bones} {in the examination area|within the sections|} "
            "are {natural|normal}",
            "No {lytic-destructive|lytic or destructive} lesion <no> in the {bones|bone structures}",
            "{Vertebral corpus heights|Heights of the vertebral bodies} are {preserved|natural|normal}",
        ),
        unless=_BONES,
        chance=0.8,
    ),
    Normal(
        "bones",
        (
            "{Vertebral body heights|The heights of the vertebrae} and alignment are {preserved|natural}",
            "The {intervertebral|disc} spaces are preserved",
        ),
        unless=_ALIGNMENT,
        chance=0.3,
    ),
    *(
        Normal("abdomen", text, unless, chance=0.5, detail=True)
        for unless, text in (
            (
                _LIVER,
                (
                    "The {size and contours|contour and dimensions} of the liver are {natural|normal}",
                    "No {focal|solid or cystic} lesion <no> in the {visible|imaged} liver parenchyma",
                ),
            ),
            (
                _BILIARY,
                (
                    "{Gallbladder and bile ducts|The gallbladder and biliary tract} are {natural|normal}",
                    "No dilatation of the {intrahepatic|intra or extrahepatic} bile ducts <no>",
                ),
            ),
            (
                _SPLEEN,
                (
                    "The spleen is {of normal size and density|homogeneous and of natural size}",
                    "{Spleen size|The size and density of the spleen} is {natural|normal}",
                ),
            ),
            (
                (),
                (
                    "{Pancreatic|The pancreatic} contour and {density|parenchyma} are {natural|normal}",
                    "No {mass|ductal dilatation} <no> in the pancreas",
                ),
            ),
            (
                _KIDNEYS,
                (
                    "{Both kidneys|The imaged parts of both kidneys} are {natural|normal} {in size and "
                    "parenchymal thickness|}",
                    "No {hydronephrosis|solid mass} <no> in {the kidneys|either kidney}",
                ),
            ),
            (
                (),
                (
                    "The {abdominal aorta|portal vein and abdominal aorta} {is|are} of {natural|normal} calibration",
                    "No {pathological|enlarged} node <no> in the {paraaortic|upper abdominal} region",
                ),
            ),
            (
                (),
                (
                    "{Gastric|Stomach} wall thickness cannot be evaluated {because of|due to} insufficient distension",
                    "No {obstruction|wall thickening} <no> in the visible bowel {segments|loops}",
                ),
            ),
        )
    ),
    Normal(
        "bones",
        (
            "{Soft tissues|Muscles and soft tissues} of the {chest wall|thoracic wall} are {natural|normal}",
            "No {acute fracture|acute bone lesion} <no> in the {ribs|vertebrae} within the sections",
        ),
        unless=("breast change",),
        chance=0.5,
        detail=True,
    ),
    Normal(
        "airways",
        (
            "The thyroid gland is {natural|of normal size}",
            "No mass <no> in the thyroid {gland|lobes}",
        ),
        unless=("thyroid nodule", "goitre"),
        chance=0.3,
        detail=True,
    ),
)
