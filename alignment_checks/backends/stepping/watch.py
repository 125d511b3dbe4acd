"""What an optimizer does to stacked lanes, seen operation by operation: what could mix lanes is refused.

An operation that treats each element alone cannot couple lanes, wherever they are stacked; neither can an allocation
or a copy. Everything else is refused, whether or not it would have mixed them: reductions, products, views that
could cut across lanes, random draws, and reads of more than one number from the host.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.overrides import TorchFunctionMode

from alignment_checks.backends.stepping.aligned import Kernels, is_pointwise
from alignment_checks.backends.stepping.refusal import StepRefused
from alignment_checks.inspection.modes import DispatchMode


class PointwiseOnly:
    """Within this context, what could mix the elements of a tensor raises `StepRefused`.

    Parameters
    ----------
    more : modes
        Are entered too.
    aligned : bool
        Whether no element is left over anyway, for other code than its neighbors: see `aligned`.
    """

    def __init__(self, *more: TorchFunctionMode, aligned: bool = True) -> None:
        self.modes: tuple[Any, ...] = (*more, _NoHostReads(), _NoMixing(aligned=aligned))

    def __enter__(self) -> None:
        for mode in self.modes:
            mode.__enter__()

    def __exit__(self, *exception: Any) -> None:
        for mode in reversed(self.modes):
            mode.__exit__(*exception)


class _NoMixing(DispatchMode):  # type: ignore[no-untyped-call]
    def __init__(self, *, aligned: bool) -> None:
        super().__init__()
        self.seen: set[Any] = set()
        self.kernels = None if aligned else Kernels()

    def __torch_dispatch__(
        self, func: Any, types: Iterable[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func not in self.seen and not _fills_where(func, args):
            if not keeps_elements_apart(func):
                raise StepRefused(f"{func} can mix lanes")
            self.seen.add(func)
        if self.kernels is not None and func not in self.kernels.alike:
            return self.kernels.call(func, args, kwargs)
        return func(*args, **kwargs) if kwargs else func(*args)


def _fills_where(func: Any, args: tuple[Any, ...]) -> bool:
    """Return whether this is `tensor[mask] = number`: a fill of each element by a mask of its own."""
    if func is not torch.ops.aten.index_put_.default or len(args) > 3:
        return False
    tensor, (mask, *more), value = args
    return not more and mask is not None and mask.dtype is torch.bool and mask.shape == tensor.shape and value.ndim == 0


def keeps_elements_apart(operation: OpOverload) -> bool:
    """Return whether an operation treats each element alone: pointwise, an allocation, a copy, or of no tensor."""
    if torch.Tag.nondeterministic_seeded in operation.tags:
        return False
    harmless = operation.namespace == "aten" and operation.overloadpacket.__name__ in _HARMLESS
    return operation.namespace == "profiler" or harmless or is_pointwise(operation)


_ALLOCATIONS = """
    empty empty_like empty_strided new_empty new_empty_strided zeros zeros_like new_zeros ones ones_like new_ones full
    full_like new_full fill_ zero_ scalar_tensor _foreach_zero_
"""
"""What is in the memory is uniform."""
_COPIES = "clone copy_ _to_copy lift_fresh lift_fresh_copy _foreach_copy_ _foreach_clone"
_NAMES = "alias detach detach_ view_as_real view_as_complex"
"""The same elements under another name; the two parts of a complex number become a last axis."""
_NUMBERS = "_local_scalar_dense"
"""Reads one number from the host: where there are lanes to mix, one that is not of any lane."""
_FUSED = "_fused_adam_ _fused_adamw_ _fused_sgd_ _fused_adagrad_"
"""Each updates element by element, by several pointwise operations at once."""
_HARMLESS = frozenset(f"{_ALLOCATIONS} {_COPIES} {_NAMES} {_NUMBERS} {_FUSED}".split())


class _NoHostReads(TorchFunctionMode):
    """Refuse what hands a tensor's memory to code that no dispatch mode sees."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Iterable[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func in _HOST_READS and args[0].numel() > 1:
            raise StepRefused(f"Tensor.{func.__name__} reads lanes from the host")
        return func(*args, **kwargs) if kwargs else func(*args)


_HOST_READS = frozenset(
    getattr(Tensor, name) for name in ("numpy", "tolist", "__array__", "__dlpack__", "data_ptr", "untyped_storage")
)
