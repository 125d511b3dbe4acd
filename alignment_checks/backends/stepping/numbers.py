"""A hyperparameter that is another number in each lane, for optimizers that know of one number.

To Python's arithmetic `LaneNumbers` is a number; to torch's operations, within `AsColumns`, a column with a row for
each lane. Whatever else in Python takes it for one number is refused. What reads it behind Python's back, as
`math.sqrt` does, gets NaN in every lane, and compares false in every lane. So the audit follows each lane that differs
by hyperparameters at least once, and sees which of them would have moved otherwise.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch._C._functorch import _add_batch_dim, maybe_current_level
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from alignment_checks.backends.stepping.foreach import OneByOne
from alignment_checks.backends.stepping.refusal import StepRefused

Array = np.ndarray[Any, np.dtype[np.float64]]


def _values(one: object) -> Any:
    return one.values if isinstance(one, LaneNumbers) else one


def _calculated(of: Callable[[Any, Any], Any], a: object, b: object) -> Any:
    if not (isinstance(a, (int, float)) and isinstance(b, (int, float))):
        return NotImplemented
    with np.errstate(divide="raise", invalid="raise", over="raise"):  # as Python raises
        return LaneNumbers(of(_values(a), _values(b)))


def _compared(of: Callable[[Any, Any], Any], a: object, b: object) -> Any:
    if not isinstance(b, (int, float)):
        return NotImplemented
    found = of(_values(a), _values(b))
    if bool((found != found[0]).any()):
        raise StepRefused("it branches on a hyperparameter by which lanes differ")
    return bool(found[0])


def _power(base: Any, exponent: Any) -> Array:
    """Return powers as Python has them: NumPy's may differ in the last bit."""
    bases, exponents = np.broadcast_arrays(np.asarray(base, np.float64), np.asarray(exponent, np.float64))
    return np.array([b**e for b, e in zip(bases.tolist(), exponents.tolist(), strict=True)], np.float64)


def _arithmetic(of: Callable[[Any, Any], Any]) -> Any:
    return lambda mine, other: _calculated(of, mine, other), lambda mine, other: _calculated(of, other, mine)


def _comparison(of: Callable[[Any, Any], Any]) -> Any:
    return lambda mine, other: _compared(of, mine, other)


def _refused(*_: object) -> Any:
    raise StepRefused("it reads a hyperparameter, by which lanes differ, as one number")


class LaneNumbers(float):
    """A number for each lane, in float64 as Python has them; it compares as one where all lanes agree.

    >>> rates = LaneNumbers([0.25, 0.5])
    >>> 1 - 2 * rates, rates > 0
    (LaneNumbers([0.5, 0.0]), True)
    """

    values: Array
    columns: dict[object, Tensor]

    def __new__(cls, values: Sequence[float] | Array) -> LaneNumbers:
        """Return them as a float that is NaN."""
        one = super().__new__(cls, math.nan)
        one.values, one.columns = np.asarray(values, dtype=np.float64), {}
        return one

    __add__, __radd__ = _arithmetic(operator.add)
    __sub__, __rsub__ = _arithmetic(operator.sub)
    __mul__, __rmul__ = _arithmetic(operator.mul)
    __truediv__, __rtruediv__ = _arithmetic(operator.truediv)
    __pow__, __rpow__ = _arithmetic(_power)
    __eq__, __ne__ = _comparison(operator.eq), _comparison(operator.ne)
    __lt__, __le__ = _comparison(operator.lt), _comparison(operator.le)
    __gt__, __ge__ = _comparison(operator.gt), _comparison(operator.ge)
    __hash__ = object.__hash__
    __float__ = __int__ = __trunc__ = __round__ = __floor__ = __ceil__ = _refused
    __mod__ = __rmod__ = __floordiv__ = __rfloordiv__ = __divmod__ = __rdivmod__ = _refused
    is_integer = as_integer_ratio = hex = conjugate = _refused

    def __neg__(self) -> LaneNumbers:
        return LaneNumbers(-self.values)

    def __pos__(self) -> LaneNumbers:
        return self

    def __abs__(self) -> LaneNumbers:
        return LaneNumbers(abs(self.values))

    def __bool__(self) -> bool:
        return bool(self != 0)

    def __repr__(self) -> str:
        return f"LaneNumbers({self.values.tolist()})"

    def __getnewargs__(self) -> tuple[Any]:
        return (self.values,)

    def column(self, like: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """Return them as a tensor that each element of `like`, shape (lanes, ...), meets its lane's number in.

        Under `vmap` `like` is one lane's, and so is what is returned. None is the dtype that torch calculates with
        numbers in.
        """
        dtype = dtype or (torch.float32 if torch.finfo(like.dtype).bits < 32 else like.dtype)
        level = maybe_current_level()
        if level is not None:
            # of as many axes as `like`: of none, it would be rounded to the dtype of what it meets
            column = torch.from_numpy(self.values.reshape(-1, *[1] * like.ndim))
            return _add_batch_dim(column.to(like.device, dtype), 0, level)
        if like.ndim == 0 or len(like) != len(self.values):
            raise StepRefused("a hyperparameter by which lanes differ meets a tensor that they share")
        key = (dtype, like.ndim, like.device)
        if key not in self.columns:
            column = torch.from_numpy(self.values.reshape(-1, *[1] * (like.ndim - 1)))
            self.columns[key] = column.to(like.device, dtype, non_blocking=True)
        return self.columns[key]


def of_lanes(number: float, lanes: int) -> list[float]:
    """Return each lane's number."""
    return number.values.tolist() if isinstance(number, LaneNumbers) else [float(number)] * lanes


class AsColumns(TorchFunctionMode):
    """Within this context torch's operations take `LaneNumbers` where they take a number."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Iterable[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        named = kwargs or {}
        if func.__name__.startswith("_foreach_"):
            return self._of_lists(func, args, named)
        if LaneNumbers in map(type, args) or LaneNumbers in map(type, named.values()):
            return _broadcast(func, args, named)
        return func(*args, **named)

    def _of_lists(self, func: Callable[..., Any], args: tuple[Any, ...], named: dict[str, Any]) -> Any:
        """Return what an operation of lists gives, one tensor after another where lanes differ by a number."""
        if not any(type(one) is LaneNumbers for one in tree_leaves((args, named))):
            return func(*args, **named)
        with self, OneByOne():
            return func(*args, **named)


def _broadcast(func: Callable[..., Any], args: tuple[Any, ...], named: dict[str, Any]) -> Any:
    like = next((arg for arg in args if isinstance(arg, Tensor) and arg.is_floating_point()), None)
    if like is None:
        raise StepRefused(f"{func.__name__} takes a hyperparameter, by which lanes differ, as one number")
    rewritten = _REWRITTEN.get(func.__name__)
    found = rewritten(func, *args, **named) if rewritten else func(*_columns(args, like), **_named(named, like))
    widened = isinstance(found, Tensor) and found.is_floating_point() and _are_of(like.dtype, args)
    return found.to(like.dtype) if widened else found


def _are_of(dtype: torch.dtype, args: Iterable[Any]) -> bool:
    """Return whether those tensors that hold fractions are of a dtype: then what is calculated of them is."""
    return all(arg.dtype is dtype for arg in args if isinstance(arg, Tensor) and arg.is_floating_point())


def _columns(args: Iterable[Any], like: Tensor) -> list[Any]:
    return [arg.column(like) if type(arg) is LaneNumbers else arg for arg in args]


def _named(named: dict[str, Any], like: Tensor) -> dict[str, Any]:
    return dict(zip(named, _columns(named.values(), like), strict=True))


def _added(func: Callable[..., Any], a: Tensor, b: Any, *, alpha: float = 1) -> Any:
    """Return a ± alpha · b, rounded once, as torch does it for one number: of the dtype of the sum."""
    wider = isinstance(b, Tensor) and b.ndim > 0 and b.is_floating_point() and b.element_size() > a.element_size()
    dtype = b.dtype if wider else a.dtype
    if type(alpha) is int and alpha == 1:
        return func(a, _column(b, a, dtype))
    signed = -alpha if func.__name__.startswith("sub") else alpha
    return _written(func, a, torch.addcmul(a, _column(b, a, dtype), _column(signed, a, dtype)))


def _raised(func: Callable[..., Any], a: Any, b: Any) -> Any:
    """Return a power, where torch rounds it as it does one of a single number."""
    like = a if isinstance(a, Tensor) else b
    exponent = a if func.__name__ == "__rpow__" else b
    apart = type(exponent) is LaneNumbers and np.isin(exponent.values, _NO_POWERS).any()
    if apart or torch.finfo(like.dtype).bits < 32:
        raise StepRefused("it takes powers that are rounded otherwise for one lane")
    return func(*_columns([a, b], like))


_NO_POWERS = (0.5, -0.5, 2, -2, 3, -1)
"""Exponents for which torch takes a root, a product or a quotient."""


def _multiplied(func: Callable[..., Any], a: Tensor, b: Tensor, c: Tensor, *, value: float = 1) -> Any:
    return _written(func, a, torch.addcmul(a, _scaled(b, value), c))


def _divided(func: Callable[..., Any], a: Tensor, b: Tensor, c: Tensor, *, value: float = 1) -> Any:
    return (Tensor.add_ if func.__name__.endswith("_") else Tensor.add)(a, _scaled(b, value) / c)


def _scaled(a: Tensor, by: float) -> Tensor:
    return a * (by.column(a) if type(by) is LaneNumbers else by)


def _column(one: Any, like: Tensor, dtype: torch.dtype) -> Tensor:
    """Return a number, or one for each lane, in a dtype; a tensor is itself."""
    if isinstance(one, Tensor):
        return one
    return one.column(like, dtype) if type(one) is LaneNumbers else like.new_full((), one, dtype=dtype)


def _written(func: Callable[..., Any], a: Tensor, found: Tensor) -> Tensor:
    return a.copy_(found) if func.__name__.endswith("_") else found


def _filled(func: Callable[..., Any], a: Tensor, value: LaneNumbers, **named: Any) -> Any:
    target = a if func.__name__ == "fill_" else torch.empty_like(a, **named)
    return target.copy_(value.column(target))


_REWRITTEN: dict[str, Callable[..., Any]] = {
    **dict.fromkeys(("add", "add_", "sub", "sub_", "__rsub__"), _added),
    **dict.fromkeys(("pow", "pow_", "__rpow__"), _raised),
    **dict.fromkeys(("addcmul", "addcmul_"), _multiplied),
    **dict.fromkeys(("addcdiv", "addcdiv_"), _divided),
    **dict.fromkeys(("fill_", "full_like"), _filled),
}
"""Operations that take a number where they take no tensor, as others that do."""
