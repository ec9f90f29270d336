"""Words for lymph nodes: CT-RATE's label counts every node worth describing, enlarged or not."""

from __future__ import annotations

from text2ct.simulation.instance import Instance
from text2ct.simulation.text.wording import Normal, Wording

_NODES = "{lymph nodes|lymph nodes|LAPs|lymphadenopathies|lymph node images}"
_STATIONS = "{paratracheal, aortopulmonary|aorticopulmonary window|prevascular, subcarinal|bilateral hilar}"


def _variant(instance: Instance) -> str:
    return instance.site if instance.site in ("mediastinal", "hilar", "axillary") else "station"


def _findings(region: str) -> tuple[str, ...]:
    return (
        f"{_NODES} <are> in <place>, the largest {{with a short axis of|with a short diameter of|measuring}} <size>",
        f"There are {_NODES} {{with a short axis of up to|measuring up to}} <size> in <place>",
        f"<many> {_NODES} with a short diameter {{of up to|reaching}} <size> <are> in <place>",
        f"In <place>, <many> {_NODES} <are>, the largest of which is <size2_node>",
        f"{{Enlarged|Multiple|Prominent|Numerous}} {_NODES} <are> in <place>, the largest short axis being <size>",
        f"{region} {_NODES} <are>; the largest, in <place>, is <size> in short {{axis|diameter}}",
        f"{_NODES} {{in|of}} <place> {{with fusiform configuration|some of them calcified|}} "
        f"<are>, {{short axis|short diameter}} <size>",
        f"<many> {_NODES} in <place> {{stand out|draw attention}}, the largest measures <size2_node>",
        f"{_NODES} {{in conglomerate form|in pathological dimensions|}} <are> in <place> and measure {{up to|}} <size>",
    )


def _impression(region: str) -> tuple[str, ...]:
    return (
        f"{_NODES} in <place>",
        f"{region} {{lymph nodes|lymphadenopathies|LAPs}}",
        f"<many> {_NODES}, the largest <size>",
        "Lymphadenopathy {in <place>|}",
    )


_WIDESPREAD = (
    f"{{Enlarged|Multiple|Prominent|Numerous}} {_NODES} <are> in <place> and in the {_STATIONS} "
    f"{{area|stations}}, the largest short axis being <size>",
    f"{{Right upper|Upper-lower}} paratracheal, {{aortopulmonary|subcarinal|prevascular}} "
    f"{_NODES} {{with a narrow diameter of|up to}} <size> <are>",
)
# What nodes of a site may be called as a group.
_REGIONS = {
    "mediastinal": "{Mediastinal and hilar|Mediastinal}",
    "station": "Mediastinal",
    "hilar": "Hilar",
    "axillary": "Axillary",
}

WORDINGS = {
    "Lymphadenopathy": Wording(
        region="nodes",
        variant=_variant,
        findings={
            name: (*_findings(region), *(_WIDESPREAD if name == "mediastinal" else ()))
            for name, region in _REGIONS.items()
        },
        impression={name: _impression(region) for name, region in _REGIONS.items()},
    )
}

NORMALS = (
    Normal(
        "nodes",
        (
            "{No enlarged|No pathologically enlarged} lymph node <no> in {the prevascular, paratracheal, "
            "subcarinal or hilar-axillary|the mediastinal and hilar} "
            "{regions|areas}",
            "No lymph node {of|with} pathological {size|dimensions} {and appearance|and configuration|} "
            "<no> {at mediastinal level|in the mediastinum or either hilum}",
            "{No pathological LAP|No LAP|No lymphadenopathy} <no> in the {mediastinal|mediastinal or "
            "hilar} {region|stations}",
            "There are no {pathologically sized|enlarged} lymph nodes in the {mediastinal|mediastinal or "
            "hilar} {stations|regions}",
        ),
        unless=("Lymphadenopathy",),
        chance=0.95,
    ),
    Normal(
        "nodes",
        (
            "No lymph node of pathological size <no> in the {axillary|supraclavicular|supraclavicular and "
            "axillary} regions",
            "Both {axillae|axillary regions} and the supraclavicular {fossae|fossa} {are|appear} natural",
        ),
        unless=("Lymphadenopathy",),
        chance=0.3,
    ),
)
