"""Assertions in a test suite on a machine with an accelerator: chosen by itself or by name, replayed, reported."""

import re

import pytest

TESTS = """
    import pytest, torch
    from functools import partial
    from cases.accelerated import setup as made
    from alignment_checks import perturbations as pt

    @pytest.fixture(scope="session")
    def setup():
        return made()

    def test_fails(alignment, setup):
        alignment.assert_capability_robust(setup, under=pt.label_noise(max_rate=0.3), rtol=0.01)

    def test_passes(alignment, setup):
        alignment.assert_capability_robust(setup, under=pt.l2_penalty(max_weight=1e-6), rtol=0.1)
"""


@pytest.mark.parametrize(("option", "on"), [((), "sim"), (("privateuseone",), "privateuseone"), (("cpu",), "cpu")])
def test_a_suite_runs_on_the_device_and_its_failure_replays_there(pytester, option, on):
    pytester.makepyfile(TESTS)
    chosen = [f"--alignment-device={name}" for name in option]
    plain = ["-p", "no:randomly", "--alignment-examples=8", *chosen]
    result = pytester.runpytest_inprocess(*plain)
    result.assert_outcomes(passed=1, failed=1)
    text = result.stdout.str()
    assert f" on {on} (lanes)" in text or on == "privateuseone"
    (replay,) = set(re.findall(r"::test_fails' --alignment-replay=([0-9a-f]+)", text))
    again = pytester.runpytest_inprocess(*plain, f"--alignment-replay={replay}")
    (smallest,) = set(re.findall(r"smallest failing δ\s+(label_noise\(.*?\))", text))
    assert smallest in again.stdout.str()
    assert again.ret == 1
