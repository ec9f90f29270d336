"""Words for calcified plaques of the aorta and the coronary arteries, and for unremarkable vessels."""

from __future__ import annotations

from text2ct.simulation.text.wording import Joint, Normal, Wording

AORTA = "Arterial wall calcification"
CORONARY = "Coronary artery wall calcification"
_PLAQUES = (
    "{calcific atheroma plaques|calcified atheroma plaques|calcified atheromatous plaques|atheroma "
    "plaques|calcific plaques|"
    "calcified atherosclerotic plaques|wall calcifications|calcific atherosclerotic "
    "changes|atherosclerotic changes|"
    "atherosclerotic wall calcifications}"
)
_FINE = "{millimetric|millimetric sized|}"

WORDINGS = {
    AORTA: Wording(
        region="vessels",
        findings={
            "": (
                f"<mild> {_PLAQUES} <are> in <place>",
                f"There are {_FINE} {_PLAQUES} in <place>",
                f"{_PLAQUES} <are> {{in|on}} the wall of <place>",
                f"<mild> {_PLAQUES} in the wall of <place> <are>",
                "The wall of <place> {shows|has} <mild> calcification{s|}",
                "<mild> calcification{s|} <are> along <place>",
                f"{_FINE} calcific foci compatible with atherosclerosis <are> in <place>",
                "{Vascular wall calcifications|Calcification of the vessel wall} <are> in <place>, of <grade> degree",
                f"<place> has <mild> {_PLAQUES}",
                "{The aorta|Aorta} is {elongated|tortuous} and {calcific plaques|atheroma plaques|wall "
                "calcifications} <are> in <place>",
            )
        },
        impression={
            "": (
                f"<mild> {_PLAQUES} in <place>",
                "{Atherosclerosis of the aorta|Aortic atherosclerosis|Atherosclerotic changes in the aorta}",
                "Calcified plaques {of|in} <place>",
                "{Atherosclerotic|Calcific} wall changes in <place>",
            )
        },
    ),
    CORONARY: Wording(
        region="vessels",
        findings={
            "": (
                f"<mild> {_PLAQUES} <are> in <place>",
                f"There are {_FINE} {_PLAQUES} in <place>",
                "{Coronary artery calcification|Coronary calcifications|Coronary wall calcifications} "
                "<are>, of <grade> degree, in <place>",
                f"{_PLAQUES} <are> {{along|on the wall of|in the wall of}} <place>",
                "Calcification{s|} of <grade> degree <are> {in|along} the coronary {arteries|tree}",
                "<mild> calcifications <are> in the walls of <place>",
                f"In <place>, <mild> {_PLAQUES} <are>",
                "Coronary arteries {show|contain|have} <mild> calcific {plaques|atheroma plaques}",
                f"{_FINE} calcific plaques belonging to the coronary {{arteries|vessels}} <are>",
            )
        },
        impression={
            "": (
                f"<mild> {_PLAQUES} in <place>",
                "{Coronary artery|Coronary} {calcifications|atherosclerosis|wall calcification}",
                "{Atherosclerotic changes|Calcific plaques} in the coronary arteries",
                "Calcified coronary {plaques|atheroma plaques}",
            )
        },
    ),
}

JOINTS = (
    Joint(
        pair=(AORTA, CORONARY),
        region="vessels",
        chance=0.65,
        findings=(
            f"<mild> {_PLAQUES} <are> both in {{the aorta|<place>}} and {{the coronary arteries|in coronary arteries}}",
            f"There are <mild> {_PLAQUES} in {{<place>|the thoracic aorta}} and the coronary {{arteries|artery walls}}",
            f"{_FINE} {_PLAQUES} <are> on the walls of <place> and {{<place_b>|coronary arteries}}",
            "<place> and the coronary arteries {have|show} <mild> {calcific "
            "plaques|calcifications|atheroma plaques} {in their walls|}",
            f"{_PLAQUES} <are> in <place> and in the coronary arteries",
            f"{_PLAQUES} of <grade> extent <are> in {{the aorta|the thoracic aorta}} and in <place_b>",
        ),
        impression=(
            f"<mild> {_PLAQUES} in the aorta and {{coronary arteries|the coronary arteries}}",
            "{Aortic and coronary|Coronary and aortic} {atherosclerosis|calcifications|wall calcifications}",
            f"{_PLAQUES} of <place> and coronary arteries",
        ),
    ),
)

NORMALS = (
    Normal(
        "vessels",
        (
            "{The calibration|Calibration|The caliber} of the {mediastinal|thoracic} {main|major} vascular "
            "structures is {normal|natural}",
            "{The main|The major} vascular structures of the mediastinum {are|appear} {normal|natural}",
            "{Mediastinal|The} vascular structures have a {natural|normal} {appearance|calibration}",
            "{The widths|The diameters|Widths} of the mediastinal {main|great} vessels are {normal|natural}",
        ),
        unless=("ectatic ascending aorta", "wide pulmonary trunk"),
        chance=0.8,
    ),
    Normal(
        "vessels",
        (
            "{The thoracic aorta|Thoracic aorta} is of {normal|natural} diameter",
            "No {aneurysm|dilatation|aneurysmatic dilatation} of the thoracic aorta <no>",
            "The diameter of the {ascending aorta|aortic arch and descending aorta} is {normal|within normal limits}",
        ),
        unless=("ectatic ascending aorta",),
        chance=0.4,
    ),
    Normal(
        "vessels",
        (
            "No calcific atheroma plaque <no> in the {aorta|aorta and coronary arteries}",
            "No coronary calcification <no>",
        ),
        unless=(AORTA, CORONARY),
        chance=0.03,
    ),
)
