"""A second device whose memory is host memory, `sim`: what a GPU refuses it refuses, and computes what a CPU does."""

from __future__ import annotations

import shutil
import types
from pathlib import Path

import torch
from torch.utils import cpp_extension

from simulated import recurrent

NAME = "sim"
LIMIT = 2**34
"""Bytes of memory that it has."""
ABSENT = None if shutil.which("g++") and shutil.which("ninja") else "a simulated device needs g++ and ninja to be built"


def install() -> torch.library.Library:
    """Build the device and make it torch's accelerator for the rest of this process; keep what is returned."""
    source = Path(__file__).with_name("simulated.cpp")
    cpp_extension.load(NAME, [str(source)], extra_cflags=["-O0"], is_python_module=False)
    torch.utils.rename_privateuse1_backend(NAME)
    torch.ops.simulated.register()
    torch._register_device_module(NAME, _module())
    torch.utils.generate_methods_for_privateuse1_backend()
    torch.ops.simulated.limit(LIMIT)
    return recurrent.register()


def _module() -> types.ModuleType:
    """Return what `torch.cuda` is to CUDA, as far as torch asks for it."""
    module = types.ModuleType(f"torch.{NAME}")
    module.is_available = module.is_initialized = lambda: True
    module._is_in_bad_fork = lambda: False
    module._lazy_init = lambda: None
    module.device_count, module.current_device = lambda: 1, lambda: 0
    module.get_amp_supported_dtype = lambda: [torch.bfloat16]
    module.manual_seed = module.manual_seed_all = torch.ops.simulated.seed
    module.get_rng_state = lambda device=NAME: torch.ops.simulated.state()
    module.set_rng_state = lambda state, device=NAME: torch.ops.simulated.set_state(state)
    return module
