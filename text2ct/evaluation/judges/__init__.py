"""Judges of generated volumes: they read the findings, learnt from patients that no pack was trained on."""

from text2ct.evaluation.judges.blocks import BlockJudge, BlockJudgeConfig
from text2ct.evaluation.judges.cnn import CnnConfig, CnnJudge, CnnJudgeTraining, train_cnn_judge
from text2ct.evaluation.judges.judge import Judge, aucs, macro
from text2ct.evaluation.judges.trained import trained_judges

__all__ = [
    "BlockJudge",
    "BlockJudgeConfig",
    "CnnConfig",
    "CnnJudge",
    "CnnJudgeTraining",
    "Judge",
    "aucs",
    "macro",
    "train_cnn_judge",
    "trained_judges",
]
