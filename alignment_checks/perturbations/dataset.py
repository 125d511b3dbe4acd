"""Perturbations of the dataset δ(X, Y). Each family's strategy and its effect on a run stand together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from hashlib import blake2b

import torch
from hypothesis.strategies import SearchStrategy
from torch import Tensor

from alignment_checks.objectives import IGNORED
from alignment_checks.perturbations.family import Family, Named, drawn, positive, up_to
from alignment_checks.perturbations.value import Perturbation
from alignment_checks.setups.fingerprints import content
from alignment_checks.setups.realization import Realization

Data = tuple[Tensor, ...]


def label_noise(max_rate: float) -> SearchStrategy[Perturbation]:
    """Symmetric label noise: label i becomes another class, uniformly, iff uᵢ < rate (Natarajan et al., 2013).

    Parameters
    ----------
    max_rate : float in (0, 1]
        Largest probability that a label is flipped. The labels may be class indices, one-hot rows, or 0./1. floats. The
        index that torch's losses ignore by default, −100, is no class, and stays where it is.

    Examples
    --------
    >>> label_noise(max_rate=0.05)
    label_noise(max_rate=0.05)
    """
    return up_to(LABEL_NOISE, "max_rate", max_rate)


def _flip_labels(run: Realization, delta: Perturbation) -> Realization:
    labels, classes = _classes(run, delta)
    if len(classes) < 2:
        raise ValueError("label_noise needs at least two classes; the targets hold one")
    random = delta.generator()
    flipped = torch.rand(labels.shape, generator=random, dtype=torch.float64, device="cpu") < (delta.magnitude or 0.0)
    flipped &= labels != IGNORED
    by = torch.randint(1, len(classes), labels.shape, generator=random, device="cpu")
    index = torch.searchsorted(classes, labels)
    return _relabelled(run, torch.where(flipped, classes[(index + by) % len(classes)], labels))


def _labels_changed(before: Realization, after: Realization, delta: Perturbation) -> float:
    old, new = (_labels(_data(run, delta)[-1], delta) for run in (before, after))
    return float((old != new)[old != IGNORED].double().mean())


LABEL_NOISE = Family("label_noise", "dataset", "rate", _flip_labels, _labels_changed, seeded=True, most=1.0)


def label_permutation(max_fraction: float) -> SearchStrategy[Perturbation]:
    """Swap labels between randomly paired examples: the class counts stay as they are.

    Parameters
    ----------
    max_fraction : float in (0, 1]
        Largest fraction of the examples whose label is swapped with another's.
    """
    return up_to(LABEL_PERMUTATION, "max_fraction", max_fraction)


def _swap_labels(run: Realization, delta: Perturbation) -> Realization:
    targets = _data(run, delta)[-1]
    order = torch.randperm(len(targets), generator=delta.generator(), device="cpu")
    pairs = int((delta.magnitude or 0.0) * len(targets) / 2)
    left, right = order[0 : 2 * pairs : 2], order[1 : 2 * pairs : 2]
    source = torch.arange(len(targets), device="cpu")
    source[left], source[right] = right, left
    return _with_targets(run, targets[source])


def _targets_changed(before: Realization, after: Realization, delta: Perturbation) -> float:
    old, new = (_data(run, delta)[-1] for run in (before, after))
    return float((old != new).reshape(len(old), -1).any(1).double().mean())


LABEL_PERMUTATION = Family(
    "label_permutation", "dataset", "fraction", _swap_labels, _targets_changed, seeded=True, most=1.0
)


def feature_noise(max_sigma: float) -> SearchStrategy[Perturbation]:
    """Add Gaussian noise to the floating-point inputs, in units of each feature's standard deviation.

    Parameters
    ----------
    max_sigma : float above 0
    """
    return up_to(FEATURE_NOISE, "max_sigma", max_sigma)


def _add_noise(run: Realization, delta: Perturbation) -> Realization:
    data, random = _data(run, delta), delta.generator()
    if not any(part.is_floating_point() for part in run.inputs):
        raise ValueError("feature_noise needs floating-point inputs; this setup's are all integers")
    count = max(1, len(data) - 1)
    noisy = [_noisy(part, float(delta.magnitude or 0.0), random) for part in data[:count]]
    return replace(run, data=(*noisy, *data[count:]))


def _noisy(part: Tensor, sigma: float, random: torch.Generator) -> Tensor:
    if not part.is_floating_point():
        return part
    noise = torch.randn(part.shape, generator=random, dtype=torch.float64, device="cpu")
    spread = part.double().std(0, correction=0)
    return (part.double() + sigma * spread * noise).to(part.dtype)


def _noise_added(before: Realization, after: Realization, delta: Perturbation) -> float:  # noqa: ARG001
    pairs = zip(before.inputs, after.inputs, strict=True)
    every = torch.cat([_in_spreads(new - old, old) for old, new in pairs if old.is_floating_point()])
    return float(every.square().mean().sqrt()) if every.numel() else 0.0


def _in_spreads(change: Tensor, old: Tensor) -> Tensor:
    """Return changes in units of their feature's standard deviation, but for features that have none."""
    spread = old.double().std(0, correction=0)
    return (change.double() / spread)[..., spread > 0].reshape(-1)


FEATURE_NOISE = Family("feature_noise", "dataset", "sigma", _add_noise, _noise_added, seeded=True)


def subsample(max_fraction: float) -> SearchStrategy[Perturbation]:
    """Leave out example i iff uᵢ < fraction; at least one is kept.

    Parameters
    ----------
    max_fraction : float in (0, 1]
        Largest probability that an example is left out.

    Examples
    --------
    >>> import alignment_checks as ac
    >>> from torch.nn.functional import mse_loss
    >>> x = torch.zeros(37, 1)
    >>> setup = ac.TrainingSetup(lambda: torch.nn.Linear(1, 1), (x, x), mse_loss, torch.optim.SGD, steps=1)
    >>> round(Perturbation("subsample", 0.05, 0.5, seed=0).achieved(setup), 3)
    0.027
    """
    return up_to(SUBSAMPLE, "max_fraction", max_fraction)


def _leave_out(run: Realization, delta: Perturbation) -> Realization:
    data = _data(run, delta)
    u = torch.rand(len(data[0]), generator=delta.generator(), dtype=torch.float64, device="cpu")
    kept = u >= (delta.magnitude or 0.0)
    kept[u.argmax()] = True
    return run if bool(kept.all()) else replace(run, data=tuple(part[kept] for part in data))


def _left_out(before: Realization, after: Realization, delta: Perturbation) -> float:  # noqa: ARG001
    return 1 - after.examples / before.examples


SUBSAMPLE = Family("subsample", "dataset", "fraction", _leave_out, _left_out, seeded=True, most=1.0)


def redraw(max_fraction: float, pool: Sequence[Tensor]) -> SearchStrategy[Perturbation]:
    """Replace example i by one from a pool iff uᵢ < fraction: another sample of the same population.

    Parameters
    ----------
    max_fraction : float in (0, 1]
    pool : sequence of tensors
        As `data`: same number of tensors, shapes and dtypes, but for the number of examples, and floats are cast to
        the dtype of the data's, as these are to the setup's. Examples are taken without repetition where the pool has
        as many as the dataset.

    Examples
    --------
    >>> redraw(max_fraction=0.5, pool=(torch.zeros(4, 2), torch.zeros(4)))
    redraw(max_fraction=0.5, pool=4c1cf70d233e)
    """
    limit = positive("redraw", "max_fraction", max_fraction, most=REDRAW.most)
    parts = _checked_pool(pool)
    digest = blake2b(b"".join(map(content, parts)), digest_size=6).hexdigest()
    shown = {"max_fraction": max_fraction, "pool": Named(digest)}
    return drawn(REDRAW, limit, options=(("pool", digest),), payload=parts, shown=shown)


def _checked_pool(pool: Sequence[Tensor]) -> Data:
    parts = (pool,) if isinstance(pool, Tensor) else tuple(pool)
    if not parts or not all(isinstance(p, Tensor) and p.ndim for p in parts) or len({len(p) for p in parts}) != 1:
        raise ValueError("redraw: `pool` must be tensors whose first axes agree, as `data` is; such as pool=(x, y)")
    if not len(parts[0]):
        raise ValueError("redraw: `pool` holds no examples; expected at least one")
    return tuple(part.detach().cpu().clone() for part in parts)  # it goes by a digest, which has to stay true


def _take_from_pool(run: Realization, delta: Perturbation) -> Realization:
    data, pool, random = _data(run, delta), delta.payload, delta.generator()
    if [p.shape[1:] for p in pool] != [p.shape[1:] for p in data]:
        raise ValueError(
            f"redraw: `pool` must be shaped as `data` is; expected examples of shapes "
            f"{[tuple(p.shape[1:]) for p in data]}, got {[tuple(p.shape[1:]) for p in pool]}"
        )
    if any(
        a.dtype != b.dtype and not (a.is_floating_point() and b.is_floating_point())
        for a, b in zip(data, pool, strict=True)
    ):
        raise ValueError(
            f"redraw: `pool` must be of the dtypes of `data`, but for the width of floats; expected "
            f"{[p.dtype for p in data]}, got {[p.dtype for p in pool]}. Cast it as `data` is: labels to int64, say"
        )
    n, m = len(data[0]), len(pool[0])
    u = torch.rand(n, generator=random, dtype=torch.float64, device="cpu")
    if m >= n:
        source = torch.randperm(m, generator=random, device="cpu")[:n]
    else:
        source = torch.randint(m, (n,), generator=random, device="cpu")
    taken = u < (delta.magnitude or 0.0)
    return replace(run, data=tuple(_taken(a, b.to(a.dtype)[source], taken) for a, b in zip(data, pool, strict=True)))


def _taken(own: Tensor, other: Tensor, taken: Tensor) -> Tensor:
    return torch.where(taken.reshape(-1, *[1] * (own.ndim - 1)), other, own)


def _redrawn(before: Realization, after: Realization, delta: Perturbation) -> float:
    pairs = zip(_data(before, delta), _data(after, delta), strict=True)
    changed = torch.stack([(a != b).reshape(len(a), -1).any(1) for a, b in pairs]).any(0)
    return float(changed.double().mean())


REDRAW = Family("redraw", "dataset", "fraction", _take_from_pool, _redrawn, seeded=True, needs="pool", most=1.0)


# -------------------------------------------------------------------------------------------------- labels of any form


def _data(run: Realization, delta: Perturbation) -> Data:
    if run.data is None:
        raise ValueError(f"{delta.family} perturbs a dataset; this setup has none (data=None)")
    return run.data


def _with_targets(run: Realization, targets: Tensor) -> Realization:
    return replace(run, data=(*(run.data or ())[:-1], targets))


def _classes(run: Realization, delta: Perturbation) -> tuple[Tensor, Tensor]:
    """Return the labels as integers, and the sorted classes that the unperturbed dataset has."""
    labels = _labels(_data(run, delta)[-1], delta)
    original = run.setup.data
    assert original is not None, "a run has data only where its setup has"  # noqa: S101
    targets = original[-1]
    width = targets.shape[-1] if _is_one_hot(targets) else None
    every = torch.arange(width, device="cpu") if width else torch.unique(_labels(targets, delta))
    return labels, every[every != IGNORED]


def _labels(targets: Tensor, delta: Perturbation) -> Tensor:
    if not targets.is_floating_point():
        return targets.long()
    if _is_one_hot(targets):
        return targets.argmax(-1)
    if bool(((targets == 0) | (targets == 1)).all()):
        return targets.long()
    raise ValueError(
        f"{delta.family} needs class labels: integers, one-hot rows, or 0./1. floats; got {targets.dtype} targets "
        f"of shape {tuple(targets.shape)}"
    )


def _is_one_hot(targets: Tensor) -> bool:
    if not targets.is_floating_point() or targets.ndim < 2 or targets.shape[-1] < 2:
        return False
    return bool((targets.sum(-1) == 1).all()) and bool(((targets == 0) | (targets == 1)).all())


def _relabelled(run: Realization, labels: Tensor) -> Realization:
    targets = (run.data or ())[-1]
    if _is_one_hot(targets):
        return _with_targets(run, torch.nn.functional.one_hot(labels, targets.shape[-1]).to(targets.dtype))
    return _with_targets(run, labels.to(targets.dtype))


FAMILIES = (LABEL_NOISE, LABEL_PERMUTATION, FEATURE_NOISE, SUBSAMPLE, REDRAW)
