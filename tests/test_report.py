"""One video's verdict: its seconds are those of the file, whatever stream starts late."""

import json
import re
import shutil
import subprocess
from dataclasses import asdict, replace

import numpy as np
import pytest
from test_notebooks import run

from avfake.checkpoint import save_detector
from avfake.known_errors import known_errors
from avfake.media import probe
from avfake.parts import keep_parts, marked_spans
from avfake.report import examine_speaker
from avfake.synthetic import make_clip
from avfake.video import write_video

DELAY = 0.5  # seconds by which the sound of the late video starts after its picture


@pytest.fixture(scope='module')
def videos(tmp_path_factory):
    "The same second and a half of a person: with sound from the first frame on, and from half a second on."
    folder, clip = tmp_path_factory.mktemp('videos'), make_clip(0, 2.4)
    late = round(DELAY * 25)
    whole = write_video(folder / 'whole.mp4', clip.frames[late:], clip.audio[late * 640 :])
    return whole, write_video(folder / 'late.mp4', clip.frames, clip.audio[late * 640 :], audio_start=DELAY)


def test_seconds_are_those_of_the_file(detector, videos):
    "Fault 13: spans, captions and JSON counted from where both streams run: half a second early in such a file."
    flat = dict(sound=0, picture=0, delay=0, worst_tenth=-100, seconds=2)
    keep_parts(detector, [flat] * len(detector.calibration))  # every second stands out
    whole, late = (examine_speaker(detector, video) for video in videos)
    start = probe(videos[1]).start
    assert abs(start - DELAY) < 0.1  # the codec's first packet holds 64 ms of silence
    assert abs(late.clip.start - start) < 0.02
    assert whole.verdict.score is not None and abs(late.clip.n_frames - whole.clip.n_frames) <= 2
    spans = [(start + a, start + b) for a, b, _ in marked_spans(detector, late.score)]
    assert spans
    assert np.allclose(late.verdict.spans, spans, atol=0.002)
    assert min(a for a, _ in late.verdict.spans) >= 0.4
    assert json.loads(json.dumps(asdict(late.verdict)))['spans'] == [list(span) for span in late.verdict.spans]
    shown = re.findall(r'<figcaption>([\d.]+)-', late.body())
    assert [float(second) for second in shown] == [round(a, 1) for a, _ in spans[: len(shown)]]


BROWSER = next(filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))), None)
QUIET = ['--headless', '--no-sandbox', '--disable-gpu', '--disable-background-networking', '--no-first-run']
MOVES = """
document.documentElement.style.width = 'WIDTHpx'  // a window cannot be as narrow as a telephone
const film = document.querySelector('video.original')
const cursor = document.querySelector('.plot.SHOWN .cursor')
const place = () => `${cursor.style.display} ${parseFloat(cursor.style.left).toFixed(1)}`
const moved = () => film.dispatchEvent(new Event('timeupdate'))
film.currentTime = 1.0
moved()
const first = place()
const box = cursor.parentElement.getBoundingClientRect()
const there = {clientX: box.left + 0.95 * box.width, clientY: box.top + 5, bubbles: true}
cursor.parentElement.dispatchEvent(new MouseEvent('click', there))
moved()
const edges = [...document.querySelectorAll('.avfake *')].map(part => part.getBoundingClientRect().right)
answer([first, place(), film.currentTime, Math.ceil(Math.max(...edges))].join(' | '))
"""


def in_browser(page, script, *options, folder):
    "What a script finds on a page, which ends by calling answer(text)."
    copy = page.with_name('check.html')
    start = "const answer = text => document.getElementById('answer').textContent = text"
    check = f'<p id="answer"></p><script>{start}; window.onload = () => {{ {script} }}</script></body>'
    copy.write_text(page.read_text().replace('</body>', check))
    command = [BROWSER, *QUIET, f'--user-data-dir={folder / "browser"}', '--timeout=8000', '--dump-dom', *options]
    done = subprocess.run([*command, copy.as_uri()], capture_output=True, text=True, timeout=120)
    return done.stdout.split('id="answer">')[1].split('<')[0]


@pytest.mark.skipif(BROWSER is None, reason='no browser here')
@pytest.mark.parametrize(('width', 'shown'), [(390, 'narrow'), (1200, 'wide')])
def test_the_cursor_runs_with_the_video_and_nothing_is_cut_off(detector, videos, tmp_path, width, shown):
    report = examine_speaker(detector, videos[0])
    page = report.save(tmp_path / 'page.html')
    size = f'--window-size={width},900'
    script = MOVES.replace('SHOWN', shown).replace('WIDTH', str(width))
    found = in_browser(page, script, size, folder=tmp_path)
    first, after, second, right = found.split(' | ')
    axis = getattr(report.evidence()['timeline'], f'{shown}_axis')
    seconds = report.clip.start, report.clip.start + report.clip.n_frames / 25
    share = (1.0 - seconds[0]) / (seconds[1] - seconds[0])
    assert first.split()[0] == 'block'
    assert float(first.split()[1]) == pytest.approx(100 * (axis[0] + share * (axis[1] - axis[0])), abs=0.2)
    assert float(after.split()[1]) > 90 and float(second) > 1.5
    assert int(right) <= width


def test_facts_say_what_is_needed_to_check_a_verdict(detector, videos, tmp_path):
    "Also of a file that cannot be judged, and without its folder unless that is asked for."
    for path in (videos[0], tmp_path / 'none.mp4'):
        report = examine_speaker(detector, path)
        facts = json.loads(json.dumps(report.facts()))
        assert facts['threshold'] == report.threshold.value and facts['calibration_clips'] == 99
        assert facts['caveats'] and facts['versions']['torch'] and facts['date']
        assert facts['path'] == path.name and report.facts(show_paths=True)['path'] == str(path)
    assert facts['headline'] == 'Cannot be judged: missing.'


def test_a_large_video_plays_from_beside_the_page(detector, videos, tmp_path):
    report = examine_speaker(detector, videos[0])
    held = report.body(report.player())
    beside = report.body(report.player(held_bytes=10))
    assert 'src="data:video/mp4;base64,' in held and 'src="./whole.mp4"' in beside
    printed = re.sub('(?s)<div class="screen">.*?</div>', '', beside)
    assert '<video' in beside and 'The video' not in printed
    assert 'lies beside the page' in beside and str(videos[0].parent) not in held + beside


def test_a_page_contradicts_itself_nowhere(detector, videos):
    "Of an unfamiliar recording neither a rate nor a p-value is said, and the picture of the delay has the words."
    keep_parts(detector, [])
    report = examine_speaker(detector, videos[0])
    assert 'No seconds are marked' in report.body() and 'figcaption>1' not in report.body()
    assert report.verdict.spans == [] and 'Most anomalous' not in str(report)
    strange = replace(report.verdict, differs=['flicker of the picture'])
    errors = known_errors(detector, report.threshold, familiar=False)
    text = replace(report, verdict=strange, errors=errors).body()
    words = re.sub('<[^>]*>', ' ', text.split('<h2>When')[0])
    assert 'The rate does not hold' in words and 'p = ' not in words and '%' not in words.split('Delay')[0]


def test_a_script_of_three_lines_judges_a_video(detector, videos, tmp_path):
    "Workers ran the script again: it needed `if __name__ == '__main__'`, and died without."
    save_detector(detector, tmp_path / 'model.pth')
    script = tmp_path / 'script.py'
    script.write_text(
        'from avfake.examine import examine\n'
        f'found = examine({str(videos[0])!r}, {str(tmp_path / "model.pth")!r})\n'
        'print(found.verdict)\n'
    )
    status, output = run(script, cwd=tmp_path)
    assert status == 0, output
    assert output.splitlines()[-1] in ('anomalous', 'no anomaly found')
