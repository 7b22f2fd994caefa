"""Landmarks of lips, jaw and cheeks: what the cache keeps of them, what forging does to them, and who looks at them."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from sizes import TINY

from avfake.cache import load_clip, open_clip, write_clip
from avfake.detector import Detector, make_config
from avfake.faces import FACE_SHAPE, LOWER_FACE, RIGID, lower_face
from avfake.forgeries import forge
from avfake.landmarks import LandmarkFeatures
from avfake.left_out import Job, keep_job, read_world_table
from avfake.mouth import MouthClip, join_clips
from avfake.parts import parts_of
from avfake.windows import TrimmedClip

SMALL = dict(vis_encoder='landmarks', aud_encoder='place', temporal='conv')
SMALL |= TINY | dict(vis_transformer_layers=2, aud_transformer_layers=2)


def made_clip(seed: int, n: int = 60) -> MouthClip:
    rng = np.random.default_rng(seed)
    crops = rng.integers(1, 255, (n, 16, 16, 3), np.uint8)
    sound = rng.standard_normal(n * 640).astype(np.float32) * 0.1
    points = np.cumsum(rng.normal(0, 0.01, (n, len(LOWER_FACE), 3)), 0).astype(np.float16)
    return MouthClip(crops, sound, np.ones(n, bool), landmarks=points)


def turned(degrees: float) -> np.ndarray:  # [3, 3]
    "About two axes."
    a, b = np.deg2rad(degrees), np.deg2rad(degrees / 2)
    nod = [[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]]
    tilt = [[np.cos(b), -np.sin(b), 0], [np.sin(b), np.cos(b), 0], [0, 0, 1]]
    return np.array(nod) @ tilt


@pytest.mark.parametrize('degrees', [0, 20, -35])
def test_pose_size_and_place_are_taken_off(degrees):
    points = np.random.default_rng(0).normal(size=(468, 3))
    points[RIGID] = FACE_SHAPE
    size = np.sqrt(((FACE_SHAPE - FACE_SHAPE.mean(0)) ** 2).sum(1).mean())
    expected = (points[LOWER_FACE] - FACE_SHAPE.mean(0)) / size
    elsewhere = 80 * points @ turned(degrees) + [300, 200, 10]
    np.testing.assert_allclose(lower_face(elsewhere), expected, atol=1e-9)


def test_the_cache_keeps_them_in_pieces(tmp_path):
    whole = made_clip(0)
    write_clip(tmp_path / 'a.zip', [whole.part(0, 25), whole.part(25, 60)])
    stored = open_clip(tmp_path / 'a.zip')
    np.testing.assert_array_equal(stored.landmarks(), whole.landmarks)
    np.testing.assert_array_equal(stored.landmarks(20, 40), whole.landmarks[20:40])
    np.testing.assert_array_equal(load_clip(tmp_path / 'a.zip').landmarks, whole.landmarks)
    again = join_clips([whole.part(0, 25), whole.part(25, 60)])
    np.testing.assert_array_equal(again.landmarks, whole.landmarks)
    np.testing.assert_array_equal(again.audio, whole.audio)


def test_a_clip_without_them_says_so_and_is_still(tmp_path):
    clip = made_clip(0)
    bare = MouthClip(clip.crops, clip.audio, clip.face_detected)
    assert np.isnan(bare.landmarks).all()
    assert not LandmarkFeatures().load(TrimmedClip(bare)).any()


def test_a_forgery_has_the_landmarks_of_its_picture():
    clip, donor = made_clip(0), made_clip(1)
    rng = np.random.default_rng(0)
    np.testing.assert_array_equal(forge('swap', clip, donor, rng).landmarks, clip.landmarks)
    np.testing.assert_array_equal(forge('paste', clip, donor, rng).landmarks, donor.landmarks)
    frozen = forge('freeze', clip, None, rng).landmarks
    assert len(frozen) == 60 and (frozen == frozen[0]).all()
    late = forge('shift-5-8', clip, None, rng)
    lost = 60 - late.n_frames
    where = [k for k in range(lost + 1) if np.array_equal(late.landmarks, clip.landmarks[k : k + late.n_frames])]
    assert where in ([0], [lost])  # cut at one end, as the crops are
    np.testing.assert_array_equal(late.crops, clip.crops[where[0] : where[0] + late.n_frames])


@pytest.fixture(scope='module')
def detector():
    torch.manual_seed(0)
    return Detector(make_config('small', density_weight=0.0, **SMALL)).eval()


def test_a_detector_looks_at_landmarks_alone(detector):
    clip = made_clip(0)
    scores = [detector.score_clip(clip, batch_size=size) for size in (3, 32)]
    np.testing.assert_allclose(scores[0].sync_log_prob, scores[1].sync_log_prob, atol=1e-5)  # whatever is batched
    other = made_clip(1)
    of_other_crops = MouthClip(other.crops, clip.audio, clip.face_detected, landmarks=clip.landmarks)
    assert detector.score_clip(of_other_crops).score == scores[1].score
    of_other_points = MouthClip(clip.crops, clip.audio, clip.face_detected, landmarks=other.landmarks)
    assert detector.score_clip(of_other_points).score != scores[1].score


def test_a_moment_of_sound_is_read_alike_at_every_delay(detector):
    "Convolutions know no place: a delayed window is that of later frames."
    audio = torch.randn(1, 16 + 2 * 8, detector.sync.audio.reader.dim)
    features, which = detector.sync.audio(audio, torch.tensor([-2, 0, 3]))
    assert which is None and features.shape == (3, 16, 16)
    assert torch.equal(features[0, 2:], features[1, :-2])
    assert torch.equal(features[2, :-3], features[1, 3:])


def test_the_picture_alone_is_no_part_where_it_does_not_count(detector):
    score = detector.score_clip(made_clip(0))
    assert 'picture' not in parts_of(detector, score)
    assert parts_of(detector, score)['sound'] == pytest.approx(score.score, abs=1e-4)


def test_what_a_job_found_is_kept_in_three_tables(tmp_path):
    job = Job('landmarks, distilled', 'wild', 1)
    row = dict(config=job.config, fold='wild', seed=1, settings='{}', score='detector', group='macro', auc=0.8)
    pd.DataFrame([row]).to_csv(tmp_path / f'{job.name}.rows.csv', index=False)
    scores = pd.DataFrame(dict(path=['a.mp4', 'b.mp4'], detector=[0.123456, 2.0]))
    scores.to_csv(tmp_path / f'{job.name}.scores.csv', index=False)
    pd.DataFrame(dict(epoch=[1], job=[job.name])).to_csv(tmp_path / f'{job.name}.history.csv', index=False)
    table = Path(tmp_path / 'tables' / 'worlds.csv')
    for times in (1, 2):
        keep_job(tmp_path, job, table)
        assert len(read_world_table(table)) == times
        kept = pd.read_csv(table.with_name('worlds_scores.csv.gz'))
        assert kept.detector.tolist() == [0.123456, 2.0] * times
        assert set(kept.fold) == {'wild'} and set(kept.seed) == {1}
        assert len(pd.read_csv(table.with_name('worlds_history.csv'))) == times
