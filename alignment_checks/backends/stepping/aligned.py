"""Pointwise operations whose elements have the same bits wherever they stand.

On a CPU a kernel takes elements by whole vectors, and those left over at the end one by one, by code that may round
otherwise: so does `sigmoid`, so does `pow`, in float32. In a stack of lanes the elements left over are the last lane's.
An operation that may round otherwise is computed of copies that are filled up, so that none is left over.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map_only

from alignment_checks.backends.stepping.foreach import one_by_one
from alignment_checks.inspection.modes import DispatchMode, written

ALIGNED = 64
"""Elements are filled up to a multiple of so many: no element is left over for other code than its neighbors."""
VECTORS = 128
"""Bytes that a kernel takes at once, at most: two vectors of AVX-512."""

_CHOOSE = """
    neg sign signbit copysign clamp clamp_min clamp_max maximum minimum fmax fmin where eq ne lt le gt ge logical_and
    logical_or logical_xor logical_not bitwise_and bitwise_or bitwise_xor bitwise_not isnan isfinite isinf nan_to_num
    floor ceil round trunc relu threshold masked_fill heaviside fill zero copy _to_copy to clone detach alias real imag
    conj lift_fresh
"""
"""They compute nothing that would be rounded in two ways."""
_ROUND_ONCE = "mul div abs absolute sqrt reciprocal sgn"
"""As IEEE 754 says, of real numbers."""
_MULTIPLY_AND_ADD = "add sub rsub addcmul addcdiv lerp"
"""Of numbers narrower than 32 bits, they round some elements between the two."""
_EXACT, _ONCE, _SUMS = (frozenset(names.split()) for names in (_CHOOSE, _ROUND_ONCE, _MULTIPLY_AND_ADD))
_SCALED = frozenset({"add", "sub", "rsub"})
"""Of one number that is scaled, they round it before or only with the sum."""
_UNTAGGED = frozenset(
    f"{name}_backward"
    for name in ("softplus", "elu", "leaky_relu", "hardtanh", "hardswish", "mish", "log_sigmoid", "smooth_l1_loss")
)
"""Treat each element alone, though torch does not say so."""
_PRODUCTS = (1, 2, 0.5, -1)
"""Powers that are computed by what rounds once."""


def never_rounds(operation: Any) -> bool:
    """Return whether a kernel gives an element the same bits wherever it stands, whatever its arguments are."""
    name = name_of(operation)
    return name in _EXACT or not (name in _ONCE or name in _SUMS or is_pointwise(operation))


def name_of(operation: Any) -> str:
    """Return what an operation is called, be it in place or of lists of tensors."""
    name: str = operation.overloadpacket.__name__
    return name.removeprefix("_foreach_").removesuffix("_")


def is_of_lists(operation: Any) -> bool:
    """Return whether an operation takes lists of tensors, `torch._foreach_add` say, and gives what each would."""
    found: bool = operation.overloadpacket.__name__.startswith("_foreach_")
    return found


def is_pointwise(operation: Any) -> bool:
    """Return whether an operation treats each element alone, as torch tags it, or its other form."""
    tagged = torch.Tag.pointwise in operation.tags or any(_is_tagged(*form) for form in _forms(operation))
    return tagged or name_of(operation) in _UNTAGGED


def _forms(operation: Any) -> list[tuple[str, str]]:
    """Return the (operation, overload) that an operation is, not in place and of one tensor: `X_` is X, also for lists.

    Those forms are tagged more completely.
    """
    if operation.namespace != "aten":
        return []
    single = name_of(operation)
    if is_of_lists(operation):
        return [(single, overload) for overload in ("default", "Tensor", "Tensor_Tensor")]
    return [(single, operation._overloadname)]


def _is_tagged(name: str, overload: str) -> bool:
    form = getattr(getattr(torch.ops.aten, name, None), overload, None)
    return form is not None and torch.Tag.pointwise in form.tags


def are_left_over(tensors: Iterable[Tensor], size: int) -> bool:
    """Return whether elements of tensors that are broadcast to so many each are left over by a kernel."""
    return any(size * tensor.element_size() % VECTORS for tensor in tensors)


def broadcast_shape(tensors: Sequence[Tensor]) -> torch.Size:
    """Return the shape that tensors are broadcast to."""
    shape: torch.Size = torch.broadcast_shapes(*(one.shape for one in tensors))  # type: ignore[no-untyped-call]
    return shape


def aligned(operation: Any, args: tuple[Any, ...], named: dict[str, Any]) -> Any:
    """Return what a pointwise operation gives, of copies that are filled up where elements would be left over."""
    if is_of_lists(operation):
        with Aligned():
            found = one_by_one(operation.overloadpacket.__name__, args, named)
        return None if found is None else list(found)
    tensors = [one for one in tree_leaves((args, named)) if isinstance(one, Tensor) and one.ndim > 0]
    shape = broadcast_shape(tensors)
    if not tensors or not (are_left_over(tensors, shape.numel()) or any(_is_strided(one, shape) for one in tensors)):
        return operation(*args, **named)
    return _of_copies(operation, args, named, shape)


def _is_strided(tensor: Tensor, shape: torch.Size) -> bool:
    return tensor.shape != shape or not tensor.is_contiguous()


def _of_copies(operation: Any, args: tuple[Any, ...], named: dict[str, Any], shape: torch.Size) -> Any:
    size, into = shape.numel(), written(operation, args, named)

    def filled(tensor: Tensor) -> Tensor:
        row = tensor.expand(shape).reshape(-1)
        return torch.cat([row, row.new_ones(-size % ALIGNED)]) if tensor.ndim else tensor

    def taken(row: Tensor) -> Tensor:
        return row[:size].reshape(shape)

    copies, options = tree_map_only(Tensor, filled, (args, named))
    found = tree_map_only(Tensor, taken, operation(*copies, **options))
    return into[0].copy_(found) if into else found


class Kernels:
    """What was seen of the operations that a way of stepping takes: each is asked about once."""

    def __init__(self) -> None:
        self.alike, self.others = set[Any](), dict[Any, _Kernel]()

    def call(self, operation: Any, args: tuple[Any, ...], named: dict[str, Any] | None) -> Any:
        """Return what an operation gives, with no element rounded otherwise for where it stands."""
        if self.round_alike(operation, args, named):
            return operation(*args, **named) if named else operation(*args)
        return aligned(operation, args, named or {})

    def round_alike(self, operation: Any, args: tuple[Any, ...], named: dict[str, Any] | None) -> bool:
        """Return whether the operation gives elements of these arguments the same bits wherever they stand."""
        if operation in self.alike:
            return True
        if operation not in self.others:
            if never_rounds(operation):
                self.alike.add(operation)
                return True
            self.others[operation] = _Kernel.of(operation)
        return self.others[operation].rounds_alike(args, named)


class _Kernel(NamedTuple):
    """An operation that may round otherwise.

    Attributes
    ----------
    least : int or None
        Bytes of the narrowest real numbers that it rounds alike; None if it rounds none alike but as a `power`.
    scales : bool
        Whether it is a sum that may scale its second argument.
    power : bool
    """

    least: int | None
    scales: bool
    power: bool

    @classmethod
    def of(cls, operation: Any) -> _Kernel:
        name, twice = name_of(operation), "mode" in operation._overloadname  # a quotient that is rounded to an integer
        least = 4 if name in _SUMS or (name in _ONCE and twice) else 1 if name in _ONCE else None
        return cls(least, name in _SCALED, name == "pow")

    def rounds_alike(self, args: tuple[Any, ...], named: dict[str, Any] | None) -> bool:
        if self.least is None:
            return self.power and isinstance(args[1], (int, float)) and args[1] in _PRODUCTS and _is_real(args[0], 1)
        if not _is_real(args[0], self.least) or not (len(args) == 1 or _is_real(args[1], self.least)):
            return False
        return not (self.scales and (named or len(args) > 2) and _scales_a_number(args, named))


def _is_real(value: Any, least: int) -> bool:
    """Return whether a number, or numbers of so many bytes at least, are real."""
    if isinstance(value, (list, tuple)):
        return _is_real(value[0], least)
    if isinstance(value, Tensor):
        return value.element_size() >= least and not value.is_complex()
    return not isinstance(value, complex)


def _scales_a_number(args: tuple[Any, ...], named: dict[str, Any] | None) -> bool:
    """Return whether a sum is of one number, or a tensor of no axis, times another."""
    other, alpha = args[1], (named or {}).get("alpha", args[2] if len(args) > 2 else 1)
    return alpha != 1 and not isinstance(other, (list, tuple)) and (not isinstance(other, Tensor) or other.ndim == 0)


class Aligned(DispatchMode):  # type: ignore[no-untyped-call]
    """Within this context no element of a tensor has other bits for where it stands."""

    def __init__(self) -> None:
        super().__init__()
        self.kernels = Kernels()

    def __torch_dispatch__(
        self, func: Any, types: Iterable[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return self.kernels.call(func, args, kwargs)
