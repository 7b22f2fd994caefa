"""Training that is killed at random moments and started again ends with what it would have ended with.

A full disk tears nothing."""

import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from reliability import FULL, counts
from test_notebooks import needs_run

from avfake.cache import load_clip
from avfake.synthetic import make_demo

ROOT = Path(__file__).resolve().parent.parent
TRAIN = (
    'train --data_dir videos --save_dir out --cache_dir cache --epochs 2 --density_epochs 2 --windows_per_clip 2 '
    '--batch_size 4 --ar_layers 1 --workers 2'
).split()
STAGES = 'extraction', 'stage one', 'stage two', 'evaluation'
pytestmark = needs_run


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp('kills')
    make_demo(
        folder / 'videos',
        n_identities=6,
        real_per_identity=3,
        forged_identities=2,
        seconds=(1.2, 1.4),
        workers=0,
        progress=False,
    )
    return folder


def start(folder, *args, before=None):  # a session of its own, so that its workers can be killed with it
    return subprocess.Popen(
        [sys.executable, '-c', 'from avfake.cli import main; main()', *args],
        cwd=folder,
        start_new_session=True,
        preexec_fn=before,
        env={**os.environ, 'PYTHONPATH': str(ROOT), 'MPLBACKEND': 'agg'},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def entries(folder):
    return [*folder.glob('cache/clips/*/[!.]*')]


def stage(folder, videos) -> int:  # in which it is, or where it stopped; 0 is before and during extraction
    "How far a run has come, by what it has written."
    log = folder / 'out' / 'logs' / 'training.log'
    if (folder / 'out' / 'best_model.pth').exists():
        return 3
    if log.exists() and 'stage=sync epoch=2 ' in log.read_text():
        return 2
    return int(len(entries(folder)) == videos)


def torn(folder) -> list[str]:
    "Files under their final names that cannot be read."
    bad = []
    readers = {
        '.zip': load_clip,
        '.json': lambda p: json.loads(p.read_text()),
        '.pt': lambda p: torch.load(p, weights_only=True),
        '.pth': lambda p: torch.load(p, weights_only=True),
        '.csv': pd.read_csv,
        '.png': lambda p: 1 / (cv2.imread(str(p)) is not None),
    }
    for path in [*entries(folder), *folder.glob('out/**/[!.]*')]:
        try:
            readers.get(path.suffix, lambda p: None)(path)
        except Exception as error:
            bad.append(f'{path.relative_to(folder)}: {error}')
    return bad


def finish(folder) -> str:
    "Run to the end."
    process = start(folder, *TRAIN)
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 0, output
    return output


def outcome(folder) -> dict:
    "All that has to be the same: weights, scores, metrics and cache entries, by their bytes."
    saved = torch.load(folder / 'out' / 'best_model.pth', weights_only=True)
    found = {f'weights {k}': v.numpy().tobytes() for k, v in saved.pop('state_dict').items()}
    found |= {f'checkpoint {k}': v for k, v in saved.items()}
    for name in ('detailed_results.csv', 'metrics.json'):
        found[name] = (folder / 'out' / name).read_bytes()
    return found | {p.name: p.read_bytes() for p in entries(folder)}


@pytest.mark.skipif(not FULL, reason='takes minutes: make test-reliability')
def test_kill_9_at_any_moment(folder):
    rng = random.Random(0)
    videos = len(list((folder / 'videos').rglob('*.mp4')))
    process = start(folder, *TRAIN)
    reached = {}
    while process.poll() is None:  # undisturbed, to know the result and how long each stage takes
        reached.setdefault(stage(folder, videos) if entries(folder) else -1, time.monotonic())
        time.sleep(0.01)
    assert process.returncode == 0, process.stdout.read()
    ends = [min(t for s, t in reached.items() if s >= i) for i in range(4)]  # a short stage may go unseen
    lengths = np.diff([*ends, time.monotonic()])
    expected = outcome(folder)
    kills = [0] * 4
    differ = []
    broken = []
    for turn in range(6):
        for name in ('cache', 'out'):
            shutil.rmtree(folder / name)
        for which in range(4):
            process = start(folder, *TRAIN)
            while process.poll() is None and not (stage(folder, videos) >= which and entries(folder)):
                time.sleep(0.005)
            time.sleep(rng.random() * lengths[which] * 0.9)
            if process.poll() is None:
                kills[which] += 1
            with suppress(ProcessLookupError):  # it has come to its end by itself
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            broken += torn(folder)
        finish(folder)
        found = outcome(folder)
        differ += [f'run {turn}: {k}' for k in expected.keys() | found.keys() if found.get(k) != expected.get(k)]
        broken += torn(folder)
    counts(
        'kill -9',
        **{f'in {s}': n for s, n in zip(STAGES, kills)},
        runs_resumed=turn + 1,
        mismatches=len(differ),
        torn_files=len(broken),
    )
    assert not broken and not differ and sum(kills) >= 20


# ---------------------------------------------------------------- no room, no right


def test_a_file_that_cannot_grow(folder, tmp_path):
    """What a full disk does, with a limit on the size of a file, which any user may set: one line, nothing torn, and it
    goes on when there is room."""

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))

    (tmp_path / 'videos').symlink_to(folder / 'videos')
    process = start(tmp_path, *TRAIN, before=limit)
    try:
        output, _ = process.communicate(timeout=300)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        pytest.fail('it hangs')
    assert process.returncode == 2 and 'avfake: ' in output.splitlines()[-1] and 'Traceback' not in output, output
    assert 'File too large' in output.splitlines()[-1] and not torn(tmp_path)


MOUNT = 'mkdir -p {0} && mount -t tmpfs -o size={1} none {0} && {2}'


def in_small_disk(folder, place, size, command):
    "Run in a mount namespace of its own, with a small file system at `place`."
    line = MOUNT.format(place, size, command)
    return subprocess.run(
        ['unshare', '--map-root-user', '--mount', 'sh', '-c', line],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=600,
        env={**os.environ, 'PYTHONPATH': str(ROOT), 'MPLBACKEND': 'agg', 'PYTHON': sys.executable},
    )


@pytest.fixture(scope='module')
def mounts(tmp_path_factory):
    try:
        done = in_small_disk(tmp_path_factory.mktemp('mount'), 'here', '1m', 'true')
    except OSError as error:
        pytest.skip(f'no unshare here ({error})')
    if done.returncode:
        pytest.skip(f'no file system can be mounted here ({done.stderr.strip()})')


def avfake(*args):
    return ' '.join(["$PYTHON -c 'from avfake.cli import main; main()'", *args])


@pytest.mark.skipif(not FULL, reason='takes minutes: make test-reliability')
@pytest.mark.parametrize(
    'place, size, said',
    [('cache', '300k', '0.3 MB are free'), ('out', '100k', '0.1 MB are free'), ('out', '3m', 'No space left')],
)
def test_disk_full(folder, tmp_path, mounts, place, size, said):
    "One line that says so, before the work where that can be known; whatever stands under its final name is whole."
    (tmp_path / 'videos').symlink_to(folder / 'videos')
    done = in_small_disk(
        tmp_path, place, size, f'{avfake(*TRAIN)}; status=$?; mkdir kept; cp -r {place} kept/{place}; exit $status'
    )
    lines = done.stderr.splitlines()
    assert (
        done.returncode == 2
        and said in lines[-1]
        and place in lines[-1]
        and lines[-1].startswith('avfake: ')
        and 'Traceback' not in done.stderr
    ), done.stderr
    assert not torn(tmp_path / 'kept')


@pytest.mark.skipif(not FULL, reason='takes minutes: make test-reliability')
@pytest.mark.parametrize('place', ['cache', 'out'])
def test_read_only(folder, tmp_path, mounts, place):
    (tmp_path / 'videos').symlink_to(folder / 'videos')
    done = in_small_disk(tmp_path, place, '1m', f'mount -o remount,ro {place} && {avfake(*TRAIN)}')
    lines = done.stderr.splitlines()
    assert (
        done.returncode == 2
        and 'no right to write' in lines[-1]
        and lines[-1].startswith('avfake: ')
        and 'Traceback' not in done.stderr
    ), done.stderr
