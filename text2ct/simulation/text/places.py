"""Where, how much, how large and how many: an instance's numbers as the slots of a template."""

from __future__ import annotations

import numpy as np

from text2ct.simulation.instance import Instance

_UPPER = "{the upper lobes of both lungs|both lung upper lobes|the bilateral upper lobes|both upper lobes}"
_LOWER = (
    "{the lower lobes of both lungs|both lung lower lobes|the bilateral lower lobes|both lower lobes|"
    "the {basal|posterobasal|laterobasal} segments of {both lungs|both lower lobes}|the lower lobe basals "
    "of both lungs}"
)
_BOTH = "{both lungs|both lungs|both lung parenchyma|the bilateral lungs|both lung fields}"

PLACES: dict[str, str] = {
    "right upper lobe": "{the upper lobe of the right lung|the right lung upper lobe|the right upper lobe|"
    "the {anterior|posterior|apical} segment of the {right upper lobe|upper lobe of the right lung|right "
    "lung upper lobe}}",
    "right middle lobe": "{the middle lobe of the right lung|the right lung middle lobe|the right middle "
    "lobe|the middle lobe|"
    "the {medial|lateral} segment of the {right middle lobe|middle lobe of the right lung}}",
    "right lower lobe": "{the lower lobe of the right lung|the right lung lower lobe|the right lower lobe|"
    "the {superior|posterobasal|laterobasal|mediobasal|anterobasal} segment of the {right lower lobe|lower "
    "lobe of the right lung}}",
    "left upper lobe": "{the upper lobe of the left lung|the left lung upper lobe|the left upper lobe|"
    "the {apicoposterior|anterior|lingular|inferior lingular|superior lingular} segment of the "
    "{left upper lobe|upper lobe of the left lung|left lung}}",
    "left lower lobe": "{the lower lobe of the left lung|the left lung lower lobe|the left lower lobe|"
    "the {superior|posterobasal|laterobasal|anteromediobasal} segment of the {left lower lobe|lower lobe "
    "of the left lung}}",
    "both lungs": _BOTH,
    "lower lobes": _LOWER,
    "both lower lobes": _LOWER,
    "upper lobes": _UPPER,
    "both upper lobes": _UPPER,
    "right apex": "{the apex of the right lung|the right lung apex|the right upper lobe apex|the apical "
    "segment of the right lung}",
    "left apex": "{the apex of the left lung|the left lung apex|the apical part of the left upper lobe}",
    "both apices": "{both lung apices|the apex of both lungs|both upper lobe apices|the apical levels of "
    "both lungs|"
    "the apical segments of both lungs}",
    "aortic arch": "{the aortic arch|the arcus aorta|the arch of the aorta}",
    "descending aorta": "{the descending aorta|the descending thoracic aorta}",
    "thoracic aorta": "{the thoracic aorta|the aorta|the arch and descending part of the aorta|the thoracic "
    "aorta and its branches}",
    "left anterior descending artery": "{the LAD|the left anterior descending artery|the left coronary "
    "artery|the coronary arteries}",
    "right coronary artery": "{the RCA|the right coronary artery|the coronary arteries}",
    "left main and left anterior descending arteries": "{the left main coronary artery and LAD|the LMCA "
    "and LAD|the coronary arteries}",
    "three vessels": "{the coronary arteries|the LAD, Cx and RCA|all coronary arteries}",
    "right paratracheal": "{the right {upper|lower|upper-lower} paratracheal area|the right paratracheal region}",
    "prevascular": "{the prevascular area|the anterior mediastinal prevascular region|the prevascular space}",
    "subcarinal": "{the subcarinal area|the subcarinal level|the subcarinal region}",
    "hilar": "{the {hilar|both hilar} {region|regions|levels}|the lung hilum}",
    "axillary": "{the axilla|the axillary region}",
    "mediastinal": "{the mediastinum|the upper-lower paratracheal, aortopulmonary and subcarinal areas|"
    "the paratracheal area, aorticopulmonary window and subcarinal region|mediastinal lymph node stations}",
}
_SIDED = {
    ("hilar", "right"): "{the right hilar region|the right hilum}",
    ("hilar", "left"): "{the left hilar region|the left hilum}",
    ("axillary", "right"): "the right axilla",
    ("axillary", "left"): "the left axilla",
    ("axillary", "bilateral"): "{both axillae|the bilateral axillary regions}",
}
_GRADES = {
    "mild": "{mild|minimal|slight|minimal|mild}",
    "moderate": "{||moderate|}",
    "severe": "{diffuse|extensive|prominent|widespread|marked|significant}",
}
_ADVERBS = {
    "mild": "{mildly|slightly|minimally}",
    "moderate": "",
    "severe": "{markedly|significantly|prominently}",
}
_DEGREES = {
    "mild": "{mild|slight|minimal}",
    "moderate": "{moderate|medium}",
    "severe": "{severe|advanced|marked}",
}
_COUNTS = {2: "{two|2}", 3: "{three|a few|3}", 4: "{several|a few|four}", 5: "{several|multiple|five}"}


def size_text(size_mm: float, rng: np.random.Generator) -> str:
    """A measurement as reports write it: whole or half millimetres, now and then centimetres."""
    if size_mm >= 10 and rng.random() < 0.2:
        centimetres = f"{size_mm / 10:.1f}".removesuffix(".0")
        return f"{centimetres} cm"
    if size_mm < 8 and rng.random() < 0.15:
        return f"{round(2 * size_mm) / 2:g} mm"
    return f"{max(round(size_mm), 1)} mm"


def instance_slots(instance: Instance, rng: np.random.Generator) -> dict[str, str]:
    """Slots that say an instance.

    Returns:
        ``mild`` and ``mildly`` (the grade's word or nothing), ``grade`` (always a word), ``place``, ``many``
        (count), and where they mean something ``sided`` (right, left, bilateral), ``hemithorax``, ``on``,
        ``size``, ``size2`` and ``size2_node`` (two axes).
    """
    side = instance.side
    slots = {
        "mild": _GRADES[instance.grade],
        "mildly": _ADVERBS[instance.grade],
        "grade": _DEGREES[instance.grade],
        "place": _SIDED.get((instance.site, side), PLACES.get(instance.site, instance.site)),
        "many": _COUNTS.get(instance.count, "{multiple|many|numerous}" if instance.count > 5 else "{a|one}"),
    }
    if side == "bilateral":
        slots |= {
            "sided": "{bilateral|bilateral|both-sided}",
            "hemithorax": "{both hemithoraces|both hemithorax|both pleural spaces|the bilateral hemithorax}",
            "on": "{on both sides|bilaterally}",
        }
    elif side:
        slots |= {
            "sided": side,
            "hemithorax": f"{{the {side} hemithorax|the {side} pleural space|the {side} pleural area}}",
            "on": f"on the {side}",
        }
    if instance.size_mm is not None:
        short = instance.size_mm * rng.uniform(0.6, 0.95)
        slots["size"] = size_text(instance.size_mm, rng)
        slots["size2"] = f"{max(round(instance.size_mm), 1)}x{max(round(short), 1)} mm"
        # Lymph nodes are measured along the short axis, so their second axis is the longer one.
        slots["size2_node"] = (
            f"{max(round(instance.size_mm * rng.uniform(1.2, 1.8)), 2)}x{max(round(instance.size_mm), 1)} mm"
        )
    return slots
