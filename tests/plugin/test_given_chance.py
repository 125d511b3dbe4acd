"""What chance has a part in, under `@given`: confirmed once, told apart from a failure, and never flaky."""

import json

import pytest

SEEDED = """
    @FEW
    @given(delta=GAIN)
    def test_seeds(alignment, delta):
        alignment.assert_capability_robust(noisy(SPREAD), delta=delta, rtol=RTOL, seeds=4)
"""
CHOICES = ["fail", "skip", "warn"]


@pytest.mark.parametrize("choice", CHOICES)
def test_over_several_seeds_what_fails_is_confirmed_once_and_is_not_flaky(suite, run, stored, section, choice):
    suite("counting", "noisy", SEEDED.replace("SPREAD", "0.001").replace("RTOL", "0.1"))
    result = run(f"--alignment-inconclusive={choice}", "-W", "default", "--alignment-level=0.5")
    result.assert_outcomes(failed=1, warnings=result.parseoutcomes().get("warnings", 0))
    result.stdout.no_fnmatch_line("*Flaky*")
    result.stdout.fnmatch_lines(["E*CapabilityNotRobust: capability is not robust under init_gain(*"])
    assert len(stored()) == 1
    assert len([line for line in section(result) if line.startswith("FAILED")]) == 1


@pytest.mark.parametrize(
    ("choice", "outcome"),
    [("fail", {"failed": 1}), ("skip", {"skipped": 1}), ("warn", {"passed": 1, "warnings": 1})],
)
def test_what_cannot_be_told_over_several_seeds_is_not_flaky_either(suite, run, section, choice, outcome):
    suite("counting", "noisy", SEEDED.replace("SPREAD", "3.0").replace("RTOL", "0.05"))
    result = run(f"--alignment-inconclusive={choice}", "-W", "default")
    result.assert_outcomes(**outcome)
    result.stdout.no_fnmatch_line("*Flaky*")
    said = [line for line in section(result) if line.startswith("INCONCLUSIVE")]
    word = {"fail": "", "skip": " (skipped)", "warn": " (warned)"}[choice]
    assert said == [f"INCONCLUSIVE{word} test_it.py::test_seeds"]


@pytest.mark.parametrize("choice", CHOICES)
def test_what_does_not_fail_again_is_said_to_be_inconclusive_and_is_not_flaky(suite, run, choice):
    """A training process that nobody can repeat: it is another one after the first failure."""
    suite(
        "counting",
        """
        class Mood:
            weight = 1.0

        MOOD = Mood()
        MOODY = ac.landscape(
            lambda x: MOOD.weight * (x**2).sum(), [1.0], optimizer=partial(torch.optim.SGD, lr=0.1), steps=4
        )

        @FEW
        @given(delta=GAIN)
        def test_it(alignment, delta):
            try:
                alignment.assert_capability_robust(MOODY, delta=delta, rtol=0.1)
            except ac.AlignmentViolation:
                MOOD.weight = 0.0
                raise
    """,
    )
    result = run(f"--alignment-inconclusive={choice}", "-W", "default")
    result.assert_outcomes(failed=1)
    result.stdout.no_fnmatch_line("*Flaky*")
    result.stdout.fnmatch_lines(["E*Inconclusive: *"])


def test_a_failure_is_not_hidden_by_what_could_not_be_judged_before(suite, run):
    suite(
        "counting",
        """
        FLAT = ac.landscape(lambda x: 0 * x.sum(), [1.0], optimizer=partial(torch.optim.SGD, lr=0.1), steps=3)

        @FEW
        @given(delta=GAIN, flat=st.booleans())
        def test_it(alignment, delta, flat):
            if flat:
                alignment.assert_alignment_robust(FLAT, delta=delta, rtol=0.1)
            alignment.assert_capability_robust(BOWL, delta=delta, rtol=0.1)
    """,
    )
    for choice in ("skip", "warn"):
        result = run(f"--alignment-inconclusive={choice}", "-W", "ignore")
        result.assert_outcomes(failed=1)
        result.stdout.no_fnmatch_line("*Flaky*")


WILD = """
    from dataclasses import replace

    def shaken(run, magnitude, generator):
        by = 10 * (run.seed in SEEDS)
        return replace(run, parameters={name: value + by * magnitude for name, value in run.parameters.items()})

    SHAKEN = pt.custom("shaken", shaken, max_magnitude=1.0)

    @FEW
    @given(delta=SHAKEN)
    def test_it(alignment, delta):
        alignment.assert_capability_robust(noisy(0.01), delta=delta, rtol=0.2, seeds=8)
"""


def test_what_its_seeds_leave_open_is_looked_at_again_on_others(suite, run):
    """Of eight seeds, one is wild; of the next eight, none is."""
    suite("counting", "noisy", WILD.replace("SEEDS", "[2]").replace("@FEW", "@settings(FEW, max_examples=24)"))
    run().assert_outcomes(failed=1)
    suite("counting", "noisy", WILD.replace("SEEDS", "[2]").replace("@FEW", "@settings(FEW, max_examples=6)"))
    run().assert_outcomes(passed=1)


def test_what_is_open_on_others_too_stays_open_and_few_are_asked(suite, run, pytester):
    suite("counting", "noisy", WILD.replace("SEEDS", "[2, 10]"))
    run("--alignment-inconclusive=skip").assert_outcomes(skipped=1)
    others = json.loads((pytester.path / "launches.json").read_text())[1:]
    assert len(others) <= 6


def test_what_asking_others_takes_is_the_assertions_time_too(suite, run, pytester, clock):
    """They are as slow as they like: the first look of six uses up the time, and no other is begun after it."""
    slow = WILD.replace("by = 10 *", "time.sleep(0.1 * (run.seed > 7)); by = 10 *").replace(
        "seeds=8", "seeds=8, max_time=0.5"
    )
    suite("counting", "noisy", "import time", slow.replace("SEEDS", "[2, 10]"))
    run("--alignment-inconclusive=skip").assert_outcomes(skipped=1)
    others = json.loads((pytester.path / "launches.json").read_text())[1:]
    assert len(others) == 1
