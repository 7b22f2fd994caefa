"""The distilled speech network: what it learns, that it can be stored, and that a detector needs nothing but it."""

import copy
from unittest.mock import patch

import numpy as np
import pytest
import torch
from sizes import TINY

from avfake.cache import open_clip, write_clip
from avfake.checkpoint import load_detector, save_detector
from avfake.data import TrainWindows, make_loader
from avfake.detector import Detector, make_config
from avfake.distilled import DistilledFeatures, DistilledWhisper, distilled_features, distilled_mel, weights_digest
from avfake.distilling import DistilConfig, distil, make_lessons, pieces_of, principal_components
from avfake.encoders import give_student
from avfake.mouth import MouthClip
from avfake.sync import sync_loss
from avfake.whisper import whisper_mel
from avfake.windows import LEVEL, TrimmedClip

SMALL = TINY | dict(vis_frame_stack=1, vis_image_size=32)
STUDENT = dict(width=24, out=6, dilations=(1, 2))
QUICK = DistilConfig(steps=80, batch_size=2, seconds=2)
MIXING = np.random.default_rng(0).standard_normal((80, 12)).astype(np.float32)


def toy_teacher(samples, rng):
    "Mixtures of a log-mel, each with what stands 60 ms before."
    mel = whisper_mel(samples).unflatten(1, (-1, 2)).mean(2).T
    x = mel @ torch.from_numpy(MIXING)
    return x + x.roll(3, 0)


def noisy_sounds(first, last, seconds=3):
    "Noise of a changing colour and loudness."
    for i in range(first, last):
        rng = np.random.default_rng(i)
        n = seconds * 16_000
        steps = seconds * 8
        white = rng.standard_normal(n)
        low = np.convolve(white, np.ones(8) / 3, 'same')
        places = np.linspace(0, steps - 1, n)
        colour = np.interp(places, np.arange(steps), rng.uniform(0, 1, steps))
        loud = np.interp(places, np.arange(steps), rng.uniform(0.05, 1, steps))
        yield (0.1 * loud * (colour * white + (1 - colour) * low)).astype(np.float32)


@pytest.fixture(scope='module')
def sounds():
    return list(noisy_sounds(0, 6))


@pytest.fixture
def student():
    "Random weights that pass for taught ones."
    torch.manual_seed(0)
    network = DistilledWhisper().eval()
    network.steps += 10
    return network


@pytest.fixture
def entries(tmp_path):
    paths = []
    for i, sound in enumerate(noisy_sounds(0, 4)):
        crops = np.random.default_rng(i).integers(0, 256, (75, 8, 8, 3), dtype=np.uint8)
        paths.append(tmp_path / f'{i}.zip')
        write_clip(paths[-1], [MouthClip(crops, sound, np.ones(75, bool))])
    return paths


def new_detector():
    torch.manual_seed(1)
    return Detector(make_config('small', aud_encoder='distilled', **SMALL)).eval()


def test_it_knows_of_sounds_that_it_never_heard_what_the_teacher_answers(sounds):
    "The error falls below that of the mean of all answers, which is 1."
    network, losses = distil(sounds, QUICK, toy_teacher, **STUDENT)
    answers = [lesson.answers for lesson in make_lessons(sounds, toy_teacher, QUICK.seed)]
    mean, matrix = principal_components(answers, STUDENT['out'])
    error = []
    for sound in noisy_sounds(6, 9):
        (piece,) = pieces_of(sound, 1.0)
        wanted = (toy_teacher(piece, None) - mean) @ matrix
        error.append((distilled_features(network, piece) - wanted).square().mean().item())
    assert len(losses) == QUICK.steps
    assert np.mean(losses[-5:]) < 0.6
    assert np.mean(error) < 0.6


def test_the_same_seed_gives_the_same_network(sounds):
    few = DistilConfig(steps=5, batch_size=2, seconds=1)
    torch.manual_seed(11)
    state = torch.random.get_rng_state()
    first, losses = distil(sounds, few, toy_teacher, **STUDENT)
    assert torch.equal(torch.random.get_rng_state(), state)  # nobody else's draws change
    torch.manual_seed(12)
    second, again = distil(sounds, few, toy_teacher, **STUDENT)
    other, _ = distil(sounds, DistilConfig(steps=5, batch_size=2, seconds=1, seed=1), toy_teacher, **STUDENT)
    assert losses == again
    assert weights_digest(first) == weights_digest(second) != weights_digest(other)


def test_a_checkpoint_of_other_sounds_is_refused(sounds, tmp_path):
    few = DistilConfig(steps=4, batch_size=2, seconds=1)
    checkpoint = tmp_path / 'distil.pt'
    distil(sounds, few, toy_teacher, checkpoint, every=2, **STUDENT)
    with pytest.raises(ValueError, match='sounds .was '):
        distil(sounds[1:], few, toy_teacher, checkpoint, every=2, **STUDENT)


def test_silence_teaches_nothing():
    with pytest.raises(ValueError, match='2 clips, none of them with 0.4 s of sound'):
        distil([np.zeros(16_000, np.float32), np.ones(100, np.float32)], QUICK, toy_teacher, **STUDENT)


@pytest.mark.parametrize('stretch', [3, 100, 1500])
def test_stretches_are_the_whole(student, stretch):
    "A loud bang is in one stretch alone: the others must not hear where the loudest moment is."
    samples = torch.from_numpy(np.concatenate(list(noisy_sounds(0, 2, seconds=2))))
    samples = samples * LEVEL / samples.square().mean().sqrt()
    samples[20_000:20_100] += 2
    whole = student(distilled_mel(samples)[None])[0]
    apart = distilled_features(student, samples, stretch)
    assert whole.shape == (len(samples) // 320, 128)
    assert torch.allclose(whole, apart, atol=1e-4)


def test_what_is_far_away_is_not_heard(student):
    samples = torch.randn(320 * 300) * LEVEL
    other = samples.clone()
    other[: 320 * 100] = 0
    before = distilled_features(student, samples)
    after = distilled_features(student, other)
    assert torch.allclose(before[100 + student.reach :], after[100 + student.reach :], atol=1e-5)
    assert not torch.allclose(before[100:120], after[100:120], atol=1e-2)


def test_a_student_that_was_never_taught_says_so(entries):
    detector = new_detector()
    with pytest.raises(ValueError, match='has no weights yet'):
        detector.score_clip(open_clip(entries[0]))
    loader = make_loader(TrainWindows(entries, detector.sync.readers), 4)
    with pytest.raises(ValueError, match='has no weights yet'):
        next(iter(loader))
    with pytest.raises(ValueError, match='AudioStream has no distilled network'):
        give_student(Detector(make_config('small', **SMALL)).sync.audio, DistilledWhisper())


def test_a_checkpoint_needs_nothing_else(entries, student, tmp_path):
    "Whisper is not asked for, and half precision changes nothing: the weights were rounded to it."
    for x in student.state_dict().values():
        x.copy_(x.half())
    with patch('avfake.whisper.whisper_state', side_effect=AssertionError('Whisper was asked for')):
        detector = new_detector()
        give_student(detector.sync.audio, student)
        score = detector.score_clip(open_clip(entries[0]))
        save_detector(detector, tmp_path / 'whole.pth')
        save_detector(detector, tmp_path / 'half.pth', half=True)
        again = load_detector(tmp_path / 'whole.pth', 'cpu')
        half = load_detector(tmp_path / 'half.pth', 'cpu')
        assert again.score_clip(open_clip(entries[0])).score == score.score
    names = {d.sync.audio.reader.name for d in (detector, again, half)}
    assert names == {f'distilled-{weights_digest(student)}'}
    assert np.isfinite(score.score)


def test_features_are_kept_by_the_weights_that_made_them(entries, student):
    "Other weights, other files; copies of a detector have readers of their own."
    detector = new_detector()
    give_student(detector.sync.audio, student)
    twin = copy.deepcopy(detector)
    clip = TrimmedClip(open_clip(entries[0]))
    first = detector.sync.readers.audio.load(clip)
    with torch.no_grad():
        student.head.bias += 1
    twin.sync.audio.student.load_state_dict(student.state_dict())
    second = twin.sync.readers.audio.load(clip)
    kept = sorted(entries[0].parent.glob('0.zip.distilled-*.npy'))
    assert len(kept) == 2
    assert torch.allclose(second.float(), first.float() + 1, atol=0.01)
    with patch.object(DistilledFeatures, 'compute', side_effect=AssertionError('it was stored')):
        assert torch.equal(detector.sync.readers.audio.load(clip), first)
        assert torch.equal(twin.sync.readers.audio.load(clip), second)


def test_processes_that_read_compute_with_the_weights_of_now(entries, student):
    detector = new_detector()
    give_student(detector.sync.audio, student)
    with torch.no_grad():
        student.head.weight *= 2
    give_student(detector.sync.audio, student)
    data = TrainWindows(entries, detector.sync.readers)
    batches = list(make_loader(data, 4, workers=1))
    assert torch.isfinite(batches[0]['audio']).all()
    digest = weights_digest(student)
    assert len(list(entries[0].parent.glob('*.npy'))) == len(entries)
    for entry in entries:
        (kept,) = entry.parent.glob(f'{entry.name}.distilled-{digest}-*.npy')
        clip = TrimmedClip(open_clip(entry))
        own = distilled_features(student, torch.from_numpy(clip.samples)).half()
        assert torch.allclose(torch.from_numpy(np.load(kept)).float(), own.float(), atol=0.01)


def test_training_leaves_the_student_as_it_is(entries, student):
    detector = new_detector().train()
    give_student(detector.sync.audio, student)
    optimiser = torch.optim.AdamW(detector.parameters(), lr=0.1, weight_decay=0.1)
    (batch,) = make_loader(TrainWindows(entries, detector.sync.readers), 4)
    loss, _ = sync_loss(detector.sync, batch['video'], batch['audio'], batch['valid'])
    loss.backward()
    optimiser.step()
    assert detector.sync.audio.projection.weight.grad is not None
    assert weights_digest(detector.sync.audio.student) == weights_digest(student)
    assert not detector.sync.audio.student.training


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason='no NVIDIA GPU is here')
def test_on_a_gpu_the_reader_stays_on_the_cpu(entries, student, sounds):
    detector = new_detector().to('cuda')
    give_student(detector.sync.audio, student)
    assert detector.sync.audio.student.steps.is_cuda
    assert np.isfinite(detector.score_clip(open_clip(entries[0])).score)
    assert list(make_loader(TrainWindows(entries, detector.sync.readers), 4, workers=1))
    network, _ = distil(sounds, DistilConfig(steps=5, batch_size=2, seconds=1), toy_teacher, **STUDENT)
    assert network.steps == 5
