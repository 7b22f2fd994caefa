"""Data sets so small that hardly anybody is left to train on: they train in the time that their clips are worth."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

from avfake.checkpoint import load_detector
from avfake.data import TrainWindows, make_loader, plan_epoch
from avfake.detector import Detector
from avfake.preparation import prepare
from avfake.run import Run, make_configs, train
from avfake.synthetic import make_demo

ROOT = Path(__file__).resolve().parent.parent
PEOPLE = 5  # with one clip each: two to train, two to validate, one to test


@pytest.fixture(scope='module')
def prepared(tmp_path_factory):
    "A clip each of the fewest people that can be split, and a forgery of one of them."
    folder = tmp_path_factory.mktemp('few')
    data = make_demo(folder / 'five', PEOPLE, 1, 1, workers=0, progress=False)
    config, _ = make_configs()
    with pytest.warns(UserWarning, match='leave none for calibration'):
        return prepare(data, config, cache_dir=folder / 'cache', workers=1)


@pytest.fixture(scope='module')
def ended(prepared, tmp_path_factory):
    "`avfake train` on them, from first to last: its folder, and what it said."
    here = tmp_path_factory.mktemp('trained')
    code = 'from avfake.cli import main; main()'
    settings = '--epochs 2 --density_epochs 1 --workers 0 --save_dir run'
    small = '--ar_layers 1 --vis_transformer_layers 2 --aud_transformer_layers 2 --score_stride 8'
    places = ['--data_dir', str(prepared.data_dir), '--cache_dir', str(prepared.data_dir.parent / 'cache')]
    command = [sys.executable, '-c', code, 'train', *places, *settings.split(), *small.split()]
    done = subprocess.run(
        command, cwd=here, env={**os.environ, 'PYTHONPATH': str(ROOT)}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return SimpleNamespace(run=Run(here / 'run'), said=done.stderr)


def test_they_train_and_are_evaluated(ended):
    "Two clips took 800 windows an epoch, two in a batch, and ended with 'the features have collapsed'."
    history = pd.read_csv(ended.run.history)
    sync = history[history.stage == 'sync']
    assert len(sync) == 2 and 1 < sync.step.iloc[0] < 8  # 35 windows of a clip differ at most
    detector = load_detector(ended.run.checkpoint, 'cpu')
    assert detector.metadata['sentinels']['feature_effective_rank'] > 2
    assert json.loads(ended.run.metrics.read_text())['counts']['authentic'] == 1
    assert ended.run.page.is_file()


def test_a_warning_is_one_line_and_comes_once(ended):
    "It came twice, each time with a line of the program's text."
    assert ended.said.count('avfake: warning: 5 authentic clips leave none for calibration') == 1
    assert 'no authentic calibration clip' in ended.said
    assert 'UserWarning' not in ended.said and 'prepared = prepare' not in ended.said


def test_a_batch_holds_windows_of_all_of_them(prepared):
    readers = Detector(make_configs()[0]).sync.readers
    entries = prepared.entries('train')
    passes, together = plan_epoch(entries, readers, batch_size=32)
    assert len(entries) == 2 and together == 4 and 8 < passes < 36
    data = TrainWindows(entries, readers, passes=passes, together=together)
    loader = make_loader(data, len(entries) * together)
    batch = next(iter(loader))
    for clip in range(2):
        starts = batch['start'][batch['clip'] == clip]
        assert len(set(starts.tolist())) == together  # no window is a wrong answer to itself


@pytest.fixture
def full_disk(monkeypatch):
    "A disk that has half a megabyte left."
    there = shutil.disk_usage('/')._replace(free=500_000)
    monkeypatch.setattr(shutil, 'disk_usage', lambda path: there)


def test_room_for_features_is_looked_for_before_the_extraction(prepared, full_disk, monkeypatch, tmp_path):
    "A disk that was full in the middle of stage two ended a run whose stage one had taken hours."
    monkeypatch.setattr('avfake.preparation.extract_clips', lambda *_, **__: pytest.fail('extracted first'))
    config, _ = make_configs(allow_out_of_range=True, vis_num_frames=32, trim_db=None)
    what = r'the features \(stage two of training\) of 4 videos need about .* MB, and 0.5 MB are free; choose another '
    with pytest.warns(UserWarning), pytest.raises(ValueError, match=f'run: {what}folder with --save_dir'):
        prepare(prepared.data_dir, config, features_dir=tmp_path / 'run')


def test_and_before_stage_one(prepared, full_disk, tmp_path):
    config, training = make_configs(epochs=1, density_epochs=1, workers=0)
    with pytest.raises(ValueError, match=r'of 4 clips need about [01]\.\d MB, and 0.5 MB are free'):
        train(prepared, config, training, Run(tmp_path / 'run'))
    assert not (tmp_path / 'run' / 'checkpoints' / 'sync.pt').exists()
