"""What `benchmarks/operating_characteristics.py` measures on thousands of cases, on few and within wide bounds."""

import importlib.util
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent / "benchmarks" / "operating_characteristics.py"


@pytest.fixture(scope="module")
def measured():
    """Return the benchmark as a module; it is a script and in no package, and imports from its own folder."""
    spec = importlib.util.spec_from_file_location("operating_characteristics", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    sys.path.insert(0, str(SCRIPT.parent))
    try:
        spec.loader.exec_module(module)
        yield module
    finally:
        sys.path.remove(str(SCRIPT.parent))
        for name in (spec.name, "known_limits", "false_alarms", "shares"):
            del sys.modules[name]


def test_a_share_has_the_interval_of_clopper_and_pearson(measured):
    row = measured.Row("something", 0, 100, "")
    assert row.interval == pytest.approx((0.0, 1 - 0.025 ** (1 / 100)))
    assert "| something | 100 | 0.0 % [0.0, 3.6] |" in str(row)


def test_intervals_of_random_means_cover(measured):
    rows = list(measured.coverage(15, 1000))
    kept, cases = sum(row.kept for row in rows), sum(row.cases for row in rows)
    assert 0.86 <= kept / cases <= 0.99
    assert all(row.interval[1] >= 0.93 for row in rows)
    assert cases >= 0.9 * 15 * len(rows)


def test_intervals_of_deterministic_limits_contain_them(measured):
    for row in measured.containment(12, 1000):
        assert row.kept == row.cases >= 10, row


def test_each_regime_is_mostly_called_by_its_name(measured):
    for row in measured.confusion(12, 1000):
        assert row.kept >= 0.8 * row.cases, row


def test_what_holds_raises_no_alarm_and_what_does_not_is_found(measured):
    alarms, margin, slight, planted, gross = measured.verdicts(10)
    assert alarms.kept + margin.kept <= 1
    assert slight.kept >= 1
    assert planted.kept >= planted.cases - 1
    assert gross.kept == gross.cases


def test_scatter_with_heavy_tails_raises_hardly_an_alarm_since_what_it_leaves_open_is_looked_at_again(
    measured,
):
    rows = list(measured.heavy_tailed(10))
    assert all(row.more == "0 of them failures" for row in rows)
    assert sum(row.kept for row in rows) <= 2, "by the first seeds alone it is 8"


def test_what_is_off_by_the_tolerance_passes_in_5_per_cent_at_most_though_it_is_looked_at_twice(measured):
    row = next(measured.wrong_passes(400))
    assert row.kept >= 4, "it does happen"
    assert row.interval[0] <= 0.05


def test_limits_of_one_random_run_raise_no_alarm_however_many_are_searched(measured):
    (row,) = measured.alone(4, 400)
    assert (row.kept, row.cases) == (0, 4)


def test_a_reported_perturbation_fails_again_in_a_fresh_process(measured, tmp_path):
    (row,) = measured.repeated(4, str(tmp_path))
    assert row.kept == row.cases >= 4
