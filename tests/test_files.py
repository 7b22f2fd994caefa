"""Names as long as a file system takes, and of bytes that are no UTF-8; files written whole or not at all."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from avfake.extraction import extract_clips, rejected
from avfake.files import REASONS, MediaError, atomic_path, check_file, file_digest, remove_stale_temporaries
from avfake.results import check_results, read_results, simulate_results, write_results

ROOT = Path(__file__).resolve().parent.parent
LONGEST = 255  # bytes of a name, on Linux and macOS


def longest_name(character, size=LONGEST, suffix='.html'):
    "A name of at most `size` bytes, made of one character."
    room = size - len(suffix)
    return character * (room // len(os.fsencode(character))) + suffix


# ---------------------------------------------------------------- whole or not at all


@pytest.mark.parametrize('character', ['n', 'é', '中', '😀', '\udce9'])
@pytest.mark.parametrize('size', [246, 250, LONGEST])
def test_long_names_are_written(tmp_path, character, size):
    "Fault 10: a temporary file kept 100 characters of the name, up to 300 bytes, where a name may have 255."
    name = longest_name(character, size)
    (tmp_path / name).write_text('a plain open() can write this name')
    with atomic_path(tmp_path / name) as temporary:
        assert temporary.parent == tmp_path and temporary.suffix == '.html'
        assert len(os.fsencode(temporary.name)) <= 110
        if character != '\udce9':
            temporary.name.encode('utf-8')  # it begins at a whole character
        temporary.write_text('whole')
    assert (tmp_path / name).read_text() == 'whole'
    assert len(list(tmp_path.iterdir())) == 1


def test_sweep_finds_what_a_kill_left_of_a_long_name(tmp_path):
    "The temporary file of a long name is one of those that are removed once they are old."
    (tmp_path / 'below').mkdir()
    writing = atomic_path(tmp_path / 'below' / longest_name('中'))
    left = writing.__enter__()
    left.write_text('ha')
    remove_stale_temporaries(tmp_path)
    assert left.exists()  # a young one may belong to another run
    os.utime(left, (0, 0))
    remove_stale_temporaries(tmp_path)
    assert not left.exists()


def test_an_error_leaves_the_old_file(tmp_path):
    target = tmp_path / 'a.txt'
    target.write_text('old')
    with pytest.raises(KeyboardInterrupt), atomic_path(target) as temporary:
        temporary.write_text('ha')
        raise KeyboardInterrupt
    assert target.read_text() == 'old' and list(tmp_path.iterdir()) == [target]


def test_digest_is_sha256(tmp_path):
    "The example of FIPS 180-4, and more than one block of reading."
    (tmp_path / 'abc').write_bytes(b'abc')
    (tmp_path / 'a').write_bytes(b'a' * 2_000_000)
    assert file_digest(tmp_path / 'abc') == 'ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad'
    assert file_digest(tmp_path / 'a') == hashlib.sha256(b'a' * 2_000_000).hexdigest()


def test_every_reason_says_what_to_do(tmp_path):
    for reason, advice in REASONS.items():
        assert str(MediaError('a.mp4', reason, 'detail')) == f'a.mp4: {reason}: detail; {advice}'
    for name, reason in (('nowhere', 'missing'), ('.', 'not a file')):
        with pytest.raises(MediaError) as error:
            check_file(tmp_path / name)
        assert error.value.reason == reason


@pytest.mark.parametrize(
    'text, where',
    [
        ('version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n', 'Git LFS'),
        ('/annex/objects/MD5E-s12--5d41.mp4\n', 'git-annex'),
        ('../.git/annex/objects/k4/Zq/MD5E-s12--5d41.mp4/MD5E-s12--5d41.mp4', 'git-annex'),
        ('../../blobs/0', 'a link to ../../blobs/0'),
        ('film.mp4', 'a link to film.mp4'),
        ('none.mp4', None),
        ('This is not a video.', None),
        ('\0\0\0\x18ftypmp42', None),
    ],
)
def test_a_text_in_the_place_of_a_video(text, where, tmp_path):
    "'This does not open as a video; convert it to mp4' is no help to who has not fetched the files yet."
    (tmp_path / 'film.mp4').write_bytes(b'film')
    (tmp_path / 'a.mp4').write_text(text)
    if where is None:
        return check_file(tmp_path / 'a.mp4')
    with pytest.raises(MediaError) as error:
        check_file(tmp_path / 'a.mp4')
    assert (error.value.reason, error.value.detail) == ('pointer', where)


# ---------------------------------------------------------------- names in tables

PANDAS_OPTIONS = """
import json, pkgutil
import pandas as pd
from pandas._config import config

def options():
    return {name: repr(pd.get_option(name)) for name in config._registered_options}

before = options()
import avfake
names = [m.name for m in pkgutil.iter_modules(avfake.__path__) if not m.name.startswith('_')]
for name in names:
    __import__('avfake.' + name)
after = options()
print(json.dumps([len(names), {k: [v, after[k]] for k, v in before.items() if after[k] != v}]))
"""


def test_importing_leaves_pandas_as_it_was():
    "Importing avfake.media set `mode.string_storage` for the user's own tables, too."
    out = subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', PANDAS_OPTIONS], cwd=ROOT, capture_output=True, text=True, check=True
    )
    n_modules, changed = json.loads(out.stdout.splitlines()[-1])
    assert n_modules >= 20 and not changed


LATIN = os.fsdecode(b'caf\xe9.mp4')  # as a system with Latin-1 names writes it


def test_tables_hold_names_that_are_no_utf8(tmp_path):
    "Pandas keeps text in pyarrow where that is installed, which refuses such names; the tables that hold them do not."
    (tmp_path / LATIN).write_text('not a video')
    manifest = pd.DataFrame(dict(path=['nowhere.mp4', LATIN]), dtype=object)
    table = extract_clips(manifest, tmp_path, tmp_path / 'cache', workers=0, progress=False)
    assert dict(zip(table.path, table.reason)) == {'nowhere.mp4': 'missing', LATIN: 'unreadable'}
    assert table.frames.dtype == float and table.frames.isna().all()
    assert set(rejected(table).example) == {'nowhere.mp4', LATIN}


def test_results_hold_names_that_are_no_utf8(tmp_path):
    results = simulate_results()
    results['path'] = results.path.astype(object)
    results.loc[results.index[0], 'path'] = LATIN
    again = read_results(write_results(results, tmp_path / 'results.csv'))
    assert again.path.iloc[0] == LATIN
    pd.testing.assert_frame_equal(again, check_results(results), check_dtype=False)
