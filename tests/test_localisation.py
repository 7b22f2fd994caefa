"""Which seconds are forged: known answers of the measures, and seconds that are those of the file."""

import sys
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from avfake.localisation import (
    Localised,
    frame_labels,
    localisation_table,
    measure_localisation,
    propose,
    segment_average_precision,
    segment_average_recall,
)
from avfake.media import FPS, probe, stream_frames
from avfake.scoring import localise_clips
from avfake.video import write_video

FORGED = [(2.0, 2.2)]  # as a data set states it


@pytest.fixture(scope='module')
def late_sound(tmp_path_factory):
    "Three seconds of video that flash at second 2.0; the sound starts at second 0.5, and there the clip begins."
    rng = np.random.default_rng(0)
    wall = rng.integers(60, 120, (48, 64, 3), np.uint8)
    frames = [np.full_like(wall, 250) if 50 <= i < 55 else np.roll(wall, 2 * i, 1) for i in range(75)]
    path = tmp_path_factory.mktemp('late') / 'a.mp4'
    return write_video(path, frames, rng.normal(0, 0.1, 40_000).astype('f4'), audio_start=0.5)


@pytest.fixture(scope='module')
def flash(late_sound):
    "[n] brightness of each frame of the clip: an anomaly that is where the forged period is"
    return np.array([frame.mean() for frame in stream_frames(late_sound)])


def test_forged_periods_are_looked_for_at_the_seconds_of_the_file(late_sound, flash):
    "Fault 13: seconds counted from where both streams run, so the period was looked for half a second too late."
    start = probe(late_sound).start
    assert start == pytest.approx(0.5, abs=0.08)  # a sound frame more or less
    measured = measure_localisation({'a': Localised('x', flash, FORGED, start)})
    assert measured['frame_auc'] == measured['ap_75'] == 1
    assert propose(flash, start)[0, 1:] == pytest.approx([2.0, 2.2], abs=0.04)
    unshifted = measure_localisation({'a': Localised('x', flash, FORGED)})
    assert unshifted['ap_50'] == 0


def test_stated_periods_and_scores_of_a_folder_meet(monkeypatch, late_sound, flash):
    "Fault 13 where a folder is evaluated: the cache entry says at which second of the file the clip begins."
    module = sys.modules[localise_clips.__module__]
    monkeypatch.setattr(module, 'open_clip', lambda entry: SimpleNamespace(start=probe(late_sound).start))
    rows = pd.DataFrame(dict(path=['a.mp4'], label=[1], category=['forged'], periods=['2.0-2.2'], entry=['e']))
    scored = {'a.mp4': SimpleNamespace(frame_log_prob=-flash)}
    localised = localise_clips(None, rows, scored, pd.DataFrame(), 1)
    assert localisation_table(localised).frame_auc['forged'] == 1


def test_frame_labels_by_hand():
    assert frame_labels([(0.04, 0.12)], 5).tolist() == [False, True, True, False, False]
    assert frame_labels([(10.04, 10.12)], 5, start=10).tolist() == [False, True, True, False, False]
    assert not frame_labels([], 5).any()


def test_segment_measures_by_hand():
    "The best proposal meets the first period, the second misses, the third meets the other one."
    truth = {'a': [(0.0, 1.0), (4.0, 5.0)], 'b': []}
    proposals = {'a': np.array([[0.9, 0.0, 1.1], [0.5, 4.1, 5.0]]), 'b': np.array([[0.7, 2.0, 3.0]])}
    assert segment_average_precision(proposals, truth) == pytest.approx(1 / 2 * 1 + 1 / 2 * 2 / 3)
    assert segment_average_precision(proposals, truth, 0.95) == 0
    assert segment_average_precision(proposals, {'a': []}) is None
    assert segment_average_recall(proposals, truth, 1, (0.5,)) == 0.5
    assert segment_average_recall(proposals, truth, 2, (0.5,)) == 1
    # a period is met once: the second proposal of it is a false alarm
    twice = {'a': np.array([[0.9, 0.0, 1.0], [0.8, 0.0, 1.0], [0.7, 4.0, 5.0]])}
    assert segment_average_precision(twice, truth) == pytest.approx(1 / 2 * 1 + 1 / 2 * 2 / 3)


def test_nothing_scored_and_nothing_forged():
    nan = np.full(50, np.nan)
    measured = measure_localisation({'a': Localised('x', nan, [(0.0, 1.0)]), 'b': Localised('authentic', nan, [])})
    assert measured['frame_auc'] is None and measured['ap_50'] == 0 and measured['ar_5'] == 0
    flat = measure_localisation({'b': Localised('authentic', np.zeros(50), [])})
    assert flat['frame_auc'] is None and flat['ap_50'] is None and flat['videos'] == 1
    assert measure_localisation({})['videos'] == 0


def test_a_proposal_is_the_mean_over_a_run():
    anomaly = np.zeros(100)
    anomaly[25:50] = 2.0
    score, start, end = propose(anomaly, start=1.0)[0]
    assert (score, start, end) == pytest.approx((2.0, 1 + 25 / FPS, 1 + 50 / FPS))
