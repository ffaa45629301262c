"""Predictions for images, clips and sounds, by the extractors, the scaling and the head of a saved run."""

from emofuse.predict.files import IMAGES, find_images, kinds_of_files
from emofuse.predict.models import ChosenModel, find_model
from emofuse.predict.prediction import ActionUnit, Prediction
from emofuse.predict.predictor import Predictor, missing_streams

__all__ = [
    "IMAGES",
    "ActionUnit",
    "ChosenModel",
    "Prediction",
    "Predictor",
    "find_images",
    "find_model",
    "kinds_of_files",
    "missing_streams",
]
