"""Every notebook in nbs/ is one test: its cells run as `nbdev_test` runs them. `run.ipynb` runs through papermill."""

import json
import os
import signal
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted(o for o in (ROOT / 'nbs').rglob('*.ipynb') if '.ipynb_checkpoints' not in o.parts)
RUN = ROOT / 'nbs' / 'run.ipynb'
TIME_LIMIT = float(os.environ.get('AVFAKE_NOTEBOOK_SECONDS', 900))

# In a process of its own: the way `nbdev_test` calls it, with the flags of settings.ini marking cells to leave out.
RUN_CELLS = """
import sys
from pathlib import Path
from nbdev.test import test_nb
passed, seconds = test_nb(Path(sys.argv[1]), skip_flags=sys.argv[2].split(), basepath=sys.argv[3])
sys.exit(not passed)
"""


def skip_flags():
    config = ConfigParser(delimiters=['='])
    config.read(ROOT / 'settings.ini', encoding='utf-8')
    return config['DEFAULT']['tst_flags']


def run(*args, cwd, env=None, seconds=TIME_LIMIT):
    "Run a command to its end and give back (exit status, output); past the limit it is killed with its children."
    process = subprocess.Popen(
        [sys.executable, *map(str, args)],
        cwd=cwd,
        env={**os.environ, **(env or {})},
        text=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding='utf-8',
        errors='replace',
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        output, _ = process.communicate()
        pytest.fail(f'still running after {seconds:.0f} s, stopped. It had printed:\n{output[-10_000:]}', pytrace=False)
    return process.returncode, output


@pytest.mark.parametrize('notebook', [o for o in NOTEBOOKS if o != RUN], ids=lambda o: o.stem)
def test_notebook(notebook):
    status, output = run('-c', RUN_CELLS, notebook, skip_flags(), ROOT, cwd=notebook.parent)
    if status:
        pytest.fail(f'{notebook.name}:\n{output[-10_000:]}', pytrace=False)


def test_a_failing_cell_fails_its_notebook(tmp_path):
    "And what `nbdev_test` skips is skipped here as well."
    kernel = dict(name='python3', display_name='python3', language='python')
    for source, fails in [
        ('x = 1\nassert x == 2, "told why"', True),
        ('#| eval: false\n1/0', False),
        ('#| cuda\n1/0', False),
    ]:
        notebook = tmp_path / 'one.ipynb'
        cell = dict(cell_type='code', id='one', metadata={}, source=source, outputs=[], execution_count=None)
        nb = dict(cells=[cell], metadata=dict(kernelspec=kernel), nbformat=4, nbformat_minor=5)
        notebook.write_text(json.dumps(nb))
        status, output = run('-c', RUN_CELLS, notebook, skip_flags(), ROOT, cwd=tmp_path)
        assert bool(status) == fails, output
        assert ('told why' in output) == fails


# ---------------------------------------------------------------- run.ipynb; see test_end_to_end.py too

needs_run = pytest.mark.skipif(not RUN.exists(), reason='nbs/run.ipynb is not there yet')


def papermill(executed, cwd, seconds=TIME_LIMIT, env=None, **parameters):
    "Execute run.ipynb from the folder `cwd`, as a user would, with other than its own parameters."
    given = []
    for name, value in parameters.items():
        if isinstance(value, dict):
            given += ['-y', json.dumps({name: value})]  # JSON is YAML
        else:
            given += ['-r' if isinstance(value, (str, Path)) else '-p', name, value]
    return run(
        '-m',
        'papermill',
        RUN,
        executed,
        '--no-progress-bar',
        *given,
        cwd=cwd,
        seconds=seconds,
        env={'JUPYTER_PREFER_ENV_PATH': '1', **(env or {})},
    )


@needs_run
def test_run_notebook_refuses_an_unknown_parameter(tmp_path):
    status, output = papermill(tmp_path / 'executed.ipynb', tmp_path, epoch=3)
    assert status != 0 and 'unknown parameter epoch' in output
