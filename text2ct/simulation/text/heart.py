"""Words for the heart's size and the pericardium."""

from __future__ import annotations

from text2ct.simulation.instance import Instance
from text2ct.simulation.text.wording import Joint, Normal, Wording

HEART = "Cardiomegaly"
PERICARDIUM = "Pericardial effusion"
_EFFUSION = "{pericardial effusion|effusion in the pericardial space|effusion in the pericardium|pericardial fluid}"


def _variant(instance: Instance) -> str:
    return "thin" if instance.grade == "mild" else "thick"


_FLUID = (
    f"<mild> {_EFFUSION} <is>",
    f"There is <mild> {_EFFUSION}, measuring <size> {{at its thickest point|in its thickest "
    f"part|at its deepest point}}",
    "{An effusion|Effusion|Fluid} {reaching|measuring up to} <size> {in thickness|in its "
    "thickest part} <is> in the {pericardial space|pericardium}",
    "Pericardial effusion {with a depth of|with a thickness of|of} <size> <is>",
    "<mild> {effusion|fluid} <is> between the pericardial {leaves|layers}",
    "The pericardial space contains <mild> {fluid|effusion} {|, <size> at the thickest point}",
    "{Pericardial thickening-effusion|Pericardial effusion-thickening} {of <size>|} <is>",
    "There is {pericardial effusion|fluid around the heart} {in <grade> amount|}",
    "A <size> thick pericardial effusion <is> {adjacent to|around} the {left ventricle|heart|right heart}",
)
_FLUID_ITEMS = (
    "<mild> pericardial effusion",
    "Pericardial effusion {|(<size>)}",
    "{Effusion in the pericardium|Fluid in the pericardial space}",
)

WORDINGS = {
    HEART: Wording(
        region="heart",
        findings={
            "": (
                "{Cardiothoracic index|The cardiothoracic index|The cardiothoracic ratio|Cardiothoracic "
                "ratio|CTR} {has increased|increased|is increased} "
                "in favor of the heart {|(cardiomegaly)}",
                "{The heart|Heart} size {has increased|increased|is increased} <mildly> {|(cardiomegaly)}",
                "{The heart|Heart} {is|appears|was observed to be} <mildly> {larger than normal|larger than usual}",
                "<mild> cardiomegaly <is>",
                "There is <mild> {cardiomegaly|enlargement of the heart|increase in heart size}",
                "{Heart dimensions|The dimensions of the heart|Dimensions of the heart} {have "
                "increased|are increased} {|, especially the left ventricle|}",
                "<mild> increase in {the cardiothoracic ratio|CTR|the cardiothoracic index} in favor of the heart <is>",
                "The {heart chambers are|heart is} <mildly> enlarged {and the cardiothoracic ratio is increased|}",
                "{The transverse diameter of the heart is|Heart transverse diameter measures} <size> and "
                "{increased|above normal|cardiomegaly is present}",
                "{Left ventricle|Left atrium|Both atria} {is|are} {wide|dilated} and the heart is {large|enlarged}",
            )
        },
        impression={
            "": (
                "<mild> cardiomegaly",
                "Cardiomegaly",
                "{Increase in the cardiothoracic ratio|Increased cardiothoracic index|Increased CTR} {in "
                "favor of the heart|}",
                "{Increased heart size|Enlarged heart|Increase in heart dimensions}",
            )
        },
    ),
    PERICARDIUM: Wording(
        region="pericardium",
        variant=_variant,
        findings={
            "thin": (*_FLUID, "{Smear-like|Smearing style|Thin smear} effusion <is> in the pericardial space"),
            "thick": _FLUID,
        },
        impression={"thin": _FLUID_ITEMS, "thick": _FLUID_ITEMS},
    ),
}

JOINTS = (
    Joint(
        pair=(HEART, PERICARDIUM),
        region="heart",
        chance=0.25,
        findings=(
            "The heart is {larger than normal|enlarged} and <mild_b> pericardial effusion <is>",
            "{Cardiomegaly|Increase in CTR} and {pericardial effusion|effusion in the pericardial space} "
            "{of <size_b>|} <are>",
        ),
        impression=("{Cardiomegaly and|Cardiomegaly,} <mild_b> pericardial effusion",),
    ),
)

NORMALS = (
    Normal(
        "heart",
        (
            "{The heart's|Cardiac} contour and {size|dimensions} {are|appear} {normal|natural}",
            "{Heart size|The size of the heart} is {normal|within normal limits|natural}",
            "{CTR|The cardiothoracic ratio|The cardiothoracic index|Cardiothoracic index} is "
            "{normal|natural|in the normal range}",
            "{Dimensions|The dimensions} of the heart and its {chambers|compartments} {are|appear} {natural|normal}",
        ),
        unless=(HEART,),
        chance=0.9,
    ),
    Normal(
        "pericardium",
        (
            "Pericardial {effusion-thickening|thickening-effusion|effusion} <not>",
            "Pericardial {effusion or thickening|thickening or effusion} <not>",
            "No {fluid|effusion} <no> in the pericardial {space|area}",
            "There is no pericardial {effusion|effusion or thickening}",
        ),
        unless=(PERICARDIUM,),
        chance=0.75,
    ),
    Normal(
        "pericardium",
        (
            "No {pleural or pericardial|pericardial or pleural} {fluid|effusion-thickening} <no>",
            "There is no {pleural-pericardial|pericardial and pleural} effusion",
        ),
        unless=(PERICARDIUM, "Pleural effusion", "pleural thickening"),
        chance=0.2,
    ),
)
