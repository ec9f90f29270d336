"""Statements on what the 18 findings do not cover: other organs, the technique, the past."""

from __future__ import annotations

from dataclasses import dataclass

from text2ct.simulation.text.wording import Normal


@dataclass(frozen=True)
class Distractor:
    """An abnormal statement that belongs to none of the 18 findings.

    Attributes:
        region: Where in the report it stands.
        findings: Templates of the sentence.
        impression: Templates of the item, empty where it is not worth one.
        weight: How often it is chosen relative to others.
    """

    region: str
    findings: tuple[str, ...]
    impression: tuple[str, ...] = ()
    weight: float = 1.0


_MM = "{5|6|7|8|9|12|14|17|21|26}"

DISTRACTORS = (
    Distractor(
        "bones",
        (
            "{Degenerative|Osteodegenerative|Osteophytic degenerative} changes <are> in the {bone "
            "structures|vertebrae|thoracic vertebrae}",
            "{Osteophytes|Osteophyte formations} <are> at the {corners|edges} of the vertebral {bodies|corpora}",
        ),
        (
            "Degenerative changes in {bones|the bone structures|the vertebrae}",
            "{Thoracic spondylosis|Osteodegenerative changes}",
        ),
        weight=5,
    ),
    Distractor(
        "bones",
        (
            "{Left-facing|Right-facing|S-shaped|Mild} scoliosis <is> {in the thoracic region|}",
            "{Dorsal|Thoracic} kyphosis {is|has} increased",
        ),
        ("{Scoliosis|Increased kyphosis}",),
        weight=1.5,
    ),
    Distractor(
        "bones",
        (
            "{Old|Healed} fracture {lines|sequelae} <are> in the {lateral|posterior} parts of the {right|left} ribs",
            "Loss of height <is> in a {mid-thoracic|lower thoracic} vertebral body",
        ),
        ("{Old rib fractures|Vertebral height loss}",),
    ),
    Distractor(
        "bones",
        (
            "A hypodense {lesion|area} compatible with hemangioma <is> in {one|a} thoracic vertebra",
            f"A {_MM} mm sclerotic {{focus|lesion}} (compact bone island?) <is>",
        ),
        ("{Vertebral hemangioma|Compact bone island}",),
    ),
    Distractor(
        "abdomen",
        (
            "{Liver parenchyma density|The density of the liver parenchyma} is {diffusely |}decreased, "
            "{compatible|consistent} with {steatosis|fatty liver|hepatosteatosis}",
            "{Hepatosteatosis|Fatty infiltration of the liver} <is>",
        ),
        ("Hepatosteatosis", "Fatty liver"),
        weight=3,
    ),
    Distractor(
        "abdomen",
        (
            f"A {{hypodense|simple cystic|cortical}} lesion of {_MM} mm {{evaluated as a cyst|(cyst?)}} "
            f"<is> in the {{right|left}} kidney",
            f"A {_MM} mm hypodense {{lesion|area}} <is> in the {{right|left}} lobe of the liver (cyst?)",
        ),
        ("{Renal|Hepatic} cyst", "Cortical cyst in the kidney"),
        weight=2.5,
    ),
    Distractor(
        "abdomen",
        (
            "{Calculi|Millimetric stones|Hyperdense stones} <are> in the {gallbladder|gallbladder lumen}",
            f"A {_MM} mm {{stone|calculus}} <is> in the {{right|left}} kidney",
        ),
        ("Cholelithiasis", "Nephrolithiasis"),
        weight=1.5,
    ),
    Distractor(
        "abdomen",
        (
            "{Gallbladder|The gallbladder} is {operated|not seen, operated}",
            "The spleen is {slightly |}larger than normal",
        ),
        ("{Cholecystectomized|Splenomegaly}",),
    ),
    Distractor(
        "abdomen",
        (
            f"A hypodense nodular {{lesion|thickening}} of {_MM} mm <is> in the {{left|right}} adrenal "
            f"gland (adenoma?)",
            "{Thickening|Fullness} <is> in the left adrenal gland",
        ),
        ("{Adrenal adenoma?|Nodular thickening of the adrenal gland}",),
    ),
    Distractor(
        "airways",
        (
            "{Hypodense nodules|A hypodense nodule} {of millimetric size|} <are> in the thyroid "
            "{gland|lobes}, {US correlation is recommended|ultrasound evaluation is appropriate}",
            "The thyroid {gland is|lobes are} {enlarged|large} and heterogeneous",
        ),
        ("{Thyroid nodule|Nodular thyroid}", "Multinodular goiter?"),
        weight=1.5,
    ),
    Distractor(
        "airways",
        (
            "A {tracheal diverticulum|diverticular air image} <is> on the right posterolateral side of the trachea",
            "Secretion {densities|material} <is> in the tracheal lumen",
        ),
    ),
    Distractor(
        "vessels",
        (
            "The ascending aorta is {ectatic|wide|dilated} and measures {40|41|42|43} mm",
            "{Pulmonary trunk|Pulmonary artery} diameter is {30|31|32|34} mm, wider than normal",
        ),
        ("{Ectasia of the ascending aorta|Dilatation of the pulmonary trunk}",),
        weight=1.5,
    ),
    Distractor(
        "nodes",
        (
            "{Thymic|Residual thymic} tissue <is> in the anterior mediastinum",
            "A triangular density of thymic remnant <is> in the anterior mediastinum",
        ),
        weight=1.5,
    ),
    Distractor(
        "lung",
        (
            "{An air cyst|A thin-walled air cyst|Air cyst} of {4|6|9|11} mm <is> in the {right|left} lower lobe",
            "An azygos {lobe|fissure} <is> as a variation",
        ),
        weight=1.0,
    ),
    Distractor(
        "pleura",
        (
            "{Pleural calcification|Calcified pleural plaques|Focal pleural thickening} <is> in the "
            "{right|left} hemithorax",
            "Minimal pleural thickening <is> on the {right|left}",
        ),
        weight=0.7,
    ),
    Distractor(
        "bones",
        (
            "{Gynecomastia|Bilateral gynecomastia} <is>",
            "{Calcifications|Millimetric calcification} <is> in the {right|left} breast",
        ),
        weight=0.7,
    ),
)

OPENINGS = (
    "{Mediastinal|The mediastinal} structures {cannot be evaluated optimally|were evaluated suboptimally} "
    "{since|because} contrast {agent|material} was not given",
    "The {examination|study} is non-contrast, {evaluation|assessment} of the mediastinum is {limited|suboptimal}",
    "{Optimal evaluation|Evaluation} could not be made {because of|due to} {respiratory|motion|breathing} artifacts",
    "{The current study|This examination} was {compared|evaluated in comparison} with the {previous|former} CT",
)

ENDINGS = (
    "{Clinical|Laboratory and clinical} {correlation|evaluation} is {recommended|appropriate}",
    "{Follow-up|Control} is {recommended|appropriate}",
    "{Interpretation|Assessment} together with {clinical and laboratory findings|clinical findings} {is recommended|}",
)

HEALTHY = (
    "{Thoracic CT|Thorax CT|Chest CT} findings within normal limits",
    "{Examination|CT examination|The examination} is within normal limits",
    "No {significant|obvious} pathology was {detected|observed} in the {thorax|chest}",
    "{Normal|Natural} {thoracic|thorax} CT",
    "No {finding|findings} in favor of pneumonia",
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
        chance=0.8,
    ),
    Normal(
        "bones",
        (
            "{Vertebral body heights|The heights of the vertebrae} and alignment are {preserved|natural}",
            "The {intervertebral|disc} spaces are preserved",
        ),
        chance=0.3,
    ),
    *(
        Normal("abdomen", text, chance=0.5, detail=True)
        for text in (
            (
                "The {size and contours|contour and dimensions} of the liver are {natural|normal}",
                "No {focal|solid or cystic} lesion <no> in the {visible|imaged} liver parenchyma",
            ),
            (
                "{Gallbladder and bile ducts|The gallbladder and biliary tract} are {natural|normal}",
                "No dilatation of the {intrahepatic|intra or extrahepatic} bile ducts <no>",
            ),
            (
                "The spleen is {of normal size and density|homogeneous and of natural size}",
                "{Spleen size|The size and density of the spleen} is {natural|normal}",
            ),
            (
                "{Pancreatic|The pancreatic} contour and {density|parenchyma} are {natural|normal}",
                "No {mass|ductal dilatation} <no> in the pancreas",
            ),
            (
                "{Both kidneys|The imaged parts of both kidneys} are {natural|normal} {in size and "
                "parenchymal thickness|}",
                "No {hydronephrosis|solid mass} <no> in {the kidneys|either kidney}",
            ),
            (
                "The {abdominal aorta|portal vein and abdominal aorta} {is|are} of {natural|normal} calibration",
                "No {pathological|enlarged} node <no> in the {paraaortic|upper abdominal} region",
            ),
            (
                "{Gastric|Stomach} wall thickness cannot be evaluated {because of|due to} insufficient distension",
                "No {obstruction|wall thickening} <no> in the visible bowel {segments|loops}",
            ),
        )
    ),
    Normal(
        "bones",
        (
            "{Soft tissues|Muscles and soft tissues} of the {chest wall|thoracic wall} are {natural|normal}",
            "No {acute fracture|acute bone lesion} <no> in the {ribs|vertebrae} within the sections",
        ),
        chance=0.5,
        detail=True,
    ),
    Normal(
        "airways",
        (
            "The thyroid gland is {natural|of normal size}",
            "No mass <no> in the thyroid {gland|lobes}",
        ),
        chance=0.3,
        detail=True,
    ),
)
