"""Bad and odd videos made from a good one: what users, broken downloads and attackers put into a folder.

`python tests/hostile.py FOLDER` writes them all. Each `Case` says what may become of it: the reasons for which it may
be rejected ('' where it may be judged), and by how much its sound is late by its own clock, so that a wrong pairing is
noticed.
"""

import itertools
import math
import os
import random
import socket
import struct
import sys
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache, partial
from pathlib import Path

import av
import cv2
import numpy as np
from reliability import bytes_of

from avfake.files import REASONS
from avfake.media import FPS, SAMPLE_RATE
from avfake.synthetic import make_clip
from avfake.video import write_video

JUDGED = frozenset({''})
NEVER_OF_A_FILE = {'missing', 'unwritable', 'unfamiliar recording', 'decoder crash', 'time limit', 'unexpected error'}
BROKEN = frozenset({*REASONS} - NEVER_OF_A_FILE)  # what may become of a broken file
ODD = BROKEN | JUDGED


def maybe(*reasons):
    "Judged, or rejected for one of these."
    return frozenset({'', *reasons})


def rejected(*reasons):
    return frozenset(reasons)


@dataclass(frozen=True)
class Case:
    "A file, what it is an example of, and what may become of it."

    name: str  # of the file
    kind: str
    make: Callable[[Path], None]
    reasons: frozenset = JUDGED  # keys of REASONS; '' is judged
    late: float | None = 0.0  # seconds by which the sound is late in what is read; None: cannot be told


# ---------------------------------------------------------------- the good one


@lru_cache
def source() -> tuple[np.ndarray, np.ndarray]:  # frames [60, 192, 192, 3] uint8, sound [60*640] float32
    "A synthetic head that speaks."
    clip = make_clip(3, seconds=2.4)
    return clip.frames, clip.audio


def encode(
    path,
    frames=None,
    sound=None,
    *,
    form=None,
    mux=None,
    more=(),
    offset=0.0,
    audio='aac',
    rate=SAMPLE_RATE,
    layout='mono',
    start=0.0,
    **picture,
):
    """Write any codec into any container. `sound` is [N] or [channels, N] at `rate` and starts at second `start`;
    `more`: further sounds; `offset` moves the clock of both; `picture`: what `picture_packets` takes."""
    with av.open(str(path), 'w', format=form, options=mux or {}) as out:
        packets = []
        if frames is not None:
            packets += picture_packets(out, frames, offset=offset, **picture)
        for which in [sound, *more]:
            if which is not None:
                packets += sound_packets(out, which, audio, rate, layout, start + offset)
        out.mux(sorted(packets, key=decoding_time))


def decoding_time(packet):
    return float((packet.dts if packet.dts is not None else packet.pts or 0) * packet.time_base)


def picture_packets(
    out, frames, offset, video='libx264', pix='yuv420p', fps=25, times=None, options=None, change=None
):  # `times`: seconds of the frames; `change`: of the stream, before anything is written
    stream = out.add_stream(video, rate=Fraction(fps), options=options or {})
    stream.height, stream.width = frames[0].shape[:2]
    stream.pix_fmt = pix
    stream.codec_context.thread_count = 1
    if times is not None or offset:
        stream.codec_context.time_base = Fraction(1, 30_000)
    if change:
        change(stream)
    base = stream.codec_context.time_base or Fraction(1, 1) / Fraction(fps)
    packets = []
    for i, picture in enumerate(frames):
        form = 'rgba' if picture.shape[2] == 4 else 'rgb24'
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format=form).reformat(format=pix)
        frame.time_base = base
        frame.pts = round(((i / float(fps) if times is None else times[i]) + offset) / base)
        packets += stream.encode(frame)
    return packets + stream.encode(None)


def sound_packets(out, sound, audio, rate, layout, start):
    heard = np.atleast_2d(np.asarray(sound, np.float32))
    stream = out.add_stream(audio, rate=rate, layout=layout)
    packets = []
    for i in range(0, heard.shape[1], 1024):
        part = np.ascontiguousarray(heard[:, i : i + 1024])
        frame = av.AudioFrame.from_ndarray(part, format='fltp', layout=layout)
        frame.sample_rate = rate
        frame.time_base = Fraction(1, rate)
        frame.pts = i + round(start * rate)
        packets += stream.encode(frame)
    return packets + stream.encode(None)


def at_rate(sound, rate):  # the same sound at another sample rate
    at = np.arange(len(sound) * rate // SAMPLE_RATE) * SAMPLE_RATE / rate
    return np.interp(at, np.arange(len(sound)), sound).astype(np.float32)


def film(path, frames=None, sound=None, *, rate=SAMPLE_RATE, **kw):
    "The good clip, with other frames, another sound, or written otherwise."
    good_frames, good_sound = source()
    frames = good_frames if frames is None else frames
    sound = at_rate(good_sound, rate) if sound is None else sound
    encode(path, frames, sound, rate=rate, **kw)


GOOD_CODECS = {
    '.webm': dict(video_codec='libvpx', audio_codec='libopus', sample_rate=48_000),
    '.avi': dict(video_codec='mpeg4', audio_codec='libmp3lame'),
}


@lru_cache
def good(suffix: str) -> bytes:
    "The good clip in a container."
    frames, sound = source()
    if suffix == '.flv':
        write = partial(encode, frames=frames, sound=at_rate(sound, 44_100), rate=44_100)
    elif suffix == '.late.mp4':
        write = film  # its index stands at the end
    else:
        kw = GOOD_CODECS.get(suffix, {})
        write = partial(write_video, frames=frames, audio=at_rate(sound, kw.get('sample_rate', SAMPLE_RATE)), **kw)
    return bytes_of(write, f'good{suffix}')


# ---------------------------------------------------------------- broken bytes


def write(data, path):
    path.write_bytes(data())


def cut(suffix, fraction):
    return good(suffix)[: int(len(good(suffix)) * fraction)]


def boxes(data: bytes, start=0, end=None) -> Iterator[tuple[str, int, int]]:  # name, start, end
    "The boxes of an mp4 file, at one level."
    while start + 8 <= (end or len(data)):
        size, name = struct.unpack('>I4s', data[start : start + 8])
        if size < 8:
            return
        yield name.decode('latin1'), start, start + size
        start += size


def box(data, *names) -> tuple[int, int]:  # start and end of moov/trak/...
    start = 0
    end = len(data)
    for i, name in enumerate(names):
        start, end = next((a, b) for n, a, b in boxes(data, start + 8 if i else 0, end) if n == name)
    return start, end


def flip(suffix, seed, bits, low, high):
    "Turn some bits of a stretch, given in fractions of the file."
    data = bytearray(good(suffix))
    rng = random.Random(f'{suffix}{seed}')
    a = int(len(data) * low)
    b = max(int(len(data) * high), a + 64)
    for _ in range(bits):
        data[rng.randrange(a, min(b, len(data)))] ^= 1 << rng.randrange(8)
    return bytes(data)


def flip_moov(seed, bits):
    data = bytearray(good('.mp4'))
    rng = random.Random(seed)
    a, b = box(data, 'moov')
    for _ in range(bits):
        data[rng.randrange(a + 8, b)] ^= 1 << rng.randrange(8)
    return bytes(data)


def splice(suffix, how, seed):
    data = good(suffix)
    rng = random.Random(f'{suffix}{how}{seed}')
    a = rng.randrange(len(data) // 4, len(data) * 3 // 4)
    n = len(data) // 20
    return {
        'zeros': data[:a] + bytes(n) + data[a + n :],
        'lost': data[:a] + data[a + n :],
        'junk': data[:a] + rng.randbytes(n) + data[a:],
        'twice': data[:a] + data[a - n : a] + data[a:],
        'prefix': rng.randbytes(300) + data,
        'suffix': data + rng.randbytes(5000),
        'doubled': data + data,
    }[how]


def without(name):  # of an mp4: the box is renamed
    data = bytearray(good('.mp4'))
    a, _ = box(data, name)
    data[a + 4 : a + 8] = b'free'
    return bytes(data)


def only(name):
    data = good('.mp4')
    a, b = box(data, name)
    return data[: box(data, 'ftyp')[1]] + data[a:b]


def patch(names, at, value):  # overwrite bytes in a box of an mp4
    data = bytearray(good('.mp4'))
    a, _ = box(data, *names)
    data[a + at : a + at + len(value)] = value
    return bytes(data)


STBL = 'moov', 'trak', 'mdia', 'minf', 'stbl'


SUFFIXES = '.mp4', '.late.mp4', '.mkv', '.webm', '.avi', '.ts', '.flv', '.mov'
CUTS = (0.001, 0.01, 0.05, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 0.9, 0.97, 0.999)
SPLICES = 'zeros', 'lost', 'junk', 'twice', 'prefix', 'suffix', 'doubled'
SIZES = {
    'zero': b'\0\0\0\0',
    'huge': b'\x7f\xff\xff\xff',
    'one': b'\0\0\0\1',
    'tiny': b'\0\0\0\4',
    'all': b'\xff\xff\xff\xff',
}


def broken() -> Iterator[Case]:
    for s in SUFFIXES:
        for fraction in CUTS:
            make = partial(write, partial(cut, s, fraction))
            yield Case(f'cut-{fraction}{s}', 'truncated', make, ODD, None if fraction < 0.3 else 0.0)
        for seed, bits in enumerate((1, 1, 4, 16, 64)):
            header = partial(write, partial(flip, s, seed, bits, 0, 0.02))
            payload = partial(write, partial(flip, s, seed, bits, 0.3, 1))
            yield Case(f'header-{seed}{s}', 'bits flipped in the header', header, ODD, None)
            yield Case(f'payload-{seed}{s}', 'bits flipped in the payload', payload, ODD)
        for how in SPLICES:
            yield Case(f'spliced-{how}{s}', 'spliced', partial(write, partial(splice, s, how, 0)), ODD, None)


def broken_boxes() -> Iterator[Case]:
    for seed in range(24):
        make = partial(write, partial(flip_moov, seed, 1 + seed // 3))
        yield Case(f'moov-{seed}.mp4', 'bits flipped in the index', make, ODD, None)
    for name in ('moov', 'mdat', 'ftyp'):
        yield Case(f'no-{name}.mp4', 'a box is missing', partial(write, partial(without, name)), ODD)
    for name in ('moov', 'mdat'):
        yield Case(f'only-{name}.mp4', 'a box is missing', partial(write, partial(only, name)), BROKEN)
    for name, size in SIZES.items():
        make = partial(write, partial(patch, ('moov',), 0, size))
        yield Case(f'size-{name}.mp4', 'a box lies about its size', make, ODD)
        for table in ('stsz', 'stco', 'stsc', 'stts'):
            make = partial(write, partial(patch, (*STBL, table), 16 if table == 'stsz' else 12, size))
            yield Case(f'{table}-{name}.mp4', 'an index lies about its length', make, ODD, None)
    long = partial(write, partial(patch, ('moov', 'mvhd'), 24, struct.pack('>I', 48_000_000)))
    yield Case('long-header.mp4', 'declares 13 hours', long, ODD)


def image(suffix):
    return cv2.imencode(suffix, source()[0][0])[1].tobytes()


DASH = b'<MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"><Period><AdaptationSet/></Period></MPD>'


def not_videos() -> Iterator[Case]:
    rng = random.Random(0)
    html = b'<!doctype html><html><body>Sign in to download</body></html>' * 20
    things = {
        'nothing': b'',
        'one-byte': b'\0',
        'two-bytes': b'ab',
        'ftyp-alone': b'\0\0\0\x14ftypisom\0\0\0\0isom',
        'zeros': bytes(1 << 20),
        'random': rng.randbytes(1 << 20),
        'text': b'not a video\n' * 99,
        'html': html,
        'json': b'{"a": [1, 2]}' * 50,
        'xml': b'<?xml version="1.0"?><MPD/>',
        'png': image('.png'),
        'jpeg': image('.jpg'),
        'bmp': image('.bmp'),
        'tiff': image('.tiff'),
        'webp': image('.webp'),
        'pdf': b'%PDF-1.7\n' + rng.randbytes(5000),
        'elf': b'\x7fELF' + rng.randbytes(5000),
        'gzip': b'\x1f\x8b\x08' + rng.randbytes(5000),
        'pickle': b'\x80\x04cos\nsystem\n(S"touch pwned"\ntR.',
        'subtitles': b'1\n00:00:00,000 --> 00:00:02,000\nHello\n\n',
        'playlist': b'#EXTM3U\n#EXTINF:2,\ngood.mp4\n#EXT-X-ENDLIST\n',
        'playlist-abroad': b'#EXTM3U\n#EXTINF:2,\nhttp://127.0.0.1:9/x.ts\n#EXT-X-ENDLIST\n',
        'playlist-passwd': b'#EXTM3U\n#EXTINF:2,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n',
        'concat': b'ffconcat version 1.0\nfile good.mp4\n',
        'sdp': b'v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 9 RTP/AVP 96\n',
        'dash': b'<?xml version="1.0"?>' + DASH,
    }
    for name, data in things.items():
        yield Case(f'{name}.mp4', 'not a video', partial(write, lambda data=data: data), BROKEN)

    def zipped(path):
        with zipfile.ZipFile(path, 'w') as z:
            z.writestr('good.mp4', good('.mp4'))

    yield Case('zip.mp4', 'not a video', zipped, BROKEN)
    for data, suffix in (
        ('.mp4', '.avi'),
        ('.mp4', '.mkv'),
        ('.mkv', '.mp4'),
        ('.webm', '.mov'),
        ('.avi', '.mp4'),
        ('.ts', '.mp4'),
        ('.flv', '.mp4'),
        ('.mp4', '.ts'),
    ):
        yield Case(f'really{data}{suffix}', 'another suffix', partial(write, partial(good, data)))


# ---------------------------------------------------------------- odd streams


TRUNCATED = maybe('truncated')
ANY_CLOCK = {'avoid_negative_ts': 'disabled'}


def missing_streams() -> Iterator[Case]:
    frames, sound = source()
    for s in ('.mp4', '.mkv'):
        yield Case(f'no-audio{s}', 'a stream is missing', lambda p: encode(p, frames), rejected('no audio'))
        yield Case(f'no-video{s}', 'a stream is missing', lambda p: encode(p, None, sound), rejected('no video'))


def timing() -> Iterator[Case]:
    frames, sound = source()
    at = np.arange(60) / FPS
    lengths = dict(shorter=sound[: SAMPLE_RATE * 3 // 2], longer=np.r_[sound, sound])
    lengths['much-longer'] = np.tile(sound, 20)
    for s in ('.mp4', '.mkv', '.mov'):
        for name, heard in lengths.items():
            yield Case(f'audio-{name}{s}', 'lengths differ', partial(film, sound=heard), TRUNCATED)
        for start in (0.013, 0.2, 0.7):
            late = partial(film, start=start)
            early = partial(film, times=at + start)
            yield Case(f'audio-{start}-later{s}', 'starts differ', late, late=start)
            yield Case(f'audio-{start}-earlier{s}', 'starts differ', early, late=-start)
        never = rejected('too short', 'truncated', 'still image', 'damaged')
        yield Case(f'never-together{s}', 'starts differ', partial(film, start=30.0), never, None)
        yield Case(f'offset{s}', 'clock', partial(film, offset=1000.0))
        steps = np.sort(np.random.default_rng(5).uniform(0, 2.4, 90)).round(3)
        shown = frames[np.minimum((steps * FPS).astype(int), 59)]
        variable = partial(film, frames=shown, times=np.unique(steps))
        yield Case(f'variable{s}', 'variable frame rate', variable)


def clocks() -> Iterator[Case]:
    frames, sound = source()
    for s in ('.mp4', '.mov', '.mkv'):  # of the first two, an edit list cuts what lies before zero
        yield Case(f'negative{s}', 'clock', partial(film, offset=-0.4, mux=ANY_CLOCK), TRUNCATED)
    wrapped = partial(film, offset=2**33 / 90_000 - 1.0, mux={'mpegts_copyts': '1'})
    yield Case('wrap.ts', 'clock', wrapped)
    jump = np.arange(60) / FPS
    jump[30:] += 3600
    yield Case('jump.mkv', 'clock', partial(film, times=jump), rejected('damaged', 'too long'))
    day = dict(sound=np.tile(sound[::2], 1250), rate=8000, times=np.arange(60) * 50.0, video='mpeg4')
    yield Case('a-day-of-nothing.mkv', 'bomb', partial(film, **day), rejected('too long'))


def moved(source, target, seconds, lost=lambda packet: False):
    "Copy a file with all its timestamps moved, but for the packets that are `lost`."
    with av.open(str(source)) as old, av.open(str(target), 'w', options={'mpegts_copyts': '1'}) as new:
        copies = {s.index: new.add_stream_from_template(s) for s in old.streams}
        for packet in old.demux():
            if not packet.size or lost(packet):
                continue
            ticks = round(seconds / packet.time_base)
            packet.pts += ticks
            if packet.dts is not None:
                packet.dts += ticks
            packet.stream = copies[packet.stream_index]
            new.mux(packet)
    return target


def begun_anew(path, clocks):
    "The good clip again and again, with a clock that begins at each of `clocks`."
    parts = []
    for clock in clocks:
        whole = path.with_name(f'.part{path.suffix}')
        write_video(whole, *source())
        parts.append(moved(whole, path, clock).read_bytes())
        whole.unlink()
    path.write_bytes(b''.join(parts))


def anew() -> Iterator[Case]:
    for name, clocks in {'back': (100, 20), 'ahead': (20, 1000), 'again': (10, 10, 10)}.items():
        yield Case(f'anew-{name}.ts', 'clock begins anew', partial(begun_anew, clocks=clocks), late=None)
    yield Case('anew.mkv', 'clock begins anew', lambda p: p.write_bytes(2 * good('.mkv')), late=None)


FRAME_RATES = (1, 5, 10, 12.5, 15, 24, Fraction(24000, 1001), Fraction(30000, 1001), 30, 48, 50, 60, 120, 240)


def frame_rates() -> Iterator[Case]:
    frames, sound = source()
    for fps in FRAME_RATES:
        n = math.ceil(2.4 * fps)
        chosen = frames[np.minimum((np.arange(n) / float(fps) * FPS).astype(int), 59)]
        make = partial(film, frames=chosen, fps=Fraction(fps))
        if fps <= 10:
            reasons = maybe('still image', 'too short', 'no face', 'truncated')
            yield Case(f'{float(fps):g}-fps.mp4', 'frame rate', make, reasons, None)
        else:
            yield Case(f'{float(fps):g}-fps.mp4', 'frame rate', make)
    for n in (1, 2, 5, 15, 16, 20):
        make = partial(film, frames=frames[:n], sound=sound[: n * 640])
        yield Case(f'{n}-frames.mp4', 'few frames', make, maybe('too short', 'still image'), None)


def several_streams() -> Iterator[Case]:
    frames, sound = source()
    small = np.stack([cv2.resize(f, (128, 128)) for f in frames])
    yield Case('two-sounds.mkv', 'several streams', partial(film, more=[sound * 0]), maybe('silent'))
    yield Case('cover.mp4', 'several streams', cover, rejected('no video', 'still image', 'unreadable'))
    resized = partial(write, lambda: ts(frames, sound) + ts(small, sound))
    yield Case('resized.ts', 'changes within', resized, ODD, None)


def partly() -> Iterator[Case]:
    "Of what is read of them, sound and picture belong together; the rest has one of the two."
    frames, sound = source()
    for s in ('.mp4', '.mkv', '.ts'):
        late = partial(film, sound=sound[16_000:], start=1.0)
        yield Case(f'late-sound{s}', 'sound in part', late)
        yield Case(f'sound-ends-early{s}', 'sound in part', partial(film, sound=sound[:25_600]), TRUNCATED)
        yield Case(f'dubbed{s}', 'several tracks', partial(film, more=[sound[::-1].copy()]))
    yield Case('two-programmes.ts', 'several programmes', two_programmes)


PACKET = 188  # bytes of a transport stream


def checksum(data):  # of the tables of a transport stream
    c = 0xFFFFFFFF
    for byte in data:
        c ^= byte << 24
        for _ in range(8):
            c = ((c << 1) ^ 0x04C11DB7 if c & 0x80000000 else c << 1) & 0xFFFFFFFF
    return c.to_bytes(4, 'big')


def programme(number, frames, sound):
    "Packets of a transport stream with this programme."
    options = {
        'mpegts_service_id': str(number),
        'mpegts_pmt_start_pid': str(0x1000 + number),
        'mpegts_start_pid': str(0x100 * number),
    }
    data = bytes_of(partial(encode, frames=frames, sound=sound, mux=options), f'programme{number}.ts')
    return [data[i : i + PACKET] for i in range(0, len(data), PACKET)]


def two_programmes(path):
    "A broadcast: the second programme is larger, and has the sound backwards."
    frames, sound = source()
    large = np.stack([cv2.resize(f, (320, 320)) for f in frames])
    parts = [programme(1, frames, sound), programme(2, large, sound[::-1].copy())]
    table = bytes([0, 0xB0, 17, 0, 1, 0xC1, 0, 0])
    for number in (1, 2):
        table += struct.pack('>HH', number, 0xE000 | 0x1000 + number)
    table += checksum(table)
    packets = []
    tables = 0
    for packet in (p for both in itertools.zip_longest(*parts) for p in both if p):
        if struct.unpack('>H', packet[1:3])[0] & 0x1FFF == 0:  # a list of programmes: of both
            head = bytes([0x47, 0x40, 0, 0x10 | tables % 16, 0])
            packet = (head + table).ljust(PACKET, b'\xff')
            tables += 1
        packets.append(packet)
    path.write_bytes(b''.join(packets))
    return path


def ts(frames, sound):
    return bytes_of(partial(encode, frames=frames, sound=sound), 'part.ts')


def cover(path):
    "A song with a picture of its singer."
    with av.open(str(path), 'w') as out:
        frames, sound = source()
        audio = out.add_stream('aac', rate=SAMPLE_RATE, layout='mono')
        picture = out.add_stream('png', rate=1)
        picture.width = picture.height = 192
        picture.pix_fmt = 'rgb24'
        picture.disposition = av.stream.Disposition.attached_pic
        frame = av.VideoFrame.from_ndarray(frames[0], format='rgb24')
        frame.pts = 0
        out.mux([*picture.encode(frame), *picture.encode(None)])
        for i in range(0, len(sound), 1024):
            frame = av.AudioFrame.from_ndarray(sound[None, i : i + 1024], format='fltp', layout='mono')
            frame.sample_rate = SAMPLE_RATE
            frame.pts = i
            out.mux(audio.encode(frame))
        out.mux(audio.encode(None))


def big(path, width, height, n, **kw):
    frames = (cv2.resize(f, (width, height), interpolation=cv2.INTER_LINEAR) for f in source()[0][:n])
    encode(path, Lazy(frames), source()[1][: n * 640], **kw)


class Lazy:
    "Frames made when they are asked for, the first at once."

    def __init__(self, frames):
        self.first = next(frames)
        self.rest = frames

    def __getitem__(self, i):
        return self.first

    def __iter__(self):
        yield self.first
        yield from self.rest


def colours(range_=1, space=1, primaries=1, transfer=1):
    def change(stream):
        c = stream.codec_context
        c.color_range = range_
        c.colorspace = space
        c.color_primaries = primaries
        c.color_trc = transfer

    return change


def interlace(stream):
    stream.codec_context.flags |= av.codec.context.Flags.interlaced_dct | av.codec.context.Flags.interlaced_me


FAST = dict(options={'preset': 'ultrafast'})
LOSSLESS = dict(video='ffv1', pix='bgr0')
PNG = dict(video='png', pix='gray')


def sizes() -> Iterator[Case]:
    odd = maybe('no face', 'still image', 'unreadable')
    for w, h in ((10_000, 10), (10, 10_000), (2, 2), (16, 16), (34, 34)):
        yield Case(f'{w}x{h}.mp4', 'odd size', partial(big, width=w, height=h, n=40, **FAST), odd, None)
    for w, h in ((64, 64), (121, 97), (97, 160), (854, 480)):
        make = partial(big, width=w, height=h, n=60, **LOSSLESS)
        yield Case(f'{w}x{h}.mkv', 'odd size', make, maybe('no face'), None if w == 64 else 0.0)
    eight_k = partial(big, width=7680, height=4320, n=25, **FAST)
    yield Case('7680x4320.mp4', '8K', eight_k, maybe('no face', 'time limit'), None)
    yield Case('9000x9000.mov', 'bomb', partial(big, width=9000, height=9000, n=3, **PNG), rejected('too large'))
    bomb = partial(big, width=8000, height=8000, n=20, **PNG)
    yield Case('8000x8000.mov', 'bomb', bomb, maybe('no face', 'time limit', 'too short'), None)


PIXEL_FORMATS = """
yuv420p10le libx264     .mp4
yuv422p     libx264     .mp4
yuv444p     libx264     .mp4
yuvj420p    libx264     .mp4
gray        libx264     .mkv
yuv420p     libx265     .mp4
yuv420p10le libx265     .mp4
yuv422p10le prores_ks   .mov
gray        ffv1        .mkv
gray10le    ffv1        .mkv
gray16le    ffv1        .mkv
yuv444p16le ffv1        .mkv
rgb24       libx264rgb  .mkv
bgr24       rawvideo    .avi
rgb24       png         .mov
rgb24       qtrle       .mov
yuv422p     utvideo     .avi
rgb24       huffyuv     .avi
"""
WITH_ALPHA = """
yuva444p10le prores_ks  .mov
yuva420p     libvpx-vp9 .webm
rgba         png        .mov
yuva420p     ffv1       .mkv
argb         qtrle      .mov
"""
COLOURS = {
    'hdr10': dict(video='libx265', pix='yuv420p10le', change=colours(1, 9, 9, 16)),
    'hlg': dict(pix='yuv420p10le', change=colours(1, 9, 9, 18)),
    'bt601': dict(change=colours(1, 6, 6, 6)),
    'full': dict(change=colours(2)),
    'nonsense': dict(change=colours(2, 8, 10, 8)),
}


def rows(table):  # lists of words
    return [line.split() for line in table.strip().splitlines()]


def pixel_formats() -> Iterator[Case]:
    for pix, video, suffix in rows(PIXEL_FORMATS):
        yield Case(f'{video}-{pix}{suffix}', 'pixel format', partial(film, video=video, pix=pix))
    clear = np.concatenate([source()[0], np.full((60, 192, 192, 1), 255, np.uint8)], -1)
    for pix, video, suffix in rows(WITH_ALPHA):
        kw = dict(audio='libopus', rate=48_000) if suffix == '.webm' else {}
        make = partial(film, frames=clear, video=video, pix=pix, **kw)
        yield Case(f'{video}-{pix}{suffix}', 'alpha', make)
    for name, kw in COLOURS.items():
        reasons = maybe('unreadable') if name == 'nonsense' else JUDGED
        yield Case(f'{name}.mp4', 'HDR and colour spaces', partial(film, **kw), reasons)


VIDEO_CODECS = {
    'mpeg4.mp4': dict(video='mpeg4'),
    'mjpeg.mp4': dict(video='mjpeg', pix='yuvj420p'),
    'vp9.mkv': dict(video='libvpx-vp9', form='matroska'),
    'av1.mp4': dict(video='libsvtav1', options={'preset': '11'}),
    'mpeg1.mpg': dict(video='mpeg1video', audio='mp2', rate=16_000),
    'mpeg2.mpg': dict(video='mpeg2video', audio='mp2'),
    'mpeg2.ts': dict(video='mpeg2video', audio='mp2'),
    'wmv2.wmv': dict(video='wmv2', audio='libmp3lame', rate=44_100),
    'flv1.flv': dict(video='flv', audio='libmp3lame', rate=22_050),
    'msmpeg4.avi': dict(video='msmpeg4', audio='libmp3lame'),
    'mjpeg.avi': dict(video='mjpeg', pix='yuvj420p', audio='pcm_s16le'),
    'theirs.3gp': dict(video='mpeg4'),
    'svq1.mov': dict(video='svq1', pix='yuv410p', audio='pcm_s16be'),
    'vp8.mkv': dict(video='libvpx', audio='libopus', rate=48_000),
    'snow.nut': dict(video='snow', options={'strict': '-2'}),
}


def video_codecs() -> Iterator[Case]:
    frames, _ = source()
    for name, kw in VIDEO_CODECS.items():
        reasons = maybe('unreadable') if name == 'snow.nut' else JUDGED
        yield Case(name, 'codec', partial(film, **kw), reasons, None if name == 'flv1.flv' else 0.0)
    gif = partial(encode, frames=frames, video='gif', pix='rgb8')
    yield Case('frames.gif', 'codec', gif, rejected('no audio', 'unreadable'))
    yield Case('interlaced.ts', 'interlaced', partial(film, video='mpeg2video', audio='mp2', change=interlace))
    yield Case('interlaced.mp4', 'interlaced', partial(film, options={'x264-params': 'tff=1'}))


def stretched(path, ratio):
    "Pixels that are not square."

    def change(stream):
        stream.codec_context.sample_aspect_ratio = ratio

    width = round(192 / ratio) // 2 * 2
    film(path, frames=np.stack([cv2.resize(f, (width, 192)) for f in source()[0]]), change=change)


def turned(path, degrees, **kw):
    frames, sound = source()
    write_video(path, [np.rot90(f, degrees // 90) for f in frames], sound, **kw)


def shapes() -> Iterator[Case]:
    for degrees in (90, 180, 270):
        stated = partial(turned, degrees=degrees, rotation=degrees)
        unstated = partial(turned, degrees=degrees)
        yield Case(f'turned-{degrees}.mp4', 'rotation', stated)
        yield Case(f'turned-{degrees}-unstated.mp4', 'rotation', unstated, maybe('no face'), None)
    for ratio in (Fraction(1, 2), Fraction(2), Fraction(16, 15)):
        yield Case(f'aspect-{float(ratio):.2f}.mp4', 'pixel aspect', partial(stretched, ratio=ratio))


SAMPLE_RATES = (8000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000, 64_000, 88_200, 96_000)
AUDIO_CODECS = """
ac3        .mp4 48000
eac3       .mp4 48000
alac       .mov 16000
flac       .mkv 16000
libopus    .mkv 48000
libmp3lame .mp4 44100
mp2        .mkv 44100
pcm_u8     .mkv 16000
pcm_s24le  .mov 48000
pcm_f64le  .mkv 16000
pcm_mulaw  .mov 8000
pcm_alaw   .avi 8000
adpcm_ms   .avi 16000
wavpack    .mkv 16000
tta        .mkv 16000
"""


def audio_codecs() -> Iterator[Case]:
    for rate in SAMPLE_RATES:
        yield Case(f'{rate}-hz.mp4', 'sample rate', partial(film, rate=rate))
    for rate in (8000, 37_123, 96_000, 176_400, 192_000):
        yield Case(f'{rate}-hz.mkv', 'sample rate', partial(film, rate=rate, audio='pcm_s16le'))
    for codec, suffix, rate in rows(AUDIO_CODECS):
        # packets of wavpack are long, and do not say how long
        reasons = maybe('too short') if codec == 'wavpack' else JUDGED
        yield Case(f'{codec}{suffix}', 'audio codec', partial(film, audio=codec, rate=int(rate)), reasons)


def channels() -> Iterator[Case]:
    _, sound = source()

    def many(n):
        return np.stack([sound * g for g in np.linspace(0.2, 1, n)])

    for layout, n in (('stereo', 2), ('2.1', 3), ('quad', 4), ('5.0', 5), ('5.1', 6), ('6.1', 7)):
        yield Case(f'{layout}.mkv', 'channels', partial(film, sound=many(n), layout=layout, audio='flac'))
    yield Case('surround.mp4', 'channels', partial(film, sound=many(6), layout='5.1'))
    left = np.stack([sound, 0 * sound])
    yield Case('left-only.mp4', 'channels', partial(film, sound=left, layout='stereo'))
    opposite = partial(film, sound=np.stack([sound, -sound]), layout='stereo', audio='pcm_s16le')
    yield Case('anti-phase.mkv', 'channels', opposite, maybe('silent'), None)


def levels() -> Iterator[Case]:
    _, sound = source()
    rng = np.random.default_rng(0)
    exact = dict(audio='pcm_f32le')
    silent = rejected('silent')
    yield Case('silent.mp4', 'level', partial(film, sound=sound * 0), silent)
    yield Case('nearly-silent.mkv', 'level', partial(film, sound=sound * 1e-5, **exact), silent)
    yield Case('faint.mkv', 'level', partial(film, sound=sound * 1e-2, **exact))
    yield Case('clipped.mp4', 'level', partial(film, sound=np.clip(sound * 100, -1, 1)))
    yield Case('too-loud.mkv', 'level', partial(film, sound=sound * 1e6, **exact))
    yield Case('direct-current.mkv', 'level', partial(film, sound=sound * 0.3 + 0.6, **exact))
    for name, value in (('nan', np.nan), ('infinite', np.inf), ('minus-infinite', -np.inf), ('denormal', 1e-42)):
        ill = sound.copy()
        ill[rng.random(len(ill)) < 0.01] = value
        late = 0.0 if name == 'denormal' else None
        yield Case(f'{name}.mkv', 'NaN samples', partial(film, sound=ill, **exact), late=late)
    yield Case('all-nan.mkv', 'NaN samples', partial(film, sound=sound * np.nan, **exact), maybe('silent'), None)
    noise = rng.normal(0, 0.1, len(sound))
    yield Case('noise-alone.mp4', 'level', partial(film, sound=noise), late=None)


def drawn(frame):  # a cartoon of a picture
    lines = cv2.cvtColor(255 - cv2.Canny(frame, 40, 120), cv2.COLOR_GRAY2RGB)
    return cv2.bitwise_and(cv2.bilateralFilter(frame, 9, 75, 75) // 48 * 48, lines)


def away_from(frames, first):
    "The face leaves the picture."
    out = frames.copy()
    out[first:] = 90
    return out


def contents() -> Iterator[Case]:
    frames, sound = source()
    other = make_clip(7, seconds=2.4).frames
    walls = np.random.default_rng(0).integers(0, 255, (60, 192, 192, 3), dtype=np.uint8)
    edges = np.stack([cv2.Canny(f, 40, 120) for f in frames])[..., None].repeat(3, 3)
    small = np.stack([cv2.resize(f, (40, 40)) for f in frames])
    far = np.pad(small, ((0, 0), (200, 200), (200, 200), (0, 0)), 'edge')
    anything = maybe('no face')
    nobody = rejected('no face')
    for name, shown, reasons, late in (
        ('noise', walls, nobody, None),
        ('black', frames * 0, rejected('still image', 'no face'), None),
        ('leaves', away_from(frames, 30), anything, None),
        ('leaves-early', away_from(frames, 12), nobody, None),
        ('cartoon', np.stack([drawn(f) for f in frames]), anything, None),
        ('edges', edges, anything, None),
        ('two-faces', np.concatenate([frames, other], 2), JUDGED, 0.0),
        ('nine-faces', np.tile(frames, (1, 3, 3, 1)), JUDGED, 0.0),
        ('upside-down', frames[:, ::-1], anything, None),
        ('photographic-negative', 255 - frames, anything, None),
        ('dark', frames // 12, anything, None),
        ('far-away', far, anything, None),
        ('cut-to-another', np.concatenate([frames[:30], other[30:]]), anything, None),
        ('photograph', frames[:1].repeat(60, 0), rejected('still image'), None),
    ):
        yield Case(f'{name}.mp4', 'content', partial(write_video, frames=shown, audio=sound), reasons, late)


# ---------------------------------------------------------------- names and things that are no files

NAMES = (
    'with space.mp4',
    ' leading.mp4',
    "it's.mp4",
    'double"quote.mp4',
    'new\nline.mp4',
    'tab\there.mp4',
    'carriage\rreturn.mp4',
    'bell\a.mp4',
    'back\\slash.mp4',
    'ünïcödé.mp4',
    'u\u0308 decomposed.mp4',
    '\u202egnp.mp4',
    'emoji 😀.mp4',
    '中文.mp4',
    '-dash.mp4',
    '--checkpoint.mp4',
    '%s %d.mp4',
    '{0}.mp4',
    '$(touch pwned).mp4',
    '`touch pwned`.mp4',
    '; touch pwned;.mp4',
    '| cat.mp4',
    '<script>alert(1)<script>.mp4',
    '"><img src=x onerror=alert(1)>.mp4',
    'http:x.mp4',
    'concat:a|b.mp4',
    'pipe:0.mp4',
    'file:good.mp4',
    'a' * 251 + '.mp4',
    '*.mp4',
    '?.mp4',
    '[a].mp4',
    'UPPER.MP4',
    'two..dots.mp4',
    '#hash.mp4',
    '~.mp4',
    'a=b,c.mp4',
    'nul.mp4',
    '.hidden.mp4',
    '\x7fdelete.mp4',
    '\ud800'.encode('utf-8', 'surrogatepass').decode('utf-8', 'surrogateescape') + '.mp4',
    b'latin-\xe9.mp4'.decode('utf-8', 'surrogateescape'),
    b'\xff\xfe.mp4'.decode('utf-8', 'surrogateescape'),
)


def fifo(path):
    os.mkfifo(path)


def door(path):
    place = os.getcwd()
    os.chdir(path.parent)  # the address of a socket may have 107 bytes
    try:
        with socket.socket(socket.AF_UNIX) as s:
            s.bind(path.name)
    finally:
        os.chdir(place)


def sealed(path):
    path.write_bytes(good('.mp4'))
    path.chmod(0)


def linked(path):
    path.with_name('target of a link.mp4').write_bytes(good('.mp4'))
    path.symlink_to('target of a link.mp4')


def sparse(path):
    path.write_bytes(good('.mp4'))
    os.truncate(path, 1 << 30)


def files() -> Iterator[Case]:
    for name in NAMES:
        yield Case(name, 'name', partial(write, partial(good, '.mp4')))
    yield Case('folder.mp4', 'no file', Path.mkdir, rejected('not a file'))
    yield Case('fifo.mp4', 'no file', fifo, rejected('not a file'))
    yield Case('socket.mp4', 'no file', door, rejected('not a file'))
    yield Case('device.mp4', 'link', lambda p: p.symlink_to('/dev/zero'), rejected('not a file'))
    yield Case('dangling.mp4', 'link', lambda p: p.symlink_to('nowhere.mp4'), rejected('missing'))
    yield Case('loop.mp4', 'link', lambda p: p.symlink_to('loop.mp4'), rejected('unreadable'))
    yield Case('passwd.mp4', 'link', lambda p: p.symlink_to('/etc/passwd'), rejected('unreadable'))
    yield Case('to-another.mp4', 'link', linked)
    yield Case('missing.mp4', 'no file', lambda p: None, rejected('missing'))
    if os.name == 'posix' and os.geteuid():
        yield Case('sealed.mp4', 'no file', sealed, rejected('unreadable'))
    yield Case('sparse.mp4', 'a gigabyte of nothing', sparse, ODD)


FAMILIES = (
    broken,
    broken_boxes,
    not_videos,
    missing_streams,
    timing,
    clocks,
    anew,
    frame_rates,
    several_streams,
    partly,
    sizes,
    pixel_formats,
    video_codecs,
    shapes,
    audio_codecs,
    channels,
    levels,
    contents,
    files,
)


def cases() -> list[Case]:
    "All of them, under different names."
    found = [case for some in FAMILIES for case in some()]
    twice = {c.name for c in found if sum(o.name == c.name for o in found) > 1}
    assert not twice, f'two files of one name: {twice}'
    return found


if __name__ == '__main__':
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for case in cases():
        case.make(folder / case.name)
    print(f'{len(cases())} files in {folder}')
