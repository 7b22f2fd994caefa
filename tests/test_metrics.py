"""Metrics, one implementation for plain and weighted clips: the same as scikit-learn's, and right at infinity."""

import tracemalloc

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, average_precision_score, balanced_accuracy_score, roc_auc_score, roc_curve

from avfake.metrics import (
    METRICS,
    Metric,
    binary_metrics,
    bootstrap_auc,
    clean_scores,
    curve_blocks,
    draw_identities,
    interval,
    weighted_metrics,
)


def drawn(seed, n=200, digits=1):
    "Labels and scores with many ties."
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 2, n)
    return label, (rng.normal(size=n) + 0.7 * label).round(digits)


def eer_of_sklearn(label, score, weights):
    "The equal error rate, from scikit-learn's curve."
    fpr, tpr, _ = roc_curve(label, score, sample_weight=weights, drop_intermediate=False)
    gap = 1 - tpr - fpr
    after = int(np.argmax(gap <= 0))
    before = max(after - 1, 0)
    step = gap[before] - gap[after]
    t = gap[before] / step if step > 0 else 1.0
    return fpr[before] + t * (fpr[after] - fpr[before])


@pytest.mark.parametrize('seed', range(8))
@pytest.mark.parametrize('kind', ['ones', 'counts', 'fractions'])
def test_every_metric_is_that_of_scikit_learn(seed, kind):
    label, score = drawn(seed, digits=seed % 3)
    rng = np.random.default_rng(seed)
    weights = dict(
        ones=np.ones(len(label)), counts=rng.integers(0, 4, len(label)).astype(float), fractions=rng.random(len(label))
    )[kind]
    got = {k: v[0] for k, v in weighted_metrics(label, score, weights[None], threshold=0.4).items()}
    fpr, tpr, _ = roc_curve(label, score, sample_weight=weights, drop_intermediate=False)
    prevalence = weights[label == 1].sum() / weights.sum()
    even = weights * np.where(label == 1, 0.5 / prevalence, 0.5 / (1 - prevalence))
    called = (score > 0.4).astype(int)
    expected = dict(
        auc=roc_auc_score(label, score, sample_weight=weights),
        average_precision=average_precision_score(label, score, sample_weight=weights),
        average_precision_50=average_precision_score(label, score, sample_weight=even),
        prevalence=prevalence,
        eer=eer_of_sklearn(label, score, weights),
        tpr_at_fpr_1=tpr[fpr <= 0.01 + 1e-12].max(),
        tpr_at_fpr_5=tpr[fpr <= 0.05 + 1e-12].max(),
        accuracy=accuracy_score(label, called, sample_weight=weights),
        balanced_accuracy=balanced_accuracy_score(label, called, sample_weight=weights),
        fpr=weights[(label == 0) & (called == 1)].sum() / weights[label == 0].sum(),
        tpr=weights[(label == 1) & (called == 1)].sum() / weights[label == 1].sum(),
    )
    assert set(expected) == set(got) - {'eer_threshold'}
    for name, value in expected.items():
        assert got[name] == pytest.approx(value, abs=1e-12), name


def test_plain_metrics_are_weighted_ones_with_weights_of_one():
    label, score = drawn(1)
    plain = binary_metrics(score[label == 0], score[label == 1], 0.4)
    weighted = weighted_metrics(label, score, threshold=0.4)
    for name, value in weighted.items():
        assert plain[name] == pytest.approx(value[0], abs=1e-12), name
    assert list(plain) == [m.name for m in METRICS] + ['n_authentic', 'n_forged']


def test_blocks_change_nothing():
    label, score = drawn(2)
    weights = np.random.default_rng(0).integers(0, 3, (50, len(label)))
    whole = np.concatenate([c.tpr for c in curve_blocks(label, score, weights)])
    parts = [c.tpr for c in curve_blocks(label, score, weights, size=700)]
    assert len(parts) > 10
    np.testing.assert_array_equal(np.concatenate(parts), whole)


@pytest.mark.parametrize('infinity', [np.inf, -np.inf])
def test_ties_at_infinity_are_ties_in_every_metric(infinity):
    "Fault 15: clips that tie at infinity were ranked in the order of the table: the interval was 0.16 to 0.64."
    half = [infinity] * 5 + [0.0] * 5
    ids = [str(i) for i in range(20)]
    assert binary_metrics(half, half)['auc'] == 0.5
    low, high = bootstrap_auc(half, half, ids[:10], ids[10:], n=500)
    finite = [1e9 * np.sign(infinity)] * 5 + [0.0] * 5
    assert (low, high) == bootstrap_auc(finite, finite, ids[:10], ids[10:], n=500)
    assert low < 0.5 < high


def test_infinite_scores_count_as_large_finite_ones_do():
    "Fault 15, all metrics, many weightings."
    label, score = drawn(3)
    infinite = score.copy()
    infinite[score > 1.5] = np.inf
    infinite[score < -1] = -np.inf
    finite = np.where(np.isposinf(infinite), 1e6, np.where(np.isneginf(infinite), -1e6, infinite))
    weights = np.random.default_rng(0).integers(0, 3, (40, len(label)))
    a, b = (weighted_metrics(label, s, weights, threshold=0.2) for s in (infinite, finite))
    for name in set(a) - {'eer_threshold'}:
        np.testing.assert_array_equal(a[name], b[name])


def test_missing_scores_count_nowhere():
    assert clean_scores([1, np.nan, np.inf]).tolist() == [1, np.inf]
    label, score = drawn(4)
    with_missing = binary_metrics([*score[label == 0], np.nan], [*score[label == 1], np.nan], 0.1)
    assert with_missing == binary_metrics(score[label == 0], score[label == 1], 0.1)


@pytest.mark.parametrize('a, f', [([], []), ([1.0], []), ([], [1.0])])
def test_what_is_undefined_is_none(a, f):
    m = binary_metrics(a, f, 0.5)
    assert m['auc'] is m['average_precision'] is m['eer'] is m['balanced_accuracy'] is None
    assert m['fpr'] == (1.0 if a else None)
    assert m['tpr'] == (1.0 if f else None)


def test_a_draw_that_lacks_a_side_has_no_auc():
    got = weighted_metrics(np.array([0, 1]), np.array([0.0, 1.0]), np.array([[1, 1], [1, 0], [0, 0]]))['auc']
    assert got[0] == 1
    assert np.isnan(got[1:]).all()


def test_identities_are_drawn_with_all_their_clips():
    who, times = draw_identities(['a', 'a', 'b', '', ''], n=300)
    assert who.tolist() == [0, 0, 1, 2, 3]  # an empty one is an identity of its own
    assert times.shape == (300, 4)
    assert (times.sum(1) == 4).all()
    assert times.mean() == pytest.approx(1)


def test_percentile_interval():
    assert interval(np.array([np.nan, *range(101)])) == pytest.approx((2.5, 97.5))
    assert interval(np.array([np.nan])) is None


def test_adding_a_metric_touches_one_place():
    from avfake.evaluation import evaluate_results
    from avfake.results import simulate_results
    from avfake.tables import protocol_table

    METRICS.append(Metric('youden', "Youden's J", lambda c: (c.tpr - c.fpr).max(1)))
    try:
        assert binary_metrics([0.1, 0.4], [0.35, 0.8])['youden'] == 0.5
        metrics = evaluate_results(simulate_results(12), n_bootstrap=50)
        low, high = metrics['youden_ci']['overall']
        assert low <= metrics['youden']['overall'] <= high
        assert metrics['macro_average']['youden']['by_method'] is not None
        assert protocol_table(metrics)["Youden's J"]['all', 'overall'].startswith(f'{metrics["youden"]["overall"]:.3f}')
    finally:
        METRICS.pop()


def test_draws_of_people_take_no_memory_for_each_clip():
    "A row of weights a draw and a clip would take 3 GB for a set as large as LAV-DF."
    label, score = drawn(0, n=20_000, digits=9)
    who, times = draw_identities(np.arange(20_000) % 50, n=1000)
    expected = weighted_metrics(label, score, times[:5, who], threshold=0.4)
    tracemalloc.start()
    got = weighted_metrics(label, score, times, threshold=0.4, columns=who)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    for name, values in expected.items():
        np.testing.assert_array_equal(got[name][:5], values)
    assert peak < 1000 * 20_000 * times.itemsize / 4
