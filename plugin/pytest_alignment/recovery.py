"""After a crash: what was in flight is trained one by one, until it is known what the process died of."""

from __future__ import annotations

from collections.abc import Callable

from alignment_checks.perturbations import Perturbation
from pytest_alignment.envelope import Plain
from pytest_alignment.journal import Crash
from pytest_alignment.portable import restored

Say = Callable[[str, str], None]


def recovered(crash: Crash, name: str, train: Callable[[Perturbation], None], say: Say) -> str | None:
    """Return what the process died of, in words; None where everything that was in flight trains by itself.

    What is known to be the cause is not tried again: that is up to the run after this one.

    Parameters
    ----------
    crash : Crash
    name : str
        Of the test, as a user types it.
    train : callable
        Trains one perturbation, having written in the journal that it does, in place of what is written of the crash.
    say : callable
    """
    batch = [delta for delta in (_read(plain, say) for plain in crash.batch) if delta is not None]
    if not batch:
        crash.forget()
        return None
    if len(crash.batch) == 1:
        crash.forget()
        died = f"the process died while it trained {batch[0].described()}"
        say(f"{died}   {name}", "crash")
        return f"{died}; neither it nor anything else was tried this time. The next run tries everything"
    say(f"a process died while it trained {len(batch)} perturbations at once; trying them one by one   {name}", "crash")
    for delta in batch:
        train(delta)
    crash.forget()
    say(f"each of the {len(batch)} trains by itself   {name}", "crash")
    return None


def _read(plain: Plain, say: Say) -> Perturbation | None:
    try:
        return restored(plain)
    except ValueError as error:
        say(f"one perturbation of the batch that was in flight cannot be tried: {error}. Skipped", "crash")
        return None
