"""What is too long for the data notebooks: a full-sized index, an interrupted extraction, two extractions at once."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from avfake.cache import open_clip
from avfake.extraction import extract_clips
from avfake.layouts import index_videos
from avfake.metadata import TYPES
from avfake.splits import FRACTIONS, check_splits, make_splits, split_table
from avfake.video import write_video

ROOT = Path(__file__).resolve().parent.parent
RACES = 'African', 'American', 'Asian (East)', 'Asian (South)', 'European'


@pytest.fixture(scope='module')
def fakeavceleb(tmp_path_factory):
    "Empty files under the names and in the numbers of FakeAVCeleb v1.2; its table spells two races in another way."
    root, rows = (
        tmp_path_factory.mktemp('data') / 'FakeAVCeleb',
        ['source,target1,target2,method,category,type,race,gender,path,'],
    )

    def add(kind, i, name, method, target='-'):
        folder = f'{TYPES[kind]}/{RACES[i % 5]}/{("men", "women")[i // 5 % 2]}/id{i:05d}'
        (root / folder).mkdir(parents=True, exist_ok=True)
        (root / folder / name).touch()
        race, spelt = RACES[i % 5], RACES[i % 5].replace(' (', '_').strip(')')
        rows.append(
            f'id{i:05d},{target},-,{method},{"ABCD"[kind]},{TYPES[kind]},{spelt},{("men", "women")[i // 5 % 2]},{name},'
            f'FakeAVCeleb/{folder.replace(race, spelt)}'
        )

    for i in range(500):
        add(0, i, f'{i:05d}.mp4', 'real')
        add(1, i, f'{i:05d}_fake.mp4', 'rtvc')
        for j in range(19):
            add(2, i, f'{i:05d}_{j}_wavtolip.mp4', 'wav2lip', f'id{(i + j) % 500:05d}')
        for j in range(22):
            add(3, i, f'{i:05d}_{j}_id{j:05d}_wavtolip.mp4', 'fsgan-wav2lip', f'id{(i + j) % 500:05d}')
    (root / 'meta_data.csv').write_text('\n'.join(rows + rows[-22:]))
    return root


def test_index_of_full_size(fakeavceleb):
    manifest, report = index_videos(fakeavceleb)
    assert (len(manifest), report.rows, report.duplicate_rows) == (21_500, 21_522, 22)
    assert (report.rows_without_file, report.files_without_row, report.respelled_rows) == (0, 0, 2 * 100 * 43)
    assert manifest.method.value_counts().to_dict() == {
        'fsgan-wav2lip': 11_000,
        'wav2lip': 9_500,
        'real': 500,
        'rtvc': 500,
    }
    split = make_splits(manifest)
    check_splits(split)
    assert split_table(split).authentic.tolist() == [round(500 * share) for share in FRACTIONS.values()] + [0]


def test_a_few_videos_of_each_class(fakeavceleb):
    "However few: they come from different people, and the test split has forgeries."
    for n in 6, 10:
        manifest, _ = index_videos(fakeavceleb, max_videos_per_class=n)
        split = make_splits(manifest)
        check_splits(split)
        table = split_table(split)
        assert (table.authentic[:4] > 0).all() and table.forged['test'] >= n and table.methods['test'] == 3


@pytest.fixture(scope='module')
def noise(tmp_path_factory):
    "Videos without a face: they are decoded, left out, and remembered."
    folder, rng = tmp_path_factory.mktemp('noise'), np.random.default_rng(0)
    for i in range(12):
        write_video(
            folder / f'{i}.mp4',
            rng.integers(0, 255, (50, 64, 64, 3), np.uint8),
            rng.normal(0, 0.1, 50 * 640).astype('f4'),
        )
    return folder


EXTRACT = """
import sys
import pandas as pd
from pathlib import Path
from avfake.extraction import extract_clips
if __name__ == '__main__':
    videos = pd.DataFrame(dict(path=sorted(o.name for o in Path(sys.argv[1]).glob('*.mp4'))))
    print(len(extract_clips(videos, sys.argv[1], sys.argv[2], workers=2)))
"""


@pytest.fixture
def start(tmp_path):
    script = tmp_path / 'extract.py'
    script.write_text(EXTRACT)

    def run(*args):
        return subprocess.Popen(
            [sys.executable, script, *map(str, args)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=tmp_path,
            env={**os.environ, 'PYTHONPATH': str(ROOT)},
            start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )

    return run


def known(cache):
    return list(cache.glob('clips/*/*.json'))


def test_an_interrupted_extraction_goes_on(noise, tmp_path, start):
    cache, process = tmp_path / 'cache', start(noise, tmp_path / 'cache')
    deadline = time.monotonic() + 120
    while not known(cache) and time.monotonic() < deadline:
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)  # Ctrl-C reaches every process of the terminal
    _, errors = process.communicate(timeout=60)
    assert process.returncode != 0 and 'KeyboardInterrupt' in errors
    done = len(known(cache))
    assert 0 < done < 12
    assert not list(cache.glob('clips/*/.*')), 'a half-written entry was left behind'
    again = start(noise, cache)
    output, errors = again.communicate(timeout=120)
    assert (again.returncode, output) == (0, '12\n'), errors
    assert len(known(cache)) == 12


def test_two_extractions_at_once(noise, tmp_path, start):
    cache = tmp_path / 'cache'
    both = [start(noise, cache) for _ in range(2)]
    for process in both:
        output, errors = process.communicate(timeout=120)
        assert (process.returncode, output) == (0, '12\n'), errors
    assert len(known(cache)) == 12 and not list(cache.glob('clips/*/.*'))


def test_real_clips(real_data, tmp_path):
    "A dozen of the newsreaders: all of them read, and their entries are small."
    folder = real_data / 'newsreaders'
    manifest, _ = index_videos(folder, max_videos_per_class=3)
    table = extract_clips(manifest, folder, tmp_path, workers=2, progress=False)
    assert (table.reason == '').all() and (table.face_fraction > 0.9).all()
    for entry, seconds in zip(table.entry, table.seconds):
        assert open_clip(entry).n_frames == round(25 * seconds)
        assert os.path.getsize(entry) < 200_000 * seconds
