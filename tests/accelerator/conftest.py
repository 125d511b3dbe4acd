"""A process in which torch has an accelerator: the machine's own, or else a simulated one, as long as it lives."""

from pathlib import Path

import pytest
import simulated
import torch
import torch._inductor.config  # by the first deterministic algorithm: within an inner run it would be loaded twice

REAL = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
_KERNELS = None if REAL or simulated.ABSENT else simulated.install()
ANYWHERE = {"test_same_as_cpu.py", "test_placement.py"}
"""What these promise is promised of a real accelerator as well; the other tests ask the simulated one what it saw."""


def pytest_collection_modifyitems(items):
    for item in items:
        if REAL and Path(item.path).name not in ANYWHERE:
            item.add_marker(pytest.mark.skip(reason=f"needs the simulated device, and there is '{REAL}'"))
        elif simulated.ABSENT and not REAL:
            item.add_marker(pytest.mark.skip(reason=simulated.ABSENT))


@pytest.fixture(autouse=True)
def device():
    """Give its name, and have it as torch has it before each test: nothing read back, all of its memory to be had."""
    if REAL:
        yield REAL.type
        return
    torch.ops.simulated.reads()
    torch.ops.simulated.limit(simulated.LIMIT)
    yield simulated.NAME
    torch.ops.simulated.limit(simulated.LIMIT)
