"""The import of OpenVINO by the template of extraction processes, as a module to name."""

from emofuse.streams.networks import detection, shared_backbones
from emofuse.streams.runtimes import import_openvino

__all__ = ["detection", "import_openvino", "shared_backbones"]

import_openvino()
