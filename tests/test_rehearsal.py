"""A rehearsal of some forty clips: the sets are what they say, and whatever is stopped goes on where it was."""

import json
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import psutil
import pytest

from avfake import rehearsal, rehearsal_stages
from avfake.files import file_digest
from avfake.layouts import index_videos
from avfake.rehearsal import STAGES, Stage, memory, plot_rehearsal, rehearse, watch
from avfake.rehearsal_sets import Size, claim, make_fakeavceleb, plan_fakeavceleb
from avfake.rehearsal_stages import FAKEAVCELEB, LAVDF, Done, kept
from avfake.synthetic import make_demo

FEW = Size(people=10, forged=0.0015, lavdf=0.0005, sample=6, windows=1, seconds=(1.2, 1.4))
CLIPS = {  # files of each type: 10 people, 0.15% of the forged clips
    'RealVideo-RealAudio': 10,
    'RealVideo-FakeAudio': 1,
    'FakeVideo-RealAudio': 8 + 6 + 1,
    'FakeVideo-FakeAudio': 7 + 4 + 4,
}
SLOWLY = """
import sys, time
from pathlib import Path
from avfake import rehearsal_sets as sets

def slowly(clip, number, f=sets.with_number):
    time.sleep(0.05)
    return f(clip, number)

sets.with_number = slowly
folder = Path(sys.argv[1])
sets.make_fakeavceleb(folder / 'FakeAVCeleb', folder / 'drawn', sets.size_of(folder))
"""


@pytest.fixture(scope='module')
def drawn(tmp_path_factory):
    folder = tmp_path_factory.mktemp('drawn') / 'drawn'
    return make_demo(folder, FEW.people, 1, FEW.drawn_forged, FEW.seconds, size=96, workers=0, progress=False)


@pytest.fixture(scope='module')
def folder(drawn, tmp_path_factory):
    "A folder in which the sets are made, indexed and split."
    folder = claim(tmp_path_factory.mktemp('rehearsal') / 'all', FEW)
    (folder / 'drawn').symlink_to(drawn)
    for stage in STAGES:
        if stage.name in ('files', 'index', 'hashes and split'):
            stage(folder)
    return folder


def stage(data_set, name):
    return next(s for s in STAGES if (s.data_set, s.name) == (data_set, name))


def test_the_index_finds_the_layout_and_every_label(folder):
    manifest, report = index_videos(folder / FAKEAVCELEB)
    assert report.layout == 'FakeAVCeleb'
    assert report.classes == CLIPS
    assert (report.rows, report.duplicate_rows, report.conflicting_rows) == (42, 1, 1)
    assert (report.rows_without_file, report.files_without_row, report.malformed_rows) == (0, 0, 0)
    assert list(manifest.label) == [int(not p.startswith('RealVideo-RealAudio')) for p in manifest.path]
    planned = {p.path: p for p in plan_fakeavceleb(FEW)}
    for row in manifest.itertuples():
        plan = planned[row.path]
        assert row.method == plan.method
        assert row.source == f'id{plan.person:05d}'
        assert row.target == ('' if plan.target is None else f'id{plan.target:05d}')


def test_everybody_has_one_authentic_clip_and_no_two_clips_have_one_hash(folder):
    manifest = kept(folder, FAKEAVCELEB)
    authentic = manifest[manifest.label == 0]
    assert authentic.source.value_counts().to_dict() == {f'id{i:05d}': 1 for i in range(10)}
    assert set(authentic.split) == {'train', 'validation', 'calibration', 'test'}
    assert len({file_digest(folder / FAKEAVCELEB / path) for path in manifest.path}) == sum(CLIPS.values())


def test_lavdf_keeps_its_authors_split(folder):
    manifest, report = index_videos(folder / LAVDF)
    assert (report.layout, len(manifest), (manifest.label == 0).sum()) == ('LAV-DF', 69, 18)
    assert (report.malformed_rows, report.rows_without_file, report.files_without_row) == (0, 0, 0)
    split = kept(folder, LAVDF)
    for place in ('train', 'validation', 'calibration', 'test'):
        assert ((split.split == place) & (split.label == 0)).any()
    assert set(split.split[split.path.str.startswith('test/')]) <= {'calibration', 'test', 'unused'}


def test_what_is_there_is_not_made_again(folder):
    before = {p: p.stat().st_mtime_ns for p in folder.rglob('*.mp4')}
    assert stage(FAKEAVCELEB, 'files')(folder) == Done(0)
    assert stage(LAVDF, 'files')(folder) == Done(0)
    assert {p: p.stat().st_mtime_ns for p in folder.rglob('*.mp4')} == before


def test_making_that_was_killed_goes_on(folder, drawn, tmp_path):
    other = claim(tmp_path / 'killed', FEW)
    (other / 'drawn').symlink_to(drawn)
    process = subprocess.Popen([sys.executable, '-c', SLOWLY, str(other)])
    while len(made := list(other.glob('FakeAVCeleb/**/[!.]*.mp4'))) < 5:
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    made = list(other.glob('FakeAVCeleb/**/[!.]*.mp4'))
    assert 5 <= len(made) < 41
    assert not (other / FAKEAVCELEB / 'meta_data.csv').exists()
    assert make_fakeavceleb(other / FAKEAVCELEB, other / 'drawn', FEW) == 41 - len(made)
    assert not list(other.glob('FakeAVCeleb/**/.*'))
    for path in kept(folder, FAKEAVCELEB).path:
        assert file_digest(other / FAKEAVCELEB / path) == file_digest(folder / FAKEAVCELEB / path)


def test_all_stages_of_both_sets(folder):
    done = {}
    for s in STAGES:
        if s.name not in ('drawing', 'files', 'index', 'hashes and split', 'controls'):
            done[s.data_set, s.name] = s(folder)
    assert done[FAKEAVCELEB, 'extraction'] == done[FAKEAVCELEB, 'scoring'] == Done(6, 41)
    assert done[FAKEAVCELEB, 'extraction of authentic clips'] == Done(10)
    authentic = kept(folder, FAKEAVCELEB).query('label == 0')
    assert done[FAKEAVCELEB, 'stage one'] == Done((authentic.split == 'train').sum())
    assert (folder / 'run' / 'best_model.pth').is_file()
    second = kept(folder, LAVDF).query('label == 0')
    read = second.split.isin(['train', 'validation']).sum()
    assert done[LAVDF, 'features'] == Done(6, read)
    assert done[LAVDF, 'stage two'] == Done(read)
    assert not list((folder / 'run of LAV-DF').glob('*.windows'))  # the features are gone again
    results = pd.read_csv(folder / 'evaluation of FakeAVCeleb' / 'detailed_results.csv')
    metrics = json.loads((folder / 'evaluation of LAV-DF' / 'metrics.json').read_text())
    assert len(results) == 41
    assert (metrics['counts']['authentic'], metrics['counts']['forged']) == (18, 51)
    assert metrics['auc_ci']['overall']


def test_repeated_features_are_those_of_the_clips_in_turn():
    batches = [[(np.arange(2), 'a', 'p')], [(np.arange(1), 'b', 'q'), (np.arange(3), 'c', 'r')]]
    given = list(rehearsal_stages.repeated_features(batches)(None, ['x'] * 3))
    assert [(number, features) for number, _, features, _ in given] == [(0, 'a'), (1, 'b'), (1, 'c'), (2, 'a')]


def test_a_stopped_rehearsal_goes_on_with_the_stage_that_it_was_in(tmp_path, monkeypatch):
    stages = [Stage('a', 'first', None), Stage('a', 'second', None), Stage('b', 'first', None)]
    ran = []
    stop = ['second']

    def fake(command, log):
        ran.append(tuple(command[-2:]))
        if command[-1] in stop:
            stop.clear()
            raise KeyboardInterrupt
        (tmp_path / 'stage.json').write_text(json.dumps(dict(clips=4, of=12, seconds=2.0, peak_mib=70.0)))
        return 50.0

    monkeypatch.setattr(rehearsal, 'watch', fake)
    with pytest.raises(KeyboardInterrupt):
        rehearse(tmp_path, stages)
    assert len(pd.read_csv(tmp_path / 'rehearsal.csv')) == 2
    table = rehearse(tmp_path, stages)
    assert ran == [('a', 'first'), ('a', 'second'), ('a', 'second'), ('b', 'first')]
    assert list(table.clips) == [4, 12] * 3
    assert list(table.seconds) == [2.0, 6.0] * 3
    assert list(table.how) == ['measured', 'extrapolated from 4'] * 3
    assert set(table.peak_mib) == {70.0}
    pd.testing.assert_frame_equal(rehearse(tmp_path, stages), table, check_dtype=False)
    assert len(ran) == 4


def test_a_folder_goes_on_with_its_own_size_only(tmp_path):
    claim(tmp_path, FEW)
    with pytest.raises(ValueError, match='was begun with'):
        claim(tmp_path, Size())


def test_the_memory_of_children_counts(tmp_path):
    child = 'import time; x = bytearray(300 * 2**20); time.sleep(1.5)'
    parent = f'import subprocess, sys; subprocess.run([sys.executable, "-c", "{child}"])'
    peak = watch([sys.executable, '-c', parent], tmp_path / 'log')
    assert 300 < peak < 400
    with pytest.raises(RuntimeError, match='status 1(.|\n)*ZeroDivisionError'):
        watch([sys.executable, '-c', '1/0'], tmp_path / 'log')


def test_an_interruption_ends_all_that_a_stage_started(tmp_path, monkeypatch):
    child = 'import time; time.sleep(60)'
    parent = f'import subprocess, sys; subprocess.run([sys.executable, "-c", "{child}"])'
    family = []

    def interrupted(process):
        family[:] = [process, *process.children(recursive=True)]
        if len(family) == 2:
            raise KeyboardInterrupt
        return memory(process)

    monkeypatch.setattr(rehearsal, 'memory', interrupted)
    with pytest.raises(KeyboardInterrupt):
        watch([sys.executable, '-c', parent], tmp_path / 'log')
    gone, alive = psutil.wait_procs(family, timeout=10)
    assert not alive


def test_the_figure_shows_every_stage():
    measured = dict(seconds=3.0, peak_mib=900.0, how='measured')
    rows = [dict(set=s.data_set, stage=s.name, clips=100 if s.data_set == LAVDF else 10, **measured) for s in STAGES]
    fig = plot_rehearsal(pd.DataFrame(rows))
    seconds, peaks, _ = fig.axes
    assert len(seconds.get_yticklabels()) == len(STAGES)
    assert {ax.get_xscale() for ax in fig.axes} == {'log'}
    assert sum(len(line.get_xdata()) for line in seconds.lines) == len(STAGES)
