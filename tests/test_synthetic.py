"""The demo set: faces that are found, FakeAVCeleb's layout, the same clips each time, and no clip made twice."""

import csv
import json
import subprocess
import sys

import numpy as np
import pytest

from avfake.layouts import index_videos
from avfake.media import SAMPLES_PER_FRAME, read_audio, stream_frames
from avfake.mouth import read_mouth
from avfake.splits import make_splits
from avfake.synthetic import (
    CATEGORIES,
    FORGED,
    DemoSettings,
    _folder,
    _write_metadata,
    make_clip,
    make_demo,
    plan_demo,
)

SETTINGS = dict(n_identities=3, real_per_identity=3, forged_identities=1, seconds=(1.0, 1.4), progress=False)


@pytest.fixture(scope='module')
def demo(tmp_path_factory):
    return make_demo(tmp_path_factory.mktemp('set') / 'demo', **SETTINGS, workers=0)


def pictures(path):
    return np.stack(list(stream_frames(path))).astype(float)


def same(a, b):
    return a.shape == b.shape and abs(a - b).mean() < 1  # grey levels: an encoder may round otherwise


def videos(demo):
    return {p.relative_to(demo).as_posix(): p for p in sorted(demo.rglob('*.mp4'))}


def test_faces_are_found(demo):
    "Every clip has its face in every frame, and the mouth moves in the crop."
    for name, path in videos(demo).items():
        clip = read_mouth(path)
        assert clip.face_fraction >= 0.95, name
        assert 25 <= clip.n_frames <= 35 and len(clip.audio) == clip.n_frames * SAMPLES_PER_FRAME, name
        lips, rim = clip.crops[:, 30:80, 20:92].std(0).mean(), clip.crops[:, :16].std(0).mean()
        assert lips > 1.5 * rim, name  # the lips move, and they move in the middle


def test_layout(demo):
    with (demo / 'meta_data.csv').open(encoding='utf-8', newline='') as f:
        header, *rows = csv.reader(f)
    assert ','.join(header) == 'source,target1,target2,method,category,type,race,gender,path,'
    listed = {f'{folder.removeprefix("FakeAVCeleb/")}/{name}' for *_, name, folder in rows}
    assert listed == set(videos(demo)) and len(rows) == len(listed) == 18
    for source, target1, _, method, letter, kind, race, gender, _, folder in rows:
        assert folder == f'FakeAVCeleb/{kind}/{race}/{gender}/{source}'
        assert CATEGORIES[kind] == (letter, method) and (target1 == '-') == (letter == 'A')


def test_goes_on_where_it_stopped(demo):
    "What is there stays; what is missing comes back the same, from worker processes too."
    before = {name: path.stat().st_mtime_ns for name, path in videos(demo).items()}
    lost = {name: (pictures(demo / name), read_audio(demo / name)) for name in list(before)[::5]}
    for name in lost:
        (demo / name).unlink()
    (demo / 'meta_data.csv').unlink()
    make_demo(demo, **SETTINGS, workers=2)
    after = {name: path.stat().st_mtime_ns for name, path in videos(demo).items()}
    assert set(after) == set(before) and {name for name in after if after[name] != before[name]} == set(lost)
    for name, (frames, audio) in lost.items():
        assert same(pictures(demo / name), frames) and np.array_equal(read_audio(demo / name), audio), name
    assert (demo / 'meta_data.csv').exists()
    assert not [
        p for p in demo.rglob('*') if p.is_file() and p.suffix not in ('.mp4', '.csv', '.json')
    ]  # nothing half-written


def test_other_settings_make_other_clips(tmp_path):
    small = dict(
        n_identities=1, real_per_identity=1, forged_identities=1, seconds=(0.6, 0.6), size=64, workers=0, progress=False
    )
    demo = make_demo(tmp_path / 'demo', **small)
    name = 'RealVideo-RealAudio/unstated/unstated/id00000/00000.mp4'
    first = pictures(demo / name)
    assert json.loads((demo / 'demo.json').read_text())['seed'] == 0
    (demo / 'notes.txt').write_text('mine')
    make_demo(demo, **small | dict(seed=5))
    assert len(videos(demo)) == 4 and (demo / 'notes.txt').exists()
    assert not same(pictures(demo / name), first)
    (tmp_path / 'full').mkdir()
    (tmp_path / 'full' / 'letter.txt').touch()
    with pytest.raises(ValueError, match='holds other files'):
        make_demo(tmp_path / 'full', **small)


def test_forgeries_are_made_of_authentic_parts(demo):
    "A replaced voice leaves the picture as it was; a re-driven mouth leaves the sound."
    plan = plan_demo(DemoSettings(**{k: v for k, v in SETTINGS.items() if k != 'progress'}))
    who = next(r.identity for category, name, r in plan if category in FORGED)
    path = {(category, r.clip): demo / _folder(category, who) / name for category, name, r in plan if r.identity == who}
    assert len(path) == 12
    seen = {}
    for (category, clip), forged in path.items():
        real = path['RealVideo-RealAudio', clip]
        if clip not in seen:
            seen[clip] = pictures(real)
        if category == 'FakeVideo-RealAudio':
            assert np.array_equal(read_audio(forged), read_audio(real))
        if category == 'RealVideo-FakeAudio':
            assert same(pictures(forged), seen[clip]) and not np.array_equal(read_audio(forged), read_audio(real))
        if category[:4] == 'Fake':
            change = abs(pictures(forged) - seen[clip]).mean((0, 3))
            assert change[100:170, 60:130].mean() > 2 * change[:90].mean()  # the mouth, and not the eyes and the hair


def test_clip_is_reproducible():
    a, b = make_clip(4, seconds=1.6), make_clip(4, seconds=1.6)
    assert len(a.frames) >= 40 and len(a.audio) == len(a.frames) * SAMPLES_PER_FRAME
    assert np.array_equal(a.frames, b.frames) and np.array_equal(a.audio, b.audio)
    assert a.frames.dtype == np.uint8 and a.audio.dtype == np.float32 and abs(a.audio).max() <= 1


def test_split_has_forgeries_to_test_on(tmp_path):
    "People are in one split each: the default set still has 50 forgeries of each class to test on, whatever the seed."
    plan = plan_demo()
    for category, name, r in plan:
        path = tmp_path / _folder(category, r.identity) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    _write_metadata(plan, tmp_path / 'meta_data.csv')
    manifest, report = index_videos(tmp_path)
    assert len(manifest) == len(plan) and not report.skipped
    for seed in range(5):
        split = make_splits(manifest, seed=seed)
        test, train = split[split.split == 'test'], split[split.split == 'train']
        assert (test.category.value_counts()[list(CATEGORIES)] >= 50).all() and len(train) >= 180, seed


def test_script_without_main_guard_is_told_so(tmp_path):
    script = tmp_path / 'script.py'
    script.write_text(
        'from avfake.synthetic import make_demo\n'
        f'make_demo({str(tmp_path / "demo")!r}, 1, 1, 0, seconds=(.6, .6), size=64, workers=1, progress=False)\n'
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=120)
    assert done.returncode and 'RuntimeError: worker processes do not start' in done.stderr.splitlines()[-1]
    assert '__main__' in done.stderr.splitlines()[-1]
