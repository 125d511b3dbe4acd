"""Nothing that is read is trusted: a store, a journal, what a worker sends, what the environment says."""

import json

import pytest
from cases.stored import COMPOSED, DELTA, ENVELOPE, changed, perturbed, place
from hypothesis import given
from hypothesis import strategies as st
from pytest_alignment.envelope import Envelope, UnreadableError, identified
from pytest_alignment.portable import plain, restored

from alignment_checks import perturbations as pt


@pytest.mark.parametrize("delta", [DELTA, COMPOSED, pt.IDENTITY])
def test_a_perturbation_comes_back_as_it_was(delta):
    back = restored(json.loads(json.dumps(plain(delta), allow_nan=False)))
    assert back == delta
    assert repr(back) == repr(delta)


@given(delta=st.one_of(pt.init_gain(max_log2=2), pt.compose(pt.label_noise(max_rate=0.3), pt.init_jitter(max_sigma=1))))
def test_every_drawn_perturbation_comes_back_as_it_was(delta):
    envelope = Envelope(ENVELOPE.key, "", "", plain(delta), ENVELOPE.numbers, {})
    assert restored(Envelope.from_bytes(envelope.to_bytes()).perturbation) == delta


def test_an_envelope_comes_back_as_it_was():
    assert Envelope.from_bytes(ENVELOPE.to_bytes()) == ENVELOPE
    assert ENVELOPE.id == identified(ENVELOPE.key, plain(DELTA))
    assert len(ENVELOPE.id) == 6


NESTED = {**plain(COMPOSED), "components": [plain(COMPOSED)]}


BAD = {
    "empty": (b"", "corrupt"),
    "binary": (b"\x80\x04\x95\xff", "corrupt"),
    "cut short": (ENVELOPE.to_bytes()[:-10], "corrupt"),
    "deep": (b"[" * 60000, "corrupt|foreign"),
    "large": (b" " * 2**17, "131072 bytes"),
    "a digit string": (b"9" * 5000, "corrupt|foreign"),
    "a list": (b"[]", "foreign"),
    "another's": (b'{"format": "else", "version": 1}', "foreign"),
    "newer": (changed(version=2), "newer alignment-checks .format 2; this one reads 1"),
    "no version": (changed(version="1"), "its version is '1'"),
    "a node id that is none": (changed(nodeid=3), "its nodeid is 3"),
    "a negative occurrence": (changed(occurrence=-1), "occurrence"),
    "another id": (changed(id="abcdef"), "its id is 'abcdef'"),
    "numbers": (changed(numbers={"reference": "x"}), "reference"),
    "no numbers": (changed(numbers=None), "numbers"),
    "versions": (changed(versions={"a": 1}), "versions"),
    "no perturbation": (changed(perturbation="label_noise(rate=1)"), "perturbation"),
    "nan": (perturbed(magnitude=float("nan")), "not JSON"),
    "infinite": (ENVELOPE.to_bytes().replace(b"0.0313", b"1e999"), "magnitude"),
    "a huge int": (perturbed(magnitude=10**400), "magnitude"),
    "true": (perturbed(magnitude=True), "magnitude"),
    "a seed that is none": (perturbed(seed=1.5), "seed"),
    "an option that is none": (perturbed(options=[["pool", {"a": 1}]]), "option"),
    "options that are none": (perturbed(options={"pool": 1}), "options"),
    "too many": (perturbed(options=[["a", 1]] * 65), "at most 64"),
    "nested": (changed(perturbation=NESTED), "a component of its perturbation has components"),
    "others that are none": (changed(others={"a": 1}), "its others are"),
    "another that is none": (changed(others=[{**plain(DELTA), "seed": -1}]), "seed"),
    "too many others": (changed(others=[plain(DELTA)] * 65), "at most 64"),
    "both": (changed(perturbation={**plain(COMPOSED), "magnitude": 1.0}), "components and a magnitude"),
}


@pytest.mark.parametrize(("value", "message"), BAD.values(), ids=BAD)
def test_a_bad_value_says_what_is_wrong_with_it(value, message):
    with pytest.raises(UnreadableError, match=message):
        Envelope.from_bytes(value)


@given(
    st.binary()
    | st.recursive(st.none() | st.text() | st.floats() | st.integers(), st.lists).map(
        lambda value: json.dumps(value).encode()
    )
)
def test_anything_else_is_unreadable_and_no_crash(value):
    with pytest.raises(UnreadableError):
        Envelope.from_bytes(value)


@given(
    path=st.sampled_from(list(ENVELOPE.to_dict()) + [f"perturbation.{name}" for name in plain(DELTA)]),
    value=st.none() | st.booleans() | st.text(max_size=3) | st.floats() | st.integers() | st.lists(st.integers()),
)
def test_a_changed_field_is_unreadable_or_does_no_harm(path, value):
    fields = json.loads(ENVELOPE.to_bytes())
    name, _, inner = path.partition(".")
    (fields[name] if inner else fields)[inner or name] = value
    try:
        envelope = Envelope.from_bytes(json.dumps(fields).encode())
        restored(envelope.perturbation)
    except ValueError:
        return
    assert envelope.perturbation == ENVELOPE.perturbation


@pytest.mark.parametrize("family", ["no_such", "compose"])
def test_an_unknown_family_is_refused(family):
    with pytest.raises(ValueError, match=family):
        restored({**plain(DELTA), "family": family})


def test_a_magnitude_beyond_its_limit_is_refused():
    with pytest.raises(ValueError, match="limit"):
        restored({**plain(DELTA), "magnitude": 9.0})


@pytest.mark.parametrize("case", ["cut short", "another's", "newer"])
def test_a_bad_value_is_warned_of_skipped_and_kept(suite, run, pytester, section, case):
    value, _ = BAD[case]
    file = place(pytester, value)
    suite("passing", "failing")
    result = run("-W", "default")
    result.assert_outcomes(passed=1, failed=1, warnings=1)
    result.stdout.fnmatch_lines(["*AlignmentStoreWarning: * in the store *"])
    (line,) = [line for line in section(result) if line.startswith("store: ")]
    assert "Skipped" in line
    assert file.read_bytes() == value


@pytest.mark.parametrize("args", [["-W", "error"], ["-W", "ignore"], ["-p", "no:warnings"]])
def test_where_warnings_are_errors_the_summary_alone_has_it(suite, run, pytester, section, args):
    place(pytester, b"garbage")
    suite("passing", "failing")
    result = run(*args)
    result.assert_outcomes(passed=1, failed=1)
    assert len([line for line in section(result) if line.startswith("store: ") and "corrupt" in line]) == 1


def test_a_replay_names_bad_values_too(suite, run, pytester, stored):
    suite("failing")
    run()
    place(pytester, b"garbage")
    result = run("--alignment-replay=all")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["store: * is corrupt*"])
    assert "it has" in run("--alignment-replay=000000").stderr.str()


def test_a_stored_family_that_is_gone_is_named_and_skipped(suite, run, stored, pytester, section):
    suite("failing")
    run()
    (envelope,) = stored()
    (file,) = [f for f in pytester.path.rglob(".alignment/examples/*/*") if f.read_bytes().startswith(b"{")]
    odd = Envelope(**{**vars(envelope), "perturbation": {**envelope.perturbation, "family": "gone"}})
    file.unlink()
    place(pytester, odd.to_bytes())
    result = run()
    result.assert_outcomes(failed=1)
    assert [line for line in section(result) if f"{odd.id} cannot be tried: " in line and "'gone'" in line]


def test_a_place_that_cannot_be_written_is_a_warning_and_no_failure(suite, run, pytester, section):
    (pytester.path / ".alignment").write_text("a file")
    suite(
        "passing",
        "failing",
        """
        def test_too(alignment):
            alignment.assert_alignment_robust(BOWL, under=STRETCHED, rtol=0.1)
    """,
    )
    result = run("-W", "default")
    result.assert_outcomes(passed=1, failed=2, warnings=1)
    assert len([line for line in section(result) if line.startswith("store: the store cannot be changed")]) == 1
