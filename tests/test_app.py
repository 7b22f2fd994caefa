"""The page of `avfake app` in a browser: what is dropped on it gets a verdict, and leaves nothing behind."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from importlib.util import find_spec
from pathlib import Path

import psutil
import pytest
import torch

from avfake.checkpoint import save_detector
from avfake.detector import Detector, make_config
from avfake.synthetic import make_demo

if find_spec('gradio') is None:
    pytest.skip('Gradio is not installed: pip install "avfake[app]"', allow_module_level=True)
playwright = pytest.importorskip('playwright.sync_api', reason='playwright is not installed')
CHROMIUM = next(filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason='there is no Chromium')

SECONDS = 120  # for a verdict on a busy machine
UPLOAD = '#files input[type=file]'
REPORT = '#report iframe'


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    "A detector that was never trained, two videos, and a file that is none."
    folder = tmp_path_factory.mktemp('app')
    torch.manual_seed(0)
    detector = Detector(make_config('small', ar_layers=1)).eval()
    detector.calibration = torch.linspace(-1, 1, 99)
    detector.calibration_identities = torch.arange(99) % 9
    save_detector(detector, folder / 'detector.pth')
    sizes = dict(n_identities=1, real_per_identity=2, forged_identities=0, seconds=(1.6, 1.8))
    make_demo(folder / 'demo', **sizes, workers=0, progress=False)
    for name, video in zip(('one.mp4', 'zwei ä.mp4'), sorted((folder / 'demo').rglob('*.mp4'))):
        shutil.copy(video, folder / name)
    (folder / 'broken.mp4').write_bytes(b'not a video' * 1000)
    (folder / 'large.mp4').write_bytes(bytes(3 * 2**20))
    return folder


class Server:
    "`avfake app` as a process, with a folder of its own for whatever it stores."

    def __init__(self, folder, stored):
        self.folder = folder
        self.stored = stored
        code = 'from avfake.cli import main; main()'
        options = ['--checkpoint', folder / 'detector.pth', '--folder', folder / 'demo', '--max_megabytes', 2]
        self.process = subprocess.Popen(
            [sys.executable, '-c', code, 'app', *map(str, options)],
            env={**os.environ, 'TMPDIR': str(stored), 'GRADIO_ALLOWED_PATHS': str(folder), 'GRADIO_SHARE': 'True'},
            stdout=subprocess.PIPE,
            text=True,
        )
        self.url = re.search(r'http://\S+', self.process.stdout.readline())[0]

    def kept(self):
        "Files that it has stored."
        return [path.name for path in self.stored.rglob('*') if path.is_file()]

    def keeps_nothing(self):
        deadline = time.monotonic() + SECONDS
        while self.kept() and time.monotonic() < deadline:
            time.sleep(0.2)
        return self.kept() == []

    def status(self, address):
        "What it answers to somebody who asks for an address."
        try:
            return urllib.request.urlopen(self.url + address).status
        except urllib.error.HTTPError as error:
            return error.code

    def end(self):
        self.process.terminate()
        return self.process.wait(60)


@pytest.fixture(scope='module')
def server(folder, tmp_path_factory):
    server = Server(folder, tmp_path_factory.mktemp('stored'))
    yield server
    assert server.end() == 0
    assert not list(server.stored.iterdir())


@pytest.fixture(scope='module')
def browser():
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=['--no-sandbox'])
        yield browser
        browser.close()


@pytest.fixture
def page(browser, server):
    page = browser.new_page()
    page.set_default_timeout(SECONDS * 1000)
    page.asked = []
    page.on('request', lambda request: page.asked.append(request.url))
    page.goto(server.url)
    page.wait_for_selector(UPLOAD, state='attached')
    yield page
    page.close()


def drop(page, folder, *names):
    page.set_input_files(UPLOAD, [folder / name for name in names])


def verdict(page):
    "What the report in the frame says first."
    return page.frame_locator(REPORT).locator('.verdict').inner_text()


def download(page, text):
    with page.expect_download() as download:
        page.click(text)
    return download.value.suggested_filename, Path(download.value.path()).read_text('utf-8')


def test_a_video_gets_a_verdict_and_a_report_to_keep(page, server, folder):
    drop(page, folder, 'zwei ä.mp4')
    said = verdict(page)
    name, kept = download(page, 'text=Download the report')
    assert (name, kept[:15]) == ('zwei ä.html', '<!doctype html>')
    assert said.splitlines()[0] in kept and 'avfakeHeight' not in kept
    name, numbers = download(page, 'text=JSON')
    assert name == 'zwei ä.json'
    assert json.loads(numbers)['verdict'] in ('anomalous', 'no anomaly found')
    shown = page.content() + kept + numbers
    assert str(server.stored) not in shown and str(folder) not in shown
    assert page.locator(UPLOAD).count() == 1  # ready for the next
    assert all(url.startswith((server.url, 'blob:', 'data:')) for url in page.asked)
    assert server.keeps_nothing()


def test_several_are_judged_one_after_the_other_and_a_broken_one_is_one_of_them(page, server, folder):
    drop(page, folder, 'broken.mp4', 'one.mp4')
    page.wait_for_selector('#table tbody tr:nth-child(2)')
    rows = page.locator('#table tbody tr').all_inner_texts()
    assert 'cannot be judged: unreadable' in rows[0] and 'judged' not in rows[1]
    assert 'Cannot be judged' in verdict(page)
    page.click('text=one.mp4')
    page.wait_for_selector('#table .shown >> text=one.mp4')
    assert 'annot be judged' not in verdict(page)
    drop(page, folder, 'large.mp4')
    page.wait_for_selector('text=maximum allowed size')
    page.fill('#name textarea', '../one.mp4')
    page.click('#judge')
    page.wait_for_selector('#message >> text=no such file or folder')
    video = min((folder / 'demo').rglob('*.mp4'))
    page.fill('#name textarea', str(video.relative_to(folder / 'demo')))
    page.click('#judge')
    page.wait_for_selector('#table tbody tr:nth-child(3)')
    assert video.exists()  # is nobody's upload
    assert server.keeps_nothing()


def test_two_people_drop_the_same_video_at_once_and_one_leaves(browser, page, server, folder):
    other = browser.new_page()
    leaver = browser.new_page()
    for visitor in (other, leaver):
        visitor.set_default_timeout(SECONDS * 1000)
        visitor.goto(server.url)
        visitor.wait_for_selector(UPLOAD, state='attached')
    drop(leaver, folder, 'one.mp4', 'zwei ä.mp4')
    leaver.wait_for_selector('#message >> text=read')
    for visitor in (page, other):
        drop(visitor, folder, 'one.mp4')
    leaver.close()
    assert verdict(page) == verdict(other)
    other.close()
    assert server.keeps_nothing()


def test_only_this_machine_sees_it_and_nothing_but_the_page(server, folder):
    sockets = psutil.Process(server.process.pid).net_connections()
    listening = {socket.laddr.ip for socket in sockets if socket.status == psutil.CONN_LISTEN}
    assert listening == {'127.0.0.1'}
    assert server.status('') == 200
    for path in (folder / 'one.mp4', '/etc/hosts', Path('settings.ini').absolute()):
        assert server.status(f'gradio_api/file={path}') in (403, 404)
    for address in ('monitoring', 'gradio_api/runs', 'docs', 'gradio_api/mcp/sse'):
        assert server.status(address) in (403, 404), address
