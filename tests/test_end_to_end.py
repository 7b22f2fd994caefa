"""From a folder of good and bad videos to tables, figures and verdicts: run.ipynb and commands as a user runs them.

The notebook trains once, on clips so few that nothing is learned; every test here starts from what it wrote."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from filelock import FileLock
from reliability import FULL, counts
from test_notebooks import needs_run, papermill, run

from avfake.media import FPS, SAMPLE_RATE, read_audio, stream_frames
from avfake.metadata import TYPES
from avfake.provenance import DRAWN_ONLY
from avfake.synthetic import make_demo
from avfake.video import write_video

SETTINGS = dict(windows_per_clip=1, density_epochs=1, ar_layers=1, vis_image_size=32, score_stride=8)
COLUMNS = 'path,category,method,source,target,split,label,score,log_prob,sync_score,windows,reason'.split(',')
OUTPUTS = {
    'best_model.pth',
    'training_curves.png',
    'evaluation_results.png',
    'detailed_results.csv',
    'metrics.json',
    'logs',
}
ABLATIONS = {'sync_score', 'marginal_gaussian', 'density_only', 'untrimmed'}
CONTROLS = {
    'random_features',
    'audio_only',
    'video_only',
    'silence',
    'loudness',
    'duration',
    'bit_rate',
    'file_size',
    'resolution',
    'codec',
}
ODD_NAME = """it's "here", ü 50%.MP4"""

pytestmark = needs_run


# ---------------------------------------------------------------- the folder


def noise(seconds, size=96):  # pictures that move and show nobody
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (round(seconds * FPS), size, size, 3), dtype=np.uint8)


def hum(seconds, level=0.1):
    return (level * np.sin(np.arange(round(seconds * SAMPLE_RATE)) / 20)).astype(np.float32)


def write_bad(folder: Path, good: Path) -> dict:  # file name -> reason
    "One video for every way in which a video is bad."
    folder.mkdir(parents=True, exist_ok=True)
    frames, sound = np.stack(list(stream_frames(good))), read_audio(good)
    long = np.concatenate([frames] * 3), np.tile(sound, 3)
    (folder / 'empty.mp4').touch()
    (folder / 'text.mp4').write_text('This is not a video.\n' * 50)
    whole = write_video(folder / 'cut.mp4', *long).read_bytes()
    (folder / 'cut.mp4').write_bytes(whole[: len(whole) // 2])
    write_video(folder / 'mute.mp4', frames, None)
    write_video(folder / 'song.mp4', None, sound)
    write_video(folder / 'silent.mp4', frames, sound * 0)
    write_video(folder / 'nobody.mp4', noise(1.4), hum(1.4))
    write_video(folder / 'short.mp4', frames[:5], sound[: 5 * 640])
    write_video(folder / 'photo.mp4', [frames[0]] * 60, hum(60 / FPS), x264={'mbtree': '1'})
    return {
        'empty.mp4': 'empty file',
        'text.mp4': 'unreadable',
        'cut.mp4': 'truncated',
        'mute.mp4': 'no audio',
        'song.mp4': 'no video',
        'silent.mp4': 'silent',
        'nobody.mp4': 'no face',
        'short.mp4': 'too short',
        'photo.mp4': 'still image',
    }


def make_folder(folder: Path) -> dict:  # path of each bad file -> reason
    "A small demo set, a good clip with an odd name, and bad files among the authentic clips and among the forged ones."
    make_demo(
        folder, n_identities=6, real_per_identity=3, forged_identities=2, seconds=(1.2, 1.4), workers=0, progress=False
    )
    good = min((folder / TYPES[0]).rglob('*.mp4'))
    shutil.copy(good, good.with_name(ODD_NAME))
    reasons = {}
    for i, (name, reason) in enumerate(write_bad(folder / 'bad', good).items()):  # each of somebody else
        kind = TYPES[i % 4] if i % 3 == 2 else TYPES[0]
        place = folder / kind / 'unstated' / 'unstated' / f'id{90000 + i}' / name
        place.parent.mkdir(parents=True)
        (folder / 'bad' / name).rename(place)
        reasons[place.relative_to(folder).as_posix()] = reason
    (folder / 'bad').rmdir()
    return reasons


# ---------------------------------------------------------------- one run for all tests


@pytest.fixture(scope='session')
def trained(tmp_path_factory):
    "The folder in which run.ipynb has run; where tests run in several processes, the first that comes runs it for all."
    here = tmp_path_factory.getbasetemp()
    here = (here.parent if 'PYTEST_XDIST_WORKER' in os.environ else here) / 'end to end'
    with FileLock(f'{here}.lock'):
        if not (here / 'run.json').exists():
            here.mkdir(parents=True)
            reasons = make_folder(here / 'videos')
            status, output = papermill(
                here / 'executed.ipynb',
                here,
                env=dict(AVFAKE_CACHE=str(here / 'cache')),
                data_dir=here / 'videos',
                save_dir=here / 'out',
                epochs=1,
                workers=1,
                settings=SETTINGS,
            )
            (here / 'run.json').write_text(json.dumps(dict(status=status, output=output, reasons=reasons)))
    return here


@pytest.fixture
def finished(trained):
    "The same, for tests that need what the run wrote."
    if json.loads((trained / 'run.json').read_text())['status']:
        pytest.skip('run.ipynb failed: see test_run_notebook')
    return trained


def avfake(here, *args):  # (exit status, what it printed)
    return run('-c', 'from avfake.cli import main; main()', *args, cwd=here, env=dict(AVFAKE_CACHE=str(here / 'cache')))


def kill_when(reached, here, *args) -> bool:  # False when it ended by itself before
    "Begin a command and kill it, with all that it has begun, as soon as something is so."
    process = subprocess.Popen(
        [sys.executable, '-c', 'from avfake.cli import main; main()', *args],
        cwd=here,
        env={**os.environ, 'AVFAKE_CACHE': str(here / 'cache')},
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while process.poll() is None and not reached():
        time.sleep(0.02)
    ended = process.poll() is not None
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return not ended


def read_csv(path):
    assert path.read_text(encoding='utf-8').splitlines()[0].split(',')[: len(COLUMNS)] == COLUMNS
    return pd.read_csv(
        path, keep_default_na=False, na_values=dict(score=[''], log_prob=[''], sync_score=[''], windows=[''])
    )


def check_outputs(here, out, split):
    "Every output is there, every video has its row, and those that can be scored are. The results and the metrics."
    assert {o.name for o in out.iterdir()} >= OUTPUTS - (
        {'best_model.pth', 'training_curves.png', 'logs'} if split == 'all' else set()
    )
    for image in out.glob('*.png'):
        assert image.read_bytes().startswith(b'\x89PNG')
    results, videos = read_csv(out / 'detailed_results.csv'), here / 'videos'
    reasons = json.loads((here / 'run.json').read_text())['reasons']
    assert sorted(results.path) == sorted(
        o.relative_to(videos).as_posix() for o in videos.rglob('*') if o.suffix.lower() == '.mp4'
    )
    bad = results[results.path.isin(reasons)].set_index('path')
    assert bad.reason.to_dict() == reasons
    assert bad.score.isna().all() and bad.log_prob.isna().all() and not bad.windows.any()
    good = results[~results.path.isin(reasons)]
    wanted = good if split == 'all' else good[good.split == split]
    assert len(wanted) and wanted.score.notna().all() and (wanted.reason == '').all() and (wanted.windows > 0).all()
    assert np.isfinite(wanted.score).all() and np.allclose(wanted.score, -wanted.log_prob)
    assert (good.score.notna() == (good.reason == '')).all()
    return results, json.loads((out / 'metrics.json').read_text())


def check_groups(values):
    "Every group has its AUC, except the method 'unknown': no table names the bad files among the forged clips."
    assert set(values) == {'overall', 'by_category', 'by_method', 'by_group'}
    methods = {k: v for k, v in values['by_method'].items() if k != 'unknown'}
    assert set(values['by_category']) == set(TYPES[1:]) and len(methods) >= 3
    assert all(0 <= o <= 1 for o in [values['overall'], *values['by_category'].values(), *methods.values()]), values


# ---------------------------------------------------------------- the tests


def test_run_notebook(trained):
    "In a folder that is not the checkout: nothing in a folder stops a run, and every video is accounted for."
    done = json.loads((trained / 'run.json').read_text())
    assert done['status'] == 0, done['output'][-10_000:]
    results, metrics = check_outputs(trained, trained / 'out', 'test')
    assert any((trained / 'out' / 'logs').iterdir())
    assert results.path.str.endswith(ODD_NAME).sum() == 1
    kept = results[results.reason == '']
    assert not kept.split.isin(['train', 'unused']).any() and not kept[kept.label == 1].split.ne('test').any()
    assert set(results.split) <= {'train', 'validation', 'calibration', 'test', 'unused'}
    check_groups(metrics['auc'])
    assert (set(metrics['ablations']), set(metrics['controls'])) == (ABLATIONS, CONTROLS)
    for values in [*metrics['ablations'].values(), *metrics['controls'].values()]:
        check_groups(values)
    text = (trained / 'executed.ipynb').read_text(encoding='utf-8')
    for reason in set(done['reasons'].values()):
        assert reason in text


def test_checkpoint_is_plain(finished):
    import torch

    saved = torch.load(finished / 'out' / 'best_model.pth', weights_only=True)
    assert (
        saved['state_dict'] and json.loads(saved['config']) and json.loads(saved['metadata'])['training']['epochs'] == 1
    )


def test_evaluate_all(finished):
    status, output = avfake(
        finished,
        'evaluate',
        '--data_dir',
        'videos',
        '--checkpoint',
        'out/best_model.pth',
        '--save_dir',
        'all',
        '--split',
        'all',
        '--workers',
        1,
        '--localisation',
        1,
        '--corrupted',
        0,
    )
    assert status == 0, output
    assert (finished / 'all' / 'results.html').exists()
    results, metrics = check_outputs(finished, finished / 'all', 'all')
    assert metrics['counts']['set_aside']['authentic'] > 10  # which the detector was fitted to
    assert metrics['counts']['identities'] == 1  # the one that is left is too few to make partly forged videos of
    assert not (finished / 'all' / 'localisation.csv').exists()
    assert any('Forged seconds were not looked for' in note for note in metrics['notes'])
    assert (results.label == 0).sum() > 18 and metrics['split'] == 'all'
    check_groups(metrics['auc'])
    assert (set(metrics['ablations']), set(metrics['controls'])) == (ABLATIONS, CONTROLS)
    before = read_csv(finished / 'out' / 'detailed_results.csv').set_index('path').score.dropna()
    again = results.set_index('path').score[before.index]
    assert np.allclose(again, before, atol=1e-4), 'the saved detector scores otherwise than the one that was trained'


def test_score(finished):
    good = min((finished / 'videos' / TYPES[0]).rglob('id0*/*.mp4'))
    status, output = avfake(finished, 'score', '--checkpoint', 'out/best_model.pth', '--report', 'one.html', good)
    assert status == 0, output
    verdict = [o for o in output.splitlines() if good.name in o]
    assert output.splitlines()[-1].endswith('one.html') and '<video' in (finished / 'one.html').read_text()
    assert len(verdict) == 1
    assert 'ANOMALOUS (score' in verdict[0] or 'no anomaly found (score' in verdict[0]
    for text in (output, (finished / 'one.html').read_text(), (finished / 'out' / 'results.html').read_text()):
        assert DRAWN_ONLY in text  # it was trained on the demo's heads


def test_score_with_bad_files(finished):
    "Each gets its line; the exit status tells that some were not scored."
    reasons = json.loads((finished / 'run.json').read_text())['reasons']
    good = sorted((finished / 'videos' / TYPES[0]).rglob('id0*/*.mp4'))[:2]
    (empty := finished / 'empty folder').mkdir(exist_ok=True)
    files = [good[0], *(finished / 'videos' / o for o in reasons), 'no such file.mp4', empty, good[1]]
    status, output = avfake(
        finished, 'score', '--checkpoint', 'out/best_model.pth', '--json', '--report', 'pages', *files
    )
    assert status == 1, output
    notes = [o for o in output.splitlines() if o.startswith('avfake: ')]  # on the standard error
    said = [json.loads(o, parse_constant=pytest.fail) for o in output.splitlines() if o not in notes]
    assert [o['path'] for o in said] == [str(o) for o in files]
    assert [o['reason'].split(':')[0] for o in said] == ['', *reasons.values(), 'missing', 'not a file', '']
    for verdict in said:
        if verdict['reason']:
            assert verdict['score'] is None and verdict['verdict'] == 'cannot be judged'
        else:
            assert verdict['verdict'] in ('anomalous', 'no anomaly found') and 0 < verdict['p_value'] <= 1
    pages = sorted(p.name for p in (finished / 'pages').iterdir())
    assert pages == [*(f'{i + 1:05d}.html' for i in range(len(files))), 'index.html']
    assert all(f'href="{p}"' in (finished / 'pages' / 'index.html').read_text() for p in pages[:-1])


@pytest.mark.parametrize('kind', TYPES[:2])
def test_evaluate_one_class_only(finished, tmp_path, kind):
    "A plain folder without forged clips, or without authentic ones: scored, and AUC is said to be undefined."
    name = 'real' if kind == TYPES[0] else 'forged'
    (tmp_path / name).mkdir()
    for i, o in enumerate(sorted((finished / 'videos' / kind).rglob('id0*/*.mp4'))[:3]):
        shutil.copy(o, tmp_path / name / f'{i}.mp4')
    (tmp_path / name / 'empty.mp4').touch()
    status, output = avfake(
        finished,
        'evaluate',
        '--data_dir',
        tmp_path,
        '--checkpoint',
        'out/best_model.pth',
        '--save_dir',
        tmp_path / 'out',
        '--split',
        'all',
        '--workers',
        1,
    )
    assert status == 0, output
    assert 'AUC and the other metrics are undefined' in output
    results, metrics = (
        read_csv(tmp_path / 'out' / 'detailed_results.csv'),
        json.loads((tmp_path / 'out' / 'metrics.json').read_text()),
    )
    assert results.score.notna().sum() == 3 and results.reason[results.score.isna()].tolist() == ['empty file']
    assert set(results.label) == {int(name == 'forged')} and metrics['auc']['overall'] is None
    assert (tmp_path / 'out' / 'evaluation_results.png').exists()


def test_reproduce(finished):
    """The notebook run again with another number of workers; `make test-reliability` kills it first after stage one.

    Every score and the weights are the same to the last bit."""
    again = 'reproduce', 'executed.ipynb', '--save_dir', 'again', '--workers', '2'
    if FULL:
        stage_one = finished / 'again' / 'results' / 'checkpoints' / 'sync.pt'
        killed = kill_when(stage_one.is_file, finished, *again)
        assert killed and not (finished / 'again' / 'results' / 'best_model.pth').exists()
    status, output = avfake(finished, *again)
    assert status == 0 and output.splitlines()[-1] == 'every score is the same to the last digit', output[-5000:]
    import torch

    one, other = (
        torch.load(finished / o / 'best_model.pth', weights_only=True)['state_dict'] for o in ('out', 'again/results')
    )
    different = [k for k in one if not torch.equal(one[k], other[k])]
    counts('runs repeated', with_the_same_seed=1, tensors=len(one), different=len(different))
    assert not different
    status, output = avfake(finished, 'reproduce', 'videos/meta_data.csv')
    assert status == 2
    check_one_line(output, 'not a notebook')


def train(here, *more):
    return avfake(
        here,
        'train',
        '--data_dir',
        'videos',
        '--save_dir',
        'out',
        '--epochs',
        1,
        '--workers',
        1,
        *(o for k, v in SETTINGS.items() for o in (f'--{k}', v)),
        *more,
    )


def test_train_again(finished):
    "The same settings find everything done; others are refused, so that nothing is overwritten."
    log = finished / 'out' / 'logs' / 'training.log'
    csv = finished / 'out' / 'detailed_results.csv'
    before = log.read_text()
    scores = read_csv(csv).score

    def epochs(text):
        return [o for o in text.splitlines() if 'epoch=' in o]

    status, output = train(finished)
    assert status == 0, output
    assert epochs(log.read_text()) == epochs(before), 'it trained again'
    assert np.allclose(read_csv(csv).score, scores, atol=1e-4, equal_nan=True)
    model = (finished / 'out' / 'best_model.pth').read_bytes()
    status, output = train(finished, '--learning_rate', '5e-4')
    assert status == 2, output
    check_one_line(output, 'other settings')
    assert (finished / 'out' / 'best_model.pth').read_bytes() == model


def check_one_line(output, words):
    "The error is the last line, in words, and there is no traceback."
    assert (
        'Traceback' not in output
        and words in output.splitlines()[-1]
        and output.splitlines()[-1].startswith('avfake: ')
    ), output
    assert not [o for o in output.splitlines()[:-1] if o.startswith('avfake: ')]


ONE_BY_ONE = """
import sys
from avfake.cli import main
for path in sys.argv[1:]:
    sys.argv = ['avfake', 'score', '--checkpoint', path, 'any.mp4']
    try: main()
    except SystemExit as e: assert e.code == 2
"""


def test_bad_checkpoints(finished, tmp_path):
    "One line each, which names the file."
    whole, (cut, garbage, other) = (
        (finished / 'out' / 'best_model.pth').read_bytes(),
        [tmp_path / f'{i}.pth' for i in range(3)],
    )
    cut.write_bytes(whole[: len(whole) // 2])
    garbage.write_bytes(os.urandom(1000))
    shutil.copy(finished / 'out' / 'controls.pth', other)
    paths = [cut, garbage, other, tmp_path / 'missing.pth', tmp_path]
    status, output = run('-c', ONE_BY_ONE, *paths, cwd=tmp_path)
    assert status == 0, output
    assert len(output.splitlines()) == len(paths)
    for path, line in zip(paths, output.splitlines()):
        check_one_line(line, str(path))
