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

    def test_threads(alignment, request):
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        share = cores // 2 if hasattr(request.config, "workerinput") else cores
        assert torch.get_num_threads() <= max(1, share)
"""


def test_the_summary_the_store_and_the_report_are_the_same(suite, run, section, stored, pytester):
    """One failure was stored and is mended, one value in the store is garbage, and five tests fail."""
    home, aside = pytester.path / ".alignment", pytester.path / "aside"
    suite(BEFORE)
    run()
    (file,) = [f for f in home.glob("examples/*/*") if f.read_bytes().startswith(b"{")]
    (file.parent / "garbage").write_bytes(b"garbage")
    shutil.copytree(home, aside)
    suite("failing", "passing", "plain", AFTER)

    def everything(*args, how):
        result = how("-W", "default", "--alignment-report=r.json", *args)
        result.assert_outcomes(passed=4, failed=5, warnings=1)
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

    grouped = next(envelope.id for envelope in stored() if envelope.key.nodeid.endswith("test_grouped"))
    replay = in_workers("-n", "1", "--dist=loadgroup", f"--alignment-replay={grouped}")
    replay.assert_outcomes(failed=1)
    assert [line.split("   ")[0] for line in section(replay)][-2:][0] == f"replayed: {grouped} still fails"
