"""The same under pytest-xdist as without."""

import json
import re

import pytest

BODIES = (
    "failing",
    "passing",
    "plain",
    """
    import torch

    @pytest.mark.parametrize("n", [1, 2, 3])
    def test_many(alignment, n):
        alignment.assert_strongly_aligned(BOWL, worst=0.1, within=n)

    @pytest.mark.xdist_group("together")
    def test_grouped(alignment):
        alignment.assert_alignment_robust(BOWL, under=STRETCHED, rtol=0.1)

    def test_threads(alignment, request, testrun_uid):
        import os
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        assert not hasattr(request.config, "workerinput") or torch.get_num_threads() <= max(1, cores // 2)
    """,
)


def kept(result, section):
    return [re.sub(r"\d+\.\d+ s", "", line) for line in section(result)]


@pytest.fixture
def here(pytester):
    """Return a function that runs pytest in a process of its own: a worker's standard streams are real ones."""
    return lambda *args: pytester.runpytest_subprocess("-p", "no:randomly", "--alignment-examples=8", *args)


def test_the_summary_the_store_and_the_report_are_the_same(suite, here, run, section, stored, pytester):
    suite(*BODIES)
    alone = run("--alignment-report=alone.json")
    alone.assert_outcomes(passed=3, failed=5)
    found = {envelope.id: envelope.key for envelope in stored()}
    for file in pytester.path.glob(".alignment/examples/*/*"):
        file.unlink()

    together = here("-n", "2", "--dist=loadgroup", "--alignment-report=together.json")
    together.assert_outcomes(passed=3, failed=5)
    assert together.ret == alone.ret
    assert [line.replace("together.json", "alone.json") for line in kept(together, section)] == kept(alone, section)
    assert {envelope.id: envelope.key for envelope in stored()} == found
    reports = [json.loads((pytester.path / name).read_text())["entries"] for name in ("alone.json", "together.json")]
    assert [[(e["nodeid"], e["verdict"]["statement"]) for e in entries] for entries in reports][0] == [
        (e["nodeid"], e["verdict"]["statement"]) for e in reports[1]
    ]

    grouped = next(name for name, key in found.items() if key.nodeid.endswith("test_grouped"))
    replay = here("-n", "2", "--dist=loadgroup", f"--alignment-replay={grouped}")
    replay.assert_outcomes(failed=1)
    assert f"replayed: {grouped} still fails" in "\n".join(section(replay))


def test_what_the_store_has_to_say_is_said_once(suite, here, section, pytester, stored):
    suite("failing", "passing")
    here("-k", "fails")
    (file,) = [f for f in pytester.path.glob(".alignment/examples/*/*") if f.read_bytes().startswith(b"{")]
    (file.parent / "garbage").write_bytes(b"garbage")
    path = suite("fixed", "passing")
    path.write_text(path.read_text())
    result = here("-n", "2")
    result.assert_outcomes(passed=2, warnings=1)
    lines = section(result)
    assert [line.split(": ")[0] for line in lines] == ["fixed", "store"]
    assert stored() == []
