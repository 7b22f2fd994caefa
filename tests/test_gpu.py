"""What needs an NVIDIA GPU, and that its measurement runs from a packed folder alone wherever torch runs."""

import json

import numpy as np
import pandas as pd
import pytest
import torch

from avfake import gpu
from avfake.cache import open_clip, write_clip
from avfake.checkpoint import load_detector, save_detector
from avfake.costs import training_step, untrained_detector
from avfake.data import TrainWindows, make_loader
from avfake.detector import Detector, make_config
from avfake.fitting import train_detector
from avfake.mouth import MouthClip
from avfake.pack import read_pack
from avfake.stages import Clips
from avfake.training import make_train_config

cuda = pytest.mark.cuda
skip = pytest.mark.skipif(not torch.cuda.is_available(), reason='no NVIDIA GPU is here')


def made_clip(seed: int, frames: int = 30) -> MouthClip:
    "A bright bar that opens and closes as the sound grows louder and softer."
    rng = np.random.default_rng(seed)
    loud = np.interp(np.arange(frames), np.arange(0, frames + 5, 5), rng.random(frames // 5 + 2)[: frames // 5 + 1])
    crops = rng.integers(60, 70, (frames, 112, 112, 3), dtype=np.uint8)
    for crop, open_ in zip(crops, loud):
        crop[50 : 52 + int(40 * open_), 30:80] = 200
    samples = np.repeat(loud, 640) * rng.normal(size=frames * 640) / 10
    return MouthClip(crops, samples.astype(np.float32), np.ones(frames, bool))


@pytest.fixture(scope='module')
def entries(tmp_path_factory):
    folder = tmp_path_factory.mktemp('made')
    paths = [folder / f'{i}.zip' for i in range(16)]
    for i, path in enumerate(paths):
        write_clip(path, [made_clip(i)])
    return [str(path) for path in paths]


def trained(entries, folder):
    quick = dict(epochs=2, density_epochs=1, batch_size=4, windows_per_clip=2, workers=0, n_negatives=32)
    cfg = make_train_config('small', allow_out_of_range=True, **quick)
    train, validation = Clips('train', entries[:12], [''] * 12), Clips('validation', entries[12:], [''] * 4)
    return train_detector(make_config('small'), cfg, train, validation, None, folder)


@cuda
@skip
def test_a_gpu_scores_as_a_cpu_does(entries, tmp_path):
    detector = untrained_detector('small')
    there = Detector(detector.cfg).restore(detector.state_dict()).cuda()
    for entry in entries[:4]:
        here = detector.score_clip(open_clip(entry))
        score = there.score_clip(open_clip(entry))
        assert np.allclose(score.frame_log_prob, here.frame_log_prob, rtol=0.02, atol=0.02, equal_nan=True)
    save_detector(there, tmp_path / 'detector.pth')
    back = load_detector(tmp_path / 'detector.pth', 'cpu').score_clip(open_clip(entries[0]))
    assert np.allclose(back.frame_log_prob, detector.score_clip(open_clip(entries[0])).frame_log_prob, atol=1e-4)


@cuda
@skip
def test_bf16_learns_as_float32_does(entries, tmp_path):
    windows = TrainWindows(entries, Detector(make_config('small')).sync.readers)
    (batch,) = list(make_loader(windows, 16))
    curves = {}
    for bf16 in (False, True):
        step = training_step('small', 16, bf16=bf16)
        curves[bf16] = np.array([step(batch) for _ in range(40)])
    assert curves[False][-5:].mean() < 0.8 * curves[False][0]
    assert np.abs(curves[True] - curves[False]).mean() < 0.1 * curves[False].mean()


@cuda
@skip
def test_a_run_that_was_cut_off_goes_on_on_a_gpu(entries, tmp_path):
    whole, history, _ = trained(entries, tmp_path / 'whole')
    assert next(whole.parameters()).is_cuda
    trained(entries, tmp_path / 'cut')
    (tmp_path / 'cut' / 'checkpoints' / 'density.pt').unlink()  # as if it had ended after stage one
    again, second, _ = trained(entries, tmp_path / 'cut')
    assert list(second.epoch) == list(history.epoch)
    clip = open_clip(entries[0])
    assert np.allclose(again.score_clip(clip).score, whole.score_clip(clip).score, rtol=0.1, atol=0.1)


# ---------------------------------------------------------------- from the packed folder alone


@pytest.fixture(scope='module')
def packed(entries, tmp_path_factory):
    "A pack as `pack` leaves it, of made clips."
    folder = tmp_path_factory.mktemp('pack')
    split = ['train'] * 8 + ['validation'] * 4 + ['test'] * 4
    rows = pd.DataFrame(dict(path=[f'{i}.mp4' for i in range(16)], split=split, label=0, entry=entries))
    rows = rows.assign(source=[f'id{i // 2}' for i in range(16)], method='real', target='')
    rows.to_csv(folder / 'clips.csv', index=False)
    (folder / 'pack.json').write_text(json.dumps(dict(data='made')))
    return folder


def test_it_measures_from_the_packed_folder_alone(packed, tmp_path):
    results, prepared = gpu.Results(tmp_path), read_pack(packed)
    ways = {'float32': dict(bf16=False)}
    gpu.measure_steps(results, prepared, presets=('small',), sizes=(), ways=ways, steps=1, repeats=1)
    gpu.measure_epochs(results, prepared, epochs=(('small', 4, 'float32', 2),), videos=8)
    changes = dict(epochs=1, density_epochs=1, n_negatives=16, windows_per_clip=1, precision='no')
    tiny = dict(vis_backbone_channels=(8, 8, 16, 16), vis_image_size=32, vis_frame_stack=1, ar_layers=1, score_stride=8)
    gpu.run_trainings(results, packed, ('small',), settings=json.dumps(changes | tiny))
    assert 'unfinished' not in results.facts, results.facts
    steps, epochs, losses, trainings, history = (
        pd.read_csv(tmp_path / f'gpu_{name}.csv') for name in ('steps', 'epochs', 'losses', 'trainings', 'history')
    )
    assert (steps.gflop > 0).all() and list(steps.stage) == ['sync', 'density']
    assert list(epochs.videos) == [8] and len(losses) == 4  # two epochs of two batches
    assert {'swap', 'shift-5-8', 'macro'} <= set(trainings[trainings.score == 'detector'].group)
    assert set(history.stage) == {'sync', 'density'}


def test_an_error_in_a_part_does_not_end_the_others(tmp_path):
    results = gpu.Results(tmp_path, seconds=100)
    results.measure('broken', lambda results: 1 / 0)
    results.measure('whole', lambda results: results.add('whole', dict(x=1)))
    results.measure('long', lambda results: 1 / 0, needed=1000)
    facts = json.loads((tmp_path / 'gpu.json').read_text())
    assert facts['errors'] == {'broken': 'ZeroDivisionError: division by zero'}
    assert facts['seconds']['long'] is None
    assert pd.read_csv(tmp_path / 'gpu_whole.csv').x.tolist() == [1]


def test_an_empty_folder_says_how_to_pack_it(tmp_path):
    with pytest.raises(FileNotFoundError, match='make gpu-pack'):
        read_pack(tmp_path)
