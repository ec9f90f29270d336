"""Words for medical material: what is seen, and what it tells of the past."""

from __future__ import annotations

from text2ct.simulation.text.wording import Wording

_PORT = (
    "{Port|A port|The port} catheter whose tip {lies|ends|terminates} in the {superior vena cava|right atrium} <is>",
    "A {central venous|venous|port} catheter extending {to|into} the {superior vena cava|vena cava superior} <is> <on>",
    "The port chamber <is> {under the skin|in the subcutaneous fat} of the <sided> {anterior chest "
    "wall|hemithorax} and its catheter "
    "{reaches|extends to} the {superior vena cava|right atrium}",
    "There is a {port|central venous} catheter <on>, with its tip at the {cavoatrial junction|distal "
    "superior vena cava}",
    "Image of a port catheter entering from the <sided> {subclavian|internal jugular} vein <is>",
    "{Central venous catheter|CVP catheter} <is>; its tip is in the superior vena cava",
    "A catheter placed from the <sided> jugular vein and ending in the {right atrium|superior vena cava} <is>",
    "{Port|Port-a-cath} reservoir <is> in the <sided> chest wall",
)
_PACEMAKER = (
    "{A pacemaker|A cardiac pacemaker} and its electrodes <are> on the <sided> {anterior |}chest wall",
    "There is a pacemaker generator in the <sided> chest wall, with {leads|electrodes} ending in the right "
    "{heart|ventricle}",
    "{Pacemaker|ICD} battery <is> <on>, its electrodes {extend|extending} to the right heart",
    "{Cardiac pacemaker electrodes|Pacemaker leads} <are> in the right {heart|ventricle}",
    "A {permanent |}pacemaker <is> under the skin of the <sided> hemithorax",
    "The electrodes of the {pace maker|pacemaker} located <on> reach the right ventricle",
    "Metallic density of the pacemaker and {its leads|electrodes} <are> {|in the study area}",
    "A {battery pack|generator} belonging to a cardiac pacemaker <is> in the <sided> pectoral region",
)
_STERNUM = (
    "{Metallic sutures|Metallic suture materials|Suture materials} secondary to {sternotomy|median "
    "sternotomy|bypass surgery|the operation} "
    "<are> in the sternum",
    "{Sternotomy wires|Sternal wires|Cerclage wires} <are>",
    "There are metallic {sutures|wires|densities} {belonging to|due to|compatible with} "
    "{sternotomy|previous sternotomy} in the sternum",
    "{Surgical|Postoperative} metallic suture materials <are> {at|on} the sternum and {surgical "
    "clips|clips} in the anterior mediastinum",
    "Findings {of|secondary to} {CABG|ACBG|coronary bypass} and metallic sternal sutures <are>",
    "The patient {has a history of|underwent} {bypass|cardiac surgery|open heart surgery}, metallic "
    "sutures <are> in the sternum",
    "{Sternotomy sutures|Sternotomy suture material} and operation materials <are>",
    "Metallic {artifacts|density increases} of suture materials <are> at the level of the sternum",
)
_SPINE = (
    "{Metallic fixation|Stabilization|Posterior fixation} {materials|screws|implants} <are> in the "
    "{thoracic|dorsal|thoracolumbar} vertebrae",
    "There are {transpedicular screws|fixation screws and rods} in the {thoracic|dorsal} {spine|vertebrae}",
    "{Surgical|Operative} {plate and screw|screw-rod} material <is> in the {dorsal|thoracic} vertebral column",
    "{Posterior instrumentation|Spinal instrumentation} {material|hardware} <is>, causing {metallic "
    "artifact|beam hardening}",
    "Metallic {stabilizers|stabilization rods} secondary to {spinal surgery|the operation} <are> in the vertebrae",
    "The vertebral column has {metallic|surgical} fixator {implants|material}",
    "Fixation {plates|rods} and screws <are> in the {dorsal|mid-thoracic} region",
    "{Artifacts|Metallic artifacts} of the {spinal implant|vertebral fixation material} <are>",
)
# Which valve is drawn when it is painted, so no text names it.
_VALVE = (
    "{A prosthetic|Prosthetic|Metallic} {heart|cardiac} valve <is>",
    "There is a {metallic|prosthetic} {heart |cardiac |}valve {replacement|in the heart}",
    "{Density of|Metallic density compatible with} a valve {prosthesis|replacement} <is>",
    "Changes {secondary to|of} valve {surgery|replacement} and a {metallic|mechanical} prosthesis <are>",
    "A heart valve {is replaced|has been replaced} with {a prosthesis|prosthetic material}",
    "{Valve replacement|Replaced valve} material <is> {in the heart|at the valve level}",
    "{Metallic|Mechanical} valve prosthesis <is> {within the heart|}, {causing artifact|}",
    "Operation material {belonging to|of} the heart valve <is>",
)
_DRAIN = (
    "A {chest tube|drainage catheter|thorax tube|drainage tube} <is> in <hemithorax>",
    "There is a {pleural|thoracic} {drainage catheter|drain|tube} <on>",
    "{Thoracic tube|Chest tube} {placed|inserted} <on> <is>, {its tip lies|ending} in the pleural space",
    "A {drain|catheter} entering between the ribs and {extending to|ending in} <hemithorax> <is>",
    "{Pleural catheter|Pigtail catheter} <is> in the <sided> pleural space",
    "The {tube|drainage catheter} {inserted for|placed for the} {drainage|effusion drainage} <is> in <hemithorax>",
    "{Image of a|A} thoracostomy tube <is> <on>",
    "A {catheter|tube} {that extends|extending} {through|along} the <sided> pleural space <is>",
)

# Small material that a 5 mm grid cannot show; it is named beside a device that it can.
SMALL_DEVICES = (
    "{A nasogastric tube|Nasogastric tube} {reaching|extending into} the stomach <is>",
    "{Stent|A stent|A stent material} <is> in the {LAD|coronary artery|RCA}",
    "{Surgical clips|Operation clips|Metallic clips} <are> in the {gallbladder fossa|axilla|thyroid lodge}",
    "{Suture material|Surgical suture materials|Postoperative suture line} <is> in the "
    "{lung|breast|esophagogastric junction}",
    "{An endotracheal tube|Intubation tube|A tracheostomy cannula} <is> in the trachea",
    "{A central|Central} venous catheter <is>",
)

WORDINGS = {
    "Medical material": Wording(
        region="vessels",
        variant=lambda instance: instance.site,
        findings={
            "port catheter": _PORT,
            "pacemaker": _PACEMAKER,
            "sternal wires": _STERNUM,
            "spinal fixation": _SPINE,
            "valve prosthesis": _VALVE,
            "pleural drain": _DRAIN,
        },
        impression={
            "port catheter": ("{Port|Central venous} catheter <on>", "Port catheter {in place|}"),
            "pacemaker": ("{Cardiac pacemaker|Pacemaker}", "Pacemaker {and its leads|electrodes}"),
            "sternal wires": (
                "{Postoperative changes|Metallic sutures} in the sternum",
                "{Operated CABG|Status post bypass|Bypass operation}",
                "Sternotomy {sutures|wires}",
            ),
            "spinal fixation": (
                "Spinal {fixation|stabilization} material",
                "Metallic implant in the {spine|vertebrae}",
            ),
            "valve prosthesis": ("{Heart valve|Valve} {prosthesis|replacement}", "Prosthetic valve"),
            "pleural drain": ("{Chest tube|Drainage catheter} <on>", "Pleural drainage catheter"),
        },
    )
}
