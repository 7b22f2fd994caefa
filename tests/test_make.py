"""What the Makefile decides by itself: which build of torch is installed on a machine without an NVIDIA card."""

import glob
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PYTHON = f'cp{sys.version_info[0]}{sys.version_info[1]}'
pytestmark = pytest.mark.skipif(
    sys.platform != 'linux' or bool(glob.glob('/dev/nvidia*')) or bool(shutil.which('nvidia-smi')),
    reason='is decided for Linux without an NVIDIA card',
)


def pins():
    text = (ROOT / 'constraints.txt').read_text()
    return dict(re.findall(r'^(torch|torchvision|torchaudio)==(\S+)', text, re.M))


def decided(index):
    "What the script in the Makefile says, with another index of CPU builds."
    script = re.search(r'^define TORCH_FOR_THE_CPU\n(.*?)^endef', (ROOT / 'Makefile').read_text(), re.M | re.S)[1]
    done = subprocess.run(
        [sys.executable, '-c', script],
        cwd=ROOT,
        env={**os.environ, 'TORCH_CPU_INDEX': index},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture
def index(tmp_path):
    "An index of CPU builds of the pinned versions, in files."

    def write(**versions):
        for name, version in {**pins(), **versions}.items():
            folder = tmp_path / name
            folder.mkdir(exist_ok=True)
            wheel = f'{name}-{version}%2Bcpu-{PYTHON}-{PYTHON}-manylinux_2_28_{os.uname().machine}.whl'
            (folder / 'index.html').write_text(f'<a href="{wheel}">{wheel}</a>')

    return write


@pytest.fixture
def served(tmp_path):
    "The same over HTTP, whose folders end in a slash."
    import threading
    from functools import partial
    from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

    server = ThreadingHTTPServer(('127.0.0.1', 0), partial(SimpleHTTPRequestHandler, directory=tmp_path))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f'http://127.0.0.1:{server.server_port}'
    server.shutdown()
    server.server_close()


def test_the_cpu_build_is_taken_where_all_three_match(index, served):
    assert len(pins()) == 3
    index()
    assert decided(served) == 'cpu'


@pytest.mark.parametrize('name', ['torch', 'torchvision', 'torchaudio'])
def test_another_version_of_one_of_them_is_not(index, served, name):
    "Builds of different versions do not work together: the registry's are taken."
    index(**{name: '0.0.1'})
    assert decided(served) == ''


def test_an_index_out_of_reach_is_no_error(index):
    assert decided('http://127.0.0.1:9') == ''
