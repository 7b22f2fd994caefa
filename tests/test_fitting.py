"""What is fitted to authentic clips beside weights: to which clips, with which numbers, in how much memory."""

import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

import avfake.fitting as fitting
import avfake.recordings as recordings
from avfake.clip_score import ClipScore
from avfake.detector import Detector, make_config
from avfake.preparation import Prepared
from avfake.recordings import FACTS, FAMILIAR
from avfake.results import threshold_of
from avfake.splits import make_splits
from avfake.stages import Clips
from avfake.sync import SyncModel, WindowFeatures
from avfake.training import make_train_config

WIDTH = 64  # of the embeddings
WINDOWS = 10  # of a made clip
CONFIG = make_config(
    'small',
    vis_backbone_channels=(8, 8, 16, 16),
    vis_image_size=32,
    vis_frame_stack=1,
    vis_transformer_d_model=32,
    aud_backbone_channels=(80, 16, 16),
    aud_transformer_d_model=32,
    fusion_dim=WIDTH,
    ar_layers=1,
    ar_d_model=32,
    allow_out_of_range=True,
)
CFG = make_train_config('small', density_epochs=1, n_negatives=50, precision='no', allow_out_of_range=True)


# ---------------------------------------------------------------- made clips


def made_features(entry: str) -> WindowFeatures:
    "Features of a clip that is nothing but its number: what the streams would make of it."
    rng = torch.Generator().manual_seed(int(Path(entry).stem))
    visual = 2 + torch.randn(WINDOWS, 16, WIDTH, generator=rng)
    audio = torch.randn(WINDOWS, 1, 16, WIDTH, generator=rng)
    starts = 2 * torch.arange(WINDOWS)
    return WindowFeatures(starts, torch.zeros(1, dtype=torch.long), torch.ones(WINDOWS, 1, dtype=bool), visual, audio)


def made_windows(model, entry, *_):
    "In two batches, as a long clip would come."
    f = made_features(entry)
    for part in (slice(0, 6), slice(6, WINDOWS)):
        yield WindowFeatures(f.starts[part], f.delays, f.valid[part], f.visual[part], f.audio[part])


def made_scores(detector, entry, *_):
    "Density and sync log-probability of a clip's windows, from its number."
    number = float(Path(entry).stem)
    spread = torch.linspace(-1, 1, WINDOWS)
    density = (number + spread)[:, None].expand(-1, 16)
    yield dict(density=density, sync_log_prob=-2 * number + 3 * spread)


def made_facts(entry) -> torch.Tensor:
    "How a clip was recorded, from its number."
    rng = torch.Generator().manual_seed(int(Path(entry).stem))
    return torch.randn(len(FACTS), generator=rng)


def make_clips(role: str, numbers) -> Clips:
    return Clips(role, [f'{i}.clip' for i in numbers], [f'id{i % 3}' for i in numbers])


def made_score(score: float) -> ClipScore:
    "Of a clip of 20 frames that are all alike."
    alike = np.full(20, -score)
    return ClipScore(alike, alike, alike, alike, delay_prob=np.full(31, 1 / 31), windows=2)


def use_made_clips(monkeypatch):
    "Made clips stand in the place of those in a cache."
    monkeypatch.setattr(SyncModel, 'windows', made_windows)
    monkeypatch.setattr(Detector, 'windows', made_scores)
    monkeypatch.setattr(fitting, 'score_by_shift', lambda *_: {})
    monkeypatch.setattr(fitting, 'open_clip', lambda entry: entry)
    monkeypatch.setattr(fitting, 'recording_facts', made_facts)
    monkeypatch.setattr(recordings, 'FEWEST', 10)
    monkeypatch.setattr(Detector, 'score_clip', lambda self, entry: made_score(float(Path(entry).stem)))


@pytest.fixture
def made(monkeypatch):
    use_made_clips(monkeypatch)


TRAIN, VALIDATION, CALIBRATION = range(0, 20), range(20, 26), range(26, 30)
ROLES = dict(train=TRAIN, validation=VALIDATION, calibration=CALIBRATION)


@pytest.fixture
def fitted(made, tmp_path):
    "A detector fitted to made clips, and the folder it was fitted in."
    torch.manual_seed(0)
    detector = Detector(CONFIG)
    roles = make_clips('train', TRAIN), make_clips('validation', VALIDATION), make_clips('calibration', CALIBRATION)
    fitting.fit_detector(detector, *roles, CFG, tmp_path)
    return SimpleNamespace(detector=detector, folder=tmp_path)


# ---------------------------------------------------------------- what is fitted to which clips


def test_whitening_is_of_training_clips(fitted):
    features = torch.cat([made_features(f'{i}.clip').visual for i in TRAIN]).flatten(0, 1).double()
    assert torch.allclose(fitted.detector.whitening.mean.double(), features.mean(0), atol=1e-6)
    white = fitted.detector.whitening(features.float())
    assert torch.allclose(torch.cov(white.T), torch.eye(WIDTH), atol=1e-3)


def test_negatives_are_windows_of_training_clips(fitted):
    pairs = torch.cat(
        [torch.stack([f.visual, f.heard], 1) for f in (made_features(f'{i}.clip') for i in TRAIN)]
    ).flatten(1)
    drawn = fitted.detector.negatives.flatten(1)
    which = [int((pairs == pair).all(1).nonzero()) for pair in drawn]
    assert len(set(which)) == CFG.n_negatives
    assert len({i // WINDOWS for i in which}) > 10  # of many clips


def test_reference_statistics_are_of_validation_clips(fitted):
    numbers = torch.tensor(list(VALIDATION), dtype=torch.float64)[:, None]
    spread = torch.linspace(-1, 1, WINDOWS, dtype=torch.float64)
    density, sync = (numbers + spread).flatten(), (-2 * numbers + 3 * spread).flatten()
    expected = torch.tensor([[x.mean(), x.std()] for x in (density, sync)])
    assert torch.allclose(fitted.detector.reference.double(), expected.double(), rtol=1e-5)


def test_a_standard_deviation_has_a_floor_of_physical_size(made, monkeypatch):
    "The sync log-probability of the demo hardly varies: its floor of 1e-6 made it drown the density."
    detector = Detector(CONFIG)
    same = dict(density=torch.zeros(4, 16), sync_log_prob=torch.full((4,), -1e-3))
    monkeypatch.setattr(Detector, 'windows', lambda *_: iter([same]))
    fitting.fit_reference(detector, make_clips('validation', VALIDATION))
    assert detector.reference[:, 1].tolist() == pytest.approx(fitting.MIN_STD)


def test_the_floor_lies_below_what_real_recordings_have(monkeypatch):
    "The newsreaders' density varies by 0.009 nats a dimension: a floor of 0.02 halved its weight in the score."
    detector = Detector(CONFIG)
    spread = torch.linspace(-1, 1, 101)
    spread = spread / spread.std()
    some = dict(density=(0.0086 * spread)[:, None].expand(-1, 16), sync_log_prob=1.1 * spread)
    monkeypatch.setattr(Detector, 'windows', lambda *_: iter([some]))
    fitting.fit_reference(detector, make_clips('validation', [0]))
    assert detector.reference[:, 1].tolist() == pytest.approx([0.0086, 1.1], rel=0.02)


def test_known_recordings_are_training_clips_and_those_of_others_say_how_far_is_too_far(fitted):
    facts = {role: torch.stack([made_facts(f'{i}.clip') for i in numbers]) for role, numbers in ROLES.items()}
    known = fitted.detector.recordings
    mean, std = facts['train'].mean(0), facts['train'].std(0, correction=0)
    assert torch.allclose(known.facts, (facts['train'] - mean) / std, atol=1e-5)
    others = torch.cat([facts['validation'], facts['calibration']])
    assert known.limit == pytest.approx(torch.quantile(known.distance(others), FAMILIAR).item())
    assert known.differences(facts['train'][0]) == [] and len(known.differences(mean + 10 * std)) == 3
    assert fitted.detector.metadata['fitted']['recordings']['role'] == 'train'


def test_without_clips_of_others_no_recording_is_unfamiliar(made):
    detector = Detector(CONFIG)
    fitting.fit_recordings(detector, make_clips('train', TRAIN), Clips('calibration', [], []))
    assert detector.recordings.differences(torch.full((len(FACTS),), 99.0)) == []


def test_nothing_is_left_on_disk(fitted):
    assert [p.name for p in fitted.folder.iterdir()] == ['density.pt']


def test_metadata_say_which_clips(fitted):
    records = fitted.detector.metadata['fitted']
    assert {part: r['role'] for part, r in records.items()} == dict(
        whitening='train',
        negatives='train',
        reference='validation',
        calibration='calibration',
        recordings='train',
    )
    assert (records['reference']['clips'], records['reference']['identities']) == (6, 3)
    assert records['whitening']['sha256'] == records['negatives']['sha256'] != records['reference']['sha256']


def test_clips_of_another_role_are_refused(made, tmp_path):
    train, validation = make_clips('train', TRAIN), make_clips('validation', VALIDATION)
    with pytest.raises(ValueError, match='fitted to train clips, not to those of validation'):
        fitting.fit_detector(Detector(CONFIG), validation, validation, None, CFG, tmp_path)
    with pytest.raises(ValueError, match='reference statistics: fitted to validation clips, not to those of train'):
        fitting.fit_reference(Detector(CONFIG), train)
    with pytest.raises(ValueError, match='fitted to calibration clips, not to those of validation'):
        fitting.calibrate(Detector(CONFIG), validation)


@pytest.mark.parametrize('processes', [2, 3])
def test_negatives_and_moments_are_the_same_for_any_number_of_processes(made, monkeypatch, processes):
    entries = make_clips('train', TRAIN).entries

    def of_part(i, n):
        def own_part(items):
            return items[len(items) * i // n : len(items) * (i + 1) // n]

        monkeypatch.setattr(fitting, 'own_part', own_part)
        sample, moments = fitting.Reservoir(50), fitting.RunningMoments(WIDTH)
        for number, starts, features, pairs in fitting.window_features(Detector(CONFIG), entries):
            moments.add(features)
            sample.add(np.random.default_rng([0, number, int(starts[0])]).random(len(pairs)), pairs)
        return sample, moments

    whole, all_moments = of_part(0, 1)
    joined, moments = fitting.Reservoir(50), fitting.RunningMoments(WIDTH)
    for i in range(processes):
        sample, part = of_part(i, processes)
        joined.add(sample.keys, sample.items)
        moments.merge(part)
    assert torch.equal(whole.items, joined.items)
    assert torch.allclose(all_moments.covariance, moments.covariance, rtol=1e-12)


# ---------------------------------------------------------------- calibration


def prepared(n_calibration: int, n_validation: int) -> Prepared:
    "A folder with calibration clips of 2 identities and validation clips of 4."
    rows = [
        dict(path=f'{split}{i}', split=split, label=0, source=f'{split} {i % k}')
        for split, n, k in (('calibration', n_calibration, 2), ('validation', n_validation, 4))
        for i in range(n)
    ]
    manifest = pd.DataFrame(rows)
    table = pd.DataFrame(dict(path=manifest.path, entry=manifest.path, reason=''))
    return Prepared('.', manifest, table, None)


def test_calibration_takes_no_validation_clips(monkeypatch):
    "Fault 07: with fewer than 20 calibration clips, 32 of 48 'calibration' scores were of validation clips, unsaid."
    used = []

    def score_clip(entry):
        used.append(entry)
        return made_score(float(len(used)))

    monkeypatch.setattr(fitting, 'open_clip', lambda entry: entry)
    reference = torch.tensor([[0.0, 1.0], [0.0, 1.0]])
    detector = SimpleNamespace(
        cfg=CONFIG, score_clip=score_clip, metadata={}, reference=reference, device=torch.device('cpu')
    )
    fitting.calibrate(detector, prepared(16, 32).clips('calibration'))
    assert sum(entry.startswith('validation') for entry in used) == 0
    threshold = threshold_of(detector, 0.05)
    assert (len(used), threshold.n_calibration, threshold.n_identities) == (16, 16, 2)
    assert threshold.false_alarm == pytest.approx(1 / 17) and not threshold.supported
    assert 'at least 19 calibration clips' in str(threshold)
    record = detector.metadata['fitted']['calibration']
    assert (record['role'], record['clips'], record['identities']) == ('calibration', 16, 2)


def test_the_demo_has_enough_calibration_clips_for_5_percent():
    "Fault 07: 5% of its 320 authentic clips are 16, and a false-alarm rate of 5% takes 19."
    rows = [(f'{p}/{i}', f'p{p}', 0) for p in range(40) for i in range(8)]
    rows += [(f'{p}/{i}f', f'p{p}', 1) for p in range(10) for i in range(24)]
    manifest = pd.DataFrame(rows, columns=['path', 'source', 'label'])
    manifest = manifest.assign(split='', target='', method='swap', category='', seen_identity=False)
    for seed in range(5):
        split = make_splits(manifest, seed=seed)
        n = ((split.split == 'calibration') & (split.label == 0)).sum()
        scores = torch.arange(float(n))
        whose = torch.arange(n) // 8
        detector = SimpleNamespace(calibration=scores, calibration_identities=whose, metadata={})
        assert threshold_of(detector, 0.05).supported


def test_without_calibration_clips_there_is_a_warning_and_no_threshold():
    detector = SimpleNamespace(metadata={}, device=torch.device('cpu'))
    with pytest.warns(UserWarning, match='no authentic calibration clip'):
        fitting.calibrate(detector, Clips('calibration', [], []))
    assert threshold_of(detector) is None


# ---------------------------------------------------------------- memory

SIZES = 100, 1000  # training clips
BOUND = 24  # MiB by which the peak may grow from the one to the other; the windows of 1,000 clips are 117 MiB


def peaks_of_fitting(folder: str):
    "Fit detectors to few and many clips, with tenths as many for the other roles; print the peak in MiB after each."
    use_made_clips(pytest.MonkeyPatch())
    for n in SIZES:
        numbers = dict(train=n, validation=n // 10, calibration=n // 10)
        roles = [make_clips(role, range(k)) for role, k in numbers.items()]
        (own := Path(folder) / str(n)).mkdir()
        fitting.fit_detector(Detector(CONFIG), *roles, CFG, own)
        print(int(re.search(r'VmHWM:\s+(\d+)', Path('/proc/self/status').read_text())[1]) / 2**10)


@pytest.mark.skipif(not Path('/proc/self/status').exists(), reason='the peak is read from /proc')
def test_memory_does_not_grow_with_the_number_of_clips(tmp_path):
    "Fault 16: stage two held features of all windows twice and the pairs of all for a few negatives (86 GB on LAV-DF)."
    done = subprocess.run([sys.executable, __file__, str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    few, many = map(float, done.stdout.split()[-2:])
    print(f'peak of fitting to {SIZES[0]} clips {few:.0f} MiB, to {SIZES[1]:,} clips {many:.0f} MiB')
    assert many - few < BOUND


if __name__ == '__main__':
    peaks_of_fitting(sys.argv[1])
