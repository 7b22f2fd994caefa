"""Ray prepares what the processes of this machine prepare, also when one of its workers is killed."""

import os
import signal
import sys
import threading
import time
from pathlib import Path

import pandas as pd
import psutil
import pytest
from reliability import FULL

from avfake.extraction import extract_clips
from avfake.layouts import index_videos
from avfake.synthetic import make_clip
from avfake.video import write_video
from avfake.workers import map_ray

ray = pytest.importorskip('ray', reason='Ray is not installed: pip install "avfake[ray]"')
pytestmark = pytest.mark.skipif(not FULL, reason='mostly waits for Ray to start: make test-reliability')


def start(tries: int = 4):
    "On a busy machine its parts take longer than the half minute that Ray waits for them: begin anew."
    paths = os.pathsep.join([str(Path(__file__).parent), *sys.path])  # workers have to find the functions of this file
    environment = dict(env_vars=dict(PYTHONPATH=paths))
    for left in reversed(range(tries)):
        try:
            return ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, runtime_env=environment)
        except Exception as error:
            if not left or 'timed out during startup' not in str(error):
                raise
            ray.shutdown()


@pytest.fixture(scope='module')
def cluster():
    start()
    yield
    ray.shutdown()


def slow(job, announce):
    time.sleep(0.3)
    return job * 2


def test_a_killed_worker_costs_nothing(cluster):
    killed = []

    def kill():
        while not killed:
            time.sleep(0.2)
            for p in psutil.Process().children(recursive=True):
                if p.name().startswith('ray::') and 'andful' in p.name():
                    killed.append(p.pid)
                    os.kill(p.pid, signal.SIGKILL)
                    return

    threading.Thread(target=kill, daemon=True).start()
    assert sorted(map_ray(slow, list(range(40)), handful=8)) == [(i, 2 * i) for i in range(40)]
    assert killed


def test_the_same_cache(cluster, tmp_path):
    clip = make_clip(0, 1.2)
    for i in range(3):
        write_video(tmp_path / 'data' / f'{i}.mp4', clip.frames, clip.audio, crf=20 + i)
    (tmp_path / 'data' / 'broken.mp4').write_bytes(b'no video')
    videos = index_videos(tmp_path / 'data', need_authentic=False)[0]
    tables = [
        extract_clips(videos, tmp_path / 'data', tmp_path / engine, engine=engine, progress=False)
        for engine in ('processes', 'ray')
    ]
    a, b = (t.assign(entry=t.entry.str.split('/').str[-1]) for t in tables)
    pd.testing.assert_frame_equal(a, b)
    assert (a.reason == '').sum() == 3 and a.reason[a.path == 'broken.mp4'].item() == 'unreadable'
    for one, two in zip(*(t.entry for t in tables)):
        if one:
            assert Path(one).read_bytes() == Path(two).read_bytes()
