"""Words for hiatal hernia and for an unremarkable esophagus."""

from __future__ import annotations

from text2ct.simulation.text.wording import Normal, Wording

_END = (
    "{the lower esophageal end|the distal esophagus|the esophagogastric junction|the "
    "gastroesophageal junction|the hiatal level}"
)

WORDINGS = {
    "Hiatal hernia": Wording(
        region="esophagus",
        findings={
            "": (
                f"{{A|}} sliding type {{hiatal|<mild> hiatal}} hernia <is> at {_END}",
                "There is a <mild> {hiatal hernia|sliding hiatal hernia|hernia at the hiatus}",
                f"<mild> hiatal hernia <is> {{|at {_END}}}",
                f"A <mild> {{sliding|sliding-type}} hiatal hernia <is> {{at {_END}|}}",
                "{Herniation of the stomach|Stomach herniation|Gastric herniation} {through the esophageal "
                "hiatus|into the thorax} {of about <size>|} <is> (hiatal hernia)",
                "A hiatal hernia {measuring|with a width of} <size> <is>",
                "{The esophageal hiatus is wide|The hiatus is enlarged} and a <mild> hiatal hernia <is>",
                f"In {_END}, {{there is|}} a {{hernia|hiatal hernia}} of <mild> sliding type",
                "Hiatal hernia {containing the gastric fundus|in which part of the stomach enters the thorax} <is>",
                "Part of the {stomach|gastric fundus} is {herniated|displaced} above the diaphragm, hiatal hernia <is>",
            )
        },
        impression={
            "": (
                "<mild> hiatal hernia",
                "Hiatal hernia",
                "Sliding {type |}hiatal hernia",
                "{Hernia at the hiatus|Hiatus hernia}",
            )
        },
    )
}

NORMALS = (
    Normal(
        "esophagus",
        (
            "{Thoracic esophagus|The thoracic esophagus|Esophagus} calibration is {normal|natural} and no "
            "{tumoral|pathological|significant} "
            "wall thickening <no>",
            "No {pathological|significant} {wall thickening|increase in wall thickness} of the esophagus <no>",
            "{Esophageal|Thoracic esophageal} caliber and wall {are|appear} {normal|natural}",
        ),
        chance=0.55,
    ),
    Normal(
        "esophagus",
        ("{The esophagus|Esophagus} is {natural|normal|within normal limits}",),
        unless=("Hiatal hernia",),
        chance=0.2,
    ),
)
