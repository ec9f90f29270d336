"""text2ct: synthetic data augmentation for chest CT."""

__version__ = "0.1.0"
