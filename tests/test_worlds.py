"""What training on worlds needs: windows of one clip in a batch, worlds left out, and the detector that comes of it."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from sizes import TINY
from typer.testing import CliRunner

from avfake.augmentation import VaryCamera, VaryMicrophone
from avfake.cache import write_clip
from avfake.checkpoint import PACKAGED, load_detector, save_detector
from avfake.cli import app
from avfake.data import TrainWindows, make_loader
from avfake.detector import Detector, make_config
from avfake.left_out import run_worlds
from avfake.mouth import MouthClip
from avfake.preparation import Prepared
from avfake.sync import same_moment
from avfake.worlds import at_most, cut_clip, leave_out

SMALL = TINY | dict(vis_encoder='mouth', vis_transformer_layers=2, aud_transformer_layers=2)


def made_clip(rng, frames: int) -> MouthClip:
    crops = rng.integers(0, 255, (frames, 16, 16, 3), np.uint8)
    sound = rng.standard_normal(frames * 640).astype(np.float32) * 0.1
    return MouthClip(crops, sound, np.ones(frames, bool))


@pytest.fixture
def entries(tmp_path):
    rng = np.random.default_rng(0)
    paths = [tmp_path / f'{i}.zip' for i in range(6)]
    for path in paths:
        write_clip(path, [made_clip(rng, 120)])
    return paths


@pytest.fixture
def readers():
    return Detector(make_config('small', **SMALL)).sync.readers


@pytest.mark.parametrize('known', [True, False])
def test_windows_of_a_clip_stand_in_one_batch_and_apart(entries, readers, known):
    "One clip a person, as in FakeAVCeleb: a batch of 8 holds four windows of two clips."
    data = TrainWindows(entries, readers, passes=4, together=4)
    identities = [f'person {i}' for i in range(6)] if known else None
    batches = list(make_loader(data, 8, identities=identities))
    assert len(batches) == 3
    for batch in batches:
        places = pd.DataFrame(dict(clip=batch['clip'].numpy(), start=batch['start'].numpy()))
        assert (places['clip'].value_counts() == 4).all()
        for _, of in places.groupby('clip'):
            assert len(set(of.start)) == 4


def test_parts_of_a_clip_have_a_window_each(entries, readers):
    "The places from which the windows of a clip are drawn do not overlap."
    data = TrainWindows(entries, readers, passes=4, together=4)
    clip, face = data.clips[0]
    turn = 0.3
    seen = {part: set() for part in range(4)}
    for seed in range(200):
        for part in seen:
            seen[part].add(data.place(clip, face, np.random.default_rng(seed), part, turn))
    assert sum(len(of) for of in seen.values()) == len(set.union(*seen.values()))
    assert len(set.union(*seen.values())) == 120 - 16 + 1


def test_passes_are_a_multiple_of_what_stands_together(entries, readers):
    with pytest.raises(ValueError, match='3 windows'):
        TrainWindows(entries, readers, passes=3, together=2)


def test_the_same_moment_is_no_wrong_answer():
    places = torch.tensor([[0.0, 10], [0, 11], [0, 40], [1, 10]])
    same = same_moment(places, places, 0, near=1)
    expected = torch.zeros(4, 4, dtype=torch.bool)
    expected[0, 1] = expected[1, 0] = True
    assert torch.equal(same, expected)


def test_camera_and_microphone_change_nothing_in_time():
    "A loud moment stays loud at its time, and a picture that stands still stays still but for noise."
    mel = torch.full((80, 100), -8.0)
    mel[:, 50] = 0.0
    for seed in range(20):
        changed = VaryMicrophone()(mel, np.random.default_rng(seed))
        assert changed.mean(0).argmax() == 50
    still = np.full((4, 32, 32, 3), 90, np.uint8)
    quiet = VaryCamera(noise=0.0)
    for seed in range(20):
        assert (quiet(still, np.random.default_rng(seed)) == quiet(still, np.random.default_rng(seed))[:1]).all()


@pytest.fixture
def prepared(tmp_path):
    "Two worlds of twelve people, one clip each, and a forged clip."
    n = 24
    rows = dict(path=[f'{i}.mp4' for i in range(n)], source=[f'p{i}' for i in range(n)], target='', label=0)
    rows |= dict(world=['here'] * 12 + ['there'] * 12, category='A', method='real', split='')
    manifest = pd.DataFrame(rows)
    forged = manifest.tail(1).assign(path='f.mp4', label=1, method='swap', category='B')
    manifest = pd.concat([manifest, forged], ignore_index=True)
    table = pd.DataFrame(dict(path=manifest.path, reason='', entry=manifest.path))
    return Prepared(tmp_path, manifest, table, None)


def test_nobody_of_a_world_left_out_is_trained_on(prepared):
    split = leave_out(prepared, ('there',)).manifest
    assert set(split.split[split.world == 'there']) == {'test'}
    known = split[split.world == 'here']
    assert set(known.split) == {'train', 'validation', 'calibration'}
    assert set(leave_out(prepared, ()).manifest.split[:24]) == {'train', 'validation', 'calibration'}
    with pytest.raises(ValueError, match="'elsewhere'; there are here, there"):
        leave_out(prepared, ('elsewhere',))


def test_at_most_so_many_clips_of_a_person(prepared):
    manifest = prepared.manifest.assign(source=['ann'] * 10 + [f'p{i}' for i in range(15)])
    few = at_most(Prepared(prepared.data_dir, manifest, prepared.table, None), 3).manifest
    assert few.source.value_counts().max() == 3
    assert not few.label.any()


def test_a_long_clip_is_cut_in_its_middle():
    clip = made_clip(np.random.default_rng(0), 50)
    short = cut_clip(clip, 20)
    assert short.n_frames == 20
    assert (short.crops == clip.crops[15:35]).all()
    assert (short.audio == clip.audio[15 * 640 : 35 * 640]).all()
    assert cut_clip(clip, 60).n_frames == 50


def test_unknown_configurations_and_folds_are_named():
    with pytest.raises(ValueError, match="'mell' is not one of mel;"):
        run_worlds([], 'mell')
    with pytest.raises(ValueError, match="'nowhere' is no fold; there are studios, wild, others"):
        run_worlds([], 'mel', folds=('nowhere',))


def test_half_precision_keeps_scores(tmp_path):
    torch.manual_seed(0)
    detector = Detector(make_config('small', **SMALL)).eval()
    detector.negatives = torch.randn(8, 2, 16, 16)
    whole, half = tmp_path / 'whole.pth', tmp_path / 'half.pth'
    save_detector(detector, whole)
    save_detector(detector, half, half=True)
    assert half.stat().st_size < 0.6 * whole.stat().st_size
    clip = made_clip(np.random.default_rng(1), 60)
    scores = [load_detector(path, 'cpu').score_clip(clip).score for path in (whole, half)]
    assert scores[0] == pytest.approx(scores[1], abs=0.02)
    assert load_detector(half).negatives.dtype == torch.float32


def test_the_package_brings_a_detector():
    detector = load_detector()
    assert detector.digest
    assert len(detector.calibration) >= 20
    assert detector.recordings.limit < float('inf')
    assert Path(PACKAGED).stat().st_size <= 12e6


def test_its_card_says_what_it_is_worth():
    said = CliRunner().invoke(app, ['card'])
    assert said.exit_code == 0
    for words in (
        'It has never seen a forgery',
        'newsreaders',
        'other words of the same person',
        'research only',
        'commit',
    ):
        assert words in said.output


def test_a_detector_of_ones_own_has_no_card(tmp_path):
    save_detector(Detector(make_config('small', **SMALL)), tmp_path / 'mine.pth')
    said = CliRunner().invoke(app, ['card', '--checkpoint', str(tmp_path / 'mine.pth')])
    assert isinstance(said.exception, ValueError)
    assert 'results.html' in str(said.exception)
