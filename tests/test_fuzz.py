"""Hypothesis looks for tables, cache entries, checkpoints, windows and timestamps that break what must always hold."""

import csv
import io
import json
import tempfile
import zipfile
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from reliability import FULL, bytes_of, counts

from avfake.cache import CacheError, load_clip, open_clip, write_clip
from avfake.checkpoint import load_detector, save_detector
from avfake.data import TrainWindows
from avfake.detector import Detector, make_config
from avfake.encoders import CropReader, LogMelReader
from avfake.forgeries import shift_sound
from avfake.layouts import index_videos
from avfake.log_mel import cut_chunks, mel_window
from avfake.media import FPS, SAMPLE_RATE, SampleQueue, stream_media
from avfake.metadata import TYPES, IndexReport, read_metadata, read_periods, read_segments
from avfake.mouth import MouthClip
from avfake.splits import make_splits
from avfake.stored_metrics import read_metrics
from avfake.sync import align_audio
from avfake.video import write_video
from avfake.windows import Readers, WindowConfig, trim_silence, valid_shifts

TRIED = {}


def tries(few, many):
    "As many examples as the run has time for; the same ones in each run."
    return settings(
        max_examples=many if FULL else few,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


@pytest.fixture(autouse=True, scope='module')
def told():
    yield
    counts('fuzzed', **TRIED)


def count(name):
    TRIED[name] = TRIED.get(name, 0) + 1


@contextmanager
def file(data: bytes, name='x'):
    with tempfile.TemporaryDirectory() as folder:
        (path := Path(folder) / name).write_bytes(data)
        yield path


def damaged(whole):
    "Strategy: some bytes of a whole file changed, cut away or put in."

    def apply(changes):
        data = bytearray(whole())
        for kind, at, values in changes:
            at %= len(data) + 1
            if kind == 'set':
                data[at : at + len(values)] = values
            elif kind == 'insert':
                data[at:at] = values
            elif kind == 'delete':
                del data[at : at + 50 * len(values)]
            elif kind == 'cut':
                del data[at:]
            elif at < len(data):
                data[at] ^= 1 << (values[0] % 8 if values else 0)
        return bytes(data)

    change = st.tuples(
        st.sampled_from(['set', 'insert', 'delete', 'cut', 'flip', 'flip', 'flip']),
        st.integers(0, 1 << 20),
        st.binary(min_size=1, max_size=8),
    )
    return st.lists(change, min_size=1, max_size=6).map(apply)


# ---------------------------------------------------------------- metadata

TABLE = b"""
source,target1,target2,method,category,type,race,gender,path,
id00001,-,-,real,A,RealVideo-RealAudio,Asian,men,00001.mp4,FakeAVCeleb/RealVideo-RealAudio/Asian/men/id00001
id00002,id00001,-,fsgan,C,FakeVideo-RealAudio,Asian,men,"a,b.mp4",FakeAVCeleb/FakeVideo-RealAudio/Asian/men/id00002
""".strip()
LAV = json.dumps(
    [
        dict(
            file='test/000000.mp4',
            original=None,
            split='test',
            modify_video=True,
            modify_audio=False,
            fake_periods=[[0.5, 1.25]],
        ),
        dict(file='train/1.mp4', original=None, split='train', modify_video=False, modify_audio=False, fake_periods=[]),
    ]
).encode()


@tries(150, 5000)
@given(st.one_of(st.binary(max_size=300), damaged(lambda: TABLE)))
def test_meta_data_csv(data):
    "Any bytes are a table or a ValueError that names the file."
    count('meta_data.csv')
    with file(data, 'meta_data.csv') as path:
        try:
            rows = read_metadata(path, IndexReport())
        except ValueError as error:
            assert 'meta_data.csv' in str(error)
        else:
            assert list(rows.columns) == ['key', 'source', 'target', 'method']


VALUES = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=8),
    lambda x: st.lists(x, max_size=3) | st.dictionaries(st.text(max_size=5), x, max_size=3),
    max_leaves=6,
)
ENTRIES = st.lists(
    st.fixed_dictionaries(
        {},
        optional={
            k: VALUES
            | st.sampled_from(['real', 'train', 'test/0.mp4', '../../x.mp4', '/etc/passwd', [[0.1, 0.2]], True, False])
            for k in (
                'file',
                'original',
                'split',
                'modify_video',
                'modify_audio',
                'modify_type',
                'audio_model',
                'fake_periods',
                'fake_segments',
            )
        },
    ),
    max_size=4,
)


@tries(150, 5000)
@given(st.one_of(st.binary(max_size=200), damaged(lambda: LAV), ENTRIES.map(lambda e: json.dumps(e).encode())))
def test_metadata_json(data):
    count('metadata.json')
    with file(data, 'metadata.json') as path:
        try:
            rows = read_segments(path, IndexReport())
        except ValueError as error:
            assert 'metadata.json' in str(error)
        else:
            for periods in rows.periods:
                assert all(0 <= a <= b < np.inf for a, b in read_periods(periods))


@tries(15, 300)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([*TYPES, 'elsewhere', '..', '../..', '/etc']), st.text(max_size=6), st.text(max_size=6)
        ),
        max_size=5,
    ),
    st.one_of(damaged(lambda: TABLE), st.just(TABLE)),
)
def test_nothing_outside_the_folder(rows, data):
    "Whatever the table says, the manifest holds files that were found in the folder, and the split keeps people apart."
    count('index')
    with tempfile.TemporaryDirectory() as folder:
        root, out = Path(folder) / 'data', io.StringIO()
        for i in range(6):
            for kind in TYPES[:2]:
                (place := root / kind / 'African' / 'men' / f'id{i:05d}').mkdir(parents=True)
                (place / f'{i}.mp4').touch()
        (Path(folder) / 'secret.mp4').touch()
        (root / TYPES[0] / 'link.mp4').symlink_to('../../secret.mp4')
        (root / 'abroad').symlink_to('/')
        for kind, who, name in rows:
            csv.writer(out).writerow([who, '-', '-', 'real', 'A', kind, 'x', 'men', name, f'{kind}/../../'])
        (root / 'meta_data.csv').write_bytes(data + b'\n' + out.getvalue().encode('utf-8', 'replace'))
        try:
            manifest, _ = index_videos(root)
        except ValueError as error:
            assert 'meta_data.csv' in str(error)
            return
        assert len(manifest) == 12 and all((root / p).resolve().is_relative_to(root.resolve()) for p in manifest.path)
        split = make_splits(manifest)
        assert not set(split.source[split.split == 'train']) & set(split.source[split.split == 'test'])


@tries(30, 500)
@given(st.one_of(st.binary(max_size=200), damaged(lambda: b'{"auc": {"overall": 0.9}, "counts": {}}')))
def test_metrics_json(data):
    count('metrics.json')
    with file(data, 'metrics.json') as path:
        try:
            assert isinstance(read_metrics(path), dict)
        except ValueError as error:
            assert 'metrics.json' in str(error)


# ---------------------------------------------------------------- cache entries and checkpoints


@lru_cache
def clip() -> MouthClip:
    rng = np.random.default_rng(0)
    return MouthClip(
        rng.integers(0, 255, (12, 32, 32, 3), dtype=np.uint8).repeat(2, 0),
        rng.normal(0, 0.1, 24 * 640).astype(np.float32),
        rng.random(24) < 0.9,
    )


@lru_cache
def entry() -> bytes:
    return bytes_of(lambda path: write_clip(path, [clip()]), 'e.zip')


@lru_cache
def stored() -> MouthClip:
    with file(entry(), 'e.zip') as path:
        return load_clip(path)


def read_stretch(path):
    clip = open_clip(path)
    return MouthClip(clip.frames(3, 20), clip.audio(3, 20), clip.face_detected(3, 20))


@tries(150, 5000)
@given(st.one_of(st.binary(max_size=100), damaged(entry)))
def test_a_damaged_entry(data):
    "It gives what was stored or a CacheError: never anything else, however it is read."
    count('cache entries')
    with file(data, 'e.zip') as path:
        for read in (
            load_clip,
            read_stretch,
        ):
            try:
                got = read(path)
            except CacheError as error:
                assert 'e.zip' in str(error)
                continue
            whole = (
                stored()
                if got.n_frames == 24
                else MouthClip(stored().crops[3:20], stored().audio[1920:12_800], stored().face_detected[3:20])
            )
            assert (
                np.array_equal(got.crops, whole.crops)
                and np.array_equal(got.audio, whole.audio)
                and np.array_equal(got.face_detected, whole.face_detected)
            )


@tries(60, 1500)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-5, 1 << 40) | st.floats() | st.text(max_size=4),
        lambda x: (
            st.lists(x, max_size=4)
            | st.dictionaries(st.sampled_from(['frames', 'pieces', 'version', 'peak']), x, max_size=4)
        ),
    )
)
def test_an_entry_that_lies(meta):
    "What stands in it about itself is checked."
    count('entries that lie')
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(entry())) as old, zipfile.ZipFile(out, 'w') as new:
        for name in old.namelist():
            if name != 'meta.json':
                new.writestr(name, old.read(name))
        true = json.loads(old.read('meta.json'))
        new.writestr('meta.json', json.dumps({**true, **meta} if isinstance(meta, dict) else meta))
    with file(out.getvalue(), 'e.zip') as path:
        try:
            got = load_clip(path)
        except CacheError:
            return
        assert len(got.crops) == got.n_frames == len(got.face_detected) and len(got.audio) == 640 * got.n_frames


@lru_cache
def checkpoint() -> bytes:
    torch.manual_seed(0)
    small = make_config(
        'small',
        ar_layers=1,
        vis_transformer_layers=1,
        aud_transformer_layers=1,
        vis_transformer_d_model=32,
        aud_transformer_d_model=32,
        fusion_dim=32,
        stream_heads=2,
        ar_d_model=32,
        ar_heads=2,
        vis_backbone_channels=(8, 8, 8, 8),
        aud_backbone_channels=(80, 16, 16, 16),
        allow_out_of_range=True,
    )
    return bytes_of(lambda path: save_detector(Detector(small), path, seed=0), 'd.pth')


@tries(25, 600)
@given(st.one_of(st.binary(max_size=100), damaged(checkpoint)))
def test_a_damaged_checkpoint(data):
    "A detector or a ValueError that names the file."
    count('checkpoints')
    with file(data, 'd.pth') as path:
        try:
            load_detector(path, 'cpu')
        except ValueError as error:
            assert 'd.pth' in str(error)


# ---------------------------------------------------------------- windows, resampling, alignment


@tries(60, 1500)
@given(st.integers(16, 80), st.integers(-8, 8), st.sampled_from([4, 8, 16]), st.data())
def test_a_shifted_window_is_the_window_of_shifted_sound(frames, shift, chunks, data):
    "Hearing a window at a delay is hearing the sound moved by it, wherever both lie inside."
    count('windows')
    cfg = WindowConfig(aud_num_chunks=chunks)
    mel = torch.randn(80, 4 * frames + 1, generator=torch.Generator().manual_seed(frames))
    start = data.draw(st.integers(0, frames - 16))
    heard = cut_chunks(mel_window(mel, start, cfg), shift, cfg)
    if 3 <= start + shift <= frames - 19:
        assert torch.equal(heard, cut_chunks(mel_window(mel, start + shift, cfg, 0), 0, cfg))
    valid = valid_shifts(start, 0, frames, cfg)
    assert bool(valid[8 + shift]) == (0 <= start + shift <= frames - 16)


@tries(60, 1500)
@given(st.integers(1, 60), st.integers(0, 100), st.integers(0, 40), st.integers(1, 40))
def test_silence_is_trimmed_from_the_ends_alone(loud, before, after, least):
    count('silences')
    rng = np.random.default_rng(loud)
    audio = np.concatenate([np.zeros(before * 640), rng.normal(0, 0.1, loud * 640), np.zeros(after * 640)]).astype(
        np.float32
    )
    first, stop = trim_silence(audio, 40.0, least)
    n = before + loud + after
    assert 0 <= first <= stop <= n and stop - first >= min(least, n)
    if loud >= least:
        assert (first, stop) == (before, before + loud) or n <= least


@tries(60, 1500)
@given(st.integers(1, 16), st.integers(1, 8), st.integers(1, 5))
def test_audio_features_are_aligned_by_time(chunks, per_chunk, d):
    "Features that are linear in time stay so: chunk k is centred between its frames."
    count('alignments')
    frames = chunks * per_chunk
    centres = (torch.arange(chunks) + 0.5) * per_chunk
    aligned = align_audio(centres[None, :, None].expand(1, -1, d), frames)[0]
    due = (torch.arange(frames) + 0.5).clamp(centres[0], centres[-1])
    assert aligned.shape == (frames, d) and torch.allclose(aligned, due[:, None].expand(-1, d), atol=1e-3)


@tries(60, 2000)
@given(
    st.lists(st.tuples(st.integers(-50, 300), st.integers(1, 80)), min_size=1, max_size=8),
    st.lists(st.integers(1, 90), min_size=1, max_size=6),
)
def test_samples_are_placed_where_they_belong(runs, takes):
    "Each sample comes out at its index, whatever the pieces that are asked for; where two overlap the earlier stays."
    count('sample placements')
    samples, expected, filled = SampleQueue(), np.zeros(1000), 0
    for i, (at, n) in enumerate(runs):
        samples.place(at, np.full(n, i + 1, np.float32))
        for j in range(max(at, filled), at + n):
            expected[j] = i + 1
        filled = max(filled, at + n)
    got = np.concatenate([samples.take(sum(takes[:k]), n) for k, n in enumerate(takes)])
    assert np.array_equal(got, expected[: len(got)])


@tries(6, 120)
@given(
    st.lists(st.floats(0.008, 0.12), min_size=12, max_size=40),
    st.floats(0, 0.5),
    st.sampled_from([8000, 16_000, 22_050, 44_100, 48_000]),
)
def test_any_frame_rate_and_any_start(steps, start, rate):
    "At each 40 ms the picture on screen in the middle of them is read, and the sound of just that time."
    count('timestamp patterns')
    times = np.r_[0, np.cumsum(steps)].round(4)
    frames = [np.full((32, 32, 3), 40 + 5 * (i % 40), np.uint8) for i in range(len(times))]
    for frame in frames:
        frame[:, 16:] = 255 - frame[:, 16:]
    length = times[-1] + 0.05 + start
    pitch = 300 + 200 * np.arange(round(length * rate)) / rate  # it tells the time
    wave = 0.5 * np.sin(2 * np.pi * np.cumsum(pitch) / rate)
    with tempfile.TemporaryDirectory() as folder:
        path = write_video(
            Path(folder) / 'x.mkv',
            frames,
            wave,
            times=times,
            audio_start=start,
            sample_rate=rate,
            crf=1,
            audio_codec='pcm_s16le',
        )
        shown, heard = (np.concatenate(x) for x in zip(*stream_media(path)))
    at = start + (np.arange(len(shown)) + 0.5) / FPS
    due = np.searchsorted(times + 0.0011, at) - 1  # Matroska rounds to a millisecond
    near = np.abs(times[None] - at[:, None]).min(1) < 0.002
    levels = shown[:, :, :14].mean((1, 2, 3))
    wanted = np.array([frames[min(i, len(frames) - 1)][0, 0, 0] for i in due], float)
    assert (np.abs(levels - wanted) < 3)[~near].all()
    same = np.interp(np.arange(len(heard)) / SAMPLE_RATE, np.arange(len(wave)) / rate, wave)
    inside = slice(400, len(heard) - 1200)
    assert len(heard) == 640 * len(shown) and np.abs(heard - same)[inside].max(initial=0) < 0.12


@tries(40, 800)
@given(st.integers(-8, 8), st.integers(20, 60))
def test_a_shift_and_its_opposite(shift, n):
    "Sound that is moved is where it should be, and no sound is made up."
    count('shifts')
    rng = np.random.default_rng(n)
    audio = rng.normal(0, 0.1, n * 640).astype(np.float32)
    whole = MouthClip(np.zeros((n, 4, 4, 3), np.uint8), audio, np.ones(n, bool))
    moved = shift_sound(whole, shift)
    assert len(moved.audio) == 640 * moved.n_frames == 640 * len(moved.crops) == 640 * len(moved.face_detected)
    assert moved.n_frames == n - abs(shift)
    heard = max(-shift, 0) * 640  # late sound begins with the first sample of all
    assert np.array_equal(moved.audio, whole.audio[heard:][: 640 * moved.n_frames])


READERS = Readers(CropReader(), LogMelReader())


@tries(15, 300)
@given(st.integers(0, 2**31), st.integers(0, 5), st.integers(0, 20))
def test_a_window_depends_on_seed_epoch_and_number_alone(seed, epoch, i):
    count('draws')
    with file(entry(), 'e.zip') as path:
        a, b = (TrainWindows([path, path], READERS, seed, 11) for _ in range(2))
        for k in range(3):
            b[epoch, k]  # what was asked for before does not matter
        one, other = a[epoch, i % len(a)], b[epoch, i % len(b)]
        assert (
            all(torch.equal(one[k], other[k]) for k in ('video', 'audio', 'valid')) and one['start'] == other['start']
        )
