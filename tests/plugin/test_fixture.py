"""The `alignment` fixture: its assertions, what they pass on, and what they raise."""

import inspect
import json

import pytest
from pytest_alignment.assertion import called
from pytest_alignment.fixture import Alignment

import alignment_checks as ac
from alignment_checks import verdict

CHECKS = [name for name in ac.__all__ if name.startswith("check_")]


@pytest.mark.parametrize("name", CHECKS)
def test_every_check_has_an_assertion_with_the_same_arguments(name):
    assertion, check = getattr(Alignment, name.replace("check_", "assert_")), getattr(ac, name)
    assert list(inspect.signature(assertion).parameters.values())[1:] == list(
        inspect.signature(check).parameters.values()
    )
    assert assertion.__doc__ == check.__doc__
    rest = list(inspect.signature(assertion).parameters.values())[2:]
    assert all(p.kind in (p.KEYWORD_ONLY, p.VAR_KEYWORD) for p in rest)


def test_every_assertion_has_a_check():
    assert len([name for name in vars(Alignment) if name.startswith("assert_")]) == len(CHECKS)


def test_a_pass_returns_the_verdict(suite, run):
    suite("""
        def test_it(alignment):
            verdict = alignment.assert_capability_robust(BOWL, under=UNCHANGED, rtol=0.1)
            assert isinstance(verdict, ac.Verdict) and verdict.status == "pass" and verdict.replay is None
    """)
    run().assert_outcomes(passed=1)


RAISED = {
    "CapabilityNotRobust": "capability_robust(BOWL, under=STRETCHED, rtol=0.1)",
    "AlignmentNotRobust": "alignment_robust(BOWL, under=STRETCHED, rtol=0.1)",
    "CapabilityDoesNotGeneralize": "capability_generalizes(BOWL, to=PENALIZED, rtol=0.01)",
    "AlignmentDoesNotGeneralize": "alignment_generalizes(BOWL, to=PENALIZED, rtol=0, normalized=False)",
    "NotInnerAligned": "inner_aligned(BOWL, delta=pt.IDENTITY, floor=99, rtol=0.1)",
    "NotStronglyAligned": "strongly_aligned(BOWL, worst=0.1, within=3)",
    "NotMoreCapable": "more_capable(BOWL, than=BOWL)",
    "NotBetterAligned": "better_aligned(BOWL, than=BOWL)",
}


def test_each_failure_is_of_its_own_class(suite, run):
    calls = ", ".join(f"({name!r}, lambda a: a.assert_{call})" for name, call in RAISED.items())
    suite(f"""
        from alignment_checks import verdict

        @pytest.mark.parametrize(("name", "call"), [{calls}])
        def test_it(alignment, name, call):
            with pytest.raises(ac.AlignmentViolation) as caught:
                call(alignment)
            assert type(caught.value) is getattr(verdict, name)
            assert caught.value.verdict.status == "fail"
    """)
    run().assert_outcomes(passed=len(RAISED))
    kinds = {kind.__name__ for kind in verdict.AlignmentViolation.__subclasses__()}
    assert set(RAISED) == kinds - {"Inconclusive"}


def test_inconclusive_raises_and_says_so(suite, run):
    suite("""
        def test_it(alignment):
            flat = ac.landscape(lambda x: 0 * x.sum(), [1.0], optimizer=partial(torch.optim.SGD, lr=0.1), steps=3)
            alignment.assert_alignment_robust(flat, under=UNCHANGED, rtol=0.1)
    """)
    result = run()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["E*Inconclusive: inconclusive: whether alignment*", "INCONCLUSIVE test_it.py*"])
    result.stdout.no_fnmatch_line("*--alignment-replay*")


def test_the_failure_ends_in_the_users_line_and_the_replay_command(suite, run):
    suite("""
        def test_it(alignment):
            alignment.assert_capability_robust(BOWL, under=STRETCHED, rtol=0.1)
    """)
    result = run()
    result.stdout.fnmatch_lines(
        [
            ">*alignment.assert_capability_robust(BOWL, under=STRETCHED, rtol=0.1)",
            "E*CapabilityNotRobust: capability is not robust under init_gain(max_log2=1), rtol=0.1",
            "E *  smallest failing δ   init_gain(log2=*",
            "E *  replay   pytest 'test_it.py::test_it' --alignment-replay=??????",
            "",
            "test_it.py:*: CapabilityNotRobust",
        ]
    )
    result.stdout.no_fnmatch_line("*pytest_alignment*.py*")


def test_bad_arguments_are_the_checks_own_errors(suite, run):
    suite("""
        def test_it(alignment):
            with pytest.raises(TypeError, match="unexpected keyword argument 'tolerance'"):
                alignment.assert_capability_robust(BOWL, under=UNCHANGED, tolerance=0.1)
            with pytest.raises(TypeError, match="positional"):
                alignment.assert_capability_robust(BOWL, UNCHANGED, rtol=0.1)
            with pytest.raises(TypeError, match="'setup'"):
                alignment.assert_capability_robust(under=UNCHANGED, rtol=0.1)
            with pytest.raises(ValueError, match="rtol"):
                alignment.assert_capability_robust(BOWL, under=UNCHANGED)
            alignment.assert_capability_robust(setup=BOWL, under=UNCHANGED, rtol=0.1)
    """)
    run().assert_outcomes(passed=1)


SPY = """
    import json, pathlib
    from alignment_checks import checks
    from alignment_checks.properties import searched

    @pytest.fixture(autouse=True, scope="session")
    def spy():
        seen, before = [], searched.search
        def search(*args, **kwargs):
            seen.append([kwargs["random_seed"], kwargs["examples"], len(kwargs["first"])])
            return before(*args, **kwargs)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(searched, "search", search)
            yield
        pathlib.Path("seen.json").write_text(json.dumps(seen))
"""

TWO = """
    @pytest.mark.parametrize("n", [1, 2])
    def test_it(alignment, n):
        alignment.assert_capability_robust(BOWL, under=UNCHANGED, rtol=0.1)
        alignment.assert_capability_robust(BOWL, under=UNCHANGED, rtol=0.1)
        alignment.assert_capability_robust(BOWL, under=UNCHANGED, rtol=0.1, random_seed=7, examples=3)
"""


def test_draws_depend_on_test_assertion_and_hypothesis_seed_alone(suite, run, pytester):
    suite(SPY, TWO)

    def seen(*args):
        run(*args).assert_outcomes(passed=2)
        return json.loads((pytester.path / "seen.json").read_text())

    plain = seen()
    assert plain == seen()
    assert plain != seen("--hypothesis-seed=1")
    assert len({seed for seed, *_ in plain}) == 5, "two tests with two assertions each, and one seed of the user's"
    assert [rest for rest in plain if rest[0] == 7] == [[7, 3, 0]] * 2
    assert {examples for seed, examples, _ in plain if seed != 7} == {8}


def test_an_assertion_is_known_again_by_what_it_perturbs_not_by_its_tolerances():
    strategy = ac.perturbations.init_gain(max_log2=1)
    assert called({"under": strategy, "rtol": 0.1}) == called({"rtol": 0.2, "under": strategy, "examples": 5})
    assert called({"under": strategy, "of": "mesa"}) == "of='mesa', under=init_gain(max_log2=1)"
    assert called({"under": strategy, "of": "mesa"}) != called({"mesa_under": strategy, "of": "mesa"})
    assert called({"x": [object]}) == called({"x": [object]})
    assert " at 0x" not in called({"x": [called, object()]})


def test_under_given_with_delta(suite, run, stored):
    suite("""
        @settings(max_examples=9, derandomize=True, deadline=None, database=None, phases=[Phase.generate])
        @given(delta=STRETCHED, other=st.integers())
        def test_fails(alignment, delta, other):
            alignment.assert_capability_robust(BOWL, delta=delta, rtol=0.1)

        @settings(max_examples=5, deadline=None)
        @given(delta=UNCHANGED)
        def test_passes(alignment, delta):
            alignment.assert_capability_robust(BOWL, delta=delta, rtol=0.1)
    """)
    result = run()
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.no_fnmatch_line("*Flaky*")
    (envelope,) = stored()
    assert abs(envelope.perturbation["magnitude"]) > 0.068
    result.stdout.fnmatch_lines([f"E *  replay   pytest 'test_it.py::test_fails' --alignment-replay={envelope.id}"])
    replay = run(f"--alignment-replay={envelope.id}")
    replay.assert_outcomes(failed=1, deselected=1)
    replay.stdout.fnmatch_lines([f"replayed: {envelope.id} still fails*"])
    replay.stdout.no_fnmatch_line("*Flaky*")


def test_under_given_the_draws_do_not_depend_on_the_example_before(suite, run, pytester):
    suite(
        SPY,
        """
        @settings(max_examples=4, deadline=None, database=None)
        @given(steps=st.integers(1, 9))
        def test_it(alignment, steps):
            alignment.assert_capability_robust(BOWL, under=UNCHANGED, rtol=0.1, atol=steps)
    """,
    )
    run().assert_outcomes(passed=1)
    assert len({seed for seed, *_ in json.loads((pytester.path / "seen.json").read_text())}) == 1
