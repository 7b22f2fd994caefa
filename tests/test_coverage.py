"""Everything in a file is judged, or said not to be: tracks, programmes, clocks, and seconds without sound."""

import json
from dataclasses import asdict
from pathlib import Path

import av
import numpy as np
import pandas as pd
import pytest
from hostile import good, moved, two_programmes
from test_media import BACKGROUND, slate

from avfake.cache import load_clip, open_clip
from avfake.coverage import coverage
from avfake.extraction import extract_clip, extract_clips
from avfake.files import MediaError
from avfake.media import FPS, SAMPLE_RATE, probe, read_audio, stream_frames, stream_media
from avfake.packets import MediaFile
from avfake.report import examine_speaker
from avfake.synthetic import make_clip
from avfake.video import write_video

HALF = 0.51  # frames by which flash and click may be apart
DEFAULT = av.stream.Disposition.default


# ---------------------------------------------------------------- several tracks


def with_sounds(path, tones, default=(), picture=None):
    "A video with a tone of so many Hz in each sound track, the later of more bits; `default` are marked, from 1."
    frames = np.stack([np.roll(BACKGROUND, 2 * i, 1) for i in range(50)]) if picture is None else picture
    parts = []
    for number, tone in enumerate(tones, 1):
        sound = 0.3 * np.sin(2 * np.pi * tone * np.arange(SAMPLE_RATE * len(frames) // FPS) / SAMPLE_RATE)
        name = path.with_name(f'part{number}.mp4')
        parts.append(write_video(name, frames, sound, audio_bit_rate=24_000 * number))
    containers = [av.open(str(part)) for part in parts]
    with av.open(str(path), 'w') as out:
        streams = [containers[0].streams.video[0], *(c.streams.audio[0] for c in containers)]
        copies = [out.add_stream_from_template(s) for s in streams]
        for number, copy in enumerate(copies):
            copy.disposition = DEFAULT if number in (0, *default) else av.stream.Disposition(0)
        packets = []
        for stream, copy in zip(streams, copies):
            packets += [(float(p.dts * p.time_base), p, copy) for p in stream.container.demux(stream) if p.size]
            stream.container.seek(0)
        for _, packet, copy in sorted(packets, key=lambda p: p[0]):
            packet.stream = copy
            out.mux(packet)
    for container in containers:
        container.close()
    return path


def tone_of(path, **sound):
    audio = read_audio(path, **sound)[: SAMPLE_RATE // 2 * 2]
    spectrum = np.abs(np.fft.rfft(audio * np.hanning(len(audio))))
    return round(spectrum.argmax() * SAMPLE_RATE / len(audio))


@pytest.mark.parametrize(
    'name, default, tone',
    [
        ('all.mp4', (1, 2, 3), 300),
        ('none.mkv', (), 300),
        ('second.mkv', (2,), 500),
        ('second.mp4', (2,), 500),
        ('last two.mp4', (2, 3), 500),
    ],
)
def test_the_default_track_is_read_as_players_do(tmp_path, name, default, tone):
    "Not the track of most bits: the dub of an interview was judged in place of the speaker's own voice."
    path = with_sounds(tmp_path / name, (300, 500, 700), default)
    assert abs(tone_of(path) - tone) < 5
    for number, tone in enumerate((300, 500, 700), 1):
        assert abs(tone_of(path, audio_track=number) - tone) < 5
        assert probe(path, audio_track=number).channels == 1


def test_a_wrong_track_says_which_there_are(tmp_path):
    path = with_sounds(tmp_path / 'a.mp4', (300, 500))
    for wrong in (0, 3, -1):
        with pytest.raises(MediaError, match='sound track 1 .*sound track 2 ') as error:
            read_audio(path, audio_track=wrong)
        assert error.value.reason == 'no such track'


def test_the_other_tracks_are_named(tmp_path, detector):
    "In the line, in JSON and on the page; and an entry of another track is another entry."
    head = make_clip(0, 2.0)
    path = with_sounds(tmp_path / 'two.mp4', (300, 500), picture=head.frames)
    report = examine_speaker(detector, path)
    named = 'Sound track 1 (aac, 1 channel) was read, not sound track 2 (aac, 1 channel).'
    assert report.verdict.notes == [named] and named in str(report.verdict) and named in report.body()
    assert json.loads(json.dumps(asdict(report.verdict)))['notes'] == [named]
    second = examine_speaker(detector, path, audio_track=2)
    assert second.verdict.notes[0].startswith('Sound track 2 ')
    assert second.clip.path.rsplit('/', 1)[1] != report.clip.path.rsplit('/', 1)[1]


def test_a_silent_track_names_the_others(tmp_path):
    head = make_clip(0, 2.0)
    loud = write_video(tmp_path / 'loud.mp4', head.frames, head.audio)
    path = with_sounds(tmp_path / 'two.mp4', (0, 500), picture=head.frames)
    row = extract_clip(path, tmp_path / 'cache')
    assert row['reason'] == 'silent' and 'not sound track 2' in row['detail']
    assert extract_clip(path, tmp_path / 'cache', audio_track=2)['reason'] == ''
    assert extract_clip(loud, tmp_path / 'cache')['reason'] == ''


def test_picture_and_sound_are_of_one_programme(tmp_path):
    "Of a broadcast with two programmes the first is read, whichever has more bits or pixels; the other is named."
    path = two_programmes(tmp_path / 'two.ts')
    with MediaFile(path) as file:
        chosen = [t for t in file.tracks if t.chosen]
        assert [(t.kind, t.number, t.programme) for t in chosen] == [('picture', 1, 1), ('sound', 1, 1)]
        assert [t.programme for t in file.tracks] == [1, 2, 1, 2]
    with MediaFile(path, audio_track=2) as file:
        assert [(t.kind, t.number) for t in file.tracks if t.chosen] == [('picture', 2), ('sound', 2)]
    assert next(iter(stream_frames(path))).shape != next(iter(stream_frames(path, audio_track=2))).shape


# ---------------------------------------------------------------- seconds without sound or picture


@pytest.mark.parametrize('suffix', ['.mp4', '.mkv', '.mov', '.ts'])
@pytest.mark.parametrize(
    'frames, sound, expected',
    [
        (slice(0, 100), slice(50, 100), [(0.0, 2.0, 'no sound yet')]),
        (slice(0, 100), slice(0, 40), [(1.6, 4.0, 'the sound has ended')]),
        (slice(0, 100), slice(30, 70), [(0.0, 1.2, 'no sound yet'), (2.8, 4.0, 'the sound has ended')]),
        (slice(0, 60), slice(0, 100), [(2.4, 4.0, 'the picture has ended')]),
        (slice(0, 100), slice(0, 100), []),
    ],
)
def test_what_lies_outside_the_clip_is_listed(tmp_path, suffix, frames, sound, expected):
    made = make_clip(0, 4.0)
    samples = made.audio[640 * sound.start : 640 * sound.stop]
    path = write_video(tmp_path / f'a{suffix}', made.frames[frames], samples, audio_start=sound.start / FPS)
    clip = open_clip(extract_clip(path, tmp_path / 'cache')['entry'])
    found = coverage(clip, np.zeros(clip.n_frames))
    long = [s for s in found.not_judged if s.seconds > 0.2]
    assert [s.why for s in long] == [why for _, _, why in expected]
    for stretch, (start, end, _) in zip(long, expected):
        assert stretch.start == pytest.approx(start, abs=0.11) and stretch.end == pytest.approx(end, abs=0.13)
    assert found.length == pytest.approx(4.0, abs=0.13)


def test_a_verdict_says_what_was_not_judged(tmp_path, detector):
    "A sound of 2 s under a picture of 4 s was judged as a video of 2 s, and nothing said so."
    made = make_clip(0, 4.0)
    report = examine_speaker(detector, write_video(tmp_path / 'short.mp4', made.frames, made.audio[: 2 * SAMPLE_RATE]))
    sentence = 'Not judged: 2.0 of 4.0 s: 2.0-4.0 s (the sound has ended).'
    assert sentence in str(report.verdict)
    told = json.loads(json.dumps(asdict(report.verdict)))
    assert told['length'] == pytest.approx(4.0, abs=0.05)
    assert [s for s in told['not_judged'] if s['end'] - s['start'] > 1][0]['why'] == 'the sound has ended'
    assert '2.0-4.0 s: the sound has ended' in report.body() and 'In all 2.0 of 4.0 s.' in report.body()
    assert report.provenance['length'] == f'{report.verdict.length:.2f} s'


def test_the_face_away_is_listed(tmp_path, detector):
    made = make_clip(0, 4.0)
    frames = made.frames.copy()
    frames[60:] = 90
    report = examine_speaker(detector, write_video(tmp_path / 'away.mp4', frames, made.audio))
    away = [s for s in report.verdict.not_judged if s.why == 'no face']
    assert (
        len(away) == 1 and away[0].start == pytest.approx(2.4, abs=0.3) and away[0].end == pytest.approx(4.0, abs=0.1)
    )


# ---------------------------------------------------------------- clocks that begin anew


def events(path, **sound):
    "Frames of the flashes, places of the clicks in frames, facts of the file."
    facts = {}
    pictures, samples = zip(*stream_media(path, facts=facts, **sound))
    frames, audio = np.concatenate(pictures), np.concatenate(samples)
    bright = frames.mean((1, 2, 3)) > 180
    flashes = np.flatnonzero(bright & ~np.r_[False, bright[:-1]])
    loud = np.flatnonzero(np.abs(audio) > 0.2)
    clicks = loud[np.r_[True, np.diff(loud) > SAMPLE_RATE // 4]] * FPS / SAMPLE_RATE
    return flashes, clicks, facts


def in_sync(flashes, clicks, n):
    return len(flashes) == len(clicks) == n and np.abs(flashes - clicks).max() <= HALF


@pytest.mark.parametrize('audio_start', [0.0, 0.3, -0.3])
@pytest.mark.parametrize('suffix', ['.ts', '.mkv'])
def test_joined_files_are_read_to_the_end(tmp_path, suffix, audio_start):
    "Two files whose bytes were joined: the second part was dropped, since its timestamps go back."
    first = slate(tmp_path / f'first{suffix}', 1.0, audio_start)
    second = slate(tmp_path / f'second{suffix}', 2.0, audio_start)
    joined = tmp_path / f'joined{suffix}'
    joined.write_bytes(first.read_bytes() + second.read_bytes())
    flashes, clicks, facts = events(joined)
    assert in_sync(flashes, clicks, 2)
    (jump,) = facts['jumps']
    assert jump['second'] == pytest.approx(
        max(end for _, end in (facts_of(first)[k] for k in ('picture', 'sound'))), abs=0.1
    )
    length = facts['picture'][1]
    assert length == pytest.approx(2 * facts_of(first)['picture'][1], abs=0.35)
    begins = probe(joined).start
    alone = probe(second).start + events(second)[0][0] / FPS
    assert begins + flashes[1] / FPS == pytest.approx(jump['second'] + alone, abs=0.15)


def facts_of(path):
    return events(path)[2]


@pytest.mark.parametrize(
    'clocks, jumps',
    [
        ((100, 700), 1),
        ((700, 100), 1),
        ((50_000, 100), 1),
        ((100, 700, 30), 2),
        ((100, 130), 0),  # half a minute is filled with a still and silence, as players do
        ((95_440, 0.5), 0),  # the clock of 33 bits runs over at 95 443.7 s
        ((95_442.2,), 0),
    ],
)
def test_jumps_ahead_and_back(tmp_path, clocks, jumps):
    part = slate(tmp_path / 'part.mkv', 1.0, 0.0)
    parts = [moved(part, tmp_path / f'{i}.ts', clock).read_bytes() for i, clock in enumerate(clocks)]
    path = tmp_path / 'all.ts'
    path.write_bytes(b''.join(parts))
    flashes, clicks, facts = events(path)
    assert in_sync(flashes, clicks, len(clocks)) and len(facts['jumps']) == jumps
    if jumps:
        assert np.diff(flashes) / FPS == pytest.approx(3.02, abs=0.06)
        assert [j['after'] for j in facts['jumps']] == pytest.approx(clocks[1:], abs=0.1)


def test_where_the_clock_begins_anew_is_said(tmp_path, detector):
    head = make_clip(0, 2.0)
    part = write_video(tmp_path / 'part.ts', head.frames, head.audio).read_bytes()
    (tmp_path / 'joined.ts').write_bytes(part + part)
    report = examine_speaker(detector, tmp_path / 'joined.ts')
    assert report.verdict.length == pytest.approx(4.1, abs=0.15)
    assert len(report.verdict.notes) == 1 and "The file's clock begins anew at 2.1 s." in str(report.verdict)
    assert report.clip.n_frames > 98


def test_a_picture_that_jumps_alone_is_damaged(tmp_path):
    times = np.arange(75) / 25
    times[40:] += 3600
    frames = [np.roll(BACKGROUND, 2 * i, 1) for i in range(75)]
    path = write_video(tmp_path / 'a.mkv', frames, np.random.default_rng(0).normal(0, 0.1, 48_000), times=times)
    with pytest.raises(MediaError) as error:
        list(stream_media(path))
    assert error.value.reason == 'damaged'


def test_what_cannot_be_read_of_joined_files_is_said(tmp_path):
    "FFmpeg ends at the third of joined Matroska files: a third of the bytes is left."
    part = slate(tmp_path / 'part.mkv', 1.0, 0.0).read_bytes()
    (tmp_path / 'three.mkv').write_bytes(3 * part)
    assert facts_of(tmp_path / 'three.mkv')['unread'] == pytest.approx(1 / 3, abs=0.02)
    assert facts_of(tmp_path / 'part.mkv')['unread'] < 0.05


@pytest.mark.parametrize('suffix', ['.mp4', '.late.mp4', '.flv'])
def test_of_joined_files_with_an_index_the_first_is_read(tmp_path, suffix):
    "As players do; the rest is said to be unread."
    whole = good(suffix)
    for n in (1, 2):
        (tmp_path / f'{n}{suffix}').write_bytes(n * whole)
    once, twice = (facts_of(tmp_path / f'{n}{suffix}') for n in (1, 2))
    assert once['picture'] == twice['picture'] and once['unread'] < 0.05
    assert twice['unread'] == pytest.approx(0.5, abs=0.05)


def test_a_hole_in_the_sound_is_said(tmp_path, detector):
    "Dropped packets: the clock goes on, and the place of what is lost is silent."
    head = make_clip(0, 4.0)
    whole = write_video(tmp_path / 'whole.mkv', head.frames, head.audio)

    def lost(packet):
        return packet.stream.type == 'audio' and 1.5 <= packet.pts * packet.time_base < 2.5

    hole = moved(whole, tmp_path / 'hole.mkv', 0.0, lost)
    (gap,) = facts_of(hole)['silent']
    assert gap == pytest.approx([1.5, 2.5], abs=0.07)
    assert facts_of(whole)['silent'] == []
    assert 'The sound track has nothing at 1.' in str(examine_speaker(detector, hole).verdict)


# ---------------------------------------------------------------- sound in a file of its own


@pytest.mark.parametrize('suffix', ['.wav', '.flac', '.m4a', '.mka'])
@pytest.mark.parametrize('video', ['.mp4', '.ts'])
def test_sound_beside_the_video(tmp_path, suffix, video):
    "It begins with the picture, which may begin later than its file does; the video's own sound is left alone."
    mute = slate(tmp_path / f'video{video}', 1.0, -0.4)
    samples = np.zeros(3 * SAMPLE_RATE, np.float32)
    click = np.arange(SAMPLE_RATE // 50)
    samples[SAMPLE_RATE : SAMPLE_RATE + len(click)] = 0.8 * np.sin(2 * np.pi * 1000 * click / SAMPLE_RATE)
    codec = {'.wav': 'pcm_s16le', '.flac': 'flac', '.mka': 'flac'}.get(suffix, 'aac')
    beside = sound_file(tmp_path / f'sound{suffix}', samples, codec)
    flashes, clicks, facts = events(mute, audio=beside)
    assert in_sync(flashes, clicks, 1) and flashes[0] == 25
    assert facts['sound'][0] == pytest.approx(facts['picture'][0], abs=0.03)
    (heard,) = [t for t in facts['tracks'] if t['kind'] == 'sound']
    assert heard['codec'] == codec and heard['chosen']
    assert read_audio(mute, audio=beside).tolist() != read_audio(mute).tolist()


def sound_file(path: Path, samples, codec):
    with av.open(str(path), 'w', format={'.m4a': 'ipod', '.mka': 'matroska'}.get(path.suffix)) as out:
        stream = out.add_stream(codec, rate=SAMPLE_RATE, layout='mono')
        kind = 'fltp' if codec == 'aac' else 's16'
        for i in range(0, len(samples), 1024):
            block = samples[None, i : i + 1024]
            block = block if codec == 'aac' else np.round(block * 2**15).clip(-(2**15), 2**15 - 1).astype(np.int16)
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(block), format=kind, layout='mono')
            frame.sample_rate = SAMPLE_RATE
            frame.pts = i
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


def test_a_manifest_names_sounds(tmp_path):
    "Column `audio`; an entry belongs to the bytes of both files, and what is wrong with the sound names its file."
    head = make_clip(0, 2.0)
    write_video(tmp_path / 'mute.mp4', head.frames, None)
    write_video(tmp_path / 'whole.mp4', head.frames, head.audio)
    sound_file(tmp_path / 'voice.wav', head.audio, 'pcm_s16le')
    (tmp_path / 'text.wav').write_text('no sound')
    for i, name in enumerate(('no.mp4', 'bad.mp4')):
        write_video(tmp_path / name, head.frames[i + 1 :], None)
    manifest = pd.DataFrame(
        dict(
            path=['mute.mp4', 'whole.mp4', 'no.mp4', 'bad.mp4'],
            audio=['voice.wav', '', 'nowhere.wav', 'text.wav'],
        )
    )
    for _ in range(2):  # the second time from the cache
        table = extract_clips(manifest, tmp_path, tmp_path / 'cache', workers=0, progress=False)
        assert table.reason.tolist() == ['', '', 'missing', 'unreadable']
        assert table.detail[2].startswith('nowhere.wav') and table.detail[3].startswith('text.wav')
    mute, whole = (load_clip(entry) for entry in table.entry[:2])
    n = min(len(mute.audio), len(whole.audio))
    assert np.corrcoef(mute.audio[:n], whole.audio[:n])[0, 1] > 0.9
    plain = extract_clips(manifest[['path']], tmp_path, tmp_path / 'cache', workers=0, progress=False)
    assert plain.reason.tolist() == ['no audio', '', 'no audio', 'no audio']
    sound_file(tmp_path / 'voice.wav', head.audio[::-1].copy(), 'pcm_s16le')
    again = extract_clips(manifest, tmp_path, tmp_path / 'cache', workers=0, progress=False)
    assert again.entry[0] != table.entry[0] and again.entry[1] == table.entry[1]


def test_a_sound_does_not_lead_out_of_the_folder(tmp_path):
    for path in ('/etc/passwd', '../a.wav'):
        with pytest.raises(ValueError, match='leads out'):
            extract_clips(pd.DataFrame(dict(path=['a.mp4'], audio=[path])), tmp_path, tmp_path / 'cache', workers=0)
