"""Definition 3, each side its own δ: what is trained on and what is scored on."""

import pytest
from cases.checks import DOUBLED, EXACT, NOISE, bowl, replace_mesa, within
from hypothesis import strategies as st

import alignment_checks as ac
from alignment_checks.perturbations import IDENTITY, Perturbation


def capabilities(setup, trained, scored):
    return ac.capability(ac.run(setup, [IDENTITY, trained], base=[IDENTITY, scored]))


@pytest.mark.parametrize(
    ("keyword", "trained", "scored"),
    [("under", True, True), ("mesa_under", True, False), ("base_under", False, True)],
)
def test_a_verdict_says_what_was_trained_on_and_what_was_scored_on_and_measured_that(mlp, keyword, trained, scored):
    verdict = ac.check_capability_robust(mlp, **{keyword: NOISE}, rtol=0.2, side="worse", examples=15)
    delta = verdict.minimal.perturbation
    assert verdict.minimal.mesa == (delta if trained else IDENTITY)
    assert verdict.minimal.base == (delta if scored else IDENTITY)
    reference, value = capabilities(mlp, delta if trained else IDENTITY, delta if scored else IDENTITY)
    assert verdict.minimal.reference == pytest.approx(reference, rel=EXACT)
    assert verdict.minimal.value == pytest.approx(value, rel=EXACT)
    said = f"trained on L{'+δ' * trained}, scored on L{'+δ' * scored}"
    assert said in str(verdict)
    words = {"under": "", "mesa_under": " in training alone", "base_under": " in scoring alone"}[keyword]
    assert f"under label_noise(max_rate=0.3){words}, rtol=0.2, side='worse'" in verdict.statement
    passed = ac.check_capability_robust(mlp, **{keyword: NOISE}, rtol=100.0, examples=5)
    assert passed.status == "pass"
    assert said in str(passed)


def test_noise_in_the_labels_that_score_costs_more_than_noise_in_those_trained_on(mlp):
    """Scored under δ, the floor of L itself is higher; trained under δ, most of what was learnt is still right."""
    deltas = [Perturbation("label_noise", 0.1, 0.3, seed) for seed in range(6)]
    for delta in deltas:
        plain, trained = capabilities(mlp, delta, IDENTITY)
        scored = capabilities(mlp, IDENTITY, delta)[1]
        assert 0 < trained - plain < 0.5 * (scored - plain)
    plain, trained = capabilities(mlp, deltas[0], IDENTITY)
    both = capabilities(mlp, deltas[0], deltas[0])[1]
    rtol = float(((trained + both) / 2 - plain) / abs(plain))

    def status(side):
        return ac.check_capability_robust(mlp, **{side: st.just(deltas[0])}, rtol=rtol, examples=1).status

    assert [status(side) for side in ("mesa_under", "base_under", "under")] == ["pass", "fail", "fail"]


def test_scoring_alone_trains_once(steps):
    setup = replace_mesa(bowl())
    verdict = ac.check_alignment_robust(setup, base_under=DOUBLED, rtol=0.1, examples=20)
    assert (verdict.runs, steps.taken) == (1, setup.steps)
    assert within(verdict.minimal.perturbation.magnitude, 0.1)


def test_training_alone_leaves_the_score_in_its_unit():
    """2L is trained at twice the learning rate and scored on L: of C, no factor of 2 is seen."""
    verdict = ac.check_capability_robust(bowl(steps=200), mesa_under=DOUBLED, rtol=0.05, examples=10)
    assert verdict.status == "pass"
    assert ac.check_capability_robust(bowl(steps=200), under=DOUBLED, rtol=0.05, examples=10).status == "fail"
