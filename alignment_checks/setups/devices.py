"""Which device a name means, and whether it computes in what a run takes."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from alignment_checks.setups.realization import Realization


def resolved(device: str) -> torch.device:
    """Return the device that a name means; "auto" is the accelerator that torch reports, if it computes in float64.

    Raises
    ------
    ValueError
        If torch has no such device here.
    """
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    if device == "auto":
        return accelerator if accelerator and computes_in_float64(accelerator) else torch.device("cpu")
    try:
        found = torch.device(device)
    except (RuntimeError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"`device` must be 'auto' or a torch device; got {device!r}: {reason}") from None
    have = f"'{accelerator}' and 'cpu'" if accelerator else "'cpu' alone"
    if accelerator and found.type == accelerator.type and (found.index or 0) >= torch.accelerator.device_count():
        have = f"{torch.accelerator.device_count()} of '{accelerator}', counted from 0,"
    elif found.type in ("cpu", accelerator.type if accelerator else "cpu"):
        return found
    raise ValueError(f"`device` {device!r} is not available: torch reports {have} here. device='auto' takes the best")


def computes_in_float64(device: torch.device) -> bool:
    """Return whether a device has float64, as a Mac's has not.

    Examples
    --------
    >>> computes_in_float64(torch.device("cpu"))
    True
    """
    try:
        torch.ones((), dtype=torch.float64, device=device)
    except TypeError:
        return False
    except RuntimeError as error:
        if "fp64" in str(error):  # as SYCL calls it
            return False
        raise
    return True


def check_float64(runs: Iterable[Realization], device: torch.device, *, random: bool) -> None:
    """Raise ValueError if a run takes float64 of a device that has none; `random` runs draw numbers in it."""
    if device.type == "cpu" or computes_in_float64(device):
        return
    why = next((found for run in runs if (found := _takes_float64(run, random=random))), None)
    if why:
        raise ValueError(f"`device` '{device}' does not compute in float64, and {why}. {_ANOTHER}")


def _takes_float64(run: Realization, *, random: bool) -> str | None:
    """Return what of a run is in float64, None if nothing is."""
    values = (*run.parameters.values(), *run.constants.values(), *(run.data or ()))
    if torch.float64 in (run.dtype, *(value.dtype for value in values)):
        return "the setup is in float64"
    return "the numbers that a run draws are" if random or run.noise else None


_ANOTHER = "Train on device='cpu', or, where it is the setup, in dtype=torch.float32"
