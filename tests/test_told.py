"""What would end a command is found before its long work and said with the remedy; what a container lacks ends none."""

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from avfake.checkpoint import save_detector, save_tensors
from avfake.gallery import MARK, remove_pages
from avfake.results import read_results, simulate_results, write_results
from avfake.run import Run, check_stored, make_configs
from avfake.stages import facts_of
from avfake.synthetic import make_clip
from avfake.video import write_video

ROOT = Path(__file__).resolve().parent.parent
MAIN = 'from avfake.cli import main; main()'
NOBODY = 54321  # has no name on any machine that this runs on


def avfake(*args, cwd, before=(), **environment):
    "A command as a user runs it."
    here = {**os.environ, 'PYTHONPATH': str(ROOT), **environment}
    command = [*before, sys.executable, '-c', MAIN, *map(str, args)]
    return subprocess.run(command, cwd=cwd, env=here, capture_output=True, text=True, timeout=300)


def last_line(done) -> str:
    "What a command that could not begin says."
    assert done.returncode == 2 and 'Traceback' not in done.stderr, done.stderr
    return done.stderr.strip().splitlines()[-1]


# ---------------------------------------------------------------- the environment


@pytest.fixture
def nobody(tmp_path):
    "A user who is a number alone, without a home, and who may read everything, as in a container."
    if not shutil.which('setpriv') or os.getuid() != 0:
        pytest.skip('another user is only for root, with setpriv')
    tmp_path.chmod(0o777)
    caps = ['--inh-caps=+dac_read_search', '--ambient-caps=+dac_read_search']
    who = ['setpriv', f'--reuid={NOBODY}', f'--regid={NOBODY}', '--clear-groups', *caps]
    before = [*who, 'env', '-u', 'USER', '-u', 'LOGNAME', '-u', 'HOME', '-u', 'XDG_CACHE_HOME', '-u', 'AVFAKE_CACHE']
    if subprocess.run([*before, sys.executable, '-c', 'import json'], cwd=tmp_path).returncode:
        pytest.skip('this machine gives no capabilities away')
    return before


def test_a_user_without_name_and_home(nobody, tmp_path):
    "KeyError 'getpwuid(): uid not found' ended every command, and then 'Could not determine home directory'."
    code = 'from avfake.preparation import clip_cache; import torchvision, torch._dynamo; print(clip_cache())'
    here = {**os.environ, 'PYTHONPATH': str(ROOT)}
    done = subprocess.run([*nobody, sys.executable, '-c', code], cwd=tmp_path, env=here, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert f'avfake-{NOBODY}' in done.stdout
    assert '--cache_dir' in done.stderr and 'AVFAKE_CACHE' in done.stderr


def test_a_cache_that_cannot_be_written_names_the_remedy(nobody, tmp_path):
    (tmp_path / 'videos' / 'real').mkdir(parents=True)
    (tmp_path / 'videos' / 'real' / 'a.mp4').write_text('no video')
    done = avfake('extract', '--data_dir', 'videos', '--cache_dir', '/cache', cwd=tmp_path, before=nobody)
    assert last_line(done).startswith('avfake: /cache') and '--cache_dir' in done.stderr


@pytest.mark.parametrize('encoding', ['cp1252', 'ascii', 'utf-8'])
def test_a_name_that_the_console_cannot_write(encoding, tmp_path):
    "One bad name ended the batch, and said that nothing had begun."
    code = 'from avfake.environment import escape_output as e; e(); print("日本語 \\udce9.mp4"); print("next.mp4")'
    here = {**os.environ, 'PYTHONPATH': str(ROOT), 'PYTHONIOENCODING': encoding}
    done = subprocess.run([sys.executable, '-c', code], env=here, capture_output=True)
    first, second = done.stdout.splitlines()
    assert second == b'next.mp4' and rb'\udce9' in first
    assert (rb'\u65e5' in first) == (encoding != 'utf-8')


# ---------------------------------------------------------------- the folder of a run


def stored(run: Run, **settings):
    "Stages as a run with those settings leaves them."
    config, training = make_configs(**settings)
    facts = json.dumps(facts_of(config, training))
    for name in ('sync.pt', 'density.pt'):
        run.checkpoints.mkdir(parents=True, exist_ok=True)
        save_tensors(dict(fingerprint='a', facts=facts), run.checkpoints / name)


def test_stages_of_another_run_are_named_with_what_differs(tmp_path):
    "Of two files one was named, and the other ended the next run after stage one had been trained anew."
    run = Run(tmp_path / 'out')
    stored(run, epochs=1)
    check_stored(run, *make_configs(epochs=1, workers=7, score_stride=4))  # which training does not depend on
    with pytest.raises(ValueError, match=r'epochs \(was 1, is 2\).*remove density.pt and sync.pt') as error:
        check_stored(run, *make_configs(epochs=2))
    assert 'another save_dir' in str(error.value) and 'seed' not in str(error.value)
    with pytest.raises(ValueError, match='epochs .*, max_shift|max_shift .*, epochs'):
        check_stored(run, *make_configs(epochs=2, max_shift=10))


def test_they_are_looked_for_before_the_extraction(tmp_path):
    stored(Run(tmp_path / 'out'), epochs=1)
    done = avfake('train', '--data_dir', 'none', '--save_dir', 'out', '--epochs', '2', cwd=tmp_path)
    assert 'epochs (was 1, is 2)' in last_line(done)


HOLD = """
import sys, time
from avfake.run import Run
with Run(sys.argv[1]).claim():
    print('held', flush=True)
    time.sleep(60)
"""


def test_two_runs_do_not_share_a_folder(tmp_path, monkeypatch):
    "sync.pt of one stood beside density.pt of the other. The lock of a run that was killed holds nobody up."
    monkeypatch.setattr('avfake.run.ORPHANS', 0.1)
    here = {**os.environ, 'PYTHONPATH': str(ROOT)}
    command = [sys.executable, '-c', HOLD, str(tmp_path / 'out')]
    other = subprocess.Popen(command, env=here, stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout.readline() == 'held\n'
        with pytest.raises(ValueError, match='another run is writing there'), Run(tmp_path / 'out').claim():
            pass
    finally:
        other.kill()
        other.wait()
    for _ in range(50):  # the kernel lets go of it
        try:
            with Run(tmp_path / 'out').claim():
                (tmp_path / 'out' / 'table.csv').touch()
            break
        except ValueError:
            time.sleep(0.1)
    assert [p.name for p in (tmp_path / 'out').iterdir()] == ['table.csv']


def test_a_folder_that_is_a_file(tmp_path):
    (tmp_path / 'out').touch()
    done = avfake('train', '--data_dir', 'none', '--save_dir', 'out', cwd=tmp_path)
    assert 'choose another folder with --save_dir' in last_line(done)


def test_a_run_that_comes_to_nothing_leaves_no_folder(tmp_path):
    done = avfake('train', '--data_dir', 'none', '--save_dir', 'out', cwd=tmp_path)
    assert 'none' in last_line(done) and not (tmp_path / 'out').exists()


# ---------------------------------------------------------------- words and files


@pytest.mark.parametrize(
    'args, words',
    [
        (['train', '--lr', '0.001'], "'lr'. Did you mean 'learning_rate'? See `avfake settings`"),
        (['extract', '--epoch', '3'], "Did you mean 'epochs'?"),
        (['train', '--savedir', 'x'], "Did you mean 'save_dir'?"),
        (['train', 'videos'], '--data_dir videos'),
        (['score', 'x.mp4', '--checkpoint', 'none.pth'], 'none.pth: no such checkpoint'),
        (['compare', 'none.csv', 'none.csv'], 'none.csv: No such file'),
    ],
)
def test_errors_name_what_was_meant_and_the_file(args, words, tmp_path):
    assert words in last_line(avfake(*args, cwd=tmp_path))


def test_a_missing_checkpoint_is_told_before_torch_is_loaded(tmp_path):
    code = f'import sys\ntry:\n    {MAIN}\nfinally:\n    print("torch" in sys.modules)'
    here = {**os.environ, 'PYTHONPATH': str(ROOT)}
    command = [sys.executable, '-c', code, 'score', '--checkpoint', 'none.pth', 'x.mp4']
    done = subprocess.run(command, cwd=tmp_path, env=here, capture_output=True, text=True)
    assert done.stdout.strip() == 'False' and 'no such checkpoint' in done.stderr


def test_a_table_that_a_spreadsheet_saved(tmp_path):
    table = write_results(simulate_results(3), tmp_path / 'a.csv')
    for mark, encoding in ((';', 'utf-8'), ('\t', 'utf-8-sig'), ('\t', 'utf-16')):
        other = tmp_path / 'other.csv'
        other.write_text(table.read_text('utf-8').replace(',', mark), encoding)
        assert read_results(other).equals(read_results(table))
    with_commas = re.sub(r'(?<=\d)\.(?=\d)', '#', table.read_text('utf-8')).replace(',', ';').replace('#', ',')
    assert re.search(r';-?\d+,\d+;', with_commas)
    other.write_text(with_commas)
    assert np.allclose(read_results(other)[['score', 'log_prob']], read_results(table)[['score', 'log_prob']])
    other.write_text('name;value\na;1\n')
    with pytest.raises(ValueError, match='other.csv: not a detailed_results.csv'):
        read_results(other)


@pytest.mark.parametrize(
    'text, words',
    [
        ('path;label;score\na;0;0,5\nb;1;1.234\n', "column score: '1.234' is not clear"),
        ('path;label;score\na;0;0,5\nb;1;1.234,5\n', "column score: '1.234,5' is not clear"),
        ('path;label;score\na;0;01. Mai\nb;1;2,5\n', "column score: '01. Mai' is not clear"),
        (
            'path,label,score\na,0,0,5\nb,1,2,5\n',
            'line 2 has 4 fields and the header 3: if its numbers have decimal commas',
        ),
    ],
)
def test_numbers_that_are_not_clear_are_not_guessed(text, words, tmp_path):
    "With commas for everything each score became 0, and each path a number."
    (tmp_path / 'other.csv').write_text(text)
    line = last_line(avfake('compare', 'other.csv', 'other.csv', cwd=tmp_path))
    assert 'other.csv: not a detailed_results.csv' in line and words in line and 'as avfake wrote it' in line


def test_only_pages_that_avfake_wrote_are_removed(tmp_path):
    "Pages of the run before stood among those of this one, and nothing led to them."
    for name in ('00001.html', '00002.html', 'index.html', 'notes.html', '2024.html'):
        (tmp_path / name).write_bytes(b'<html>' + MARK)
    (tmp_path / '00003.html').write_text("somebody's own")
    remove_pages(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ['00003.html', '2024.html', 'notes.html']


# ---------------------------------------------------------------- how far it has come


@pytest.mark.skipif(sys.platform == 'win32', reason='there are no pseudo-terminals')
def test_one_video_shows_how_far_it_has_come(detector, tmp_path):
    "Of many videos the count was shown; one film of an hour was silent until its end."
    import fcntl
    import pty
    import struct
    import termios

    clip = make_clip(seconds=4)
    film = write_video(tmp_path / 'film.mp4', clip.frames, clip.audio)
    model = tmp_path / 'model.pth'
    save_detector(detector, model)
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack('HHHH', 24, 100, 0, 0))
    here = {**os.environ, 'PYTHONPATH': str(ROOT)}
    command = [sys.executable, '-c', MAIN, 'score', str(film), '--checkpoint', str(model)]
    with subprocess.Popen(command, env=here, stdout=subprocess.DEVNULL, stderr=theirs) as running:
        os.close(theirs)
        shown = b''
        with contextlib.suppress(OSError):  # how a terminal that nobody writes to any more ends
            while part := os.read(ours, 4096):
                shown += part
    os.close(ours)
    assert running.returncode == 0, shown
    for name in (b'read', b'cut', b'score'):
        assert name + b': ' in shown, shown
    assert b'of 4 s' in shown
