"""Pointwise operations whose elements have the same bits wherever they stand.

On a CPU a kernel takes elements by whole vectors, and those left over at the end one by one, by code that may round
otherwise: so does `sigmoid`, so does `pow`, in float32. In a stack of lanes the elements left over are the last lane's.
An operation that may round otherwise is computed of copies that are filled up, so that none is left over.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from alignment_checks.backends.stepping.refusal import StepRefused

ALIGNED = 64
"""Elements are filled up to a multiple of so many: no element is left over for other code than its neighbors."""
VECTORS = 128
"""Bytes that a kernel takes at once, at most: two vectors of AVX-512."""

_ROUND_ONCE = """
    mul div neg abs absolute sqrt reciprocal sign sgn signbit copysign clamp clamp_min clamp_max maximum minimum fmax
    fmin where eq ne lt le gt ge logical_and logical_or logical_xor logical_not bitwise_and bitwise_or bitwise_xor
    bitwise_not isnan isfinite isinf nan_to_num floor ceil round trunc relu threshold masked_fill heaviside
    fill zero copy _to_copy to clone detach alias real imag conj lift_fresh
"""
"""As IEEE 754 says, or not at all."""
_MULTIPLY_AND_ADD = "add sub rsub addcmul addcdiv lerp"
"""Of numbers narrower than 32 bits, they round some elements between the two."""
_EXACT, _SUMS = (frozenset(names.split()) for names in (_ROUND_ONCE, _MULTIPLY_AND_ADD))
_UNTAGGED = frozenset(
    f"{name}_backward" for name in ("softplus", "elu", "leaky_relu", "hardtanh", "hardswish", "mish", "log_sigmoid")
)
"""Treat each element alone, though torch does not say so."""
_PRODUCTS = (1, 2, 0.5, -1)
"""Powers that are computed by what rounds once."""


def rounds_alike(operation: Any) -> bool:
    """Return whether a kernel gives an element the same bits wherever it stands."""
    return name_of(operation) in _EXACT or not is_pointwise(operation)


def name_of(operation: Any) -> str:
    """Return what an operation is called, be it in place or of lists of tensors."""
    name: str = operation._schema.name.partition("::")[2]
    return name.removeprefix("_foreach_").removesuffix("_")


def is_pointwise(operation: Any) -> bool:
    """Return whether an operation treats each element alone, as torch tags it, or its other form."""
    tagged = torch.Tag.pointwise in operation.tags or any(_is_tagged(*form) for form in _forms(operation))
    return tagged or name_of(operation) in _UNTAGGED


def _forms(operation: Any) -> list[tuple[str, str]]:
    """Return the (operation, overload) that an operation is, not in place and of one tensor: `X_` is X, also for lists.

    Those forms are tagged more completely.
    """
    space, _, name = operation._schema.name.partition("::")
    if space != "aten":
        return []
    if name.startswith("_foreach_"):
        single = name.removeprefix("_foreach_").removesuffix("_")
        return [(single, overload) for overload in ("default", "Tensor", "Tensor_Tensor")]
    return [(name.removesuffix("_"), operation._overloadname)]


def _is_tagged(name: str, overload: str) -> bool:
    form = getattr(getattr(torch.ops.aten, name, None), overload, None)
    return form is not None and torch.Tag.pointwise in form.tags


def are_left_over(tensors: Iterable[Tensor], size: int) -> bool:
    """Return whether elements of tensors that are taken together, so many each, are left over by a kernel."""
    return any(size * tensor.element_size() % VECTORS for tensor in tensors)


def together(tensors: Sequence[Tensor]) -> torch.Size:
    """Return the shape that tensors are broadcast to."""
    shape: torch.Size = torch.broadcast_shapes(*(one.shape for one in tensors))  # type: ignore[no-untyped-call]
    return shape


def aligned(operation: Any, args: tuple[Any, ...], named: dict[str, Any]) -> Any:
    """Return what a pointwise operation gives, of copies that are filled up where elements would be left over.

    Raises
    ------
    StepRefused
        If it is one of lists of tensors, whose elements would be left over.
    """
    tensors = [one for one in tree_leaves((args, named)) if isinstance(one, Tensor) and one.ndim > 0]
    if operation._schema.name.startswith("aten::_foreach_"):
        if any(are_left_over([one], one.numel()) for one in tensors):
            raise StepRefused(f"{operation} rounds some elements otherwise")
        return operation(*args, **named)
    shape = together(tensors)
    if not tensors or not (are_left_over(tensors, shape.numel()) or any(_is_strided(one, shape) for one in tensors)):
        return operation(*args, **named)
    return _of_copies(operation, args, named, shape)


def _is_strided(tensor: Tensor, shape: torch.Size) -> bool:
    return tensor.shape != shape or not tensor.is_contiguous()


def _of_copies(operation: Any, args: tuple[Any, ...], named: dict[str, Any], shape: torch.Size) -> Any:
    size, written = shape.numel(), _written(operation, args, named)

    def filled(tensor: Tensor) -> Tensor:
        row = tensor.expand(shape).reshape(-1)
        return torch.cat([row, row.new_ones(-size % ALIGNED)]) if tensor.ndim else tensor

    def taken(row: Tensor) -> Tensor:
        return row[:size].reshape(shape)

    copies, options = tree_map_only(Tensor, filled, (args, named))
    found = tree_map_only(Tensor, taken, operation(*copies, **options))
    return found if written is None else written.copy_(found)


def _written(operation: Any, args: tuple[Any, ...], named: dict[str, Any]) -> Tensor | None:
    """Return the tensor that an operation writes into, None where it makes one."""
    given = {**dict(zip((one.name for one in operation._schema.arguments), args, strict=False)), **named}
    return next((given[one.name] for one in operation._schema.arguments if one.is_write and one.name in given), None)


class Kernels:
    """What was seen of the operations that a way of stepping takes: each is asked about once."""

    def __init__(self) -> None:
        self.alike, self.sums = set[Any](), set[Any]()

    def call(self, operation: Any, args: tuple[Any, ...], named: dict[str, Any] | None) -> Any:
        """Return what an operation gives, with no element rounded otherwise for where it stands."""
        if self.round_alike(operation, args):
            return operation(*args, **named) if named else operation(*args)
        return aligned(operation, args, named or {})

    def round_alike(self, operation: Any, args: tuple[Any, ...]) -> bool:
        """Return whether the operation gives elements of these arguments the same bits wherever they stand."""
        if operation in self.alike or (operation in self.sums and _are_wide(args[0])):
            return True
        if rounds_alike(operation):
            self.alike.add(operation)
        elif name_of(operation) in _SUMS:
            self.sums.add(operation)
        new = operation in self.alike or (operation in self.sums and _are_wide(args[0]))
        return new or _is_product(operation, args)


def _are_wide(value: Any) -> bool:
    one = value[0] if isinstance(value, (list, tuple)) else value
    return isinstance(one, Tensor) and one.element_size() >= 4


def _is_product(operation: Any, args: tuple[Any, ...]) -> bool:
    return name_of(operation) == "pow" and isinstance(args[1], (int, float)) and args[1] in _PRODUCTS


class Aligned(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Within this context no element of a tensor has other bits for where it stands."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.kernels = Kernels()

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Return that this mode is not to be wrapped for the compiler, which costs more than the mode itself."""
        return False

    def __torch_dispatch__(
        self, func: Any, types: Iterable[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return self.kernels.call(func, args, kwargs)
