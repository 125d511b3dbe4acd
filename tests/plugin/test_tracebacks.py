"""Of an error that is the user's to mend, pytest shows the user's own line and what was wrong with it, and no other."""

import pytest

MISUSED = {
    "a keyword that there is not": (
        "alignment.assert_capability_robust(BOWL, under=STRETCHED, rtoll=0.1)",
        "TypeError: got an unexpected keyword argument 'rtoll': did you mean `rtol`?",
    ),
    "no tolerance": (
        "alignment.assert_capability_robust(BOWL, under=STRETCHED)",
        "ValueError: say how close counts as ≈: *",
    ),
    "an unknown device": (
        "alignment.assert_capability_robust(BOWL, under=STRETCHED, rtol=0.1, device='cpuu')",
        "ValueError: `device` must be 'auto' or a torch device; got 'cpuu'*",
    ),
    "a strategy by position": (
        "alignment.assert_capability_robust(BOWL, STRETCHED, rtol=0.1)",
        "TypeError: assert_capability_robust: too many positional arguments. Pass `setup` first, *under=*",
    ),
    "an argument left out": (
        "alignment.assert_inner_aligned(BOWL, under=STRETCHED, rtol=0.1)",
        "TypeError: assert_inner_aligned: missing a required argument: 'floor'*",
    ),
    "a magnitude that there is not": (
        "alignment.assert_capability_robust(BOWL, delta=pt.Perturbation('label_noise', -0.1, 0.5, 0), rtol=0.1)",
        "ValueError: label_noise: rate must be at least 0; got -0.1*",
    ),
    "a strategy of something else": (
        "alignment.assert_capability_robust(BOWL, under=st.integers(), rtol=0.1)",
        "TypeError: expected a strategy of perturbations; *drew int*",
    ),
    "a limit that there is not": (
        "alignment.assert_capability_robust(BOWL, under=pt.init_gain(max_log2=-1), rtol=0.1)",
        "ValueError: init_gain: `max_log2` must be *; got -1",
    ),
    "a setup that there is not": (
        "ac.TrainingSetup(model=torch.nn.Identity, data=None, objective=print, optimizer=3, steps=4)",
        "TypeError: TrainingSetup: `optimizer` must be callable; got int 3*",
    ),
    "a property that fails": (
        "alignment.assert_capability_robust(BOWL, under=STRETCHED, rtol=0.1)",
        "*CapabilityNotRobust: capability is not robust *",
    ),
}
OURS = ("alignment_checks/", "pytest_alignment/")
STYLES = {
    "auto": ">*{line}",
    "long": ">*{line}",
    "short": "test_it.py:{number}: in test_{i}",
    "native": '  File "*test_it.py", line {number}, in test_{i}',
    "line": "*test_it.py:{number}: *",
}


@pytest.fixture
def misused(suite):
    """Write a test for each misuse, and return the number of each one's line."""
    path = suite(*(f"def test_{i}(alignment):\n    {line}\n" for i, (line, _) in enumerate(MISUSED.values())))
    lines = path.read_text().splitlines()
    return [lines.index(f"    {line}") + 1 for line, _ in MISUSED.values()]


def frames(result):
    """Return the lines that name one of our files, or what is made up for our classes, as dataclasses do."""
    ours = [line for line in result.outlines if any(folder in line for folder in OURS) and ".py" in line]
    return ours + [line for line in result.outlines if "<string>" in line]


@pytest.mark.parametrize("style", STYLES)
def test_the_users_line_is_the_last_that_is_shown(misused, run, style):
    result = run(f"--tb={style}")
    result.assert_outcomes(failed=len(misused))
    for i, (number, (line, message)) in enumerate(zip(misused, MISUSED.values(), strict=True)):
        place = STYLES[style].format(line=line, number=number, i=i)
        result.stdout.fnmatch_lines([place, *[f"*{message}"] * (style != "line")])
    assert frames(result) == []


def test_a_full_trace_shows_all(misused, run):
    result = run("--full-trace", "-k", "test_0 or test_9")
    result.assert_outcomes(failed=2, deselected=len(misused) - 2)
    shown = {line.split(":")[0].rpartition("/")[2] for line in frames(result)}
    assert {"fixture.py", "assertion.py", "checks.py", "options.py"} <= shown


@pytest.mark.parametrize("style", ["auto", "native"])
def test_what_is_wrong_in_the_users_own_function_is_shown_there(suite, run, style):
    suite("""
        def lossy(x):
            return x @ torch.ones(2)

        def test_it(alignment):
            setup = ac.landscape(lossy, [1.0], optimizer=partial(torch.optim.SGD, lr=0.1), steps=4)
            alignment.assert_capability_robust(setup, under=STRETCHED, rtol=0.1)
    """)
    result = run(f"--tb={style}")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines_random(["*alignment.assert_capability_robust(setup, *", "*return x @ torch.ones(2)*"])
    assert frames(result) == []


@pytest.mark.parametrize("made", ["def made(params):\n    return torch.optim.SGD(params, lr=-0.1)\n", "made = SGD"])
@pytest.mark.parametrize("style", ["auto", "native"])
def test_of_what_torch_refuses_its_own_line_is_shown_and_the_users(suite, run, style, made):
    suite(f"""
SGD = partial(torch.optim.SGD, lr=-0.1)
{made}
def test_it(alignment):
    setup = ac.landscape(torch.sum, [1.0], optimizer=made, steps=4)
    alignment.assert_capability_robust(setup, under=STRETCHED, rtol=0.1)
""")
    result = run(f"--tb={style}")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*Invalid learning rate: *", "*alignment.assert_capability_robust(setup, *"])
    result.stdout.fnmatch_lines(["*ValueError: `optimizer(params)` raised ValueError: Invalid learning rate: -0.1.*"])
    assert frames(result) == []
    assert len([line for line in result.outlines if "return torch.optim.SGD(" in line]) == made.startswith("def")


def test_of_what_a_model_cannot_be_called_with_no_frame_in_between_is_shown(suite, run):
    suite("""
        def test_it(alignment):
            data = torch.ones(4, 3), torch.ones(4, 1)
            wrong = partial(torch.nn.Linear, 2, 1)
            sgd = partial(torch.optim.SGD, lr=0.1)
            setup = ac.TrainingSetup(wrong, data, torch.nn.functional.mse_loss, sgd, steps=4)
            alignment.assert_capability_robust(setup, under=STRETCHED, rtol=0.1)
    """)
    result = run("--tb=short")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*return F.linear(*", "*mat1 and mat2 shapes*", "*the model, called with inputs *"])
    assert frames(result) == []
    assert not [line for line in result.outlines if "_wrapped_call_impl" in line]


@pytest.mark.parametrize("bug", ["int('x')", "{}['x']", "undefined", "assert not what"])
def test_a_bug_of_ours_keeps_its_frames(suite, run, bug):
    """What Python or a library raises in our own code is no refusal, whatever its type; nor is a failed assertion."""
    suite(f"""
        @pytest.fixture
        def broken(monkeypatch):
            from alignment_checks import checks

            code = compile("def shortest(*what):\\n    {bug}\\n", checks.__file__, "exec")
            exec(code, vars(checks), found := {{}})
            monkeypatch.setattr(checks, "shortest", found["shortest"])

        def test_it(alignment, broken):
            alignment.assert_capability_robust(BOWL, under=STRETCHED, rtol=0.1)
    """)
    result = run()
    result.assert_outcomes(failed=1)
    assert any(("checks.py" in line and "in shortest" in line) or "checks.py:2:" in line for line in frames(result))
    assert any("in check_capability_robust" in line for line in frames(result))


def test_so_it_is_under_given_and_the_explanation_names_no_line_of_ours(suite, run):
    suite("""
        @settings(max_examples=20, database=None, derandomize=True)
        @given(delta=STRETCHED, other=st.integers())
        def test_fails(alignment, delta, other):
            alignment.assert_capability_robust(BOWL, delta=delta, rtol=0.1)
    """)
    result = run()
    result.assert_outcomes(failed=1)
    told = [r"E .*CapabilityNotRobust: .*", r"E .*(Failing test case|Falsifying example): test_fails\(.*"]
    result.stdout.re_match_lines(told)
    assert frames(result) == []
    result.stdout.no_fnmatch_line("*These lines were always and only run by failing*")


def test_two_failures_of_one_test_are_both_trimmed(suite, run):
    """Hypothesis raises them as a group."""
    suite("""
        @settings(max_examples=50, database=None, derandomize=True)
        @given(delta=STRETCHED, one=st.booleans())
        def test_it(alignment, delta, one):
            if one:
                alignment.assert_capability_robust(BOWL, delta=delta, rtoll=0.1)
            alignment.assert_capability_robust(BOWL, delta=delta)
    """)
    result = run()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*ExceptionGroup*"])
    result.stdout.fnmatch_lines_random(["*TypeError: got an unexpected*", "*ValueError: say how close*"])
    assert frames(result) == []


def test_so_it_is_in_a_fixture_and_in_a_method_of_unittest(suite, run):
    suite("""
        import unittest

        @pytest.fixture
        def setup():
            return ac.landscape(torch.sum, [1.0], optimizer=partial(torch.optim.SGD, lr=0.1), steps=-4)

        def test_it(alignment, setup):
            pass

        class TestIt(unittest.TestCase):
            @pytest.fixture(autouse=True)
            def given(self, alignment):
                self.alignment = alignment

            def test_it(self):
                self.alignment.assert_capability_robust(BOWL, under=STRETCHED, rtoll=0.1)
    """)
    result = run()
    result.assert_outcomes(errors=1, failed=1)
    result.stdout.fnmatch_lines([">*return ac.landscape(*", "E *`steps` must be an int*", "test_it.py:*: ValueError"])
    result.stdout.fnmatch_lines([">*self.alignment.assert_*", "E *'rtoll'*", "test_it.py:*: TypeError"])
    assert frames(result) == []


def test_what_a_cause_was_raised_from_is_trimmed_too(suite, run):
    suite("""
        def test_it(alignment):
            try:
                alignment.assert_capability_robust(BOWL, under=STRETCHED, rtoll=0.1)
            except TypeError as error:
                raise RuntimeError("wrapped") from error
    """)
    result = run()
    result.stdout.fnmatch_lines(["E *TypeError: got an unexpected*", "*direct cause*", "E *RuntimeError: wrapped"])
    assert frames(result) == []


def test_other_errors_are_left_as_they_are(suite, run):
    suite("""
        def halve(x):
            return x / 0

        def test_it():
            halve(1)
    """)
    result = run()
    result.stdout.fnmatch_lines(["test_it.py:*: ", ">*return x / 0", "test_it.py:*: ZeroDivisionError"])
