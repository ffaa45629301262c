"""Published speech encoders by name: their architecture and the preprocessing of waveforms.

The values are those of `config.json` and `preprocessor_config.json` of the published models, as far as they differ from
the defaults of transformers' configuration classes, or decide the features. Other models are read from these files.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

RATE_HZ = 16_000
"""The rate of the sounds of all these encoders."""


def _whisper(width: int, layers: int, *, bands: int = 80) -> dict[str, Any]:
    heads = width // 64
    return {
        "model_type": "whisper",
        "d_model": width,
        "encoder_layers": layers,
        "encoder_attention_heads": heads,
        "encoder_ffn_dim": 4 * width,
        "num_mel_bins": bands,
        "max_source_positions": 1500,
    }


def _waves(model_type: str, *, large: bool, do_normalize: bool, **others: Any) -> dict[str, Any]:
    sizes = {
        "hidden_size": 1024 if large else 768,
        "num_hidden_layers": 24 if large else 12,
        "num_attention_heads": 16 if large else 12,
        "intermediate_size": 4096 if large else 3072,
        "feat_extract_norm": "layer" if large else "group",
        "do_stable_layer_norm": large,
        "conv_bias": large,
    }
    return {"model_type": model_type, "do_normalize": do_normalize, **sizes, **others}


SPEECH_MODELS: Mapping[str, Mapping[str, Any]] = {
    **{
        f"whisper-{name}{suffix}": _whisper(width, layers)
        for name, width, layers in (("tiny", 384, 4), ("base", 512, 6), ("small", 768, 12), ("medium", 1024, 24))
        for suffix in ("", ".en")
    },
    "whisper-large-v2": _whisper(1280, 32),
    "whisper-large-v3": _whisper(1280, 32, bands=128),
    "wav2vec2-base": _waves("wav2vec2", large=False, do_normalize=True),
    "wav2vec2-large-lv60": _waves("wav2vec2", large=True, do_normalize=True),
    "wav2vec2-xls-r-300m": _waves("wav2vec2", large=True, do_normalize=True),
    "hubert-base-ls960": _waves("hubert", large=False, do_normalize=True),
    "hubert-large-ll60k": _waves("hubert", large=True, do_normalize=True),
    "wavlm-base": _waves("wavlm", large=False, do_normalize=False),
    "wavlm-base-plus": _waves("wavlm", large=False, do_normalize=False),
    "wavlm-large": _waves("wavlm", large=True, do_normalize=True, conv_bias=False),
}
"""Name -> `model_type`, the options of its configuration class, and `do_normalize` for models of waveforms."""
