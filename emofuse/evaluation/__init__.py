"""Tests of a trained model on another dataset: its labels are brought to those of the model, and nothing is trained.

run -> its streams on the other data (a cache, resumable) -> outputs -> labels of both sides -> scores, report
"""

from emofuse.evaluation.run import Evaluation, EvaluationOptions, evaluate

__all__ = ["Evaluation", "EvaluationOptions", "evaluate"]
