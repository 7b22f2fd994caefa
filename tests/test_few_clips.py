"""Data sets so small that hardly anybody is left to train on: they train in the time that their clips are worth."""

import pytest
import torch

from avfake.data import TrainWindows, make_loader, plan_epoch
from avfake.detector import Detector
from avfake.preparation import prepare
from avfake.run import Run, evaluate, make_configs, train
from avfake.synthetic import make_demo

PEOPLE = 5  # with one clip each: two to train, two to validate, one to test


@pytest.fixture(scope='module')
def prepared(tmp_path_factory):
    "A clip each of the fewest people that can be split, and a forgery of one of them."
    folder = tmp_path_factory.mktemp('few')
    data = make_demo(folder / 'five', PEOPLE, 1, 1, workers=0, progress=False)
    config, _ = make_configs()
    with pytest.warns(UserWarning, match='leave none for calibration'):
        return prepare(data, config, cache_dir=folder / 'cache', workers=1)


def test_they_train_and_are_evaluated(prepared, tmp_path):
    "Two clips took 800 windows an epoch, two in a batch, and ended with 'the features have collapsed'."
    config, training = make_configs(epochs=2, density_epochs=1, workers=0)
    run = Run(tmp_path / 'run')
    with pytest.warns(UserWarning, match='gives no verdict|no authentic calibration clip'):
        detector, history = train(prepared, config, training, run)
    sync = history[history.stage == 'sync']
    assert sync.step.tolist() == [1, 2]
    assert detector.metadata['sentinels']['feature_effective_rank'] > 2
    found = evaluate(detector, prepared, run)
    assert found.metrics['counts']['authentic'] == 1
    assert run.page.is_file()


def test_a_batch_holds_windows_of_all_of_them(prepared):
    readers = Detector(make_configs()[0]).sync.readers
    entries = prepared.entries('train')
    passes, together = plan_epoch(entries, readers, batch_size=32)
    data = TrainWindows(entries, readers, passes=passes, together=together)
    loader = make_loader(data, len(entries) * together)
    assert len(entries) == 2 and 2 < passes == together < 20
    (batch,) = loader
    for clip in range(2):
        starts = batch['start'][batch['clip'] == clip].sort().values
        assert len(starts) == together and torch.all(starts.diff() > 0)  # no window is a wrong answer to itself
