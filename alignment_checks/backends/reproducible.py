"""A replay has to be a replay: the same bits each time, and a word on operations that cannot give them."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any, cast

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from alignment_checks.backends.job import Record, because
from alignment_checks.backends.stepping.refusal import first_line


@contextmanager
def reproducible(device: torch.device) -> Iterator[int]:
    """Compute the same bits each time, whoever calls: on a CPU with one intra-op thread, elsewhere by fixed algorithms.

    Gradients are taken also where the caller takes none, as within `torch.no_grad()`. Yields how many threads torch was
    given on a CPU: so many processes may train at once.
    """
    alike = _one_thread() if device.type == "cpu" else _deterministic(device)
    with alike as threads, _exact(), torch.inference_mode(mode=False), torch.enable_grad():
        yield threads


@contextmanager
def _exact() -> Iterator[None]:
    """Have float32 mean float32, not TF32 or bfloat16, as it does not by default in cuDNN's convolutions."""
    cuda, cudnn, onednn = cast(Any, (torch.backends.cuda, torch.backends.cudnn, torch.backends.mkldnn))
    operations = (cuda.matmul, cudnn.conv, cudnn.rnn, onednn.matmul, onednn.conv, onednn.rnn)
    before, older = [operation.fp32_precision for operation in operations], _older()
    try:
        _set_older({name: exact for name, exact in _EXACT.items() if name in older})
        for operation in operations:
            operation.fp32_precision = "ieee"
        yield
    finally:
        _set_older(older)
        for operation, precision in zip(operations, before, strict=True):
            operation.fp32_precision = "none"  # as it was, if that comes to the same: it follows torch's own then
            if operation.fp32_precision != precision:
                operation.fp32_precision = precision


_EXACT = {"cuDNN": False, "products": "highest"}
"""Of torch's older flags, what stands for float32; while they say another thing than the newer ones, to read them is an
error, and torch itself does, in `torch.backends.cudnn.flags`."""


def _older() -> dict[str, Any]:
    """Return those of torch's older flags that can be read: who has set newer ones has made the others an error."""
    found: dict[str, Any] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that they are the older ones
        with suppress(RuntimeError):
            found["cuDNN"] = torch.backends.cudnn.allow_tf32
        with suppress(RuntimeError):
            found["products"] = torch.get_float32_matmul_precision()
    return found


def _set_older(flags: dict[str, Any]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if "cuDNN" in flags:
            torch.backends.cudnn.allow_tf32 = flags["cuDNN"]
        if "products" in flags:
            torch.set_float32_matmul_precision(flags["products"])


@contextmanager
def _one_thread() -> Iterator[int]:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        yield before
    finally:
        torch.set_num_threads(before)


@contextmanager
def _deterministic(device: torch.device) -> Iterator[int]:
    """Have torch take algorithms that add in a fixed order, and choose none by the clock; put back what was set.

    The device is the current one: what asks torch for that, a generator's state or a user's own code, means this one.
    An operation that has no such algorithm warns (see `remarks`), unless the user wants it to be an error.
    """
    asked, warns = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    memory: Any = torch.utils.deterministic
    fills, times = memory.fill_uninitialized_memory, torch.backends.cudnn.benchmark
    try:
        torch.use_deterministic_algorithms(True, warn_only=warns or not asked)
        memory.fill_uninitialized_memory = fills and asked  # filling what is never read takes time
        torch.backends.cudnn.benchmark = False
        with torch.accelerator.device_index(device.index), sdpa_kernel(SDPBackend.MATH):  # others add up in any order
            yield 1
    finally:
        torch.use_deterministic_algorithms(asked, warn_only=warns)
        memory.fill_uninitialized_memory = fills
        torch.backends.cudnn.benchmark = times


@contextmanager
def remarks(notes: list[str]) -> Iterator[None]:
    """Collect what torch warns of that concerns us alone: a user who runs with `-W error` did not ask to hear it."""
    with warnings.catch_warnings(record=True) as caught:
        for pattern in _OURS:
            warnings.filterwarnings("default", message=pattern)  # once where it comes from, not once a step
        yield
    for one in caught:
        if any(re.match(pattern, str(one.message)) for pattern in _OURS):
            notes.append(first_line(one.message).partition(", but you set")[0])
        else:
            warnings.warn_explicit(one.message, one.category, one.filename, one.lineno)


def noted(records: list[Record], notes: Sequence[str]) -> list[Record]:
    """Return records with what was remarked of them among their reasons."""
    told = dict.fromkeys(notes)
    return [replace(record, reason=because(*told, record.reason)) for record in records] if told else records


_OURS = (
    "There is a performance drop",
    r"\S+ does not have a deterministic implementation",
    "RNN module weights are not part of single contiguous chunk of memory",
)
"""What `vmap` says of its slow paths, operations that have no deterministic algorithm, and cuDNN of stacked weights."""
