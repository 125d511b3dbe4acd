"""Nothing that is read is trusted: a store, a journal, what a worker sends, what the environment says."""

import json
import os
import signal
from contextlib import suppress

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pytest_alignment import results, threads
from pytest_alignment.envelope import LARGEST, Envelope, UnreadableError, identified
from pytest_alignment.journal import FORMAT, crashes
from pytest_alignment.portable import plain, restored
from pytest_alignment.results import Key, Result
from pytest_alignment.store import KEY, MOST, Directory, Store

from alignment_checks import perturbations as pt

DELTA = pt.Perturbation("label_noise", 0.0313, 0.05, seed=7)
COMPOSED = pt.Perturbation("compose", None, None, 0, components=(DELTA, pt.Perturbation("init_gain", -0.5, 1.0, 0)))
ENVELOPE = Envelope(
    key=Key("test_it.py::test_fails", "capability_robust", "under=label_noise(max_rate=0.05)", 0),
    statement="capability is robust",
    setup="0123456789abcdef",
    perturbation=plain(DELTA),
    numbers={"reference": -0.4, "value": "nan", "deviation": "inf", "allowed": 0.04},
    versions={"torch": "2.13.0"},
)


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


def changed(**fields):
    return json.dumps({**ENVELOPE.to_dict(), **fields}).encode()


def perturbed(**fields):
    return changed(perturbation={**plain(DELTA), **fields})


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


def place(pytester, value, name="0123456789abcdef"):
    """Put a value where the store looks for them, as anyone could."""
    import hashlib

    folder = pytester.path / ".alignment" / "examples" / hashlib.sha384(KEY).hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(value)
    return folder / name


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


# ------------------------------------------------------------------------------------------------------ what is hostile

JSON = st.recursive(
    st.none() | st.booleans() | st.text() | st.floats() | st.integers(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)
UNPRINTABLE = st.sampled_from(["\x1b[2J", "\x1b]0;title\x07", "\r", "\x00", "\u202e", "\ud800", "\x9b31m"])


@given(field=st.sampled_from(["nodeid", "property", "call", "statement", "setup"]), text=UNPRINTABLE)
def test_what_would_do_something_to_the_terminal_is_refused(field, text):
    value = json.dumps({**ENVELOPE.to_dict(), field: f"a{text}b"}).encode()
    with pytest.raises(UnreadableError, match="can be printed") as caught:
        Envelope.from_bytes(value)
    assert str(caught.value).isascii()
    for hostile in ({"family": f"a{text}b"}, {"options": [["pool", f"a{text}b"]]}):
        with pytest.raises(UnreadableError):
            Envelope.from_bytes(perturbed(**hostile))


@pytest.mark.parametrize("end", ["\n", "\u2028", "\u2029", "\x85"])
def test_no_line_of_the_summary_can_be_forged(end):
    text = f"a{end}fixed: 123456 no longer fails"
    hostile = [{field: text} for field in ("nodeid", "property", "call", "setup")]
    for fields in (*hostile, {"versions": {"torch": text}}, {"perturbation": {**plain(DELTA), "family": text}}):
        with pytest.raises(UnreadableError):
            Envelope.from_bytes(changed(**fields))


def test_a_statement_may_have_several_lines():
    several = Envelope(**{**vars(ENVELOPE), "statement": "C is robust\n|Δ| ≤ 0.1"})
    assert Envelope.from_bytes(several.to_bytes()) == several


@given(JSON)
def test_no_value_of_any_shape_does_more_than_be_unreadable(value):
    for fields in ({"perturbation": value}, {"numbers": value}, {"versions": value}, {"level": value}):
        with suppress(UnreadableError):
            assert Envelope.from_bytes(changed(**fields)).perturbation == ENVELOPE.perturbation


@pytest.mark.parametrize("depth", [10, 100, 500, 900, 990, 5000, 10000])
def test_however_deep_it_is_nested(depth):
    for value in (b"[" * depth + b"]" * depth, b'{"a":' * depth + b"1" + b"}" * depth):
        for whole in (value, b'{"format": "alignment-checks", "version": 1, "nodeid": ' + value + b"}"):
            with pytest.raises(UnreadableError):
                Envelope.from_bytes(whole)


@pytest.mark.parametrize("nodeid", ["../../etc/passwd::test_it", "/etc/passwd", "..", "", "::", "a" * 5000])
def test_a_path_in_an_entry_is_words_and_nothing_else(suite, run, pytester, section, nodeid):
    hostile = Envelope(**{**vars(ENVELOPE), "key": ENVELOPE.key._replace(nodeid=nodeid)})
    place(pytester, hostile.to_bytes())
    suite("plain")
    run().assert_outcomes(passed=1)
    replay = run("--alignment-replay=all")
    assert replay.ret == pytest.ExitCode.NO_TESTS_COLLECTED
    assert [line.split("   ")[0] for line in section(replay)] == [f"not replayed: {hostile.id}"]


def test_no_link_is_followed_no_pipe_waited_for_and_no_large_file_read(tmp_path):
    outside = tmp_path / "outside"
    outside.write_bytes(ENVELOPE.to_bytes())
    said = []
    store = Store(Directory(str(tmp_path / "home" / "examples")), said.append)
    store.keep(ENVELOPE.to_dict())
    (file,) = [path for path in (tmp_path / "home" / "examples").glob("*/*") if path.read_bytes()[:1] == b"{"]
    (file.parent / "folder").mkdir()
    (file.parent / "large").write_bytes(b" " * (LARGEST + 5))
    if hasattr(os, "mkfifo"):
        os.mkfifo(file.parent / "pipe")
    file.unlink()
    file.symlink_to(outside)
    assert store.envelopes() == []
    (message,) = said
    assert f"{LARGEST + 1} bytes, expected at most {LARGEST}" in message


def test_of_a_store_that_is_flooded_the_beginning_is_read(tmp_path):
    class Endless(Directory):
        def fetch(self, key):
            while True:
                yield b"{}"

    said = []
    assert Store(Endless(str(tmp_path)), said.append).envelopes() == []
    assert any(f"more than {MOST}" in message for message in said)


def written(folder, *lines):
    (folder / "1.jsonl").write_bytes(b"\n".join(lines))
    return list(crashes(folder))


@given(st.lists(st.binary(max_size=200) | JSON.map(lambda value: json.dumps(value).encode()), max_size=4))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_journal_of_anything_is_said_to_be_unreadable(tmp_path, lines):
    assert all(isinstance(one, str) for one in written(tmp_path, *lines))


@given(value=JSON, field=st.sampled_from(["nodeid", "property", "call", "occurrence", "batch", "format"]))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_journal_with_a_strange_field_is_unreadable_or_harmless(tmp_path, value, field):
    entry = {"format": FORMAT, **ENVELOPE.key._asdict(), "batch": [plain(DELTA)], field: value}
    for one in written(tmp_path, json.dumps(entry).encode()):
        if not isinstance(one, str):
            assert getattr(one.key, field) == value


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes")
def test_a_journal_that_is_no_file_is_said(tmp_path):
    def late(*_):
        raise TimeoutError

    os.mkfifo(tmp_path / "pipe.jsonl")
    (tmp_path / "link.jsonl").symlink_to("/etc/hostname")
    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(20)
    try:
        said = list(crashes(tmp_path))
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    assert said == [f"{name}.jsonl is no file. Skipped; delete it" for name in ("link", "pipe")]


SENT = {
    "no JSON": "{",
    "a list": "[]",
    "a number": "1",
    "unknown fields": json.dumps({"results": [{"key": ["a", "b", "c", 0], "strange": 1}], "said": []}),
    "no key": json.dumps({"results": [{"status": "fail"}], "said": []}),
    "deep": "[" * 50000,
    "said wrongly": json.dumps({"results": [], "said": [1]}),
}
SENDING = """
    import pytest

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_makereport(item, call):
        report = yield
        if call.when == "call" and item.name == "test_plain":
            report.alignment_results = {!r}
        return report
"""


@pytest.mark.parametrize("text", SENT.values(), ids=SENT)
def test_what_a_worker_sends_and_cannot_be_read_is_left_out_and_said(suite, run, pytester, section, text):
    pytester.makeconftest(SENDING.format(text))
    suite("plain")
    result = run("-W", "ignore")
    result.assert_outcomes(passed=1)
    (line,) = section(result)
    assert line.startswith("results: what came from test_it.py::test_plain cannot be read")


def test_a_failure_sent_that_cannot_be_stored_is_said(suite, run, pytester, section):
    failure = Result(Key("a", "b", "c", 0), "fail", "heading", raised=True, envelope={"id": "x"})
    pytester.makeconftest(SENDING.format(results.encoded([failure], [])))
    suite("plain")
    result = run("-W", "ignore")
    result.assert_outcomes(passed=1)
    assert [line for line in section(result) if line.startswith("store: the failure of a cannot be stored")]


@pytest.mark.parametrize("value", ["²", "-1", "1e3", "9" * 5000, "", "0", "٣", " 2", "2,1"])
def test_an_environment_that_means_no_number_of_threads_is_not_heeded(pytester, monkeypatch, value):
    config = pytester.parseconfig()
    monkeypatch.setattr(threads, "_cores", lambda: 4)
    monkeypatch.setenv("OMP_NUM_THREADS", value)
    assert threads.allotted(config) == 4
