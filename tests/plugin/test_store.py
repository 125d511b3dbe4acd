"""The store: what is kept of a failure and when, and that nothing read from it is trusted."""

import pytest
from hypothesis.database import InMemoryExampleDatabase
from pytest_alignment.envelope import Envelope
from pytest_alignment.portable import plain
from pytest_alignment.results import Key
from pytest_alignment.store import KEY, Store

from alignment_checks import perturbations as pt

DELTA = pt.Perturbation("init_gain", 0.04, 0.05, seed=0)
NUMBERS = dict.fromkeys(("reference", "value", "deviation", "allowed"), 1.0)
ENVELOPE = Envelope(Key("test_it.py::test_it", "alignment_robust", "", 0), "", "0123", plain(DELTA), NUMBERS, {})


# ----------------------------------------------------------------------------------------------------------- when, what


def test_a_failure_is_stored_with_all_that_is_known_of_it(suite, run, stored, pytester):
    suite("failing")
    run()
    (envelope,) = stored()
    kept = envelope.to_dict()
    assert kept["format"] == "alignment-checks"
    assert kept["version"] == 1
    assert kept["nodeid"] == "test_it.py::test_fails"
    assert kept["property"] == "capability_robust"
    assert kept["statement"] == "capability is robust under init_gain(max_log2=1), rtol=0.1"
    assert kept["occurrence"] == 0
    assert len(kept["setup"]) == 16
    assert kept["perturbation"]["family"] == "init_gain"
    assert set(kept["numbers"]) == {"reference", "value", "deviation", "allowed"}
    assert set(kept["versions"]) == {"alignment-checks", "torch", "hypothesis", "python", "platform", "where"}
    assert (pytester.path / ".alignment" / ".gitignore").read_text() == "*\n"


def test_a_failure_under_a_strategy_of_a_long_repr_is_stored(suite, run, stored):
    suite(
        """
        class Anything:
            def __call__(self, delta):
                return True

            def __repr__(self):
                return "anything " * 2**14

        LONG = STRETCHED.filter(Anything())

        def test_it(alignment):
            alignment.assert_capability_robust(BOWL, under=LONG, rtol=0.1, examples=20)
    """
    )
    result = run()
    result.assert_outcomes(failed=1)
    result.stdout.no_fnmatch_line("*the store cannot be changed*")
    assert len(stored()) == 1


def test_it_stands_beside_the_configuration_file(suite, pytester, run):
    (pytester.path / "conf").mkdir()
    (pytester.path / "conf" / "pytest.ini").write_text("[pytest]\n")
    suite("failing")
    result = run("-c", "conf/pytest.ini", "--rootdir=.")
    assert (pytester.path / "conf" / ".alignment" / "examples").is_dir()
    result.stdout.fnmatch_lines(["alignment: *store conf/.alignment/examples"])


STORES_NOTHING = {
    "passes": "alignment.assert_capability_robust(BOWL, under=UNCHANGED, rtol=0.1)",
    "raises": """with pytest.raises(ac.AlignmentViolation):
                alignment.assert_capability_robust(BOWL, under=STRETCHED, rtol=0.1)""",
    "fails by another": """try:
                alignment.assert_capability_robust(BOWL, under=STRETCHED, rtol=0.1)
            except ac.AlignmentViolation:
                raise ValueError""",
    "xfails": """pytest.xfail("known")""",
    "has nothing to replay": "alignment.assert_more_capable(BOWL, than=BOWL)",
}


@pytest.mark.parametrize("body", STORES_NOTHING.values(), ids=STORES_NOTHING)
def test_nothing_is_stored_by_what_does_not_fail_by_a_perturbation(suite, run, pytester, body):
    suite(f"""
        def test_it(alignment):
            {body}
    """)
    run()
    assert not (pytester.path / ".alignment").exists()


@pytest.mark.parametrize("arguments", ["", "strict=True", "raises=ac.AlignmentViolation"])
def test_xfail_stores_nothing(suite, run, pytester, section, arguments):
    suite(f"""
        @pytest.mark.xfail({arguments})
        def test_it(alignment):
            alignment.assert_capability_robust(BOWL, under=STRETCHED, rtol=0.1)
    """)
    result = run()
    result.assert_outcomes(xfailed=1)
    assert result.ret == 0
    assert section(result) == []
    assert not (pytester.path / ".alignment").exists()


def test_a_group_of_failures_stores_each(suite, run, stored, section):
    suite("""
        def test_it(alignment):
            errors = []
            for call in (alignment.assert_capability_robust, alignment.assert_alignment_robust):
                try:
                    call(BOWL, under=STRETCHED, rtol=0.1)
                except AssertionError as error:
                    errors.append(error)
            raise ExceptionGroup("all", [ExceptionGroup("some", errors), ValueError()])
    """)
    result = run()
    assert sorted(e.key.property for e in stored()) == ["alignment_robust", "capability_robust"]
    assert len([line for line in section(result) if line.startswith("FAILED")]) == 2


def test_a_failure_in_a_fixture_is_stored_and_replayed(suite, run, stored):
    suite("""
        @pytest.fixture
        def checked(alignment):
            alignment.assert_capability_robust(BOWL, under=STRETCHED, rtol=0.1)

        def test_it(checked):
            pass
    """)
    run().assert_outcomes(errors=1)
    (envelope,) = stored()
    run(f"--alignment-replay={envelope.id}").assert_outcomes(errors=1)


# --------------------------------------------------------------------------------------------------------- any database


class Broken(InMemoryExampleDatabase):
    def fetch(self, key):
        raise OSError("no network")


class ReadOnly(InMemoryExampleDatabase):
    def save(self, key, value):
        pass

    def delete(self, key, value):
        pass


def test_any_hypothesis_database_will_do():
    said = []
    store = Store(InMemoryExampleDatabase(), said.append)
    store.keep(ENVELOPE.to_dict())
    assert store.envelopes() == [ENVELOPE]
    store.forget(ENVELOPE.key)
    assert store.envelopes() == said == []


def test_one_that_does_not_answer_is_said():
    said = []
    store = Store(Broken(), said.append)
    assert store.envelopes() == []
    store.keep(ENVELOPE.to_dict())
    assert any("cannot be read (no network)" in message for message in said)
    assert any("cannot be changed" in message for message in said)


def test_one_that_takes_nothing_is_said():
    said = []
    store, database = Store(ReadOnly(), said.append), ReadOnly()
    store.keep(ENVELOPE.to_dict())
    assert ["cannot be changed" in message for message in said] == [True]
    database.data[KEY] = {ENVELOPE.to_bytes()}
    Store(database, said.append).forget(ENVELOPE.key)
    assert len(said) == 2


def test_keeping_forgets_only_the_same_assertion():
    store = Store(InMemoryExampleDatabase(), pytest.fail)
    other = Envelope(**{**vars(ENVELOPE), "key": ENVELOPE.key._replace(occurrence=1)})
    larger = Envelope(**{**vars(ENVELOPE), "perturbation": plain(DELTA.at(0.05))})
    for envelope in (ENVELOPE, other, larger):
        store.keep(envelope.to_dict())
    assert store.envelopes() == [larger, other]
