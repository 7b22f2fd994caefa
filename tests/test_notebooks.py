"""Every notebook in nbs/ is one test: its cells run as `nbdev_test` runs them. `run.ipynb` runs through papermill."""

import json
import os
import signal
import subprocess
import sys
import threading
from configparser import ConfigParser
from pathlib import Path

import pytest
from reliability import FULL

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted(o for o in (ROOT / 'nbs').rglob('*.ipynb') if '.ipynb_checkpoints' not in o.parts)
RUN = ROOT / 'nbs' / 'run.ipynb'
TIME_LIMIT = float(os.environ.get('AVFAKE_NOTEBOOK_SECONDS', 900))

# Each notebook in a process of its own, the way `nbdev_test` runs it, with the flags of settings.ini marking cells to
# leave out. Packages that take seconds to import are imported once: the processes are forks of one that does nothing
# else. Nothing of avfake is among these packages.
SERVE_CELLS = """
import atexit, gc, json, os, sys
from importlib import import_module
from pathlib import Path

from nbdev.test import test_nb

for name in sys.argv[1].split():
    import_module(name)
threads = [o.read_text() for o in Path('/proc/self/task').glob('*/comm')]
ours = [o for o in threads if 'jemalloc' not in o]  # which looks after itself
assert len(ours) < 2, f'threads would be missing in the forks: {threads}'
gc.freeze()  # neither the forks look through these again, nor their ends
atexit.register(gc.freeze)
for line in sys.stdin:
    job = json.loads(line)
    if not (child := os.fork()):
        os.setsid()
        os.chdir(job['cwd'])
        for source, target in ((os.devnull, 0), (job['output'], 1), (job['output'], 2)):
            os.dup2(os.open(source, os.O_RDWR), target)
        passed, seconds = test_nb(Path(job['notebook']), skip_flags=job['skip_flags'], basepath=job['basepath'])
        sys.exit(not passed)
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
SLOW_IMPORTS = """
accelerate ai_edge_litert.interpreter av cv2 einops jinja2 librosa.display mambapy.mamba matplotlib.pyplot pandas
pydantic.dataclasses scipy.signal scipy.stats seaborn sklearn.covariance sklearn.metrics sklearn.preprocessing timm
torch torch._dynamo torch.utils.data torch.utils.flop_counter torch.utils.tensorboard torchaudio torchvision tqdm
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


class CellServer:
    "Runs the cells of notebooks, each in a fork of one process."

    def __init__(self, folder):
        self.folder = folder
        self.process = subprocess.Popen(
            [sys.executable, '-c', SERVE_CELLS, SLOW_IMPORTS],
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def run(self, notebook, seconds=TIME_LIMIT, slow=False):
        "Run a notebook to its end and give back (exit status, output); past the limit it is killed with its children."
        output = self.folder / 'output.txt'
        output.write_bytes(b'')
        paths = dict(notebook=notebook, cwd=notebook.parent, output=output, basepath=ROOT)
        flags = [flag for flag in skip_flags().split() if not slow or flag != 'slow']
        job = {name: str(path) for name, path in paths.items()} | dict(skip_flags=flags)
        print(json.dumps(job), file=self.process.stdin, flush=True)
        child = int(self.process.stdout.readline())
        late = threading.Timer(seconds, os.killpg, (child, signal.SIGKILL))
        late.start()
        status = int(self.process.stdout.readline())
        ended_late = not late.is_alive()
        late.cancel()
        text = output.read_text(encoding='utf-8', errors='replace')
        if ended_late:
            pytest.fail(
                f'still running after {seconds:.0f} s, stopped. It had printed:\n{text[-10_000:]}', pytrace=False
            )
        return status, text

    def end(self):
        self.process.stdin.close()
        self.process.wait()


@pytest.fixture(scope='session')
def cell_server(tmp_path_factory):
    server = CellServer(tmp_path_factory.mktemp('notebooks'))
    yield server
    server.end()


@pytest.mark.parametrize('notebook', [o for o in NOTEBOOKS if o != RUN], ids=lambda o: o.stem)
def test_notebook(notebook, cell_server):
    status, output = cell_server.run(notebook)
    if status:
        pytest.fail(f'{notebook.name}:\n{output[-10_000:]}', pytrace=False)


@pytest.mark.skipif(not FULL, reason='takes minutes: make test-reliability')
@pytest.mark.parametrize('name', ['19_synthetic', '87d_rehearsal'])
def test_slow_cells(name, cell_server):
    "The cells marked `#| slow` too, of notebooks whose other cells need no more than the package."
    status, output = cell_server.run(ROOT / 'nbs' / f'{name}.ipynb', slow=True)
    if status:
        pytest.fail(f'{name}:\n{output[-10_000:]}', pytrace=False)


def test_a_failing_cell_fails_its_notebook(tmp_path, cell_server):
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
        status, output = cell_server.run(notebook)
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
