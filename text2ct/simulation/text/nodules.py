"""Words for lung nodules: number, size, place and character."""

from __future__ import annotations

from text2ct.simulation.instance import Instance
from text2ct.simulation.text.wording import Wording

MASS = "mass"
_KIND = "{nonspecific|nonspecific|parenchymal|nonspecific parenchymal|solid|subpleural|}"


def _variant(instance: Instance) -> str:
    if instance.count == 1:
        return MASS if instance.grade == "severe" else "one"
    return "both lungs" if instance.side == "bilateral" else "one lung"


_ONE = (
    f"A <size> {{diameter |}}{_KIND} nodule <is> in <place>",
    f"{{A nodule|A {_KIND} nodule}} {{with a diameter of|measuring|of}} <size> <is> in <place>",
    f"In <place>, {{there is a|a}} {_KIND} nodule {{of|with a diameter of}} <size>",
    f"There is a {_KIND} nodule measuring <size2> in <place>",
    f"{_KIND} nodule in <place> measures {{approximately |}}<size>",
    "{Nodular lesion|Nodule|Nodular density} {of|with a size of} <size2> <is> in <place>",
    "A {calcified|calcific|noncalcified|well-defined} nodule with a diameter of <size> <is> in <place>",
    f"A {_KIND} pulmonary nodule <is> in <place>, its diameter is <size>",
)
_MANY = (
    f"<many> {_KIND} nodules <are> in <place>, the largest {{of which is|measuring|being}} <size> {{in diameter|}}",
    f"There are <many> {_KIND} nodules {{with a diameter of up to|measuring up to}} <size> in <place>",
    f"In <place>, {_KIND} nodules <are>, the largest <size>",
    f"{_KIND} nodules, <many> in number, {{the largest|the biggest}} <size2> in size, <are> in <place>",
    "<many> {pulmonary|parenchymal} nodules {not exceeding|reaching} <size> <are> in <place>",
    "{Nodular lesions|Nodules} {whose largest diameter is|with the largest being} <size> <are> in <place>",
    f"There are {_KIND} nodules in <place>, <many>, of which the largest has a diameter of <size>",
    "<many> {solid |calcific |}nodules up to <size> <are> in <place>",
)
_BOTH = (
    f"Throughout <place>, {_KIND} nodules <are>, the largest <size>",
    "{Multiple|Bilateral} {solid |calcific |}nodules up to <size> <are> in <place>",
)
_MASS = (
    "A {mass|mass lesion|nodule} with {spiculated|irregular|lobulated} contours measuring <size2> <is> in <place>",
    "A suspicious {nodule|nodular lesion} of <size> <is> in <place>",
)

_ONE_ITEM = (
    "{Nodule|Nodular lesion} of <size> in <place> {, further evaluation is recommended|}",
    "Nodule {measuring <size>|} in <place>",
    "{Pulmonary|Parenchymal} nodule in <place> {, follow-up is recommended|}",
)
_MANY_ITEMS = (
    "<many> nodules in <place> {, the largest <size>|}",
    "Nodules in <place>, {control is recommended|follow-up is appropriate}",
    "{Nonspecific|Parenchymal|Nonspecific parenchymal} nodules {in <place>|, the largest <size>}",
)

WORDINGS = {
    "Lung nodule": Wording(
        region="lung",
        variant=_variant,
        findings={"one": _ONE, MASS: (*_ONE, *_MASS), "one lung": _MANY, "both lungs": (*_MANY, *_BOTH)},
        impression={
            "one": _ONE_ITEM,
            MASS: (*_ONE_ITEM, "{Suspicious nodule|Mass-like nodule} in <place>"),
            "one lung": _MANY_ITEMS,
            "both lungs": (*_MANY_ITEMS, "{Multiple|Bilateral} pulmonary nodules {(metastasis?)|}"),
        },
    )
}
