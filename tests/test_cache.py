"""What extraction remembers of a video: for good what is the file's fault, once what may have been the machine's."""

import json
import os

import pandas as pd
import pytest

from avfake import extraction
from avfake.cache import entry_path
from avfake.extraction import extract_clip, extract_clips
from avfake.files import file_digest
from avfake.synthetic import make_clip
from avfake.video import write_video
from avfake.workers import Lost


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp('videos')
    clip = make_clip(0, 1.2)
    write_video(folder / 'v.mp4', clip.frames, clip.audio)
    os.utime(folder / 'v.mp4', (1e9, 1e9))  # of a fresh file no hash is kept: it may change unseen
    return folder


@pytest.fixture
def run(folder, tmp_path, monkeypatch):
    "An extraction of the video; the workers of a busy machine lose their jobs."
    made = []

    def one(lost=None, **settings):
        def busy(work, jobs, *a, **k):
            made.extend(jobs)
            return ((job, Lost(lost) if lost else work(job, announce=lambda s: None)) for job in jobs)

        monkeypatch.setattr(extraction, 'map_isolated', busy)
        videos = pd.DataFrame(dict(path=['v.mp4']))
        return extract_clips(videos, folder, tmp_path, progress=False, **settings).reason.item()

    one.looked = lambda: len(made)
    one.cache = tmp_path
    return one


@pytest.mark.parametrize('lost, reason', [('time limit', 'time limit'), ('crash', 'decoder crash')])
def test_what_a_busy_machine_gave_up_an_idle_one_judges(run, lost, reason):
    "Fault 14: 'time limit' and 'decoder crash' were stored for good."
    assert run(lost) == reason
    assert run() == ''
    assert run() == '' and run.looked() == 2  # it is in the cache now


@pytest.mark.parametrize('lost, reason', [('time limit', 'time limit'), ('crash', 'decoder crash')])
def test_what_is_lost_twice_is_believed(run, lost, reason):
    "Until it is given more time, or asked for."
    assert [run(lost), run(lost)] == [reason] * 2 and run.looked() == 2
    assert run() == reason and run.looked() == 2  # nobody looks
    assert run(time_limit=60.0) == reason and run.looked() == 2
    assert run(lost, time_limit=600.0) == reason and run.looked() == 3
    assert run(time_limit=600.0) == reason and run.looked() == 3
    assert run(lost, retry=True) == reason and run.looked() == 4
    assert run(retry=True) == '' and run.looked() == 5


def test_what_an_older_version_stored_is_tried_again(run, folder):
    "Its note does not say how often, nor within which time."
    note = entry_path(file_digest(folder / 'v.mp4'), run.cache).with_suffix('.json')
    note.parent.mkdir(parents=True)
    note.write_text(json.dumps(dict(version=extraction.CACHE_VERSION, reason='time limit', detail='')))
    assert run() == ''


@pytest.mark.parametrize('garbage', [dict(tries='many'), dict(tries=None), dict(time_limit='long'), dict(tries=2.5)])
def test_a_damaged_note_is_survived(run, folder, garbage):
    note = entry_path(file_digest(folder / 'v.mp4'), run.cache).with_suffix('.json')
    note.parent.mkdir(parents=True)
    note.write_text(json.dumps(dict(version=extraction.CACHE_VERSION, reason='time limit', detail='') | garbage))
    assert run() == ''


def test_a_reason_of_the_file_stays(tmp_path):
    "It is not looked at again unless asked for."
    (tmp_path / 'text.mp4').write_text('not a video' * 100)
    first = extract_clip(tmp_path / 'text.mp4', tmp_path / 'cache')
    assert first['reason'] == 'unreadable' and first['info'] is None
    looked = []
    probe = extraction.probe
    with pytest.MonkeyPatch.context() as m:
        m.setattr(extraction, 'probe', lambda path, *sound: looked.append(path) or probe(path, *sound))
        assert extract_clip(tmp_path / 'text.mp4', tmp_path / 'cache')['reason'] == 'unreadable' and not looked
        assert extract_clip(tmp_path / 'text.mp4', tmp_path / 'cache', retry=True)['reason'] == 'unreadable' and looked


def test_the_table_says_what_names_the_bytes(folder, tmp_path):
    "Copies of a file have one hash and one entry, whatever their names; what cannot be read has its hash as well."
    (tmp_path / 'a').mkdir()
    for name in ('1.mp4', '2.mp4'):
        (tmp_path / 'a' / name).write_bytes((folder / 'v.mp4').read_bytes())
    (tmp_path / 'a' / 'text.mp4').write_text('not a video' * 100)
    videos = pd.DataFrame(dict(path=['1.mp4', '2.mp4', 'gone.mp4', 'text.mp4']))
    for _ in range(2):  # new, and from the cache
        table = extract_clips(videos, tmp_path / 'a', tmp_path / 'cache', workers=0, progress=False)
        assert table.digest.tolist() == [file_digest(folder / 'v.mp4')] * 2 + ['', file_digest(tmp_path / 'a/text.mp4')]
        assert table.entry[0] == table.entry[1] and table.reason.tolist() == ['', '', 'missing', 'unreadable']
