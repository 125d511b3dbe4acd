"""A process of its own in which torch has an accelerator: the simulated one, for as long as it lives."""

import pytest
import simulated
import torch

_KERNELS = None if simulated.ABSENT else simulated.install()


def pytest_collection_modifyitems(items):
    if simulated.ABSENT:
        for item in items:
            item.add_marker(pytest.mark.skip(reason=simulated.ABSENT))


@pytest.fixture(autouse=True)
def device():
    """Give its name, and have it as torch has it before each test: nothing read back, all of its memory to be had."""
    torch.ops.simulated.reads()
    torch.ops.simulated.limit(simulated.LIMIT)
    yield simulated.NAME
    torch.ops.simulated.limit(simulated.LIMIT)
