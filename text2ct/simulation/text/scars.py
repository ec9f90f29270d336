"""Words for atelectasis and for fibrotic sequelae."""

from __future__ import annotations

from text2ct.simulation.text.wording import Joint, Wording

ATELECTASIS = "Atelectasis"
SEQUELA = "Pulmonary fibrotic sequela"
_ATELECTASIS = (
    "{linear atelectasis|subsegmental atelectasis|atelectatic changes|linear-subsegmental "
    "atelectasis|atelectasis|atelectasis areas|"
    "linear subsegmental atelectatic changes|plate-like atelectasis|band atelectasis}"
)
_SEQUELA = (
    "{sequelae changes|pleuroparenchymal sequelae changes|pleuroparenchymal sequelae density "
    "increases|sequela fibrotic changes|"
    "pleuroparenchymal sequela fibrotic bands|fibrotic changes|fibroatelectatic sequelae "
    "changes|pleuroparenchymal bands|sequela parenchymal bands}"
)

WORDINGS = {
    ATELECTASIS: Wording(
        region="lung",
        findings={
            "": (
                f"<mild> {_ATELECTASIS} <is> in <place>",
                f"There is <mild> {_ATELECTASIS} {{affecting|located in|involving}} <place>",
                f"In <place>, {_ATELECTASIS} <is>",
                "{Passive|Compressive|Segmental} atelectasis, of <grade> degree, <is> in <place>",
                "{Volume loss|Loss of volume} and {atelectasis|atelectatic changes} <are> in <place>",
                "Linear {densities|density increases} {evaluated in favor of|consistent with} atelectasis "
                "<are> in <place>",
                "{Areas of|Occasional|A focus of} {linear|subsegmental|subsegmentary} atelectasis <is> in <place>",
                "<place> {is|are} partly atelectatic {, the hemidiaphragm is elevated|}",
                f"{_ATELECTASIS} {{in the dependent areas|of <grade> degree|with reduced volume|}} <is> in <place>",
            )
        },
        impression={
            "": (
                f"<mild> {_ATELECTASIS} in <place>",
                "Atelectasis {in <place>|}",
                "{Linear|Subsegmental} atelectatic changes {in <place>|}",
                f"{_ATELECTASIS}",
            )
        },
    ),
    SEQUELA: Wording(
        region="lung",
        findings={
            "": (
                f"<mild> {_SEQUELA} <are> in <place>",
                f"There are <mild> {_SEQUELA} in <place>",
                f"In <place>, {_SEQUELA} {{|accompanied by pleural retraction|causing structural distortion}} <are>",
                f"{_SEQUELA} {{at|in}} <place> <are>",
                "{Fibrotic|Sequela fibrotic|Fibroatelectatic} density increases <are> in <place>, of <grade> degree",
                "<mild> {pleuroparenchymal|parenchymal} fibrotic {recessions|bands|scarring} <are> in <place>",
                "Densities {compatible|consistent} with {old infection sequelae|pleuroparenchymal "
                "sequelae} <are> in <place>",
                "{Apical|Parenchymal} {sequela|sequelae} {thickening|scarring|fibrosis} <is> in <place>",
                f"{_SEQUELA}, {{evaluated as post-infectious|probably due to a previous "
                f"infection|stable}}, <are> in <place>",
            )
        },
        impression={
            "": (
                f"<mild> {_SEQUELA} in <place>",
                "{Sequelae changes|Sequela changes} in <place>",
                "{Fibrotic sequelae|Pleuroparenchymal sequelae} {in <place>|}",
            )
        },
    ),
}

JOINTS = (
    Joint(
        pair=(SEQUELA, ATELECTASIS),
        region="lung",
        chance=0.25,
        findings=(
            "Sequelae {changes|density increases} in <place> and {linear |}atelectasis in <place_b> <are>",
            "There are {pleuroparenchymal sequelae|fibrotic bands} in <place>, and atelectatic changes in <place_b>",
        ),
        impression=(
            "{Sequelae changes|Pleuroparenchymal sequelae} and atelectasis",
            "Atelectasis in <place_b>, sequelae in <place>",
        ),
    ),
)
