"""Words for pleural effusion and for an unremarkable pleura."""

from __future__ import annotations

from text2ct.simulation.text.wording import Joint, Normal, Wording, one_or_both

EFFUSION = "Pleural effusion"


_DEEP = "{in its thickest part|at its thickest point|at its deepest point|at its widest point}"

WORDINGS = {
    EFFUSION: Wording(
        region="pleura",
        variant=one_or_both,
        findings={
            "one": (
                f"<mild> pleural effusion measuring <size> {_DEEP} <is> <on>",
                "<mild> <sided> pleural effusion <is>",
                "{Pleural effusion|Effusion} reaching <size> in {thickness|depth} <is> in <hemithorax>",
                "There is <mild> pleural effusion <on> {, <size> in thickness|}",
                "In <hemithorax>, {there is|} {free|free pleural} fluid {of <grade> amount|with a depth of <size>}",
                f"An effusion of <size> {_DEEP} <is> between the <sided> pleural {{leaves|layers}}",
                "{Fluid|Effusion|Pleural fluid} {extending to the fissure|collected in the dependent "
                "part|} <is> in <hemithorax>, measuring <size>",
                "<mild> effusion in <hemithorax> and {collapse|loss of aeration|density} of the adjacent "
                "{parenchyma|lung} <are>",
                "The <sided> pleural space contains <mild> {effusion|fluid}",
            ),
            "both": (
                "{Bilateral|Bilateral <mild>} pleural effusion <is> {|, <size> at the thickest part}",
                "There is {<mild> |}pleural effusion {in both hemithoraces|on both sides|bilaterally} {, "
                "reaching <size>|}",
                f"Pleural effusion, measuring up to <size> {_DEEP}, <is> in both {{hemithoraces|hemithorax}}",
                "{Effusion|Fluid} {reaching <size> in thickness|of <grade> amount} <is> {between both "
                "pleural leaves|in both pleural spaces}",
                "<mild> effusions <are> in both pleural {spaces|cavities}, the thickest being <size>",
                "Both hemithoraces contain <mild> pleural {fluid|effusion}",
                "{Bilateral|Both-sided} {free |}pleural fluid with a depth of up to <size> <is>",
                "Bilateral {pleural effusions|effusion} {of <size>|} and {adjacent|neighboring} "
                "{parenchymal density|loss of aeration} <are>",
            ),
        },
        impression={
            "one": (
                "<mild> pleural effusion <on>",
                "{<sided>|<mild> <sided>} pleural effusion",
                "Pleural effusion <on> {of <size>|}",
            ),
            "both": (
                "{Bilateral|<mild> bilateral} pleural effusion",
                "Pleural effusion {in both hemithoraces|on both sides}",
                "Bilateral effusion",
            ),
        },
    )
}

JOINTS = (
    Joint(
        pair=(EFFUSION, "Atelectasis"),
        region="pleura",
        chance=0.4,
        findings=(
            "<mild> pleural effusion {of <size>|} <on> and {passive|compression|accompanying} atelectasis "
            "in <place_b> <are>",
            "There is pleural effusion <on>{, measuring <size>,|} {with|and} atelectatic changes in <place_b>",
            "Effusion measuring <size> in <hemithorax> and atelectasis {in|of} <place_b> <are>",
        ),
        impression=(
            "{Pleural effusion|<mild> pleural effusion} <on>, {atelectasis|passive atelectasis} in <place_b>",
            "<sided> pleural effusion and atelectasis",
        ),
    ),
    Joint(
        pair=(EFFUSION, "Pericardial effusion"),
        region="pleura",
        chance=0.2,
        findings=(
            "{Pleural effusion <on>|<mild> pleural effusion <on>} and {pericardial effusion|effusion in "
            "the pericardium} <are>",
        ),
        impression=("{Pleural and pericardial|Pericardial and pleural} effusion",),
    ),
)

NORMALS = (
    Normal(
        "pleura",
        (
            "{Pleural effusion-thickening|Pleural thickening-effusion|Pleural effusion or "
            "thickening|Pleural effusion} <not> {|in both hemithoraces|bilaterally}",
            "No pleural {effusion|fluid or pneumothorax|effusion, no pneumothorax} <no>",
            "{There is no|No sign of} pleural {effusion|fluid} {or pneumothorax|} {on either side|}",
        ),
        unless=(EFFUSION, "pleural thickening"),
        chance=0.85,
    ),
    Normal("pleura", ("Pneumothorax <not>", "No pneumothorax <no>"), chance=0.12),
)
