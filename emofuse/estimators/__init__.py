"""Fusion heads as estimators of scikit-learn, for arrays of any origin: no cache, no YAML, no files.

    model = FusionClassifier(head="concat", train={"learning_rate": 3e-4})
    model.fit({"face": faces, "voice": voices}, labels, groups=speakers)
    model.predict_proba({"face": new_faces, "voice": new_voices})

    model = FusionRegressor("concat", loss="ccc").fit({"face": faces, "voice": voices}, valence_and_arousal)

Needs scikit-learn, which the extra `sklearn` brings. Heads are trained by the same engine as those of pipelines.
"""

from __future__ import annotations

from emofuse.estimators.classifier import FusionClassifier
from emofuse.estimators.regressor import FusionRegressor

__all__ = ["FusionClassifier", "FusionRegressor"]
