"""What networks use of torchvision, imported without PyTorch's compiler (see `lighter_imports`)."""

from __future__ import annotations

from emofuse.streams.networks.lighter_imports import import_torchvision

import_torchvision()

from torchvision import models  # noqa: E402  after the line above
from torchvision.ops import batched_nms, box_convert  # noqa: E402
from torchvision.transforms import functional  # noqa: E402

__all__ = ["batched_nms", "box_convert", "functional", "models"]
