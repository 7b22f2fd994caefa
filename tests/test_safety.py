"""Nothing in a file is run, nothing outside the folder is opened, no name becomes a piece of a page or a command."""

import ast
import html.parser
import json
import os
import pickle
import shutil
import subprocess
import sys
import zipfile
from configparser import ConfigParser
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
from hostile import NAMES, source
from reliability import FULL, counts

from avfake.cache import CacheError, open_clip
from avfake.checkpoint import load_detector
from avfake.controls import load_controls
from avfake.detector import make_config
from avfake.files import MediaError
from avfake.gallery import write_table
from avfake.layouts import index_videos
from avfake.media import probe, stream_media
from avfake.metadata import TYPES
from avfake.report import Report
from avfake.stored_stages import read_stage
from avfake.verdict import Verdict
from avfake.video import write_video

ROOT = Path(__file__).resolve().parent.parent


# ---------------------------------------------------------------- pickles


class Evil:
    def __reduce__(self):
        return os.mkdir, ('pwned',)


def evil_files(folder):
    "Files that make a folder when they are unpickled: bare, in a checkpoint of torch, and in the zip of one."
    (folder / 'bare.pth').write_bytes(pickle.dumps(Evil()))
    torch.save(dict(format='avfake detector', config='{}', about='{}', state_dict=Evil()), folder / 'torch.pth')
    torch.save(dict(fingerprint='a', progress=Evil()), folder / 'old.pth', _use_new_zipfile_serialization=False)
    with zipfile.ZipFile(folder / 'entry.pth', 'w') as z:
        z.writestr('meta.json', pickle.dumps(Evil()))
        z.writestr('00000.jpg', pickle.dumps(Evil()))
    return sorted(folder.glob('*.pth'))


@pytest.mark.filterwarnings('ignore:Detected pickle protocol')
def test_pickles_are_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    files, refused = evil_files(tmp_path), 0
    with pytest.raises(FileExistsError):
        (os.mkdir('pwned'), pickle.loads(files[0].read_bytes()))  # they would do it
    os.rmdir('pwned')
    for path in files:
        for read in (
            load_detector,
            lambda p: load_controls(p, make_config('small')),
            lambda p: read_stage(p, 'a'),
            open_clip,
        ):
            with pytest.raises((ValueError, CacheError), match='safely|not a'):
                read(path)
            refused += 1
    counts('malicious pickles', refused=refused, run=int(Path('pwned').exists()))
    assert not Path('pwned').exists()


# ---------------------------------------------------------------- ways out of the folder


def test_links_and_tables_lead_nowhere(tmp_path):
    "Links are not followed, and what a table names is only looked up among the files that were found."
    (secret := tmp_path / 'secret.mp4').write_bytes(b'0')
    data = tmp_path / 'data'
    for i in range(3):
        (place := data / TYPES[0] / 'African' / 'men' / f'id{i:05d}').mkdir(parents=True)
        (place / f'{i}.mp4').write_bytes(b'0')
    (place / 'link.mp4').symlink_to(secret)
    (place / 'folder').symlink_to(tmp_path)
    (data / TYPES[2]).symlink_to(tmp_path)
    rows = ['../../../../../secret.mp4', str(secret), '..\\..\\secret.mp4', 'link.mp4']
    (data / 'meta_data.csv').write_text(
        'source,method,path,\n'
        + '\n'.join(f'id00000,real,{r},FakeAVCeleb/{TYPES[0]}/African/men/id00002' for r in rows)
    )
    manifest, report = index_videos(data)
    assert (
        len(manifest) == 3
        and report.skipped['links'] == 3
        and not [p for p in manifest.path if 'secret' in p or 'link' in p]
    )
    plain = tmp_path / 'lav'
    (plain / 'test').mkdir(parents=True)
    (plain / 'test' / '0.mp4').write_bytes(b'0')
    entry = dict(split='test', modify_video=False, modify_audio=False, fake_periods=[], original=None)
    (plain / 'metadata.json').write_text(
        json.dumps([dict(entry, file=f) for f in ('test/0.mp4', '../secret.mp4', str(secret), 'test/../../secret.mp4')])
    )
    manifest, _ = index_videos(plain)
    assert list(manifest.path) == ['test/0.mp4']


def test_a_file_opens_no_other(tmp_path, monkeypatch):
    "Playlists, and names that FFmpeg would take for a protocol."
    monkeypatch.chdir(tmp_path)
    frames, audio = source()
    write_video(tmp_path / 'good.mp4', frames, audio)
    playlists = {
        'list.mp4': '#EXTM3U\n#EXTINF:2,\ngood.mp4\n#EXT-X-ENDLIST\n',
        'join.mp4': 'ffconcat version 1.0\nfile good.mp4\n',
        'list.m3u8': '#EXTM3U\n#EXTINF:2,\ngood.mp4\n#EXT-X-ENDLIST\n',
        'dash.mpd': '<MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><Period><AdaptationSet><Representation>'
        '<BaseURL>good.mp4</BaseURL></Representation></AdaptationSet></Period></MPD>',
    }
    for name, text in playlists.items():
        (tmp_path / name).write_text(text)
        with pytest.raises(MediaError) as error:
            list(stream_media(tmp_path / name))
        assert error.value.reason in ('unreadable', 'no video')
    for name in (
        'concat:good.mp4',
        'file:good.mp4',
        'http://127.0.0.1:9/a.mp4',
        'pipe:0',
        'subfile,,start,0,end,0,,:good.mp4',
        'async:good.mp4',
        'crypto:good.mp4',
    ):
        with pytest.raises(MediaError) as error:
            probe(name)
        assert error.value.reason == 'missing'


def test_decode_limits(tmp_path):
    "A few KB that would decode to gigabytes: refused by the size of a picture, or by the length."
    frames, audio = source()
    from avfake.extraction import extract_clip

    assert (
        extract_clip(write_video(tmp_path / 'a.mp4', frames, audio), tmp_path / 'cache', max_seconds=1.0)['reason']
        == 'too long'
    )
    from unittest.mock import patch

    import avfake.packets

    with patch.object(avfake.packets, 'MAX_PIXELS', 1000), pytest.raises(MediaError, match='too large'):
        list(stream_media(tmp_path / 'a.mp4'))


# ---------------------------------------------------------------- names in pages


class Page(html.parser.HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.text = [], ''

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.text += data


def test_names_are_text_in_every_page(tmp_path):
    "Whatever a file is called, a page has the same elements, no handler, and shows the name."
    seen = []
    for name in (
        'plain.mp4',
        *NAMES,
        '</script><script>alert(1)</script>.mp4',
        '{{ 7*7 }}.mp4',
        "' onload='x",
        '&lt;b&gt;.mp4',
    ):
        verdict = Verdict(f'/data/{name}', reason=f'no face: {name}')
        Report(verdict, {'file': name}).save(tmp_path / 'one.html')
        write_table([(verdict, '', 'a.html')], tmp_path / 'many.html', title=name)
        for page in ('one.html', 'many.html'):
            (parsed := Page()).feed((tmp_path / page).read_text('utf-8'))
            shown = name.encode('utf-8', 'replace').decode()
            assert shown.strip() in parsed.text.replace('\r', '\n') or '\r' in name, (page, name)
            assert not [k for _, attributes in parsed.tags for k in attributes if k.startswith('on')], (page, name)
            seen.append((page, [tag for tag, _ in parsed.tags]))
    for page in ('one.html', 'many.html'):
        assert len({str(tags) for p, tags in seen if p == page}) == 1
    counts('names in pages', tried=len(seen) // 2, escaped=len(seen) // 2)


# ---------------------------------------------------------------- the code itself


def calls(path):
    for node in ast.walk(ast.parse(path.read_text('utf-8'))):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            yield name, {k.arg: ast.unparse(k.value) for k in node.keywords}, f'{path.name}:{node.lineno}'


def test_no_call_that_runs_what_it_is_given():
    forbidden = {
        'eval',
        'exec',
        'os.system',
        'os.popen',
        'pickle.load',
        'pickle.loads',
        'joblib.load',
        'yaml.load',
        'marshal.loads',
        'torch.hub.load',
        '__import__',
    }
    wrong = []
    for path in (ROOT / 'avfake').glob('*.py'):
        for name, keywords, place in calls(path):
            if name in forbidden or keywords.get('shell', 'False') != 'False':
                wrong.append(f'{place}: {name}')
            if name == 'torch.load' and keywords.get('weights_only') != 'True':
                wrong.append(f'{place}: torch.load without weights_only=True')
            if name == 'np.load' and keywords.get('allow_pickle', 'False') != 'False':
                wrong.append(f'{place}: np.load with allow_pickle')
    assert not wrong


# Versions that mended what reads foreign files, names: CVE-2025-32434 and CVE-2026-24747 (torch.load), CVE-2025-27516
SAFE = dict(torch='2.10.0', jinja2='3.1.6', av='17.0.0', numpy='1.22.0')


def test_versions_with_security_fixes():
    from packaging.requirements import Requirement
    from packaging.version import Version

    config = ConfigParser()
    config.read(ROOT / 'settings.ini')
    requirements = [Requirement(o) for o in config['DEFAULT']['requirements'].split()]
    least = {r.name: r.specifier for r in requirements}
    for name, safe in SAFE.items():
        assert Version(version(name)) >= Version(safe), name
    for name in ('torch', 'jinja2', 'av'):
        bounds = [s.version for s in least[name] if s.operator in ('>=', '==')]
        assert bounds and Version(bounds[0]) >= Version(SAFE[name]), (
            f'{name}: requirements in settings.ini allow what is older than {SAFE[name]}'
        )


@pytest.mark.skipif(not FULL, reason='asks a registry: make test-reliability')
def test_dependencies_have_no_known_vulnerability():
    if not shutil.which('pip-audit', path=Path(sys.executable).parent):
        pytest.skip('pip-audit is not installed: pip install pip-audit')
    done = subprocess.run(
        [sys.executable, '-m', 'pip_audit', '--format', 'json', '--progress-spinner', 'off', '--skip-editable'],
        capture_output=True,
        text=True,
        timeout=900,
    )
    if not done.stdout.strip():
        pytest.skip(
            f'pip-audit reaches no registry of vulnerabilities here: {done.stderr.strip().splitlines()[-1][:200]}'
        )
    asked = [d for d in json.loads(done.stdout)['dependencies'] if 'skip_reason' not in d]
    if not asked:
        pytest.skip('no registry of vulnerabilities answers here')
    known = [(f'{d["name"]} {d["version"]}: {v["id"]}', v['fix_versions']) for d in asked for v in d['vulns']]
    counts('pip-audit', packages=len(asked), known_vulnerabilities=len(known))
    assert not [k for k in known if k[1]], known
