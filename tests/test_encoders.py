"""The seam of `ENCODERS`: what is added to it trains, is saved, loaded and scores; nothing else has to know of it."""

from unittest.mock import patch

import numpy as np
import pytest
import torch
from sizes import TINY

from avfake.cache import open_clip, write_clip
from avfake.checkpoint import load_detector, save_detector
from avfake.data import TrainWindows, clip_windows, make_loader
from avfake.detector import Detector, make_config
from avfake.encoders import ENCODERS, FeatureAudio, FeatureVisual
from avfake.mouth import MouthClip
from avfake.sync import sync_loss
from avfake.windows import ClipFeatures


class Energies(ClipFeatures):
    "A network of somebody else's, for the test: how loud the clip is, fifty times a second."

    name, rate, dim = 'energies', 2, 1
    computed = []

    def compute(self, clip):
        self.computed.append(clip.clip.path)
        return torch.from_numpy(clip.samples).view(-1, 320).square().mean(1, keepdim=True).log1p()


class Listener(FeatureAudio):
    features = Energies


class Greys(ClipFeatures):
    "The mean grey of each quarter of a crop, for a picture."

    name, dim = 'greys', 4

    def compute(self, clip):
        quarters = clip.crops().mean(3).reshape(clip.n_frames, 2, 4, 2, 4).mean((2, 4))
        return torch.from_numpy(quarters.reshape(-1, 4)).float() / 255


class Looker(FeatureVisual):
    features = Greys


@pytest.fixture
def entries(tmp_path):
    rng = np.random.default_rng(0)
    paths = []
    for i in range(4):
        loudness = rng.uniform(0.1, 1, 40)
        crops = np.broadcast_to((200 * loudness)[:, None, None, None], (40, 8, 8, 3)).astype(np.uint8)
        sound = (rng.standard_normal(40 * 640) * loudness.repeat(640) * 0.1).astype(np.float32)
        paths.append(tmp_path / f'{i}.zip')
        write_clip(paths[-1], [MouthClip(crops, sound, np.ones(40, bool))])
    return paths


@pytest.mark.parametrize(
    'names',
    [
        dict(aud_encoder='energies'),
        dict(vis_encoder='greys'),
        dict(vis_encoder='greys', aud_encoder='energies'),
    ],
    ids=lambda n: '+'.join(n.values()),
)
def test_an_encoder_is_one_entry_of_the_table(names, entries, tmp_path):
    "Two toy encoders stand in for the streams by being added to the table, through training, checkpoint and scoring."
    Energies.computed.clear()
    with patch.dict(ENCODERS, energies=Listener, greys=Looker):
        torch.manual_seed(0)
        detector = Detector(make_config('small', vis_frame_stack=1, vis_image_size=32, **TINY, **names))
        optimiser = torch.optim.SGD(detector.sync.parameters(), lr=1e-3)
        data = TrainWindows(entries, detector.sync.readers, augment=True)
        for epoch in range(2):
            data.set_epoch(epoch)
            (batch,) = make_loader(data, 4)
            loss, _ = sync_loss(detector.sync, batch['video'], batch['audio'], batch['valid'])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        assert torch.isfinite(loss)
        save_detector(detector, tmp_path / 'toy.pth')
        again = load_detector(tmp_path / 'toy.pth', 'cpu')
        score = detector.score_clip(open_clip(entries[0]))
        assert again.score_clip(open_clip(entries[0])).score == score.score
        assert np.isfinite(score.score) and score.delay_prob.shape == (31,)
        if 'aud_encoder' in names:  # never computed again, not by scoring either
            assert sorted(Energies.computed) == sorted(map(str, entries))
    with pytest.raises(ValueError, match='is not one of'):  # a file that needs what is not there says so
        load_detector(tmp_path / 'toy.pth', 'cpu')


def test_windows_of_frozen_features_are_those_of_their_frames(entries):
    with patch.dict(ENCODERS, energies=Listener, greys=Looker):
        detector = Detector(make_config('small', vis_encoder='greys', aud_encoder='energies', **TINY)).eval()
    readers = detector.sync.readers
    (batch,) = clip_windows(entries[1], readers, stride=8, context=3)
    clip = open_clip(entries[1])
    greys = clip.frames().mean((1, 2, 3)) / 255
    start = int(batch['starts'][1])
    assert np.allclose(batch['video'][1].mean(1), greys[start : start + 16], atol=0.01)
    loud = np.log1p((clip.audio().reshape(-1, 320) ** 2).mean(1))
    gain = 0.05**2 / (clip.audio() ** 2).mean()
    expected = np.log1p(np.expm1(loud) * gain)[2 * (start - 3) : 2 * (start + 19)]
    assert np.allclose(batch['audio'][1, :, 0], expected, atol=1e-5)


def test_what_windows_share_is_read_once_and_says_the_same(entries):
    with patch.dict(ENCODERS, energies=Listener):
        sync = Detector(make_config('small', aud_encoder='energies', vis_frame_stack=1, **TINY)).sync.eval()
    for windows in sync.windows(entries[2], stride=2, max_delay=3):
        (batch,) = clip_windows(entries[2], sync.readers, stride=2, context=3)
        with torch.no_grad():
            v, a = sync.embed(batch['video'], batch['audio'], windows.delays)
        assert torch.allclose(windows.visual, v, atol=1e-5) and torch.allclose(windows.audio, a, atol=1e-5)
        assert windows.valid.shape == a.shape[:2]


def test_state_keys_are_those_of_earlier_files():
    keys = Detector(make_config('small')).state_dict()
    for name in ('sync.visual.backbone', 'sync.visual.projection', 'sync.visual.temporal', 'sync.audio.backbone'):
        assert any(k.startswith(name) for k in keys)
