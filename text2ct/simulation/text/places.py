"""Where, how much, how large and how many: an instance's numbers as the slots of a template."""

from __future__ import annotations

import numpy as np

from text2ct.simulation.instance import NODE_RATIO, NODULE_RATIO, Instance

_UPPER = "{the upper lobes of both lungs|both lung upper lobes|the bilateral upper lobes|both upper lobes}"
_LOWER = "{the lower lobes of both lungs|both lung lower lobes|the bilateral lower lobes|both lower lobes}"
_BOTH = "{both lungs|both lungs|both lung parenchyma|the bilateral lungs|both lung fields}"

# No segment: where in its lobe a finding lies is drawn when it is painted.
PLACES: dict[str, str] = {
    "right upper lobe": "{the upper lobe of the right lung|the right lung upper lobe|the right upper lobe}",
    "right middle lobe": "{the middle lobe of the right lung|the right lung middle lobe|the right middle "
    "lobe|the middle lobe}",
    "right lower lobe": "{the lower lobe of the right lung|the right lung lower lobe|the right lower lobe}",
    "left upper lobe": "{the upper lobe of the left lung|the left lung upper lobe|the left upper lobe}",
    "left lower lobe": "{the lower lobe of the left lung|the left lung lower lobe|the left lower lobe}",
    "both lungs": _BOTH,
    "lower lobes": _LOWER,
    "both lower lobes": _LOWER,
    "upper lobes": _UPPER,
    "both upper lobes": _UPPER,
    "right apex": "{the apex of the right lung|the right lung apex|the right upper lobe apex|the apical "
    "segment of the right lung}",
    "left apex": "{the apex of the left lung|the left lung apex|the apical part of the left upper lobe}",
    "both apices": "{both lung apices|the apices of both lungs|both upper lobe apices|the apical levels of "
    "both lungs|"
    "the apical segments of both lungs}",
    "aortic arch": "{the aortic arch|the arcus aorta|the arch of the aorta}",
    "descending aorta": "{the descending aorta|the descending thoracic aorta}",
    "thoracic aorta": "{the thoracic aorta|the aorta|the arch and descending part of the aorta}",
    "left anterior descending artery": "{the LAD|the left anterior descending artery|the left coronary "
    "artery|the coronary arteries}",
    "right coronary artery": "{the RCA|the right coronary artery|the coronary arteries}",
    "left main and left anterior descending arteries": "{the left main coronary artery and LAD|the LMCA "
    "and LAD|the coronary arteries}",
    "three vessels": "{the coronary arteries|the LAD, Cx and RCA|all coronary arteries}",
    "right paratracheal": "{the right {|upper-lower} paratracheal area|the right paratracheal region}",
    "prevascular": "{the prevascular area|the anterior mediastinal prevascular region|the prevascular space}",
    "subcarinal": "{the subcarinal area|the subcarinal level|the subcarinal region}",
    "hilar": "{the hilar {regions|levels}|both hilar regions|the hila of both lungs}",
    "axillary": "{both axillae|the bilateral axillary regions}",
    "mediastinal": "{the mediastinum|the upper-lower paratracheal, aortopulmonary and subcarinal areas|"
    "the paratracheal area, aorticopulmonary window and subcarinal region|mediastinal lymph node stations}",
}
_SIDED = {
    ("hilar", "right"): "{the right hilar region|the right hilum}",
    ("hilar", "left"): "{the left hilar region|the left hilum}",
    ("axillary", "right"): "the right axilla",
    ("axillary", "left"): "the left axilla",
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
_COUNTS = {2: "{two|2}", 3: "{three|a few|3}", 5: "{several|multiple|five}"}


def size_text(size_mm: float, rng: np.random.Generator) -> str:
    """A measurement as reports write it: whole millimetres, now and then centimetres."""
    if size_mm >= 10 and rng.random() < 0.2:
        centimetres = f"{size_mm / 10:.1f}".removesuffix(".0")
        return f"{centimetres} cm"
    return f"{round(size_mm)} mm"


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
        "many": _COUNTS.get(instance.count, "{multiple|many|numerous}"),
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
        slots["size"] = size_text(instance.size_mm, rng)
        slots["size2"] = f"{round(instance.size_mm)}x{round(NODULE_RATIO * instance.size_mm)} mm"
        # Lymph nodes are measured along the short axis, so their second axis is the longer one.
        slots["size2_node"] = f"{round(NODE_RATIO * instance.size_mm)}x{round(instance.size_mm)} mm"
    return slots
