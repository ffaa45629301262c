"""Trained models as ONNX files, checked against torch, and as model cards.

run -> one module from features (or from a picture) to outputs -> ONNX -> the same outputs by onnxruntime -> file
"""

from emofuse.onnx_export.card import write_card
from emofuse.onnx_export.export import Exported, export_onnx

__all__ = ["Exported", "export_onnx", "write_card"]
