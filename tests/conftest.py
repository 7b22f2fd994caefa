"""What all tests share. The environment is set before anything imports torch; processes that they start have it too."""

import json
import os
import tempfile
from pathlib import Path

import pytest
from reliability import COUNTS, collected, situations, summary

ROOT = Path(__file__).resolve().parent.parent

for name in 'OMP_NUM_THREADS', 'MKL_NUM_THREADS', 'OPENBLAS_NUM_THREADS':
    os.environ[name] = '1'  # tests run side by side
os.environ.setdefault('MPLBACKEND', 'agg')
if os.environ.get('AVFAKE_DATA'):
    os.environ['AVFAKE_DATA'] = os.path.abspath(os.environ['AVFAKE_DATA'])


def pytest_configure(config):
    config.addinivalue_line('markers', 'cuda: needs an NVIDIA GPU; `make gpu` runs these alone')
    if hasattr(config, 'workerinput'):
        return  # a process of pytest-xdist, which has it from the first
    handle, os.environ[COUNTS] = tempfile.mkstemp(prefix='avfake-counts-')
    os.close(handle)


SLOWEST_FIRST = 'test_end_to_end', 'test_ray', 'test_gpu', 'test_hostile', 'test_app', 'test_processes'


def pytest_collection_modifyitems(items):
    "Where tests run side by side, the long ones begin first, so that no process ends with one alone."
    place = {name: i for i, name in enumerate(SLOWEST_FIRST)}
    items.sort(key=lambda item: place.get(item.path.stem, len(place)))


def pytest_terminal_summary(terminalreporter):
    found = collected(os.environ[COUNTS]) | situations(terminalreporter.stats)
    if not found:
        return
    terminalreporter.section('reliability')
    for line in summary(found):
        terminalreporter.write_line(line)
    if kept := os.environ.get('AVFAKE_KEEP_COUNTS'):
        Path(kept).write_text(json.dumps(found, indent=1) + '\n')


def pytest_unconfigure(config):
    if not hasattr(config, 'workerinput'):
        Path(os.environ[COUNTS]).unlink(missing_ok=True)


@pytest.fixture(scope='session')
def root():
    return ROOT


@pytest.fixture(scope='session')
def real_data():
    "The folder of real clips that AVFAKE_DATA names (with `newsreaders/` and `wild/`); without it tests skip."
    folder = os.environ.get('AVFAKE_DATA')
    if not folder:
        pytest.skip('AVFAKE_DATA names no folder of real clips')
    return Path(folder)


@pytest.fixture(scope='module')
def detector():
    "Never trained, and calibrated on made-up scores: a verdict needs no more."
    import torch

    from avfake.detector import Detector, make_config

    torch.manual_seed(0)
    detector = Detector(make_config('small', ar_layers=1)).eval()
    detector.calibration = torch.linspace(-1, 1, 99)
    detector.calibration_identities = torch.arange(99) % 9
    return detector
