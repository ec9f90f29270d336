"""3D multi-label classifiers of the 18 findings: one registry, one recipe, one test battery."""

from text2ct.classifiers.cache import VolumeCache
from text2ct.classifiers.prediction import predict
from text2ct.classifiers.registry import CLASSIFIERS, ClassifierSpec
from text2ct.classifiers.runs import prompt_volumes, training_patients
from text2ct.classifiers.training import train

__all__ = ["CLASSIFIERS", "ClassifierSpec", "VolumeCache", "predict", "prompt_volumes", "train", "training_patients"]
