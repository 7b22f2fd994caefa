"""Wheel and source distribution install into an empty environment of each Python that is here, and score a video."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hostile import source
from reliability import FULL, counts

from avfake.checkpoint import save_detector
from avfake.detector import Detector, make_config
from avfake.video import write_video

ROOT = Path(__file__).resolve().parent.parent
PYTHONS = '3.10', '3.11', '3.12'
pytestmark = pytest.mark.skipif(not FULL, reason='takes minutes: make test-reliability')


def run(*args, cwd, **env):
    done = subprocess.run(
        [*map(str, args)],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=1500,
        env={**{k: v for k, v in os.environ.items() if k not in ('PYTHONPATH', 'VIRTUAL_ENV')}, **env},
    )
    assert done.returncode == 0, f'{args}:\n{done.stdout[-3000:]}{done.stderr[-3000:]}'
    return done.stdout


@pytest.fixture(scope='module')
def distributions(tmp_path_factory):  # a clean copy of what git knows, built
    copy = tmp_path_factory.mktemp('source') / 'avfake'
    for name in run('git', 'ls-files', cwd=ROOT).splitlines():
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, copy / name)
    run(sys.executable, '-m', 'build', '--no-isolation', '--outdir', copy.parent / 'dist', cwd=copy)
    return sorted((copy.parent / 'dist').iterdir())


@pytest.mark.parametrize(
    'python, kind', [*((p, '.whl') for p in PYTHONS), (f'{sys.version_info[0]}.{sys.version_info[1]}', '.tar.gz')]
)
def test_install(distributions, tmp_path, python, kind):
    uv = sys.executable, '-m', 'uv'
    # pyenv hides all but the chosen ones
    pyenv = Path(os.environ.get('PYENV_ROOT', '~/.pyenv')).expanduser() / 'versions'
    path = os.pathsep.join([*map(str, pyenv.glob(f'{python}.*/bin')), os.environ['PATH']])
    found = subprocess.run(
        [*uv, 'python', 'find', '--no-python-downloads', '--no-project', python],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**{k: v for k, v in os.environ.items() if k != 'VIRTUAL_ENV'}, 'PATH': path},
    )
    if found.returncode:
        pytest.skip(f'no Python {python} here')
    run(*uv, 'venv', '--python', found.stdout.strip(), tmp_path / 'env', cwd=tmp_path)
    (package,) = (d for d in distributions if d.name.endswith(kind))
    there = tmp_path / 'env' / 'bin'
    constraints = ROOT / 'constraints.txt'
    run(*uv, 'pip', 'install', '--python', there / 'python', '-c', constraints, package, cwd=tmp_path)
    place = run(there / 'python', '-c', 'import avfake; print(avfake.__file__)', cwd=tmp_path).strip()
    assert place.startswith(str(tmp_path / 'env'))
    assert 'score' in run(there / 'avfake', '--help', cwd=tmp_path)
    detector = Detector(make_config('small', ar_layers=1)).eval()
    detector.calibration = torch.arange(30.0)
    detector.calibration_identities = torch.zeros(30, dtype=torch.long)
    save_detector(detector, tmp_path / 'd.pth')
    frames, audio = source()
    write_video(tmp_path / 'clip.mp4', frames, audio)
    output = run(there / 'avfake', 'score', '--checkpoint', 'd.pth', '--json', 'clip.mp4', cwd=tmp_path)
    verdict = json.loads(output.splitlines()[-1])
    assert np.isfinite(verdict['score']) and verdict['verdict'] in ('anomalous', 'no anomaly found')
    counts('installed', **{f'python {python} from {kind.lstrip(".")}': 1})
    shutil.rmtree(tmp_path / 'env')
