"""An evaluation that is cut off goes on where it was, and controls that take long look at a sample."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from test_gpu import made_clip

from avfake.cache import write_clip
from avfake.controls import CONTROLS
from avfake.detector import Detector
from avfake.evaluation import control_findings, evaluate_results
from avfake.gaussian import FeatureGaussian
from avfake.preparation import Prepared
from avfake.results import simulate_results
from avfake.run import evaluate
from avfake.scoring import score_table, scores_depend_on

CLIPS = 9
SLOW = {'marginal_gaussian', 'untrimmed', 'audio_only'}
QUICK = {'density_only', 'silence', 'loudness'}


@pytest.fixture(scope='module')
def prepared(tmp_path_factory):
    "Nine clips of three people, six of them forged in two ways."
    folder = tmp_path_factory.mktemp('scored')
    entries = [str(folder / f'{i}.zip') for i in range(CLIPS)]
    for i, entry in enumerate(entries):
        write_clip(entry, [made_clip(i, 30)])
    path = [f'{i}.mp4' for i in range(CLIPS)]
    method = ['real', 'one', 'other'] * 3
    manifest = pd.DataFrame(dict(path=path, method=method, split='test', target='', seen_identity=False))
    manifest['category'] = manifest.method
    manifest['label'] = (manifest.method != 'real').astype(int)
    manifest['source'] = [f'id{i // 3}' for i in range(CLIPS)]
    manifest['periods'] = ''
    table = pd.DataFrame(dict(path=path, entry=entries, reason='', detail='', format='mp4', seconds=1.2))
    return Prepared(folder, manifest, table, None)


@pytest.fixture(scope='module')
def controls(detector):
    width = 2 * detector.cfg.sync.fusion_dim
    return dict(audio_only=FeatureGaussian(np.random.default_rng(0).normal(size=(9, width))))


@pytest.fixture
def scorings(monkeypatch):
    "How often the detector itself was asked; it is cut off when it was asked for so many clips."
    asked, score_clip = [], Detector.score_clip

    def counted(self, clip, *more, **options):
        if self.cfg.window.trim_db is not None:  # the ablation asks, too
            if len(asked) == counted.until:
                raise KeyboardInterrupt
            asked.append(clip)
        return score_clip(self, clip, *more, **options)

    counted.until = None
    monkeypatch.setattr(Detector, 'score_clip', counted)
    asked_for = lambda: len(asked)  # noqa: E731
    return counted, asked_for


def test_what_was_scored_is_not_scored_again(detector, prepared, controls, scorings, tmp_path):
    counted, asked = scorings
    whole, beside, _ = score_table(detector, prepared, None, controls)
    assert asked() == CLIPS
    counted.until = asked() + 4
    with pytest.raises(KeyboardInterrupt):
        score_table(detector, prepared, None, controls, work_dir=tmp_path)
    counted.until = None
    before = asked()
    again, controls_again, _ = score_table(detector, prepared, None, controls, work_dir=tmp_path)
    assert asked() - before == CLIPS - 4
    pd.testing.assert_frame_equal(again, whole)
    for name, values in beside.items():
        pd.testing.assert_series_equal(controls_again[name], values)


def test_another_detector_begins_anew(detector, controls):
    other = Detector(replace(detector.cfg)).eval()
    assert scores_depend_on(other, controls) != scores_depend_on(detector, controls)
    assert scores_depend_on(detector, {}) != scores_depend_on(detector, controls)


def test_a_sample_is_measured_by_what_takes_long(detector, prepared, controls, scorings, tmp_path):
    _, asked = scorings
    _, beside, _ = score_table(detector, prepared, None, controls, sampled=6, work_dir=tmp_path)
    assert {name for name, values in beside.items() if values.notna().sum() == 6} == SLOW
    assert {name for name, values in beside.items() if values.notna().sum() == CLIPS} >= QUICK
    chosen = prepared.manifest.set_index('path').loc[beside['untrimmed'].dropna().index]
    assert chosen.method.value_counts().to_dict() == dict(real=2, one=2, other=2)
    _, beside, _ = score_table(detector, prepared, None, controls, work_dir=tmp_path)  # --controls all, later
    assert asked() == CLIPS + 3 and beside['untrimmed'].notna().all()


def test_an_evaluation_says_what_a_sample_is_worth(detector, prepared, controls, tmp_path):
    found = evaluate(detector, prepared, tmp_path, 'all', controls, sampled=6)
    assert (tmp_path / 'metrics.json').is_file() and not (tmp_path / 'scored').exists()
    sample = found.metrics['control_sample']
    assert (sample['clips'], sample['of'], sample['authentic']) == (6, 9, 2)
    assert set(sample['controls']) == SLOW and sample['n_forged']['overall'] == 4
    assert any('a sample of 6 of 9 clips' in note for note in found.metrics['notes'])


def test_a_control_on_a_sample_is_compared_on_that_sample():
    "The detector is perfect on the sample and at chance elsewhere; a control that is as good is close to it there."
    results = simulate_results(20)
    some = results.path.isin(results.path[::3])
    rng = np.random.default_rng(0)
    results['score'] = np.where(some, results.label, rng.random(len(results)))
    control = pd.Series(results.label * 1.0, results.index).where(some)
    metrics = evaluate_results(results, dict(random_features=control), n_bootstrap=5)
    assert metrics['auc']['overall'] < 0.8 and metrics['control_sample']['auc']['overall'] == 1
    (text,) = {text for _, text in control_findings(metrics) if 'comes within' in text}
    assert 'overall 1.00 (detector 1.00)' in text


def test_every_control_with_a_network_is_marked():
    assert {c.name for c in CONTROLS if c.network} == SLOW | {'random_features', 'video_only'}
