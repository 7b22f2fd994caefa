"""A run's folder and its split: what training stored is read by everything after it; an evaluation is written whole."""

import json
import re
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

import avfake.preparation as preparation
import avfake.scoring as scoring
from avfake.detector import make_config
from avfake.identities import trained_digests, trained_identities
from avfake.metadata import TYPES
from avfake.preparation import draw_split, prepare
from avfake.results import simulate_results
from avfake.run import Run, evaluate, flag_trained, judged_split, prepare_for, summary
from avfake.splits import SPLITS
from avfake.stored_splits import save_split, split_hash

ROOT = Path(__file__).resolve().parent.parent


# ---------------------------------------------------------------- a folder, a stub of its extraction, and of a detector


CALIBRATION = torch.arange(16.0)


def touch(path: Path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(str(path).encode())


@pytest.fixture
def folder(tmp_path):
    "Forty people with eight authentic clips each; ten of them with eight forged ones."
    for person in range(40):
        for clip in range(8):
            touch(tmp_path / 'data' / TYPES[0] / 'a' / 'men' / f'id{person:05d}' / f'{clip:05d}.mp4')
            if person < 10:
                touch(tmp_path / 'data' / TYPES[1] / 'a' / 'men' / f'id{person:05d}' / f'{clip:05d}_fake.mp4')
    return tmp_path / 'data'


@pytest.fixture
def extraction(monkeypatch):
    "Every video can be used, except those whose name begins with bad; gives back what extraction was asked for."
    asked = []

    def extract(manifest, data_dir, *_, **options):
        asked.append(options)
        bad = manifest.path.str.contains('/bad')
        bytes_of = [(Path(data_dir) / path).read_bytes() for path in manifest.path]
        entries = ['' if b else f'{hash(content):x}' for content, b in zip(bytes_of, bad)]
        return pd.DataFrame(
            dict(path=manifest.path, entry=entries, reason=np.where(bad, 'unreadable', ''), detail='', format='mp4')
        )

    monkeypatch.setattr(preparation, 'extract_clips', extract)
    return asked


def trained_in(run: Run, prepared, seed: int):
    "What training leaves: the stored split, and a detector that knows its hash and who was trained on."
    manifest, digests = prepared.manifest, prepared.digests()
    digest = save_split(manifest, run.split, seed, digests=digests)
    metadata = dict(split_hash=digest, seed=seed, trained_on=trained_identities(manifest))
    metadata['trained_digests'] = trained_digests(manifest, digests)
    return SimpleNamespace(
        cfg=make_config('small'), metadata=metadata, calibration=CALIBRATION, calibration_identities=CALIBRATION % 9
    )


@pytest.fixture
def trained(folder, extraction, tmp_path):
    "A run that was trained with seed 1, its detector, and its split."
    prepared = prepare(folder, seed=1)
    run = Run(tmp_path / 'run')
    return SimpleNamespace(run=run, detector=trained_in(run, prepared, 1), prepared=prepared)


def splits(prepared):
    return prepared.manifest.set_index('path').split


# ---------------------------------------------------------------- preparing


def test_what_cannot_be_used_is_in_no_split(folder, extraction):
    bad = folder / TYPES[0] / 'a' / 'men' / 'id99999' / 'bad.mp4'
    touch(bad)
    prepared = prepare(folder, seed=3)
    assert splits(prepared)[bad.relative_to(folder).as_posix()] == 'unused'
    assert '1 unreadable (this does not open as a video' in str(prepared) and '1 videos rejected' in str(prepared)
    counts = prepared.manifest[prepared.manifest.label == 0].split.value_counts()
    assert counts.drop('unused').sum() == 320 and set(counts.index) == {*SPLITS, 'unused'}
    fractions = counts / 320
    assert abs(fractions.train - 0.68) < 0.05 and abs(fractions.test - 0.17) < 0.05
    for role in ('train', 'validation', 'calibration'):
        clips = prepared.clips(role)
        assert (clips.role, len(clips)) == (role, counts[role]) and len(set(clips.identities)) == counts[role] / 8
    trained = {who for role in ('train', 'validation') for who in prepared.clips(role).identities}
    assert trained == set(trained_identities(prepared.manifest))


def test_a_folder_without_usable_authentic_videos_says_why():
    manifest = pd.DataFrame(dict(path=['a', 'b'], label=[0, 1], source=['x', 'x']))
    table = pd.DataFrame(dict(path=['a', 'b'], reason=['no face', '']))
    with pytest.raises(ValueError, match='no authentic video can be used: 1 no face'):
        draw_split(manifest, table)


def test_retry_and_time_limit_reach_the_extraction(folder, extraction, trained):
    "Fault 14: a video that once took too long was rejected for good; nothing passed on that it may be tried again."
    prepare(folder, draw=False, retry=True, time_limit=7.0)
    prepare_for(trained.detector, trained.run, folder, retry=True)
    assert (extraction[-2]['retry'], extraction[-2]['time_limit'], extraction[-1]['retry']) == (True, 7.0, True)


def test_copies_stay_on_one_side(folder, extraction):
    "Fault 12: the bytes of a training clip stood in the test under another name and another person's folder."
    first = folder / TYPES[0] / 'a' / 'men' / 'id00000' / '00000.mp4'
    second = first.parent.parent / 'id00001' / 'copy.mp4'
    shutil.copy(first, second)
    for seed in range(3):
        prepared = prepare(folder, seed=seed)
        of = splits(prepared)
        assert of[first.relative_to(folder).as_posix()] == of[second.relative_to(folder).as_posix()]
        assert any('are the same video' in note for note in prepared.notes)


# ---------------------------------------------------------------- the stored split


def leaked(prepared, detector):
    "Authentic test clips of people who were trained on."
    m = prepared.manifest
    return m[(m.split == 'test') & (m.label == 0) & m.source.isin(detector.metadata['trained_on'])]


@pytest.mark.parametrize('seed', [None, 0, 1, 2])
def test_another_seed_draws_no_other_split(folder, trained, seed):
    "Fault 01: `avfake evaluate` with another seed split anew, and tested 3 of 7 people as unseen who were trained on."
    again = prepare_for(trained.detector, trained.run, folder, seed=seed)
    assert len(leaked(again, trained.detector)) == 0
    assert splits(again).equals(splits(trained.prepared))
    assert split_hash(again.manifest) == trained.detector.metadata['split_hash']
    contradicts = [note for note in again.notes if 'draws no other' in note]
    assert bool(contradicts) == (seed in (0, 2))


def test_fewer_videos_keep_their_split(folder, trained):
    "Fault 01: `--max_videos_per_class 40` split the forty anew, and tested people who were trained on."
    again = prepare_for(trained.detector, trained.run, folder, max_videos_per_class=40)
    of = splits(again)
    assert len(of) == 80 and of.equals(splits(trained.prepared)[of.index])
    assert len(leaked(again, trained.detector)) == 0
    assert any('320 videos of the stored split are not among these' in n for n in again.notes), again.notes


def test_a_video_that_came_later_is_in_no_split(folder, trained):
    "Fault 01: one more clip changed everybody's split. It belongs to none, is said, and its person stays trained on."
    person = trained.detector.metadata['trained_on'][0]
    late = folder / TYPES[0] / 'a' / 'men' / person / '00099.mp4'
    touch(late)
    again = prepare_for(trained.detector, trained.run, folder)
    path = late.relative_to(folder).as_posix()
    row = again.manifest.set_index('path').loc[path]
    assert (row.split, bool(row.seen_identity)) == ('', True)
    assert splits(again).drop(path).equals(splits(trained.prepared))
    assert any('came after the split was stored' in note for note in again.notes)


def test_a_split_of_another_run_is_refused(folder, extraction, trained):
    trained_in(trained.run, prepare(folder, seed=2), 2)  # the folder's split is now that of another training
    with pytest.raises(ValueError, match='checkpoint and split are of different runs'):
        prepare_for(trained.detector, trained.run, folder)


def test_without_the_stored_split_nobody_is_called_unseen(folder, trained, tmp_path):
    checkpoint = tmp_path / 'elsewhere' / 'copy.pth'
    with pytest.raises(FileNotFoundError, match='--split all'):
        prepare_for(trained.detector, checkpoint, folder)


def test_another_folder_is_judged_whole(folder, trained, tmp_path):
    "It has no split, and nobody is asked for one; the results do not replace those of the training."
    checkpoint = tmp_path / 'elsewhere' / 'copy.pth'
    other = tmp_path / 'other' / 'videos'
    for i in range(3):
        touch(other / 'real' / f'{i}.mp4')
    for run in (trained.run, checkpoint):
        prepared = prepare_for(trained.detector, run, other)
        assert set(prepared.manifest.split) == {'all'} and judged_split(prepared, 'test') == 'all'
        assert 'all of its videos are judged' in prepared.notes[0]
    assert trained.run.evaluation(prepared, 'all').folder == trained.run.folder / 'evaluations' / 'videos'
    assert trained.run.evaluation(prepared, 'all').folder == trained.run.folder / 'evaluations' / 'videos'  # again
    own = prepare_for(trained.detector, trained.run, folder)
    assert judged_split(own, 'test') == 'test' and trained.run.evaluation(own, 'test') == trained.run
    assert set(prepare_for(trained.detector, checkpoint, other, 'all').manifest.split) == {'all'}


def test_two_folders_of_one_name_are_evaluated_apart(trained, tmp_path):
    "The second evaluation replaced that of another data set."
    runs = []
    for place in 'abab':
        touch(tmp_path / place / 'data' / 'real' / '1.mp4')
        prepared = prepare_for(trained.detector, trained.run, tmp_path / place / 'data')
        runs.append(trained.run.evaluation(prepared, 'all'))
    assert runs[:2] == runs[2:]
    first, second = (run.folder.name for run in runs[:2])
    assert first == 'data' and re.fullmatch('data-[0-9a-f]{8}', second)
    with runs[1].claim():
        pass  # nothing came of it
    assert not runs[1].folder.exists() and runs[0].folder.exists()


def test_all_videos_of_the_folder_that_was_trained_on(folder, trained):
    "Fault 08: with `--split all` the clips trained on counted as authentic test clips, and nothing said so."
    manifest = prepare_for(trained.detector, trained.run, folder, 'all').manifest
    known = manifest.source.isin(trained.detector.metadata['trained_on'])
    assert manifest.seen_identity.tolist() == known.tolist()
    authentic = manifest[(manifest.label == 0) & manifest.seen_identity]
    assert len(authentic) == 8 * len(trained.detector.metadata['trained_on'])
    assert set(authentic.split) == {'train', 'validation'}


def test_a_copy_of_a_training_clip_is_never_unseen(folder, trained, tmp_path):
    "In another folder, under another name, of nobody that is known."
    clip = trained.prepared.usable('train').path.iloc[0]
    copy = tmp_path / 'other' / 'real' / 'someone' / 'x.mp4'
    copy.parent.mkdir(parents=True)
    shutil.copy(folder / clip, copy)
    touch(copy.with_name('y.mp4'))
    prepared = prepare(tmp_path / 'other', draw=False)
    flagged = flag_trained(prepared, trained.detector, Run(tmp_path / 'elsewhere')).manifest
    assert flagged.set_index('path').seen_identity.to_dict() == {
        'real/someone/x.mp4': True,
        'real/someone/y.mp4': False,
    }


# ---------------------------------------------------------------- evaluations


@pytest.fixture
def measured(monkeypatch, trained):
    "Scores that need no network, of which some are of forged seconds and of corruptions."
    results = simulate_results(8)
    scored = {path: SimpleNamespace(frame_log_prob=np.zeros(9)) for path in results.path}
    silence = dict(silence=pd.Series(np.arange(len(results), dtype=float), results.path))
    given = SimpleNamespace(results=results, controls=silence)
    monkeypatch.setattr(scoring, 'score_table', lambda *_, **__: (given.results, given.controls, scored))
    curves = pd.DataFrame([dict(corruption='blur', severity=s, auc=0.123 + s / 1000) for s in (0, 1)])
    monkeypatch.setattr(scoring, 'corrupted_scores', lambda *_: None)
    monkeypatch.setattr(scoring, 'robustness_table', lambda *_: curves)
    monkeypatch.setattr(scoring, 'plot_robustness', lambda _: scoring.plot_auc_by_group(SAMPLE))
    return given


SAMPLE = scoring.evaluate_results(simulate_results(4), n_bootstrap=5)


def test_nothing_of_an_earlier_evaluation_is_shown(measured, trained, tmp_path):
    "Fault 06: tables and figures of last month's detector stood on the new page, and were hashed as its own."
    run = Run(tmp_path / 'out')
    found = evaluate(trained.detector, trained.prepared, run, corrupted=2)
    assert run.robustness.is_file() and '0.123' in run.page.read_text()
    assert set(found.metrics['files']) == {
        'detailed_results.csv',
        'robustness.csv',
        'evaluation_results.png',
        'controls.png',
        'robustness.png',
    }
    run.localisation.write_text('of nobody knows which detector')
    again = evaluate(trained.detector, trained.prepared, run)
    assert not run.robustness.exists() and not run.robustness_figure.exists() and not run.localisation.exists()
    page = run.page.read_text()
    assert '0.123' not in page and 'under corruption' not in page and 'Which seconds' not in page
    files = {'detailed_results.csv', 'evaluation_results.png', 'controls.png'}
    assert set(again.metrics['files']) == set(json.loads(run.metrics.read_text())['files']) == files
    assert 'robustness' not in summary(run)


def test_no_control_comes_near_is_said_only_where_one_was_measured(measured, trained, tmp_path):
    "Fault 06: the page of an evaluation without forged clips and without controls said that none came near."
    sentence = 'no control reaches the AUC of the detector'
    evaluate(trained.detector, trained.prepared, tmp_path)
    assert sentence in Run(tmp_path).page.read_text()
    measured.controls = {}
    evaluate(trained.detector, trained.prepared, tmp_path)
    page = Run(tmp_path).page.read_text()
    assert sentence not in page and 'No control was measured' in page
    measured.results = measured.results[measured.results.label == 0]
    evaluate(trained.detector, trained.prepared, tmp_path)
    page = Run(tmp_path).page.read_text()
    assert sentence not in page and 'Nothing was compared' in page


def test_page_and_summary_say_which_clips_the_threshold_comes_from(measured, trained, tmp_path):
    "Fault 07: 32 validation clips counted as calibration clips, and nothing said so."
    trained.detector.metadata['fitted'] = dict(calibration=dict(role='calibration', clips=16, identities=9))
    evaluate(trained.detector, trained.prepared, tmp_path)
    sentence = 'The threshold comes from 16 authentic clips of 9 identities, of the calibration split'
    assert sentence in summary(tmp_path) and sentence in Run(tmp_path).page.read_text()
    assert json.loads(Run(tmp_path).metrics.read_text())['calibration']['clips'] == 16
    del trained.detector.metadata['fitted']  # a checkpoint of an older version
    evaluate(trained.detector, trained.prepared, tmp_path)
    assert 'validation clips, which training has used, may be among them' in summary(tmp_path)


def test_what_is_said_of_the_split_stands_in_the_evaluation(measured, trained, folder, tmp_path):
    prepared = prepare_for(trained.detector, trained.run, folder, seed=0)
    found = evaluate(trained.detector, prepared, tmp_path)
    assert any('seed 0 draws no other' in note for note in found.metrics['notes'])
    assert 'seed 0 draws no other' in Run(tmp_path).page.read_text()


# ---------------------------------------------------------------- folders of earlier versions


def test_files_have_the_names_they_always_had(tmp_path):
    run = Run(tmp_path)
    names = dict(
        checkpoint='best_model.pth',
        controls='controls.pth',
        split='split',
        logs='logs',
        history='history.csv',
        training_curves='training_curves.png',
        results='detailed_results.csv',
        metrics='metrics.json',
        page='results.html',
        localisation='localisation.csv',
        robustness='robustness.csv',
    )
    assert {name: getattr(run, name).relative_to(tmp_path).as_posix() for name in names} == names
    assert Run.of(run.checkpoint) == Run.of(tmp_path) == Run.of(str(tmp_path)) == Run.of(run) == run


def test_a_split_without_digests_can_be_read(folder, trained):
    "An earlier version stored no digests."
    file = trained.run.split / 'split.csv'
    stored = pd.read_csv(file, dtype=str, keep_default_na=False)
    stored.drop(columns='digest').to_csv(file, index=False)
    again = prepare_for(trained.detector, trained.run, folder)
    assert splits(again).equals(splits(trained.prepared))


def test_the_summary_of_an_earlier_version(tmp_path):
    shutil.copy(ROOT / 'nbs' / 'results' / 'newsreaders.json', tmp_path / 'metrics.json')
    text = summary(tmp_path)
    assert 'AUC of the anomaly score on test clips' in text and text.splitlines()[-1].endswith('metrics.json')


# ---------------------------------------------------------------- the command line


def command(monkeypatch, capsys, *args):
    "Exit status, and what the command line wrote on the standard error."
    from avfake import cli

    monkeypatch.setattr(sys, 'argv', ['avfake', *map(str, args)])
    with pytest.raises(SystemExit) as end:
        cli.main()
    return end.value.code, capsys.readouterr().err


def test_an_error_is_one_line_and_its_traceback_is_to_be_had(monkeypatch, capsys, tmp_path):
    "The command line hid every traceback."
    monkeypatch.setenv('AVFAKE_DEBUG', '')
    args = 'summary', '--save_dir', tmp_path
    status, error = command(monkeypatch, capsys, *args)
    assert (status, error.count('\n')) == (2, 1) and error.startswith('avfake: ') and 'holds no metrics.json' in error
    for debug in (['--debug', *args], args):  # the second finds AVFAKE_DEBUG=1
        status, error = command(monkeypatch, capsys, *debug)
        assert status == 2 and error.startswith('Traceback') and 'in read_metrics' in error
        assert error.splitlines()[-1].startswith('avfake: ')


def test_flags_reach_the_extraction(monkeypatch, capsys, folder, extraction):
    "Fault 14, on the command line: the message names a time limit that no flag could raise."
    args = 'extract', '--data_dir', folder, '--retry', '--time_limit', '7', '--max_shift', '10'
    assert command(monkeypatch, capsys, *args) == (0, '')
    assert (extraction[-1]['retry'], extraction[-1]['time_limit']) == (True, 7.0)
    command(monkeypatch, capsys, 'extract', '--data_dir', folder)
    assert (extraction[-1]['retry'], extraction[-1]['time_limit']) == (False, 120.0)
