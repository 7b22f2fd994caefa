"""One list of controls: what is measured, fitted, kept, and shown beside the detector."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from avfake import controls as C
from avfake import encoders
from avfake.controls import CONTROLS, Control, FittingSet, control_of, control_scores, rare_format
from avfake.detector import Detector, make_config
from avfake.evaluation import audit_summary, audit_warnings, evaluate_results
from avfake.evaluation_plots import plot_auc_by_group
from avfake.gaussian import FeatureGaussian
from avfake.results import simulate_results
from avfake.stages import Clips
from avfake.tables import auc_table
from avfake.training import TrainConfig

SMALL = dict(ar_layers=1, vis_transformer_layers=2, aud_transformer_layers=2)


def clips_of(n):
    "Training clips that stand for nothing but their number."
    return Clips('train', list(range(n)), [''] * n)


@pytest.fixture
def toy():
    "A control that nobody has heard of: one line."
    CONTROLS.append(Control('toy', 'length of the name', two_sided=True, from_results=lambda r: r.path.str.len()))
    yield 'toy'
    CONTROLS.pop()


def test_adding_a_control_touches_one_place(toy):
    results = simulate_results(12)
    leak = results.assign(path=[p + 'x' * 3 * (1 - y) for p, y in zip(results.path, results.label)])
    metrics = evaluate_results(leak, n_bootstrap=50)
    assert 'toy' in metrics['controls']
    assert 'toy' in metrics['two_sided_controls']
    assert 'length of the name' in auc_table(metrics)
    assert any(w.startswith('length of the name by itself') for w in audit_warnings(metrics))
    assert 'length of the name' in audit_summary(metrics).split('Not measured')[0]
    texts = [t.get_text() for t in plot_auc_by_group(metrics).axes[0].texts]
    assert 'length of the name' in texts


def test_a_control_of_the_clip_or_of_the_table_is_one_line_too():
    table = pd.DataFrame(dict(path=['a', 'b'], seconds=[1.0, 2.0]))
    CONTROLS.append(Control('twice', 'twice', from_table=lambda t: 2 * t.set_index('path').seconds))
    CONTROLS.append(Control('looked', 'looked', measure=lambda look: 1.0))
    try:
        scores = control_scores(dict(a=dict(looked=5.0), b=dict(looked=6.0)), table)
    finally:
        del CONTROLS[-2:]
    assert scores['twice'].to_dict() == dict(a=2, b=4)
    assert scores['looked'].to_dict() == dict(a=5, b=6)


def test_every_control_says_where_it_comes_from():
    for c in CONTROLS:
        assert sum(x is not None for x in (c.measure, c.from_table, c.from_results)) == 1, c.name
    assert len({c.name for c in CONTROLS}) == len({c.label for c in CONTROLS}) == len(CONTROLS)
    assert control_of('unheard of') == Control('unheard of', 'unheard of')
    with pytest.raises(ValueError, match='neither control nor ablation'):
        Control('x', 'x', kind='part')


def test_random_features_ask_for_no_published_weights(monkeypatch, tmp_path):
    "Fault 17: with preset full the streams of 'random features' started from ImageNet weights."
    asked, trained = [], []
    make_backbone = encoders.make_backbone

    def make(name, channels, pool, pretrained, *args):
        asked.append(pretrained)
        return make_backbone(name, channels, pool, False, *args)

    monkeypatch.setattr(encoders, 'make_backbone', make)
    monkeypatch.setattr(C, 'fit_detector', lambda detector, *args, **kwargs: trained.append(detector))
    detector = Detector(make_config('full', vis_frozen=True, aud_pretrained=True))
    assert asked == [True, True]
    asked.clear()
    random = C.fit_random_features(FittingSet(detector, TrainConfig(), clips_of(0), clips_of(0), tmp_path))
    assert asked == [False, False]
    assert all(p.requires_grad for p in random.sync.parameters())
    assert trained == [random]


def test_random_features_are_not_those_of_a_network_that_others_have_trained(monkeypatch):
    "Fault 17, of encoders that read the features of a frozen network."
    toy = type('Toy', (encoders.FeatureAudio,), dict(features=None))
    monkeypatch.setitem(encoders.ENCODERS, 'toy', toy)
    config = make_config('small', aud_encoder='toy')
    assert C.from_scratch(config).streams.aud_encoder == 'log_mel'
    assert C.from_scratch(make_config('small')) == make_config('small')


def test_a_gaussian_of_features_gives_the_distance():
    rng = np.random.default_rng(0)
    train = rng.normal(size=(20_000, 3)) * [1, 10, 0.1] + [5, 0, -5]
    gaussian = FeatureGaussian(train)
    far = np.array([[5, 0, -5], [6, 0, -5], [5, 20, -5], [np.nan, 0, 0]])
    assert gaussian.distance(far)[:3] == pytest.approx([0, 1 / 3, 4 / 3], abs=0.03)
    assert np.isnan(gaussian.distance(far)[3])
    with pytest.raises(ValueError, match='at least 2'):
        FeatureGaussian(train[:1])


def test_codecs_are_scored_by_their_rarity_among_authentic_clips_that_are_not_tested():
    table = pd.DataFrame(
        dict(
            path=list('abcde'),
            split=['train', 'train', 'calibration', 'test', 'test'],
            label=[0, 0, 0, 1, 0],
            reason='',
            format=['h264', 'h264', 'vp9', 'av1', 'h264'],
        )
    )
    expected = -np.log([3 / 4, 3 / 4, 2 / 4, 1 / 4, 3 / 4])
    assert rare_format(table).to_numpy() == pytest.approx(expected)
    assert rare_format(table[table.label == 1]).empty


def test_features_of_a_large_training_set_are_not_held_for_all_clips(monkeypatch, tmp_path):
    "Fault 16, its part here: the controls held a vector of every training clip."
    looked = []

    def statistics(detector, clip):
        looked.append(clip)
        return dict(audio_only=np.ones(4) * clip, video_only=np.zeros(4))

    monkeypatch.setattr(C, 'stream_statistics', statistics)
    monkeypatch.setattr(C, 'open_clip', lambda entry: entry)
    monkeypatch.setattr(C, 'MAX_FITTED_CLIPS', 50)
    detector = SimpleNamespace(device=torch.device('cpu'))
    clips = FittingSet(detector, TrainConfig(), clips_of(2000), clips_of(0), tmp_path)
    assert clips.streams['audio_only'].shape == (50, 4)
    assert len(looked) == len(set(looked)) == 50
    assert max(looked) > 1500  # of all of them, not the first ones
    few = FittingSet(detector, TrainConfig(), clips_of(20), clips_of(0), tmp_path)
    assert few.streams['audio_only'][:, 0].tolist() == list(range(20))  # below the limit: all, in their order


def test_what_was_fitted_is_kept_and_read_again(tmp_path):
    config = make_config('small', **SMALL)
    random = Detector(config)
    features = np.random.default_rng(0).normal(size=(9, 4)).astype(np.float32)
    fitted = dict(random_features=random, audio_only=FeatureGaussian(features), video_only=FeatureGaussian(features))
    C.save_controls(fitted, tmp_path / 'controls.pth')
    back = C.load_controls(tmp_path / 'controls.pth', config)
    assert list(back) == list(fitted)
    np.testing.assert_array_equal(back['audio_only'].features, features)
    state = back['random_features'].state_dict()
    assert all(torch.equal(v.cpu(), state[k].cpu()) for k, v in random.state_dict().items())
    assert C.load_controls(tmp_path / 'none.pth', config) == {}
