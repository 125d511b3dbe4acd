"""What the plugin warns of can be filtered by what it is about, and never fails a run by itself."""

import pytest

SAYS = """
    import pytest
    from pytest_alignment.ledger import LEDGER

    def pytest_collection_finish(session):
        session.config.stash[LEDGER].say("something is to be said", ABOUT)
"""
CLASSES = {
    "store": "AlignmentStoreWarning",
    "crash": "AlignmentCrashWarning",
    "given": "AlignmentGivenWarning",
    "results": "AlignmentWarning",
}


@pytest.mark.parametrize(("about", "name"), CLASSES.items())
def test_each_notice_has_the_class_of_what_it_is_about(suite, run, pytester, section, about, name):
    pytester.makeconftest(SAYS.replace("ABOUT", repr(about)))
    suite("passing")
    shown = run("-W", "default")
    shown.assert_outcomes(passed=1, warnings=1)
    shown.stdout.fnmatch_lines([f"*{name}: something is to be said"])
    run("-W", f"ignore::pytest_alignment.{name}").assert_outcomes(passed=1, warnings=0)
    others = set(CLASSES.values()) - {name, "AlignmentWarning"}
    run(*(f"-Wignore::pytest_alignment.{other}" for other in others)).assert_outcomes(passed=1, warnings=1)
    strict = run("-W", "error")
    strict.assert_outcomes(passed=1, warnings=0)
    assert section(strict) == [f"{about}: something is to be said"]


def test_all_of_them_can_be_filtered_at_once(suite, run, pytester):
    pytester.makeconftest(SAYS.replace("ABOUT", "'crash'"))
    suite("passing")
    run("-W", "ignore::pytest_alignment.AlignmentWarning").assert_outcomes(passed=1, warnings=0)


def test_what_could_not_be_judged_is_warned_of_at_the_users_line(suite, run):
    path = suite("""
        def test_it(alignment):
            steep = ac.landscape(lambda x: 1e9 * x[0] ** 2, [1.0], optimizer=partial(torch.optim.SGD, lr=1e9), steps=20)
            alignment.assert_capability_robust(steep, under=pt.init_gain(max_log2=1), rtol=0.1)
    """)
    line = 1 + next(i for i, text in enumerate(path.read_text().splitlines()) if "assert_capability" in text)
    result = run("-W", "default", "-o", "alignment_inconclusive=warn")
    result.assert_outcomes(passed=1, warnings=1)
    result.stdout.fnmatch_lines([f"*test_it.py:{line}: AlignmentInconclusiveWarning: *"])
