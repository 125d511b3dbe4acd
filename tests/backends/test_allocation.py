"""Memory that each step frees and asks for again stays with the process."""

import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource, sys, torch
from alignment_checks.backends.allocation import keep_freed
if sys.argv[1] == "kept":
    keep_freed(torch.device("cpu"))

def step():
    return len([torch.zeros(2**21, dtype=torch.uint8) for _ in range(8)])

step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="it is glibc that learns by example")
def test_freed_memory_is_kept_from_step_to_step():
    faults = {
        how: int(subprocess.run([sys.executable, "-c", FAULTS, how], capture_output=True, text=True, check=True).stdout)
        for how in ("kept", "given back")
    }
    assert faults["kept"] < faults["given back"] / 4
