"""A stored failure is tried first: it outlives other failures, and is forgotten once it no longer fails."""

import json
from pathlib import Path


def test_a_stored_failure_is_tried_first(suite, run, stored):
    suite("failing")
    run()
    (envelope,) = stored()
    suite("""
        import json, pathlib
        from alignment_checks.properties import searched

        def test_fails(alignment, monkeypatch):
            seen, before = [], searched.search
            def search(*args, **kwargs):
                seen.extend(kwargs["first"])
                return before(*args, **kwargs)
            monkeypatch.setattr(searched, "search", search)
            own = pt.Perturbation("init_gain", 0.5, 1.0, 0)
            try:
                alignment.assert_capability_robust(BOWL, under=STRETCHED, rtol=0.1, first=[own])
            finally:
                pathlib.Path("first.json").write_text(json.dumps([str(d.magnitude) for d in seen]))
    """)
    run().assert_outcomes(failed=1)
    stored_ones = [str(one.perturbation["magnitude"]) for one in envelope.each()]
    assert len(stored_ones) == 2
    assert json.loads(Path("first.json").read_text()) == [*stored_ones, "0.5"]


def test_a_further_failure_outlives_a_run_that_would_not_have_found_it(suite, run, stored):
    """Of a gain both the larger and the smaller start fail; the second run draws nothing."""
    body = """
        def test_fails(alignment):
            alignment.assert_capability_robust(BOWL, under=STRETCHED, rtol=0.1, examples=EXAMPLES)
    """
    suite(body.replace("EXAMPLES", "30"))
    run()
    (before,) = stored()
    assert {one.perturbation["magnitude"] > 0 for one in before.each()} == {True, False}
    suite(body.replace("EXAMPLES", "0"))
    run().assert_outcomes(failed=1)
    (after,) = stored()
    assert sorted(one.id for one in after.each()) == sorted(one.id for one in before.each())


def test_one_that_no_longer_fails_is_reported_as_fixed_and_forgotten(suite, run, stored, section):
    suite("failing")
    run()
    (envelope,) = stored()
    suite("fixed")
    result = run()
    result.assert_outcomes(passed=1)
    lines = section(result)
    assert [line.split(" no longer fails")[0] for line in lines] == [f"fixed: {one.id}" for one in envelope.each()]
    assert lines[0].startswith(f"fixed: {envelope.id} no longer fails   test_it.py::test_fails   init_gain(log2=0.0")
    assert stored() == []
    assert section(run()) == []


def test_a_new_failure_takes_the_place_of_the_old(suite, run, stored):
    suite("failing")
    run()
    (old,) = stored()
    suite("""
        def test_fails(alignment):
            alignment.assert_capability_robust(BOWL, under=STRETCHED, rtol=0.5)
    """)
    run()
    (new,) = stored()
    assert new.key == old.key
    assert new.id != old.id
    assert "rtol=0.5" in new.statement


def test_a_perturbation_finds_again_what_no_file_can_hold(suite, run, stored):
    suite("""
        from dataclasses import replace

        def moved(run, magnitude, generator):
            return replace(run, parameters={k: v * (1 + magnitude) for k, v in run.parameters.items()})

        def test_it(alignment):
            alignment.assert_capability_robust(BOWL, under=pt.custom("moved", moved, 1.0), rtol=0.1)

        @settings(max_examples=9, deadline=None, database=None, phases=[Phase.generate])
        @given(delta=pt.custom("moved", moved, 1.0))
        def test_given(alignment, delta):
            alignment.assert_capability_robust(BOWL, delta=delta, rtol=0.1)
    """)
    run().assert_outcomes(failed=2)
    assert [dict(e.perturbation["options"])["name"] for e in stored()] == ["moved", "moved"]
    result = run("--alignment-replay=all")
    result.assert_outcomes(failed=2)
    assert result.stdout.str().count("still fails") == 2


def test_an_error_that_is_none_of_its_making_is_shown_once(suite, run):
    """The stored failure is tried first, and what is raised then is raised again without it."""
    body = """
        def MEAN(outputs, targets):
            return RETURNED

        def test_it(alignment):
            mlp = ac.TrainingSetup(
                lambda: torch.nn.Linear(2, 2),
                (torch.ones(8, 2), torch.zeros(8, dtype=torch.int64)),
                torch.nn.functional.cross_entropy,
                partial(torch.optim.SGD, lr=0.1),
                steps=5,
            )
            alignment.assert_capability_robust(mlp, under=pt.objective_mix(MEAN), rtol=0.1)
    """
    suite(body.replace("RETURNED", "outputs.square().mean()"))
    run().assert_outcomes(failed=1)
    suite(body.replace("RETURNED", "outputs.square().mean(0)"))
    result = run()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        ["E *ValueError: `other(outputs, targets)` of objective_mix must return 8 per-example*"]
    )
    result.stdout.no_fnmatch_line("*During handling of the above exception*")


def test_one_that_no_longer_fits_is_named_and_skipped(suite, run, stored, section):
    body = """
        from dataclasses import replace

        def NAME(run, magnitude, generator):
            return replace(run, parameters={k: v * (1 + magnitude) for k, v in run.parameters.items()})

        def test_it(alignment):
            alignment.assert_capability_robust(BOWL, under=pt.custom("moved", NAME, 1.0), rtol=0.1)
    """
    suite(body.replace("NAME", "moved"))
    run()
    (old,) = stored()
    suite(body.replace("NAME", "renamed"))
    result = run(f"--alignment-replay={old.id}")
    result.stdout.fnmatch_lines(["E *ValueError: custom needs its `apply` (*:moved)*"])
    result = run()
    result.assert_outcomes(failed=1)
    assert [line for line in section(result) if line.startswith("store: stored failures of test_it.py::test_it cannot")]
    assert [dict(e.perturbation["options"])["apply"].endswith("renamed") for e in stored()] == [True]
