"""One video's verdict: its seconds are those of the file, whatever stream starts late."""

import json
import re
from dataclasses import asdict

import numpy as np
import pytest
from test_notebooks import run

from avfake.checkpoint import save_detector
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
