"""No file that a folder may hold (`hostile.py` makes them) crashes a run, hangs it, or pairs its sound wrongly."""

import os
import resource
import subprocess
import sys
import tempfile
import zlib
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
from hostile import Case, cases, source
from reliability import FULL, counts

from avfake.cache import load_clip
from avfake.detector import Detector, make_config, score_extracted
from avfake.extraction import _extract_job, extract_clip
from avfake.files import MediaError
from avfake.listing import list_files
from avfake.media import FPS, SAMPLE_RATE
from avfake.mouth import MouthClip
from avfake.video import write_video
from avfake.workers import Lost, map_isolated

NEAR = 0.045  # seconds by which sound and picture may be read apart: half a frame each way, and what an encoder delays
TIME_LIMIT = 60.0  # seconds for a file, and ten more for each second that it lasts


@dataclass
class Outcome:
    "What became of a file."

    case: Case
    reason: str  # '' if it was judged
    fault: str = ''  # what should not have been

    def __str__(self):
        return f'{self.case.name!r} ({self.case.kind}): {self.reason or "judged"}; {self.fault}'


# ---------------------------------------------------------------- is the sound where the picture is?


def looks(clip):  # [n, 784] each frame, small, without its level and contrast
    gray = (cv2.cvtColor(f, cv2.COLOR_RGB2GRAY) for f in clip.crops)
    small = np.stack([cv2.resize(f, (28, 28), interpolation=cv2.INTER_AREA) for f in gray])
    gray = small.reshape(clip.n_frames, -1).astype(float)
    return (gray - gray.mean(1, keepdims=True)) / (gray.std(1, keepdims=True) + 1)


def where(parts, whole, reach) -> tuple[int, float]:  # rows of `whole` before the first of `parts`, how alike they are
    likeness = parts @ whole.T / whole.shape[1]
    best = (0, -1.0)
    for shift in range(-reach, reach + 1):
        diagonal = np.diagonal(likeness, shift)
        if len(diagonal) >= min(len(parts), len(whole)) // 3 and (mean := diagonal.mean()) > best[1]:
            best = shift, mean
    return best


def envelope(audio):  # loudness a millisecond, level removed
    step = SAMPLE_RATE // 1000
    level = np.abs(audio[: len(audio) // step * step].reshape(-1, step)).mean(1)
    loud = np.log1p(30 * level / (np.abs(audio).mean() + 1e-9))
    return np.convolve(loud - loud.mean(), np.ones(8) / 8, 'same')


def late(clip: MouthClip, good: MouthClip) -> float | None:  # seconds; None where it cannot be told
    "By how much the sound of a clip is later against its picture than in the good one."
    shift, alike = where(looks(clip), looks(good), 45)
    a, b = envelope(clip.audio), envelope(good.audio)
    n = 1 << (len(a) + len(b)).bit_length()
    correlation = np.fft.irfft(np.fft.rfft(b, n) * np.fft.rfft(a, n).conj(), n)
    at = int(correlation.argmax())
    peak = correlation[at] / (np.linalg.norm(a) * np.linalg.norm(b) + 1e-9)
    if alike < 0.6 or peak < 0.5 or clip.n_frames < 20:
        return None
    return shift / FPS - (at if at < n // 2 else at - n) / 1000


def test_late_sound_is_noticed():
    "The measure itself: sound moved by a known number of frames."
    frames, audio = source()
    good = MouthClip(frames[:, 40:152, 40:152], audio, np.ones(len(frames), bool))
    for shift in (-8, -3, -1, 0, 2, 5):
        moved = np.roll(good.audio, 640 * shift)
        assert abs(late(MouthClip(good.crops, moved, good.face_detected), good) - shift / FPS) < 0.01
        part = MouthClip(good.crops[10:50], moved[6400:32_000], good.face_detected[10:50])
        assert abs(late(part, good) - shift / FPS) < 0.02


# ---------------------------------------------------------------- all of them


def faults(case: Case, row: dict, detector: Detector, good: MouthClip) -> str:
    "What is wrong with what became of a file; '' if nothing."
    reason = row['reason']
    if not reason:
        try:
            score, _ = score_extracted(detector, case.name, row)
            if not np.isfinite(score.score):
                return 'its score is not a number'
        except MediaError as error:
            reason = row['reason'] = error.reason
    if reason not in case.reasons:
        return f'rejected as {reason!r} ({row["detail"]})' if reason else 'judged, and should not be'
    if not reason and case.late is not None:
        measured = late(load_clip(row['entry']), good)
        if measured is not None and abs(measured - case.late) > NEAR:
            return f'its sound is {1000 * (measured - case.late):+.0f} ms beside its picture'
    return ''


def try_all(chosen: list[Case], folder: Path, workers: int = 2) -> list[Outcome]:
    "Make the files, read each in a process of its own, score what was read."
    frames, audio = source()
    made = []
    for case in chosen:
        case.make(folder / case.name)
        made.append((str(folder / case.name), str(folder / 'cache' / str(len(made))), None, None))
    row = extract_clip(write_video(folder / 'good one.mp4', frames, audio), folder / 'cache' / 'good')
    good = load_clip(row['entry'])
    detector = Detector(make_config('small', ar_layers=1)).eval()
    by_job = dict(zip(made, chosen))
    outcomes = []
    for job, row in map_isolated(partial(_extract_job, max_seconds=600.0), made, workers, TIME_LIMIT):
        if isinstance(row, Exception):
            row = dict(reason='unexpected error', detail=str(row))
        if isinstance(row, Lost):
            reason = 'decoder crash' if row.reason == 'crash' else row.reason
            row = dict(reason=reason, detail=row.detail)
        fault = faults(by_job[job], row, detector, good)
        outcomes.append(Outcome(by_job[job], row['reason'], fault))
    assert len(outcomes) == len(chosen) and not (Path.cwd() / 'pwned').exists()
    return outcomes


def sample(chosen: list[Case]) -> list[Case]:
    "A dozen or two: the first of each kind but the largest, by chance but always the same."
    by_kind = {}
    for case in sorted(chosen, key=lambda c: zlib.crc32(c.name.encode('utf-8', 'surrogateescape'))):
        by_kind.setdefault(case.kind, case)
    return [c for kind, c in by_kind.items() if kind not in ('8K', 'bomb', 'a gigabyte of nothing')]


def test_hostile_files(tmp_path):
    outcomes = try_all(cases() if FULL else sample(cases()), tmp_path)
    wrong = [o for o in outcomes if o.fault]
    reasons = [o.reason for o in outcomes]
    counts(
        'hostile files',
        tried=len(outcomes),
        judged=reasons.count(''),
        rejected=len(reasons) - reasons.count(''),
        decoder_crashes=reasons.count('decoder crash'),
        time_limits=reasons.count('time limit'),
        wrong=len(wrong),
    )
    assert not wrong, '\n'.join(map(str, wrong))


# ---------------------------------------------------------------- a decoder that crashes

CRASHING = """
import os, signal
import av
_open = av.open
def open_(name, *args, **kw):
    if 'segfault' in str(name): os.kill(os.getpid(), signal.SIGSEGV)
    if 'hang' in str(name): signal.pause()
    return _open(name, *args, **kw)
av.open = open_
"""
SCORE = """
import torch
from avfake.detector import Detector, make_config
from avfake.gallery import write_reports
if __name__ == '__main__':
    import sys
    detector = Detector(make_config('small', ar_layers=1)).eval()
    detector.calibration, detector.calibration_identities = torch.arange(30.), torch.zeros(30, dtype=torch.long)
    for report in write_reports(detector, sys.argv[1:], 'pages'): print(report.verdict.reason or 'judged', flush=True)
"""


def test_a_decoder_that_crashes_ends_nothing(tmp_path):
    "Whoever scores a list of files gets the others' verdicts, each with its page."
    frames, audio = source()
    names = 'good.mp4', 'segfault.mp4', 'better.mp4', 'segfault too.mp4', 'best.mp4'
    for i, name in enumerate(names):
        write_video(tmp_path / name, frames[i:], audio[640 * i :])
    (tmp_path / 'sitecustomize.py').write_text(CRASHING)
    (tmp_path / 'score.py').write_text(SCORE)
    done = subprocess.run(
        [sys.executable, 'score.py', *names],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, 'PYTHONPATH': os.pathsep.join([str(tmp_path), str(Path(__file__).parent.parent)])},
    )
    crashed = 'decoder crash: exit code -11'
    assert done.stdout.splitlines() == ['judged', crashed, 'judged', crashed, 'judged'], done.stdout + done.stderr
    assert len(list((tmp_path / 'pages').iterdir())) == 6


def test_memory_does_not_grow(tmp_path):
    "One process that reads the same bad and good files again and again keeps its size."
    chosen = [c for c in sample(cases()) if c.kind not in ('no file', 'link', 'name')][: None if FULL else 8]
    for case in chosen:
        case.make(tmp_path / case.name)
    sizes = []
    for turn in range(8 if FULL else 4):
        for i, case in enumerate(chosen):
            extract_clip(tmp_path / case.name, tmp_path / f'{turn}-{i}')
        sizes.append(int(Path('/proc/self/statm').read_text().split()[1]) * resource.getpagesize() / 2**20)
    counts('memory', files=len(chosen), turns=len(sizes), mib_at_first=round(sizes[1]), mib_in_the_end=round(sizes[-1]))
    assert sizes[-1] < sizes[1] + 60, sizes


@pytest.mark.skipif(not hasattr(os, 'seteuid'), reason='rights are kept otherwise here')
def test_no_right_to_read():
    "A file or a folder that may not be read: counted, and rejected as 'unreadable'."
    frames, audio = source()
    with tempfile.TemporaryDirectory() as folder:  # below folders that anybody may enter
        data = Path(folder) / 'data'
        (data / 'sealed').mkdir(parents=True)
        (data / 'locked').mkdir()
        for name in ('a.mp4', 'sealed/b.mp4', 'locked/c.mp4'):
            write_video(data / name, frames, audio)
        (data / 'sealed' / 'b.mp4').chmod(0)
        (data / 'locked').chmod(0)
        Path(folder).chmod(0o755)
        me = os.geteuid()
        if me == 0:
            os.seteuid(65_534)  # nobody; root may read everything
        try:
            found = list_files(data)
            row = extract_clip(data / 'sealed' / 'b.mp4', Path(folder) / 'cache')
        finally:
            os.seteuid(me)
            (data / 'locked').chmod(0o755)
    assert found.videos == ['a.mp4', 'sealed/b.mp4'] and found.counts()['unreadable folders'] == 1
    assert (row['reason'], row['detail']) == ('unreadable', 'Permission denied')
