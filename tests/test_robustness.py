"""Corruptions and the curves made of them: known answers, and what a corrupted clip is compared with."""

from unittest.mock import patch

import numpy as np
import pandas as pd
import pytest

import avfake.robustness as robustness
from avfake.media import read_audio, stream_frames
from avfake.video import write_video

N_FRAMES = 40


@pytest.fixture
def folder(tmp_path):
    "A folder with one video of 40 frames of noise."
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 255, (N_FRAMES, 32, 32, 3), np.uint8)
    audio = rng.normal(0, 0.1, N_FRAMES * 640).astype('f4')
    write_video(tmp_path / 'a.mkv', frames, audio, crf=10, audio_codec='flac')
    return tmp_path


@pytest.fixture
def lengths(folder):
    "Instead of a detector: a score that is the number of frames of the file; the list says what was scored."
    scored = []

    def length(detector, path, name, severity, seed):
        scored.append((name, severity))
        file = robustness.corrupt(path, folder / 'corrupted.mkv', name, severity, seed)
        return float(sum(1 for _ in stream_frames(file))), ''

    with patch.object(robustness, 'score_corrupted', length), patch.object(robustness, 'run_of', lambda *_: 'r'):
        yield scored


def scores_of(folder, names, severities=(1,), save_dir=None):
    videos = pd.DataFrame(dict(path=['a.mkv']))
    table = robustness.corrupted_scores(None, videos, folder, names, severities, save_dir=save_dir)
    return table.set_index(['corruption', 'severity']).score.to_dict()


@pytest.mark.parametrize('names', (['blur'], ['offset'], ['offset', 'blur'], ['blur', 'offset']), ids='-'.join)
def test_the_baseline_is_the_whole_clip_whatever_comes_first(folder, lengths, names):
    "Fault 05: 'as it is' was made with the first corruption at severity 0: 5 frames were lost to 'offset'."
    scores = scores_of(folder, names)
    assert scores['', 0] == N_FRAMES
    for name in names:
        expected = N_FRAMES - 5 if name == 'offset' else N_FRAMES
        assert scores[name, 1] == expected
    if 'offset' in names:  # compared with a clip of the same frames
        assert scores['offset', 0] == scores['offset', -1] == N_FRAMES - 5


def test_a_stored_baseline_serves_every_corruption(folder, lengths):
    "Fault 05, its second half: the shortened baseline was stored, and served corruptions that cut nothing."
    save_dir = folder / 'results'
    assert scores_of(folder, ['offset'], save_dir=save_dir)['', 0] == N_FRAMES
    lengths.clear()
    scores = scores_of(folder, ['blur'], save_dir=save_dir)
    assert scores == {('', 0): N_FRAMES, ('blur', 1): N_FRAMES}
    assert lengths == [('blur', 1)]  # and 'as it is' was not scored again


def test_another_video_under_the_same_name_is_scored_again(folder, lengths):
    save_dir = folder / 'results'
    scores_of(folder, ['blur'], save_dir=save_dir)
    frames = np.stack(list(stream_frames(folder / 'a.mkv')))[:30]
    write_video(folder / 'a.mkv', frames, read_audio(folder / 'a.mkv')[: 30 * 640], crf=10, audio_codec='flac')
    assert scores_of(folder, ['blur'], save_dir=save_dir) == {('', 0): 30, ('blur', 1): 30}


def test_scores_of_an_older_version_are_not_reused(folder, lengths):
    "Its table has no column for the video, and its baseline may have been cut."
    save_dir = folder / 'results'
    save_dir.mkdir()
    old = 'run,path,corruption,severity,level,score,reason\nr,a.mkv,,0,as it is,35.0,\n'
    (save_dir / 'robustness_scores.csv').write_text(old)
    assert scores_of(folder, ['blur'], save_dir=save_dir)['', 0] == N_FRAMES
    assert len(robustness.read_scores(save_dir / 'robustness_scores.csv')) == 2


def test_drift_is_measured_from_the_baseline_of_the_same_frames():
    "Two authentic clips, cut as every offset is, score 10 more than whole ones; an offset of +1 adds 0.5."
    rows = [
        (path, corruption, severity, base + more, '')
        for path, base in (('a', 1.0), ('b', 3.0))
        for corruption, severity, more in (('', 0, 0), ('blur', 1, 2), ('offset', 0, 10), ('offset', 1, 10.5))
    ]
    scores = pd.DataFrame(rows, columns=['path', 'corruption', 'severity', 'score', 'reason'])
    videos = pd.DataFrame(dict(path=['a', 'b'], label=[0, 0], source=['p', 'q']))
    table = robustness.robustness_table(scores, videos).set_index(['corruption', 'severity'])
    spread = np.sqrt(2)  # standard deviation of 1 and 3
    assert table.drift['blur', 0] == table.drift['offset', 0] == 0
    assert table.drift['blur', 1] == pytest.approx(2 / spread)
    assert table.drift['offset', 1] == pytest.approx(0.5 / spread)
    assert table['median']['blur', 0] == 2 and table['median']['offset', 0] == 12


def test_adding_a_corruption_touches_the_table_only(folder, lengths):
    from avfake.corruptions import CORRUPTIONS, Corruption

    darker = Corruption('darker', 'times', 'picture', lambda frame, level, rng: frame // level, {1: 2, 2: 4})
    with patch.dict(CORRUPTIONS, darker=darker):
        scores = scores_of(folder, ['darker'], (1, 2))
        file = robustness.corrupt(folder / 'a.mkv', folder / 'dark.mkv', 'darker', 2)
        brightness = np.mean([frame.mean() for frame in stream_frames(file)])
        table = pd.DataFrame(
            [('a.mkv', name, severity, score, '') for (name, severity), score in scores.items()],
            columns=['path', 'corruption', 'severity', 'score', 'reason'],
        )
        videos = pd.DataFrame(dict(path=['a.mkv'], label=[0], source=['p']))
        rows = robustness.robustness_table(table, videos)
        robustness.plot_robustness(rows)
    assert rows.level.tolist() == ['as it is', '2 times', '4 times']
    assert brightness == pytest.approx(127.5 / 4, abs=3)
