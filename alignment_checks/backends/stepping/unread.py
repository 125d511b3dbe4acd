"""The state of an optimizer that never steps, which a scheduler may hold: whatever reads it is refused."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch.optim import Optimizer

from alignment_checks.backends.stepping.refusal import StepRefused


class UnreadState(defaultdict[Any, Any]):
    """An optimizer's state, in place of the one that it made itself; within `unread` it cannot be read."""

    refuses = False


def _refusing(name: str) -> Callable[..., Any]:
    method = getattr(defaultdict, name)

    def read(self: UnreadState, *args: Any, **named: Any) -> Any:
        if self.refuses:
            raise StepRefused("its scheduler looks at the optimizer's state")
        return method(self, *args, **named)

    return read


_READS = """
__getitem__ __setitem__ __delitem__ __contains__ __iter__ __reversed__ __len__ __eq__ __ne__ __or__ __ror__ __ior__
__repr__ __copy__ __reduce__ __missing__ get keys values items copy pop popitem setdefault update clear
"""
for _name in _READS.split():
    setattr(UnreadState, _name, _refusing(_name))


@contextmanager
def unread(optimizer: Optimizer) -> Iterator[None]:
    """Refuse, within this context, whatever reads the state of an optimizer, also by a reference held since before."""
    state: Any = optimizer.state
    state.refuses = True
    try:
        yield
    finally:
        state.refuses = False
