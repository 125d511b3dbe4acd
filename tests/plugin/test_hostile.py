"""What is stored or sent with ill intent does no more than be unreadable."""

import json
import os
import signal
from contextlib import suppress

import pytest
from cases.stored import DELTA, ENVELOPE, changed, perturbed, place
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pytest_alignment import journal, results, threads
from pytest_alignment.envelope import LARGEST, Envelope, UnreadableError
from pytest_alignment.journal import FORMAT, crashes
from pytest_alignment.portable import plain
from pytest_alignment.recovery import recovered
from pytest_alignment.results import Key, Result
from pytest_alignment.store import MOST, Directory, Store

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
    for fields in (
        {"perturbation": value},
        {"numbers": value},
        {"versions": value},
        {"level": value},
        {"backend": value},
    ):
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


def test_no_more_of_a_journal_is_read_than_one_may_hold(tmp_path):
    assert written(tmp_path, b" " * (journal.LARGEST + 1)) == [
        f"1.jsonl is larger than {journal.LARGEST} bytes. Skipped; delete it"
    ]


STRANGE = {
    "a family that there is not": {"family": "no_such_family"},
    "a magnitude out of its domain": {"magnitude": 99.0},
    "a seed that no generator takes": {"seed": -1},
    "a composition of nothing": {"family": "composition", "magnitude": None, "limit": None},
}


def recovered_of(folder, *batch):
    """Return what is tried of a journal's batch, what is said of it, and what it is held to have died of."""
    entry = {"format": FORMAT, **ENVELOPE.key._asdict(), "batch": batch}
    (crash,) = written(folder, json.dumps(entry).encode())
    if isinstance(crash, str):
        return [], [crash], None
    tried, said = [], []
    died = recovered(crash, "test_it", tried.append, lambda line, _: said.append(line))
    assert not crash.path.exists()
    return tried, said, died


@pytest.mark.parametrize("hostile", STRANGE.values(), ids=STRANGE)
def test_what_is_no_perturbation_is_skipped_in_one_line(tmp_path, hostile):
    tried, (line,), died = recovered_of(tmp_path, {**plain(DELTA), **hostile})
    assert (tried, died) == ([], None)
    assert "Skipped" in line


def test_beside_one_that_cannot_be_read_none_is_held_to_be_the_culprit_unless_it_is(tmp_path):
    tried, _, died = recovered_of(tmp_path, plain(DELTA), {**plain(DELTA), "family": "no_such_family"})
    assert (tried, died) == ([DELTA], None)
    _, _, died = recovered_of(tmp_path, plain(DELTA))
    assert "the process died while it trained" in died


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
    assert said == [f"{name}.jsonl is not a regular file. Skipped; delete it" for name in ("link", "pipe")]


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
    assert line.startswith("results: the results of test_it.py::test_plain cannot be read")


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
