"""Hypothesis explains a failure by trying other values: what that would train, one by one, is left out."""

import pytest
from pytest_alignment import examples

SETUPS = """
    def bowl(lr):
        return ac.landscape(lambda x: (x**2).sum(), [1.0], optimizer=partial(torch.optim.SGD, lr=lr), steps=4)

    @settings(FEW, phases=PHASES)
    @given(delta=GAIN, lr=st.floats(0.05, 0.2), other=st.integers())
    def test_fails(alignment, delta, lr, other):
        CALL
"""
ALL = "tuple(Phase)"
OTHERS = "[phase for phase in Phase if phase is not Phase.explain]"
CALLS = {
    "delta": "alignment.assert_capability_robust(bowl(lr), delta=delta, rtol=0.1)",
    "comparison": "alignment.assert_more_capable(bowl(lr), than=bowl(0.12))",
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_no_setup_is_trained_for_an_explanation(suite, run, written, call):
    launches = []
    for phases in (ALL, OTHERS):
        suite("counting", SETUPS.replace("PHASES", phases).replace("CALL", call))
        result = run()
        result.assert_outcomes(failed=1)
        result.stdout.re_match_lines([r"E .*(Failing test case|Falsifying example): test_fails\(.*"])
        result.stdout.no_fnmatch_line("*Flaky*")
        launches.append(written("launches"))
    assert launches[0] == launches[1]


def test_what_is_known_already_is_explained_as_ever(suite, run):
    """Other values of `other` come to runs that have been trained; other learning rates are not tried, nor claimed."""
    suite("counting", SETUPS.replace("PHASES", ALL).replace("CALL", CALLS["delta"]))
    result = run()
    result.stdout.fnmatch_lines(["E * other=0,  # or any other generated value"])
    result.stdout.no_fnmatch_line("E * lr=*, * # or any other generated value")


def test_the_statistics_say_why_hypothesis_own_attempts_are_not_trained(suite, run):
    suite("counting", SETUPS.replace("PHASES", ALL).replace("CALL", CALLS["delta"]))
    result = run("--hypothesis-show-statistics")
    result.stdout.fnmatch_lines(["*%*because: not trained: alignment shrinks what fails by itself, in batches"])
    result.stdout.no_fnmatch_line("*reject() in*")


@pytest.mark.parametrize("hidden", ["SHRINKING", "EXPLAINING"])
def test_where_hypothesis_does_not_show_its_phases_that_is_said_and_nothing_else_changes(
    suite, run, section, monkeypatch, hidden
):
    module, owner, _ = getattr(examples, hidden)
    monkeypatch.setattr(examples, hidden, (module, owner, frozenset({"another_name"})))
    suite("counting", SETUPS.replace("PHASES", ALL).replace("CALL", CALLS["delta"]))
    result = run("-W", "default")
    result.assert_outcomes(failed=1, warnings=1)
    result.stdout.no_fnmatch_line("*Flaky*")
    assert [line for line in section(result) if "does not show when it shrinks or explains a failure" in line]
