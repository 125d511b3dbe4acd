"""`--alignment-report` writes every verdict, once the tests are over."""

import json

import pytest
from pytest_alignment import options

from alignment_checks import report


def test_the_suffixes_are_those_of_the_report():
    for suffix in options.REPORTS:
        assert report.renderer(options.Path(f"r{suffix}"))
    with pytest.raises(ValueError, match=", ".join(options.REPORTS)):
        report.renderer(options.Path("r.else"))


def test_the_report_has_every_verdict(suite, run, pytester):
    suite(
        "passing",
        "failing",
        """
        def test_raises(alignment):
            with pytest.raises(ac.AlignmentViolation):
                alignment.assert_strongly_aligned(BOWL, worst=0.1, within=3)
            alignment.assert_strongly_aligned(BOWL, worst=9, within=3)
    """,
    )
    result = run("--alignment-report=deep/down.json")
    result.stdout.fnmatch_lines([f"report: {pytester.path / 'deep' / 'down.json'}"])
    entries = json.loads((pytester.path / "deep" / "down.json").read_text())["entries"]
    assert [(entry["nodeid"].split("::")[1], entry["verdict"]["status"]) for entry in entries] == [
        ("test_passes", "pass"),
        ("test_fails", "fail"),
        ("test_raises", "fail"),
        ("test_raises", "pass"),
    ]
    assert entries[1]["verdict"]["replay"].startswith("pytest 'test_it.py::test_fails' --alignment-replay=")


def test_of_examples_of_given_the_report_has_one_verdict_for_each_assertion(suite, run, pytester, stored):
    suite(
        "counting",
        """
        @FEW
        @given(delta=GAIN, rtol=st.sampled_from([9.0, 99.0]))
        def test_passes(alignment, delta, rtol):
            alignment.assert_capability_robust(BOWL, delta=delta, rtol=rtol)
            alignment.assert_alignment_robust(BOWL, delta=delta, rtol=rtol)

        @FEW
        @given(delta=GAIN)
        def test_fails(alignment, delta):
            alignment.assert_alignment_robust(BOWL, delta=delta, rtol=99)
            alignment.assert_capability_robust(BOWL, delta=delta, rtol=0.1)
    """,
    )
    run("--alignment-report=r.json").assert_outcomes(passed=1, failed=1)
    entries = json.loads((pytester.path / "r.json").read_text())["entries"]
    told = [(entry["nodeid"].split("::")[1], entry["verdict"]["status"]) for entry in entries]
    assert sorted(told) == [("test_fails", "fail"), ("test_fails", "pass"), *[("test_passes", "pass")] * 2]
    (failing,) = (entry["verdict"] for entry in entries if entry["verdict"]["status"] == "fail")
    (envelope,) = stored()
    assert failing["minimal"]["deviation"] == envelope.numbers["deviation"]
    nearest = next(entry for entry in entries if entry["nodeid"].endswith("test_passes"))
    assert nearest["examples"] == 12
    assert nearest["verdict"]["statement"].endswith("rtol=9")


FIRST = "@example(delta=pt.Perturbation('init_gain', 1.0, 1.0, 0), other=0)"


@pytest.mark.parametrize(("more", "examples"), [("", 12), (FIRST, 1)], ids=["drawn", "explicit"])
def test_what_hypothesis_tries_to_shrink_a_failure_is_no_example(suite, run, written, pytester, more, examples):
    """It stops at an explicit one that fails, and runs it once; of others it runs many more than it was to draw."""
    suite(
        "counting",
        """
        MORE
        @FEW
        @given(delta=GAIN, other=st.integers())
        def test_fails(alignment, delta, other):
            SEEN.extend([] if alignment._ledger.is_dry else [other])
            alignment.assert_capability_robust(BOWL, delta=delta, rtol=0.1)
    """.replace("MORE", more),
    )
    run("--alignment-report=r.json").assert_outcomes(failed=1)
    (entry,) = json.loads((pytester.path / "r.json").read_text(encoding="utf-8"))["entries"]
    assert 1 <= entry["examples"] <= examples
    assert (len(written("seen")) > 12) == (not more)


def test_it_is_one_verdict_too_where_examples_draw_the_arguments_or_leave_an_assertion_out(suite, run, pytester):
    suite(
        "counting",
        """
        @FEW
        @given(delta=GAIN, n=st.integers(1, 3), of=st.sampled_from(["base", "mesa"]), both=st.booleans())
        def test_it(alignment, delta, n, of, both):
            if both:
                alignment.assert_capability_robust(BOWL, delta=delta, rtol=9, of=of)
            alignment.assert_strongly_aligned(BOWL, delta=delta, worst=9, within=n)
            alignment.assert_capability_robust(BOWL, delta=delta, rtol=8, of=of)
            for _ in range(2):
                alignment.assert_alignment_robust(BOWL, delta=delta, rtol=9, normalized=both)
    """,
    )
    run("--alignment-report=r.json").assert_outcomes(passed=1)
    entries = json.loads((pytester.path / "r.json").read_text(encoding="utf-8"))["entries"]
    assert len(entries) == 5
    assert sorted(entry["examples"] for entry in entries)[1:] == [12, 12, 12, 12]


def test_nothing_is_trained_for_a_report_once_the_test_is_over(suite, run, pytester):
    """By then, what it had patched and set is as it was; an error there would be none of the test's, but pytest's."""
    suite(
        """
        class Large(torch.nn.Module):  # so large that the ends of its runs are not kept
            def __init__(self):
                super().__init__()
                if OVER:
                    raise RuntimeError("the test is over")
                self.layer, self.table = torch.nn.Linear(1, 1), torch.nn.Embedding(600_000, 2)

            def forward(self, x):
                return self.layer(x) + 0 * self.table.weight[0, 0]

        OVER = []
        DATA = torch.ones(4, 1), torch.zeros(4, 1)
        SGD = partial(torch.optim.SGD, lr=0.1)

        def test_it(alignment):
            large = ac.TrainingSetup(Large, DATA, torch.nn.functional.mse_loss, SGD, 2)
            alignment.assert_capability_robust(large, under=pt.init_seed(), atol=1e3, examples=8)
            OVER.append(True)
    """
    )
    run("--alignment-report=r.json").assert_outcomes(passed=1)
    (entry,) = json.loads((pytester.path / "r.json").read_text(encoding="utf-8"))["entries"]
    assert entry["verdict"]["outlook"]


def test_what_is_replayed_is_reported_one_by_one(suite, run, pytester):
    suite("failing")
    run()
    run("--alignment-replay=all", "--alignment-report=r.json")
    entries = json.loads((pytester.path / "r.json").read_text())["entries"]
    to_either_side = [("fail", 1), ("fail", 1)]
    assert [(entry["verdict"]["status"], entry["examples"]) for entry in entries] == to_either_side


def test_there_is_no_report_where_there_is_nothing_to_report(suite, run, pytester):
    suite("plain")
    run("--alignment-report=r.json").assert_outcomes(passed=1)
    assert not (pytester.path / "r.json").exists()


def test_a_report_that_cannot_be_written_is_said(suite, run, pytester, section):
    suite("passing")
    (pytester.path / "file").write_text("")
    result = run("--alignment-report=file/r.json")
    assert result.ret == 0
    assert [line for line in section(result) if line.startswith("report: could not be written: ")]
