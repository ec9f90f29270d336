"""The two judges of a work folder, trained once on patients of their own."""

from __future__ import annotations

from pathlib import Path

from text2ct.diffusion.training.cases import Size, Spacing, render_patients
from text2ct.errors import UserError
from text2ct.evaluation.judges.blocks import BlockJudge
from text2ct.evaluation.judges.cnn import CnnJudge, CnnJudgeTraining, train_cnn_judge
from text2ct.evaluation.judges.judge import JUDGE_FILE, Judge, read_judge_file
from text2ct.files import read_json
from text2ct.simulation.patients import FIRST_JUDGED, FIRST_MEASURED

KINDS = ("blocks", "cnn")


def trained_judges(
    work: Path,
    patients: int,
    *,
    size: Size,
    spacing_mm: Spacing,
    minutes: float,
    kinds: tuple[str, ...] = KINDS,
    device: str = "auto",
) -> list[Judge]:
    """Train what the folder lacks and load the rest; goes on where it was stopped.

    Args:
        work: Folder of ``judge-cases``, ``judge-blocks`` and ``judge-cnn``.
        patients: How many they learn from, the first of those reserved for judges.
        size: Voxels along (x, y, z).
        spacing_mm: Spacing along (x, y, z).
        minutes: Training time of the CNN.
        kinds: Which, in this order.
        device: Of the CNN, as for :func:`text2ct.compute.pick_device`.

    Raises:
        UserError: More patients than are reserved for judges, ``work`` holds others, or a judge there learnt from
            others or for another time.
    """
    if patients > FIRST_MEASURED - FIRST_JUDGED:
        raise UserError(f"{patients} patients for the judges; at most {FIRST_MEASURED - FIRST_JUDGED} are theirs")
    cases = render_patients(work / "judge-cases", FIRST_JUDGED, patients, size=size, spacing_mm=spacing_mm)
    judges: list[Judge] = []
    for kind in kinds:
        folder = work / f"judge-{kind}"
        done = (folder / JUDGE_FILE).is_file()
        if done and read_judge_file(folder, kind)["trained_on"]["digest"] != cases.digest:
            raise UserError(f"{folder} learnt from other patients than {cases.folder}; remove it to train it again")
        if kind == "cnn":
            training = CnnJudgeTraining(minutes=minutes)
            if done and read_json(folder / "config.json")["training"] != training.model_dump(mode="json"):
                raise UserError(f"{folder} was trained with other settings; remove it to train it again")
            trained = CnnJudge.load(folder, device=device) if done else None
            judges.append(trained or train_cnn_judge(cases, training, folder, device=device))
        elif done:
            judges.append(BlockJudge.load(folder))
        else:
            judge = BlockJudge.train(cases, cache=folder / "features")
            judge.save(folder)
            judges.append(judge)
    return judges
