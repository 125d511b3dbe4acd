"""The normal and Student's t distribution, which SciPy computes.

It takes longer to load than all the rest of the package, and is loaded by the first question.
"""

from __future__ import annotations


def normal_quantile(probability: float) -> float:
    """Return what a standard normal number stays below with this probability.

    Examples
    --------
    >>> round(normal_quantile(0.975), 4)
    1.96
    """
    from scipy.special import ndtri

    return float(ndtri(probability))


def student_quantile(freedom: float, probability: float) -> float:
    """Return what Student's t of so many degrees of freedom stays below with this probability.

    Examples
    --------
    >>> round(student_quantile(7, 0.975), 4)
    2.3646
    """
    from scipy.special import stdtrit

    return float(stdtrit(freedom, probability))


def student_probability(freedom: float, value: float) -> float:
    """Return the probability that Student's t of so many degrees of freedom stays below a value.

    Examples
    --------
    >>> round(student_probability(7, 2.3646), 3)
    0.975
    """
    from scipy.special import stdtr

    return float(stdtr(freedom, value))
