"""Thresholds and p-values from scores alone."""

import math

import numpy as np
import pytest

from avfake.conformal import p_value, threshold_at


@pytest.mark.parametrize('n, rate, rank', [(99, 0.05, 95), (19, 0.05, 19), (199, 0.01, 198), (10, 0.2, 9)])
def test_the_threshold_is_the_conformal_quantile(n, rate, rank):
    t = threshold_at(np.random.default_rng(0).permutation(n) + 1, rate)
    assert t.value == rank == math.ceil((n + 1) * (1 - rate) - 1e-9)
    assert t.false_alarm == pytest.approx((n + 1 - rank) / (n + 1))
    assert t.supported
    assert t.caveats == []


def test_with_too_few_clips_it_promises_what_they_support():
    t = threshold_at(range(10), 0.05, identities=['Ann'] * 5 + ['Ben'] * 5)
    assert (t.value, t.n_calibration, t.n_identities) == (9, 10, 2)
    assert t.false_alarm == t.smallest_p == 1 / 11
    assert not t.supported
    few, whose = t.caveats
    assert 'at least 19 calibration clips' in few
    assert '2 people' in whose and '33%' in whose


@pytest.mark.parametrize(
    'role, words', [('validation', 'validation clips, which'), ('', 'not recorded'), ('calibration', '')]
)
def test_it_says_which_clips_it_rests_on(role, words):
    "Fault 07: validation clips stood for calibration clips, unsaid."
    caveats = threshold_at(range(100), role=role).caveats
    assert words in ' '.join(caveats)
    assert bool(caveats) == bool(words)


@pytest.mark.parametrize('bad', [dict(calibration=[np.nan]), dict(calibration=[1], false_alarm=5)])
def test_what_gives_no_threshold_is_refused(bad):
    with pytest.raises(ValueError):
        threshold_at(**bad)


def test_a_clip_is_above_the_threshold_exactly_if_its_p_value_is_at_most_the_rate():
    rng = np.random.default_rng(0)
    calibration, scores = rng.normal(size=99).round(1), rng.normal(size=500).round(1)
    for rate in (0.05, 0.1, 0.5):
        above = scores > threshold_at(calibration, rate).value
        np.testing.assert_array_equal(above, p_value(scores, calibration) <= rate + 1e-12)


def test_ties_at_infinity_are_ties():
    "Fault 15: an infinite calibration score was lowered to 1e300, so an infinite clip lay above its like."
    calibration = [0.0] * 2 + [np.inf] * 2
    t = threshold_at(calibration)
    assert t.value == np.inf
    assert 'infinite' in ' '.join(t.caveats)
    assert p_value(np.inf, calibration) == 3 / 5
    assert p_value(-np.inf, [-np.inf, 0]) == 1
    assert np.isnan(p_value(np.nan, calibration))


def test_the_promise_holds_on_average():
    rng = np.random.default_rng(1)
    rates = [(rng.lognormal(size=40) > threshold_at(rng.lognormal(size=30), 0.1).value).mean() for _ in range(2000)]
    assert np.mean(rates) == pytest.approx(3 / 31, abs=0.005)  # the 28th of 30 scores, so 3 places of 31 above
