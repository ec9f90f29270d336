"""Words for bronchiectasis and thickened bronchial walls, and for open airways."""

from __future__ import annotations

from text2ct.simulation.text.wording import Joint, Normal, Wording, one_or_both

ECTASIA = "Bronchiectasis"
WALLS = "Peribronchial thickening"
_ECTASIA = (
    "{bronchiectasis|bronchiectatic changes|tubular bronchiectasis|cylindrical "
    "bronchiectasis|bronchiectatic dilatations|"
    "traction bronchiectasis|bronchiectasis}"
)
_WALLS = (
    "{peribronchial thickening|peribronchial thickenings|bronchial wall thickening|peribronchial wall "
    "thickening|"
    "thickening of the peribronchial sheath|peribronchial thickness increase|increase in peribronchial "
    "thickness}"
)


_THICK = (
    f"<mild> {_WALLS} <is> in <place>",
    f"There is <mild> {_WALLS} in <place>",
    f"{_WALLS} {{of <grade> degree|}} <is> in <place>",
    f"In <place>, {_WALLS} <is>",
    "The bronchial walls are <mildly> thickened in <place>, {peribronchial cuffing|peribronchial thickening} <is>",
    "Thickening {of the peribronchovascular sheath|along the peribronchial sheath|in the "
    "peribronchial area} <is> in <place>",
    "<mild> {thickening of the bronchial walls|thickened bronchial walls} in <place> <is> {(bronchitis?)|}",
    f"{_WALLS} extending from the hilar {{region|regions}} {{toward|to}} <place> <is>",
    "Peribronchial thickness is increased in <place> {, of <grade> degree|}",
)
_THICK_ITEMS = (
    f"<mild> {_WALLS} in <place>",
    f"{_WALLS} {{|(bronchitis?)}}",
    "Peribronchial {thickening|thickenings} {in <place>|}",
)

WORDINGS = {
    ECTASIA: Wording(
        region="lung",
        findings={
            "": (
                f"<mild> {_ECTASIA} <is> in <place>",
                f"There is <mild> {_ECTASIA} in <place>",
                f"{_ECTASIA}, of <grade> degree, <is> in {{the central parts of|}} <place>",
                "{The bronchi|Bronchi} in <place> are <mildly> {dilated|ectatic|widened} "
                "{(bronchiectasis)|in favor of bronchiectasis}",
                f"In <place>, {{segmental|segmentary-subsegmental|peripheral}} {_ECTASIA} <is>",
                "<mild> {dilatation|enlargement} of the bronchi {consistent|compatible} with "
                "bronchiectasis <is> in <place>",
                "Bronchiectatic {segments|changes} <are> in <place>, of <grade> degree",
                f"{_ECTASIA} {{filled with secretions|with a caliber of up to <size>|}} <is> in <place>",
                "{Ectasia of the bronchi|Cystic bronchiectasis|Bronchial ectasia} <is> in <place>",
            )
        },
        impression={
            "": (
                f"<mild> {_ECTASIA} in <place>",
                "Bronchiectasis",
                "Bronchiectatic changes in <place>",
                "Bronchiectasis, of <grade> degree, in <place>",
            )
        },
    ),
    WALLS: Wording(
        region="lung",
        variant=one_or_both,
        findings={"one": _THICK, "both": (*_THICK, f"Bilateral {_WALLS} {{of <grade> degree|}} <is> in <place>")},
        impression={"one": _THICK_ITEMS, "both": _THICK_ITEMS},
    ),
}

JOINTS = (
    Joint(
        pair=(ECTASIA, WALLS),
        region="lung",
        chance=0.45,
        findings=(
            "<mild> bronchiectasis in <place> and <mild_b> peribronchial {thickening|wall thickening} in "
            "<place_b> <are>",
            "There is bronchiectasis in <place>, and {the bronchial walls are thickened|peribronchial "
            "thickening <is>} in <place_b>",
            "{Tubular bronchiectasis|Bronchiectatic changes} <are> in <place>; peribronchial thickenings "
            "{accompany in|<are> in} <place_b>",
        ),
        impression=(
            "{Bronchiectasis|<mild> bronchiectasis} and {peribronchial thickening|peribronchial thickenings}",
            "Bronchiectasis in <place>, peribronchial thickening",
        ),
    ),
)

NORMALS = (
    Normal(
        "airways",
        (
            "{Trachea|The trachea} and {the main bronchi of both sides|right and left main bronchi} are {open|patent}",
            "{Trachea, left and right main bronchi|The lumens of the trachea and both main bronchi|Lumens "
            "of the trachea and main bronchi} are {open|clear}",
            "{Trachea and both main bronchi|The trachea and main bronchi} are {in the midline|of normal "
            "calibration} and {clear|open}",
            "The trachea is in the midline, {the main bronchi|both main bronchi} {are|appear} {natural|open|normal}",
        ),
        unless=("tracheal diverticulum or secretions",),
        chance=0.9,
    ),
    Normal(
        "airways",
        (
            "No {occlusive|obstructive} pathology <no> in the {airway lumen|tracheal lumen|trachea or main bronchi}",
            "There is no {obstructive|occlusive} lesion {of the central airways|in the airway lumens}",
        ),
        unless=("tracheal diverticulum or secretions",),
        chance=0.45,
    ),
)
