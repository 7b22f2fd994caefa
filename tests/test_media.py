"""Seconds, frames and samples of what is read, against what was written; and no thread left behind."""

import threading
from fractions import Fraction

import numpy as np
import pytest

from avfake.cache import load_clip, open_clip
from avfake.extraction import extract_clip
from avfake.files import MediaError
from avfake.media import (
    FPS,
    SAMPLE_RATE,
    SAMPLES_PER_FRAME,
    SampleQueue,
    probe,
    read_audio,
    stream_frames,
    stream_media,
)
from avfake.mouth import MouthClip, join_clips, prefetch, stream_mouth
from avfake.synthetic import make_clip
from avfake.video import write_video

BACKGROUND = np.random.default_rng(0).integers(60, 120, (48, 64, 3), np.uint8)


def slate(path, at, audio_start, fps=25, seconds=3.0, **settings):
    "A file with a white flash and a click `at` seconds after its first picture; the picture moves otherwise."
    n = round(seconds * fps)
    frames = [np.roll(BACKGROUND, 2 * i, 1) for i in range(n)]
    for i in range(round(at * fps), round((at + 0.08) * fps)):
        frames[i] = np.full_like(BACKGROUND, 250)
    rate = 44_100
    sound = np.random.default_rng(1).normal(0, 0.001, round((seconds - audio_start) * rate))
    first = round((at - audio_start) * rate)
    sound[first : first + rate // 50] += 0.8 * np.sin(2 * np.pi * 1000 * np.arange(rate // 50) / rate)
    return write_video(path, frames, sound, fps=fps, sample_rate=rate, audio_start=audio_start, **settings)


# ---------------------------------------------------------------- seconds of the file


@pytest.mark.parametrize(
    'name, audio_start, start',
    [
        ('late sound.mp4', 0.52, 0.497),  # less the 23 ms that an AAC encoder puts before the first sample
        ('late picture.mp4', -0.52, 0.52),
        ('together.mp4', 0.0, 0.0),
        ('late sound.mkv', 0.52, 0.52),
        ('late picture.mkv', -0.52, 0.52),
        ('late picture.ts', -0.52, 0.52 + 0.023),
    ],
)
def test_seconds_are_those_of_the_file(tmp_path, name, audio_start, start):
    """Fault 13: frames count from where both streams run, and nothing kept where that is in the file.

    A flash at 2.00 s of the file, as a player shows it, is found at 2.00 s: frame / FPS + start."""
    begins = max(-audio_start, 0)  # of the picture
    path = slate(tmp_path / name, 2.0 - begins, audio_start)
    info = probe(path)
    assert info.start == pytest.approx(start, abs=0.002)
    frames = np.stack(list(stream_frames(path)))
    flash = int((frames.mean((1, 2, 3)) > 180).argmax())
    click = int((np.abs(read_audio(path)) > 0.2).argmax())
    late_priming = 0.023 if name.endswith('.ts') else 0.0  # a transport stream begins with the encoder's silence
    assert info.start + flash / FPS == pytest.approx(2.0 + late_priming, abs=0.51 / FPS)
    assert info.start + click / SAMPLE_RATE == pytest.approx(2.0 + late_priming, abs=0.51 / FPS)


@pytest.mark.parametrize('audio_start, start', [(0.4, 0.4 - 1024 / 16_000), (-0.4, 0.4), (0.0, 0.0)])
def test_a_clip_in_the_cache_knows_where_it_starts(tmp_path, audio_start, start):
    "Fault 13: the entry keeps the second of the file at which its first frame lies."
    made = make_clip(0)
    path = write_video(tmp_path / 'a.mp4', made.frames, made.audio, audio_start=audio_start)
    entry = extract_clip(path, tmp_path / 'cache')['entry']
    clip = open_clip(entry)
    assert clip.start == clip.meta['start'] == probe(path).start == pytest.approx(start, abs=0.002)
    assert load_clip(entry).start == clip.start
    assert join_clips([load_clip(entry), load_clip(entry)]).start == clip.start


def test_a_clip_from_nowhere_starts_at_zero():
    clip = MouthClip(np.zeros((2, 8, 8, 3), np.uint8), np.zeros(1280, np.float32), np.ones(2, bool))
    assert clip.start == 0.0


# ---------------------------------------------------------------- frames and samples


@pytest.mark.parametrize('fps', [10, Fraction(24000, 1001), 25, Fraction(30000, 1001), 50, 60])
def test_each_frame_is_the_one_on_screen(tmp_path, fps):
    "Output frame i is the source frame on screen at (i + 1/2)/25 s, whatever the rate of the file."
    n = round(2 * fps)
    levels = 40 + (np.arange(n) * 17) % 170  # no two neighbours are alike
    sound = np.random.default_rng(0).normal(0, 0.1, 2 * SAMPLE_RATE)
    path = write_video(tmp_path / 'a.mp4', (np.full((32, 32, 3), v, np.uint8) for v in levels), sound, fps=fps, crf=1)
    shown = [frame.mean() for frame in stream_frames(path)]
    expected = [levels[int(Fraction(2 * i + 1, 2 * FPS) * fps)] for i in range(len(shown))]
    assert len(shown) in (49, 50)
    np.testing.assert_allclose(shown, expected, atol=3)


def test_samples_keep_their_places(tmp_path):
    "Gaps are silent, the earlier of two that overlap stays, what lies before the clock is cut off."
    samples = SampleQueue()
    samples.place(-2, np.float32([1, 2, 3, 4]))
    samples.place(1, np.float32([9, 9, 5]))
    samples.place(6, np.float32([6, 7]))
    assert samples.take(0, 3).tolist() == [3, 4, 9]
    assert samples.take(3, 4).tolist() == [5, 0, 0, 6]
    assert samples.take(7, 3).tolist() == [7, 0, 0]


def test_a_tone_keeps_pitch_and_level(tmp_path):
    "A tone of 440 Hz written at 44.1 kHz in stereo is one of 440 Hz, as loud, at 16 kHz in mono."
    t = np.arange(2 * 44_100) / 44_100
    tone = 0.4 * np.sin(2 * np.pi * 440 * t)
    frames = [np.roll(BACKGROUND, 2 * i, 1) for i in range(50)]
    path = write_video(
        tmp_path / 'a.mp4', frames, np.stack([tone, tone], 1), sample_rate=44_100, audio_bit_rate=128_000
    )
    audio = read_audio(path)
    assert len(audio) == 50 * SAMPLES_PER_FRAME
    middle = audio[SAMPLE_RATE // 2 : SAMPLE_RATE // 2 + SAMPLE_RATE]
    assert np.abs(np.fft.rfft(middle)).argmax() == 440
    assert middle.std() == pytest.approx(tone.std(), rel=0.03)


def test_pieces_make_the_whole(tmp_path):
    "However long a piece is, pictures and samples are the same, and of one length."
    path = slate(tmp_path / 'a.mp4', 1.0, 0.3, fps=Fraction(30000, 1001))
    wholes = []
    for seconds in (0.04, 0.4, 10.0):
        pieces = list(stream_media(path, seconds))
        assert all(len(audio) == SAMPLES_PER_FRAME * len(frames) for frames, audio in pieces)
        wholes.append((np.concatenate([f for f, _ in pieces]), np.concatenate([a for _, a in pieces])))
    for frames, audio in wholes[1:]:
        np.testing.assert_array_equal(frames, wholes[0][0])
        np.testing.assert_array_equal(audio, wholes[0][1])


# ---------------------------------------------------------------- the thread that decodes ahead


def prefetching():
    return sum(t.name.startswith('prefetch') for t in threading.enumerate())


def test_no_thread_outlives_its_reader(tmp_path):
    "The thread ends when the consumer stops early, also where its error is still held by somebody."
    made = make_clip(0)
    path = write_video(tmp_path / 'a.mp4', made.frames, made.audio)
    assert prefetching() == 0
    pieces = prefetch(stream_media(path, 0.2))
    next(pieces)
    assert prefetching() == 1
    pieces.close()
    assert prefetching() == 0
    with pytest.raises(MediaError, match='too long') as held:
        list(stream_mouth(path, max_seconds=0.5))
    assert held.value.reason == 'too long' and prefetching() == 0
    clips = stream_mouth(path, seconds=0.4)
    next(clips)
    clips.close()
    assert prefetching() == 0


def test_what_is_read_ahead_is_closed(tmp_path):
    "A reader that stops early closes the file, too."
    closed = []

    def items():
        try:
            yield from range(10)
        finally:
            closed.append(True)

    ahead = prefetch(items())
    assert next(ahead) == 0
    ahead.close()
    assert closed
