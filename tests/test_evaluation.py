"""What an evaluation says: which clips count, what the controls were compared with, and what is left unsaid."""

import json
import math
import tracemalloc

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm

from avfake.conformal import threshold_at
from avfake.evaluation import audit_summary, audit_warnings, bootstrap_groups, evaluate_results
from avfake.metrics import binary_metrics
from avfake.results import (
    SIMULATED,
    check_results,
    fitted_to,
    read_results,
    rows_of_split,
    simulate_results,
    threshold_of,
    write_results,
)
from avfake.stored_metrics import plain, read_metrics, write_metrics
from avfake.tables import auc_table, compare_detectors, protocol_table, seed_table


def trained_folder(n=40, trained=30):
    "A folder of which most identities were trained on, scored as a whole: those clips look more authentic."
    results = simulate_results(n).assign(split='all')
    seen = results.source.isin([f'id{i:05d}' for i in range(trained)])
    return results.assign(seen_identity=seen, score=results.score - 3 * (seen & (results.label == 0)))


def test_the_auc_is_the_one_that_the_scores_were_drawn_for():
    metrics = evaluate_results(simulate_results(400, seed=5), n_bootstrap=50)
    for method, (_, gap) in SIMULATED.items():
        expected = norm.cdf(gap / np.sqrt(2 + 2 * 0.3**2))
        assert metrics['auc']['by_method'][method] == pytest.approx(expected, abs=0.03)


def test_clips_trained_on_are_never_in_the_headline():
    "Fault 08: `--split all` counted clips that were trained on as authentic test clips, unsaid."
    results = trained_folder()
    metrics = evaluate_results(results, threshold=threshold_at(range(100)), split='all', n_bootstrap=50)
    strangers = results[~results.seen_identity]
    expected = binary_metrics(strangers.score[strangers.label == 0], strangers.score[strangers.label == 1])['auc']
    everything = binary_metrics(results.score[results.label == 0], results.score[results.label == 1])['auc']
    assert metrics['auc']['overall'] == metrics['auc_unseen']['overall'] == expected
    assert metrics['auc_with_set_aside']['overall'] == everything > expected + 0.05
    assert metrics['counts']['authentic'] == 40
    assert metrics['counts']['set_aside'] == dict(authentic=120, forged=240)
    assert any('120 authentic and 240 forged clips count in no figure' in note for note in metrics['notes'])
    assert any(w.startswith('120 authentic clips are of identities') for w in audit_warnings(metrics))


def test_where_all_were_trained_on_there_is_no_headline():
    metrics = evaluate_results(trained_folder(trained=40), split='all', n_bootstrap=50)
    assert metrics['auc']['overall'] is None
    assert metrics['counts']['authentic'] == 0
    assert metrics['auc_with_set_aside']['overall'] > 0.9


@pytest.mark.parametrize('role', ['train', 'validation', 'calibration'])
def test_the_role_of_a_clip_is_enough_to_set_it_aside(role):
    "Whatever was fitted: weights, reference statistics or the threshold."
    results = simulate_results(10).assign(seen_identity=False)
    results['split'] = np.where(results.source == 'id00003', role, 'test')
    counted, aside = rows_of_split(results, 'all')
    assert set(aside.source) == {'id00003'}
    assert (aside.label == 1).any()  # forged clips of the same person
    assert len(counted) + len(aside) == len(results)
    assert len(rows_of_split(results, 'test')[1]) == 0


def test_a_copy_of_a_clip_that_was_trained_on_is_set_aside():
    "A clip that came later with the bytes of a training clip is flagged as seen when the stored split is applied."
    rows = check_results(
        pd.DataFrame(
            dict(
                path=['a', 'b', 'c'], label=[0, 0, 1], score=0.0, source=['', '', ''], seen_identity=[True, False, True]
            )
        )
    )
    assert fitted_to(rows).tolist() == [True, False, False]


def test_a_forged_clip_of_a_stranger_stays_whoever_lent_the_voice():
    results = simulate_results(16)
    assert results.seen_identity.any()
    metrics = evaluate_results(results, n_bootstrap=0)
    assert metrics['counts']['set_aside'] == dict(authentic=0, forged=0)
    assert metrics['auc_with_set_aside'] is None
    unseen = results[~results.seen_identity]
    expected = binary_metrics(unseen.score[unseen.label == 0], unseen.score[unseen.label == 1])['auc']
    assert metrics['auc_unseen']['overall'] == expected != metrics['auc']['overall']


def test_nothing_is_said_of_controls_that_were_not_measured():
    "Fault 06: with no forged clip and no control the page said that no control reaches the AUC of the detector."
    only = evaluate_results(simulate_results(8).query('label == 0'), n_bootstrap=20)
    assert 'Nothing was compared' in audit_warnings(only)[-1]
    assert 'Nothing was compared' in audit_summary(only)
    without = evaluate_results(simulate_results(8), n_bootstrap=20)
    assert 'No control was measured' in audit_warnings(without)[-1]
    assert 'no control reaches' not in audit_summary(without)


def test_what_was_compared_is_named_and_so_is_what_was_not():
    results = simulate_results(12)
    rng = np.random.default_rng(0)
    metrics = evaluate_results(results, dict(audio_only=rng.normal(size=len(results))), n_bootstrap=20)
    assert audit_warnings(metrics) == []
    compared, missing = audit_summary(metrics).split(' Not measured: ')
    assert compared == 'Compared with audio only: no control reaches the AUC of the detector.'
    assert 'random features' in missing and 'audio only' not in missing
    close = evaluate_results(results, dict(audio_only=results.score), n_bootstrap=20)
    assert 'no control reaches' not in audit_summary(close)
    assert any('audio only comes within' in w for w in audit_warnings(close))


def test_an_empty_control_is_not_measured():
    results = simulate_results(8)
    metrics = evaluate_results(results, dict(codec=np.full(len(results), np.nan)), n_bootstrap=20)
    assert 'No control was measured' in audit_warnings(metrics)[-1]


def test_infinite_scores_are_extreme_ones_with_an_interval_that_holds_the_auc():
    "Fault 15 in a whole evaluation."
    results = simulate_results(30)
    results['score'] = results.score.where(results.score < 1, np.inf)
    metrics = evaluate_results(results, threshold=threshold_at(results.score[results.label == 0]), n_bootstrap=200)
    finite = evaluate_results(results.assign(score=results.score.clip(upper=9)), threshold=9.0, n_bootstrap=200)
    for key in ('auc', 'auc_ci', 'average_precision_ci', 'fpr', 'macro_average_ci'):
        assert metrics[key] == finite[key]
    assert metrics['fpr']['overall'] == 0


def test_ablations_and_controls_stand_apart():
    results = simulate_results(10)
    given = dict(duration=results.label * 1.0, density_only=results.score, silence=-results.label * 1.0)
    metrics = evaluate_results(results, given, n_bootstrap=0)
    assert list(metrics['ablations']) == ['sync_score', 'density_only']
    assert list(metrics['controls']) == ['silence', 'duration']
    assert metrics['controls']['silence']['overall'] == 1  # two-sided: less silence gives a forgery away as well
    table = auc_table(metrics)
    assert list(table)[:3] == ['n', 'AUC', '95% interval']
    assert list(table)[3:] == ['sync score', 'density alone', 'silence', 'duration']


def test_metrics_of_an_earlier_version_are_read_with_the_names_of_today(tmp_path):
    metrics = evaluate_results(
        simulate_results(8), threshold=threshold_at(range(20), identities=[1] * 20), n_bootstrap=20
    )
    stored = plain(metrics)
    old = {k: v for k, v in stored.items() if k not in ('ablations', 'auc_with_set_aside')}
    old['parts'] = stored['ablations']
    counts = {k: v for k, v in stored['counts'].items() if k not in ('rejected', 'set_aside')}
    old['counts'] = counts | dict(left_out={'no face': 2})
    threshold = {k: v for k, v in stored['threshold'].items() if k not in ('n_identities', 'role')}
    old['threshold'] = threshold | dict(n_people=1)
    path = tmp_path / 'metrics.json'
    path.write_text(json.dumps(old))
    back = read_metrics(path)
    assert back['ablations'] == stored['ablations']
    assert back['counts']['rejected'] == {'no face': 2}
    assert back['threshold']['n_identities'] == 1
    pd.testing.assert_frame_equal(auc_table(back), auc_table(metrics))
    pd.testing.assert_frame_equal(protocol_table(back), protocol_table(metrics))
    assert audit_warnings(back) == audit_warnings(metrics)
    for text in ('[]', 'x', '{"auc": '):
        path.write_text(text)
        with pytest.raises(ValueError, match='not metrics'):
            read_metrics(path)


def test_json_holds_no_number_that_is_none(tmp_path):
    path = write_metrics(dict(a=math.inf, b=[np.nan, np.int64(2)], c={1: np.bool_(True)}), tmp_path / 'm.json')
    assert json.loads(path.read_text()) == dict(a=None, b=[None, 2], c={'1': True})


def test_a_table_of_results_survives_its_file(tmp_path):
    results = simulate_results(4)
    results.loc[0, 'source'] = '007'
    results.loc[1, 'source'] = 'NA'
    results.loc[2, 'path'] = 'caf\udcff, "x".mp4'
    results.loc[3, 'score'] = np.nan
    results.loc[4, 'score'] = np.inf
    back = read_results(write_results(results, tmp_path / 'r.csv'))
    pd.testing.assert_frame_equal(back.astype(dict(seen_identity=bool)), results)


@pytest.mark.parametrize('change, words', [(dict(label=2), 'label must be 0'), (dict(score=None), 'no column score')])
def test_a_table_of_another_form_is_refused(change, words):
    results = simulate_results(2)
    bad = results.drop(columns='score') if 'score' in change else results.assign(**change)
    with pytest.raises(ValueError, match=words):
        evaluate_results(bad)


def test_two_detectors_are_compared_on_the_same_draws():
    results = simulate_results(20)
    table = compare_detectors(results, results.assign(score=results.score + 0.4 * results.label), n=300)
    first = table.iloc[0]
    assert first.difference == pytest.approx(first.second - first['first'])
    assert first.low > 0 and first.p < 0.02
    same = compare_detectors(results, results, n=100).iloc[0]
    assert (same.difference, same.low, same.high, same.p) == (0, 0, 0, 1)
    assert seed_table([evaluate_results(results, n_bootstrap=0)] * 3).lowest.iloc[0] == first['first']


@pytest.mark.parametrize('metadata, words', [({}, ''), (dict(fitted=dict(calibration=dict(role='calibration'))), ''),
                                             (dict(versions={}), 'not recorded')])  # fmt: skip
def test_the_threshold_of_a_detector_says_which_clips_it_rests_on(metadata, words):
    import torch

    class Calibrated:
        calibration = torch.arange(40.0)
        calibration_identities = torch.arange(40) % 40

    detector = Calibrated()
    detector.metadata = metadata
    threshold = threshold_of(detector, 0.05)
    assert threshold.n_identities == 40
    assert words in ' '.join(threshold.caveats)
    assert len(threshold.caveats) == 1 + bool(words)


def test_intervals_of_many_rows_take_no_memory_for_each_row_and_draw():
    table = simulate_results(n_identities=50, clips=120)
    rows = table[table.split == 'test']
    tracemalloc.start()
    bootstrap_groups(rows, n=300)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 300 * len(rows) * 8 / 2
