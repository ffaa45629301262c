"""Costs of heads are counted without importing PyTorch's compiler, which works as usual afterwards."""

from __future__ import annotations

import subprocess
import sys

CHECKS = (
    "import sys, torch",
    "from emofuse.specs import AttentionHeadSpec, ConcatHeadSpec",
    "from emofuse.training.costs import group_operations, head_cost",
    "from emofuse.training.machine import Machine",
    "cpu = Machine(torch.device('cpu'))",
    "heads, dims = (ConcatHeadSpec(), AttentionHeadSpec()), (('a', (5,)), ('b', (7,)))",
    "costs = lambda: [(head_cost(h, dims, 3, 8, cpu), group_operations(h, ((2,),) * 2, 2)) for h in heads]",
    "before = costs()",
    "assert 'torch._dynamo' not in sys.modules",
    "assert torch.compile(lambda x: x + 1, backend='eager')(torch.ones(1)) == 2",
    "assert sys.modules['torch._dynamo'].__file__ and torch._dynamo is sys.modules['torch._dynamo']",
    "head_cost.cache_clear(), group_operations.cache_clear()",
    "assert costs() == before",
)


def test_costs_are_the_same_without_and_with_the_compiler():
    done = subprocess.run([sys.executable, "-c", "\n".join(CHECKS)], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
