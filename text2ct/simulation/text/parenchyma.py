"""Words for diffuse and focal changes of the lung parenchyma."""

from __future__ import annotations

from text2ct.simulation.text.wording import Joint, Wording, one_or_both

EMPHYSEMA = "Emphysema"
MOSAIC = "Mosaic attenuation pattern"
OPACITY = "Lung opacity"
CONSOLIDATION = "Consolidation"
SEPTA = "Interlobular septal thickening"
_EMPHYSEMA = (
    "{emphysematous changes|emphysematous changes|emphysematous areas|emphysema areas|paraseptal "
    "and centrilobular emphysema|centriacinar emphysema areas}"
)
_GLASS = (
    "{ground glass densities|ground-glass opacities|ground glass areas|ground-glass density "
    "increases|ground glass-like density increases|"
    "patchy ground glass densities|ground-glass appearances|nodular ground glass densities|opacities}"
)
_CONSOLIDATION = (
    "{consolidation|consolidation areas|areas of consolidation|consolidations|consolidative density "
    "increases|"
    "pneumonic consolidation|consolidation-infiltration areas}"
)
_SEPTA = (
    "{interlobular septal thickening|interlobular septal thickenings|interlobular septal thickness "
    "increases|thickening of the interlobular septa|"
    "smooth interlobular septal thickenings|thickenings in the interlobular septa}"
)
_CAUSE = (
    "{(small airway disease or small vessel disease?)|(small airway disease?)|(of vascular or airway "
    "origin?)|"
    "(small vessel disease, airway disease?)|(air trapping?)|}"
)
_INFECTION = (
    "{(infection?)|(viral pneumonia?)|, suggestive of infection|, which may be compatible with "
    "Covid-19 pneumonia|in favor of pneumonic infiltration||}"
)


_HOLES = (
    f"<mild> {_EMPHYSEMA} <are> in <place>",
    f"There are <mild> {_EMPHYSEMA} in <place>",
    "<mild> {paraseptal|centrilobular|paraseptal-centrilobular|centriacinar} emphysema <is> in <place>",
    f"{_EMPHYSEMA} {{and bulla formations|and bullae-blebs|}} <are> in <place>, of <grade> degree",
    "<place> {show|shows} <mild> emphysematous {changes|appearance}",
    "{Increased aeration|Hyperaeration|Aeration increase} {consistent|compatible} with emphysema <is> in <place>",
    "Emphysematous {air cysts|bulla|bullae} and <mild> emphysematous areas <are> in <place>",
    "Findings {consistent|compatible} with <mild> emphysema <are> in <place>",
    "The aeration of <place> is increased {, emphysematous|in favor of emphysema}",
)
_HOLES_ITEMS = (
    f"<mild> {_EMPHYSEMA} in <place>",
    "Emphysema",
    "<mild> emphysematous changes {in <place>|}",
    "Findings of emphysema",
)

WORDINGS = {
    EMPHYSEMA: Wording(
        region="lung",
        variant=one_or_both,
        findings={"one": _HOLES, "both": _HOLES},
        impression={"one": _HOLES_ITEMS, "both": (*_HOLES_ITEMS, "Emphysematous lungs")},
    ),
    MOSAIC: Wording(
        region="lung",
        findings={
            "": (
                f"{{A <mild> |}}mosaic attenuation pattern <is> in <place> {_CAUSE}",
                f"There is a <mild> mosaic {{attenuation|attenuation pattern|pattern}} in <place> {_CAUSE}",
                f"Mosaic {{attenuation|perfusion|density}} {{differences|pattern}} <is> in <place> {_CAUSE}",
                f"The parenchyma of <place> has a mosaic {{attenuation|attenuation pattern|appearance}} {_CAUSE}",
                "{Density differences|Attenuation differences} in a mosaic pattern <are> in <place> {of "
                "<grade> degree|}",
                f"In <place>, a mosaic attenuation pattern {{due to air trapping|of <grade> degree|}} <is> {_CAUSE}",
                "Mosaic {attenuation|perfusion} <is> in <place>, {thought to be secondary to|consistent "
                "with} {small airway|small vessel|airway} disease",
                f"<mild> mosaic pattern attenuations <are> in <place> {_CAUSE}",
            )
        },
        impression={
            "": (
                f"Mosaic attenuation pattern in <place> {_CAUSE}",
                "<mild> mosaic {attenuation|pattern attenuation}",
                "Mosaic {attenuation pattern|perfusion pattern} {, air trapping|}",
            )
        },
    ),
    OPACITY: Wording(
        region="lung",
        findings={
            "": (
                f"<mild> {_GLASS} <are> in <place> {_INFECTION}",
                f"There are {{peripheral|subpleural|peripherally located|}} {_GLASS} in <place> {_INFECTION}",
                f"In <place>, {{patchy|focal|occasional|}} {_GLASS} <are>",
                f"{_GLASS}, {{predominantly peripheral|more prominent in the periphery|with indistinct "
                f"borders}}, <are> in <place> {_INFECTION}",
                "{A focal|An area of|A nonspecific} ground glass {area|density|opacity} <is> in <place>",
                "{Centriacinar nodular|Acinar|Nodular} opacities {and bud branch appearances|} <are> in "
                "<place> {(infection?)|}",
                f"<mild> {{increase in density|density increases}} in ground glass {{form|style|density}} "
                f"<are> in <place> {_INFECTION}",
                "Peripheral {and peribronchial|subpleural} {density increases|densities} {in the form of "
                "ground glass|of ground glass pattern} <are> in <place>",
                "Nonspecific {opacity|opacities|parenchymal density increases} <are> in <place>",
                f"{_GLASS} {{with a crazy paving pattern|with vascular enlargement|}} <are> in <place> {_INFECTION}",
            )
        },
        impression={
            "": (
                f"<mild> {_GLASS} in <place> {_INFECTION}",
                f"{_GLASS} in <place>, {{clinical and laboratory correlation is recommended|infectious "
                f"process?|viral pneumonia?}}",
                "Findings {compatible with|suggestive of} {viral pneumonia|Covid-19 pneumonia|atypical "
                "pneumonia} in <place>",
                "Ground glass {areas|densities} in <place>",
            )
        },
    ),
    CONSOLIDATION: Wording(
        region="lung",
        findings={
            "": (
                f"<mild> {_CONSOLIDATION} <is> in <place> {_INFECTION}",
                f"There is {{an area of|}} consolidation {{containing air bronchograms|with air "
                f"bronchogram|}} in <place> {_INFECTION}",
                f"In <place>, {_CONSOLIDATION} {{in which air bronchograms are seen|with indistinct borders|}} <is>",
                f"{_CONSOLIDATION} {{extending to the pleura|in the dependent part|with pleural base|}} "
                f"<is> in <place>",
                "{Consolidation|Infiltration|Consolidation and infiltration} {causing loss of aeration|} "
                "<is> in <place> {(pneumonia?)|}",
                "{Focal|Patchy|Nodular} consolidations <are> in <place> {(infective?)|}",
                "<place> {contains|contain|show} <mild> consolidation {with air bronchograms|}",
                f"Findings {{compatible|consistent}} with pneumonic infiltration and {_CONSOLIDATION} <are> in <place>",
                f"A {{large|focal|patchy}} consolidation area <is> in <place> {_INFECTION}",
            )
        },
        impression={
            "": (
                f"<mild> {_CONSOLIDATION} in <place> {_INFECTION}",
                "{Pneumonic infiltration|Pneumonic consolidation|Infective consolidation} in <place>",
                "Consolidation in <place> {, follow-up after treatment is recommended|}",
                "{Focal consolidation|Consolidation focus} in <place>",
            )
        },
    ),
    SEPTA: Wording(
        region="lung",
        findings={
            "": (
                f"<mild> {_SEPTA} <is> in <place>",
                f"There is <mild> {_SEPTA} in <place>",
                f"In <place>, {_SEPTA} <is> {{(secondary to cardiac pathology?)|(pulmonary edema?)|(stasis?)|}}",
                "{The interlobular septa|Interlobular septa} are <mildly> thickened {in|within} <place>",
                f"{_SEPTA}, more prominent in the {{basal|subpleural|peripheral}} parts, <is> in <place>",
                "<mild> {interlobular-intralobular|interlobular and interstitial|interlobular} septal "
                "thickness increases <are> in <place>",
                "{Prominence|Thickening} of interlobular septa, of <grade> degree, <is> in <place> {in "
                "terms of interstitial edema|}",
                "Septal {thickenings|lines|thickening} {of interlobular type|in the interlobular "
                "interstitium} <are> in <place>",
            )
        },
        impression={
            "": (
                f"<mild> {_SEPTA} in <place>",
                f"{_SEPTA} {{, which may be secondary to heart failure|(pulmonary edema?)|}}",
                "Interlobular septal {thickening|prominence} {in <place>|}",
            )
        },
    ),
}

JOINTS = (
    Joint(
        pair=(OPACITY, CONSOLIDATION),
        region="lung",
        chance=0.35,
        findings=(
            f"{_GLASS} in <place> and {_CONSOLIDATION} in <place_b> <are> {_INFECTION}",
            f"There are {_GLASS} in <place>, {{becoming|turning into}} consolidation in <place_b>",
            "{Consolidation|Areas of consolidation} in <place_b> and accompanying ground glass "
            "{densities|opacities} in <place> <are>",
        ),
        impression=(
            f"Ground glass {{densities|areas}} and consolidation{{s|}} {_INFECTION}",
            "Consolidation in <place_b>, ground glass densities in <place> {, pneumonic infiltration|}",
        ),
    ),
    Joint(
        pair=(OPACITY, SEPTA),
        region="lung",
        chance=0.25,
        findings=(
            f"{_GLASS} in <place> and {_SEPTA} in <place_b> <are> {{(crazy paving)|(pulmonary edema?)|}}",
            "Ground glass {densities|areas} in <place> are accompanied by interlobular septal "
            "{thickenings|thickening} in <place_b>",
        ),
        impression=("Ground glass {areas|densities} and interlobular septal thickening{s|}",),
    ),
)
