"""torchvision is imported without PyTorch's compiler, and works as it does with it."""

from __future__ import annotations

import subprocess
import sys

CHECKS = {
    "the compiler is not imported": "assert 'torch._dynamo' not in sys.modules",
    "it can be used afterwards": (
        "import torch; assert torch.compile(lambda x: x + 1, backend='eager')(torch.ones(1)) == 2"
    ),
    "the function asks it when it is called": (
        "import torch, torchvision; torch.use_deterministic_algorithms(True); "
        "assert torchvision.ops.roi_align(torch.ones(1, 1, 8, 8), [torch.tensor([[0., 0, 4, 4]])], 2).sum() == 4"
    ),
}


def test_the_compiler_is_imported_when_it_is_used_and_not_before():
    code = "; ".join(["import sys", "from emofuse.streams.networks.torchvision_parts import models", *CHECKS.values()])
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_torchvision_that_needs_more_of_the_compiler_is_imported_as_usual(tmp_path):
    package = tmp_path / "torchvision"
    package.mkdir()
    (package / "__init__.py").write_text("from torch._dynamo.utils import something_else\n", encoding="utf-8")
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import torch\n"
        "from emofuse.streams.networks.lighter_imports import import_torchvision\n"
        "import_torchvision(); assert 'torchvision' not in sys.modules\n"
        "assert not any(name.startswith('torch._dynamo') for name in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
