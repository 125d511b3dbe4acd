"""The same under pytest-xdist as without."""

import json
import re
import shutil

BEFORE = """
    def test_mended(alignment):
        alignment.assert_capability_robust(BOWL, under=STRETCHED, rtol=0.1)
"""
AFTER = """
    import os

    def test_mended(alignment):
        alignment.assert_capability_robust(BOWL, under=STRETCHED, rtol=99)

    @pytest.mark.parametrize("n", [1, 2, 3])
    def test_many(alignment, n):
        alignment.assert_strongly_aligned(BOWL, worst=0.1, within=n)

    @pytest.mark.xdist_group("together")
    def test_grouped(alignment):
        alignment.assert_alignment_robust(BOWL, under=STRETCHED, rtol=0.1)

    def test_flat(alignment):
        flat = ac.landscape(lambda x: 0 * x.sum(), [1.0], optimizer=partial(torch.optim.SGD, lr=0.1), steps=3)
        alignment.assert_alignment_robust(flat, under=UNCHANGED, rtol=0.1)

    def test_threads(alignment, request):
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        share = cores // 2 if hasattr(request.config, "workerinput") else cores
        assert torch.get_num_threads() <= max(1, share)
"""


def test_the_summary_the_store_and_the_report_are_the_same(suite, run, section, stored, pytester):
    """One failure was stored and is mended, one stored value is garbage, five tests fail, one cannot be judged."""
    home, aside = pytester.path / ".alignment", pytester.path / "aside"
    suite(BEFORE)
    run()
    (file,) = [f for f in home.glob("examples/*/*") if f.read_bytes().startswith(b"{")]
    (file.parent / "garbage").write_bytes(b"garbage")
    shutil.copytree(home, aside)
    suite("failing", "passing", "plain", AFTER)

    def everything(*args, how):
        result = how("-W", "default", "--alignment-report=r.json", *args)
        result.assert_outcomes(passed=4, failed=6, warnings=1)
        entries = json.loads((pytester.path / "r.json").read_text())["entries"]
        stated = [(entry["nodeid"], entry["verdict"]["statement"]) for entry in entries]
        return result.ret, [re.sub(r"\d+\.\d+ s", "", line) for line in section(result)], stated, stored()

    def in_workers(*args):
        return pytester.runpytest_subprocess("-p", "no:randomly", "--alignment-examples=8", *args)

    alone = everything(how=run)
    shutil.rmtree(home)
    shutil.move(aside, home)
    together = everything("-n", "2", "--dist=loadgroup", how=in_workers)
    for one, other in zip(alone, together, strict=True):
        assert one == other
    assert [line.split(": ")[0] for line in alone[1][-3:]] == ["fixed", "store", "report"]
    assert "INCONCLUSIVE test_it.py::test_flat" in alone[1]

    grouped = next(envelope.id for envelope in stored() if envelope.key.nodeid.endswith("test_grouped"))
    replay = in_workers("-n", "1", "--dist=loadgroup", f"--alignment-replay={grouped}")
    replay.assert_outcomes(failed=1)
    assert [line.split("   ")[0] for line in section(replay)][-2:][0] == f"replayed: {grouped} still fails"


REPEATED = """
    import os, signal

    def pytest_addoption(parser):
        parser.addoption("--count", type=int, default=1)

    def pytest_generate_tests(metafunc):
        metafunc.fixturenames.append("repeated")
        metafunc.parametrize("repeated", range(metafunc.config.option.count))
"""


def test_repeated_on_many_workers_nothing_is_lost_or_doubled(suite, run, section, stored, pytester):
    pytester.makeconftest(REPEATED)
    suite("failing", "passing")
    args = ("--count=3", "-k", "fails or passes", "-p", "no:cacheprovider")
    run(*args, "-k", "fails[0]").assert_outcomes(failed=1, deselected=5)
    assert len(stored()) == 1
    result = pytester.runpytest_subprocess("-p", "no:randomly", "--alignment-examples=8", *args, "-n", "4")
    result.assert_outcomes(passed=3, failed=3)
    assert sorted(envelope.key.nodeid for envelope in stored()) == [f"test_it.py::test_fails[{n}]" for n in range(3)]
    assert len([line for line in result.outlines if line.strip("=") == " alignment "]) == 1
    failed = [line for line in section(result) if line.startswith("FAILED")]
    assert failed == [f"FAILED test_it.py::test_fails[{n}]" for n in range(3)]


def test_what_a_worker_found_before_it_crashed_survives(suite, section, stored, pytester, monkeypatch):
    suite(
        "failing",
        """
        import os, signal

        def deadly(realization, magnitude, generator):
            if os.environ.get("DEADLY"):
                os.kill(os.getpid(), signal.SIGKILL)
            return realization

        def test_kills(alignment):
            alignment.assert_capability_robust(BOWL, under=pt.custom("deadly", deadly, 1.0), rtol=0.1)

        def test_later(alignment):
            alignment.assert_capability_robust(BOWL, under=pt.init_gain(max_log2=0.9), rtol=0.1)
    """,
    )
    monkeypatch.setenv("DEADLY", "1")
    result = pytester.runpytest_subprocess("-p", "no:randomly", "--alignment-examples=8", "-n", "1")
    result.assert_outcomes(failed=3)
    result.stdout.fnmatch_lines(["*crashed while running 'test_it.py::test_kills'*"])
    failed = [line for line in section(result) if line.startswith("FAILED")]
    assert failed == ["FAILED test_it.py::test_fails", "FAILED test_it.py::test_later"]
    assert sorted(envelope.key.nodeid for envelope in stored()) == ["test_it.py::test_fails", "test_it.py::test_later"]
    (journal,) = (pytester.path / ".alignment" / "journal").iterdir()
    assert "test_it.py::test_kills" in journal.read_text()
