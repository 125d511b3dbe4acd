"""Tests that draw for themselves, with `@given`: what their examples ask for is trained in batches."""

import pytest


def test_what_all_examples_draw_is_one_batch(suite, run, written, passes):
    suite(
        "counting",
        """
        @FEW
        @given(delta=GAIN, other=st.integers())
        def test_it(alignment, delta, other):
            SEEN.append([delta.magnitude, other])
            alignment.assert_capability_robust(BOWL, delta=delta, rtol=99)
            alignment.assert_alignment_robust(BOWL, delta=delta, rtol=99)
    """,
    )
    run().assert_outcomes(passed=1)
    assert len(written("launches")) == 1
    first, second, real = passes()
    assert first == second == real, "a dry pass draws what the real one draws"
    assert 3 < written("launches")[0] <= 13


@pytest.mark.parametrize("how", ["@settings(FEW, derandomize=False)", "@seed(7)\n@settings(FEW, derandomize=False)"])
def test_the_draws_are_foreseen_however_they_are_seeded(suite, run, written, passes, how):
    suite(
        "counting",
        """
        HOW
        @given(delta=GAIN)
        def test_it(alignment, delta):
            SEEN.append(delta.magnitude)
            alignment.assert_capability_robust(BOWL, delta=delta, rtol=99)
    """.replace("HOW", how.replace("\n", "\n        ")),
    )

    def draws(*args):
        run(*args).assert_outcomes(passed=1)
        assert len(written("launches")) == 1
        first, second, real = passes()
        assert first == second == real
        return real

    first, again = draws("--hypothesis-seed=3"), draws("--hypothesis-seed=3")
    assert first == again
    assert (draws("--hypothesis-seed=4") == first) == ("@seed" in how)


def test_without_a_seed_the_draws_vary_and_are_foreseen_all_the_same(suite, run, written, passes):
    suite(
        "counting",
        """
        @settings(FEW, derandomize=False)
        @given(delta=GAIN)
        def test_it(alignment, delta):
            SEEN.append(delta.magnitude)
            alignment.assert_capability_robust(BOWL, delta=delta, rtol=99)
    """,
    )
    draws = []
    for _ in range(2):
        run().assert_outcomes(passed=1)
        first, second, real = passes()
        assert len(written("launches")) == 1
        assert first == second == real
        draws.append(real)
    assert draws[0] != draws[1]


BUILT = """
    def built(lr, width=3):
        return ac.TrainingSetup(
            model=lambda: torch.nn.Sequential(torch.nn.Linear(2, width), torch.nn.Linear(width, 1)),
            data=(torch.ones(6, 2), torch.ones(6, 1)),
            objective=lambda outputs, targets: (outputs - targets).square().mean(1),
            optimizer=partial(torch.optim.SGD, lr=lr),
            steps=3,
        )
"""


def test_setups_that_the_body_builds_anew_are_one(suite, run, written):
    suite(
        "counting",
        BUILT,
        """
        @FEW
        @given(delta=GAIN)
        def test_it(alignment, delta):
            alignment.assert_capability_robust(built(0.1), delta=delta, rtol=99)
    """,
    )
    run().assert_outcomes(passed=1)
    assert written("launches")[0] <= 13
    assert len(written("launches")) == 1


def test_setups_that_differ_are_trained_in_one_launch_and_share_batches_where_they_differ_in_the_step(
    suite, run, written
):
    suite(
        "counting",
        BUILT,
        """
        from alignment_checks import runs
        from alignment_checks.backends import dispatch

        @pytest.fixture(autouse=True)
        def batches(monkeypatch):
            before = runs.trained
            def trained(jobs, *args, **how):
                SEEN.append([len(group) for group in dispatch._alike(jobs)])
                return before(jobs, *args, **how)
            monkeypatch.setattr(runs, "trained", trained)

        @settings(FEW, deadline=None, max_examples=8)
        @given(delta=pt.init_gain(max_log2=1).filter(lambda delta: abs(delta.magnitude) > 0.1),
               lr=st.floats(0.01, 0.2), width=st.sampled_from([3, 4]))
        def test_it(alignment, delta, lr, width):
            verdict = alignment.assert_capability_robust(built(lr, width), delta=delta, rtol=99, backend="lanes")
            SEEN.append("judged")
            alone = ac.check_capability_robust(built(lr, width), delta=delta, rtol=99, backend="loop")
            assert verdict.nearest.value == pytest.approx(alone.nearest.value, rel=1e-5)
    """,
    )
    run().assert_outcomes(passed=1)
    together = written("seen")[: written("seen").index("judged")]
    assert len(together) == 2, "one of each width"
    assert max(sum(groups) for groups in together) > 4
    assert all(len(groups) <= 2 for groups in together), "those of the first learning rate, and all others"


def test_a_setup_that_cannot_be_known_again_is_said_and_trained_by_itself(suite, run, written, section):
    suite(
        "counting",
        """
        class Model:
            def __call__(self):
                return torch.nn.Linear(2, 1)

        @FEW
        @given(delta=GAIN)
        def test_it(alignment, delta):
            data = (torch.ones(6, 2), torch.ones(6, 1))
            setup = ac.TrainingSetup(Model(), data, torch.nn.functional.mse_loss, partial(torch.optim.SGD, lr=0.1), 3)
            alignment.assert_capability_robust(setup, delta=delta, rtol=99)
    """,
    )
    result = run("-W", "default")
    result.assert_outcomes(passed=1, warnings=1)
    assert max(written("launches")) == 2, "nothing is trained that is not asked for"
    assert [line for line in section(result) if line.startswith("given: test_it seems to build a different setup")]


@pytest.mark.parametrize("assertions", [1, 2, 3])
def test_a_body_of_several_assertions_takes_a_batch_for_each(suite, run, written, assertions):
    line = "\n            alignment.assert_capability_robust(BOWL, delta=deltas[{}], rtol=99)"
    suite(
        "counting",
        """
        @FEW
        @given(deltas=st.tuples(GAIN, GAIN, GAIN))
        def test_it(alignment, deltas):
            SEEN.append([delta.magnitude for delta in deltas])
    """.rstrip()
        + "".join(line.format(which) for which in range(assertions)),
    )
    run().assert_outcomes(passed=1)
    assert len(written("launches")) == assertions
    seen = written("seen")
    assert len(seen) % (assertions + 2) == 0
    assert seen[: len(seen) // (assertions + 2)] * (assertions + 2) == seen


def test_an_assertion_after_one_that_fails_is_foreseen_where_the_body_goes_on(suite, run, written):
    suite(
        "counting",
        """
        @FEW
        @given(first=st.just(pt.Perturbation("init_gain", 1.0, 1.0, 0)), second=GAIN)
        def test_it(alignment, first, second):
            with pytest.raises(ac.AlignmentViolation):
                alignment.assert_capability_robust(BOWL, delta=first, rtol=0.1)
            alignment.assert_capability_robust(BOWL, delta=second, rtol=99)
    """,
    )
    run().assert_outcomes(passed=1)
    assert written("launches")[0] == 2
    assert max(written("launches")[1:]) > 3


def test_what_is_not_foreseen_is_trained_when_it_is_asked_for(suite, run, written):
    suite(
        "counting",
        """
        @FEW
        @given(data=st.data(), first=GAIN)
        def test_it(alignment, data, first):
            verdict = alignment.assert_capability_robust(BOWL, delta=first, rtol=99)
            second = data.draw(GAIN) if verdict.status == "pass" else None
            SEEN.append(second.magnitude)
            alignment.assert_capability_robust(BOWL, delta=second, rtol=99)
    """,
    )
    run().assert_outcomes(passed=1)
    assert written("launches")[0] > 5
    assert set(written("launches")[1:]) == {1}
    assert len(written("seen")) < 3 * 12, "the dry passes end where the draws begin to differ"


def test_a_search_in_the_body_is_a_batch_by_itself_and_nothing_is_run_twice(suite, run, written):
    suite(
        "counting",
        """
        @settings(FEW, max_examples=3)
        @given(steps=st.integers(1, 9))
        def test_it(alignment, steps):
            SEEN.append(steps)
            alignment.assert_capability_robust(BOWL, under=UNCHANGED, rtol=0.1, atol=steps)
    """,
    )
    run().assert_outcomes(passed=1)
    assert len(written("seen")) == 4, "the dry pass ends at the first search"
