"""Several people in one video: each face is judged or named, and the speaker is the one who speaks."""

import json

import cv2
import numpy as np
import pytest
import torch

from avfake.clip_score import ClipScore
from avfake.detector import Detector, make_config
from avfake.every_face import extract_faces
from avfake.extraction import extract_clip
from avfake.mouth import FollowedFaces
from avfake.scenes import person_in_turn, three_people
from avfake.several import examine_faces, score_faces
from avfake.speaking import who_speaks
from avfake.video import write_video


@pytest.fixture(scope='module')
def three(tmp_path_factory):
    "A large photograph beside two people who talk in turns of two seconds."
    scene = three_people(seconds=2.0)
    return write_video(tmp_path_factory.mktemp('three') / 'three.mp4', scene.frames, scene.audio)


@pytest.fixture
def detector():
    torch.manual_seed(0)
    detector = Detector(make_config('small', ar_layers=1)).eval()
    detector.calibration = torch.linspace(0, 1, 20)
    detector.calibration_identities = torch.arange(20)
    return detector


def test_the_photograph_is_not_the_speaker(three, tmp_path):
    faces = FollowedFaces(three)
    assert faces.tracks[0].column('x').mean() < 288  # the photograph is the largest
    assert faces.speaker().column('x').mean() > 288


def test_data_sets_take_the_same_speaker(three, tmp_path):
    (row,) = extract_faces(three, tmp_path / 'score')
    assert row['face'] != 1
    stored = extract_clip(three, tmp_path / 'set')
    assert stored['frames'] == row['frames'] == 100


@pytest.mark.parametrize('who', [0, 1])
def test_the_speaker_is_the_one_who_is_heard(who, tmp_path):
    "Two people of one size who both talk all the time; the sound is that of one of them."
    people = [person_in_turn(seed, 0, 1, 75) for seed in (2, 3)]
    frames = np.concatenate([shown for shown, _ in people], 2)
    path = write_video(tmp_path / 'two.mp4', frames, people[who][1])
    x = FollowedFaces(path).speaker().column('x').mean()
    assert (x > 192) == (who == 1)


def test_several_people_in_turn_are_no_lack_of_faces(tmp_path):
    "Five people, each seen for a fifth of the video."
    size = 192
    frames = np.full((100, size, 5 * size, 3), 90, np.uint8)
    for i in range(5):
        shown, _ = person_in_turn(i + 1, 0, 1, 20)
        frames[i * 20 : (i + 1) * 20, :, i * size : (i + 1) * size] = shown
    audio = np.random.default_rng(0).normal(0, 0.05, 100 * 640).astype(np.float32)
    path = write_video(tmp_path / 'interview.mp4', frames, audio)
    assert extract_clip(path, tmp_path / 'set')['reason'] == 'several people'
    rows = extract_faces(path, tmp_path / 'every', every=True)
    assert len(rows) == 5
    assert sum(row['reason'] == '' for row in rows) >= 4  # 20 frames are enough for a window of 16


def test_a_short_clip_has_one_row(tmp_path):
    shown, audio = person_in_turn(2, 0, 1, 10)
    path = write_video(tmp_path / 'short.mp4', shown, audio)
    for every in (False, True):
        (row,) = extract_faces(path, tmp_path / str(every), every=every)
        assert (row['reason'], row['frames']) == ('', 10)  # for the detector to refuse


def test_each_face_has_its_line_and_its_picture(three, detector):
    report = examine_faces(detector, three)
    photograph, *people = report.verdicts
    assert [v.face for v in report.verdicts] == [1, 2, 3]
    assert photograph.reason.startswith('still face')
    assert all(v.faces == 3 for v in report.verdicts)
    pictures = [cv2.imdecode(np.frombuffer(data_of(r.picture), np.uint8), cv2.IMREAD_COLOR) for r in report.reports]
    assert all(picture.shape[1] == 640 for picture in pictures)
    assert 'face 2 of 3' in str(report)


def data_of(url):
    import base64

    return base64.b64decode(url.split(',')[1])


def test_who_listens_is_judged_by_the_rest(three, detector, tmp_path, monkeypatch):
    "The first half of the sound fits the second face, the other half the third."
    rows = extract_faces(three, tmp_path, every=True)
    asked = []

    def score_clip(self, clip, batch_size=32, allowed=None, **watched):
        asked.append((clip.meta['face'], allowed))
        fits = np.full(100, -9.0)
        half = slice(0, 50) if clip.meta['face'] == 2 else slice(50, 100)
        fits[half] = -1.0
        return ClipScore(np.zeros(100), np.zeros(100), fits, np.zeros(100), np.full(31, 1 / 31), 10)

    monkeypatch.setattr(Detector, 'score_clip', score_clip)
    detector.reference.copy_(torch.tensor([[0.0, 1.0], [-1.5, 1.0]]))
    _, second, third = score_faces(detector, three, rows)
    assert second.speaks[:50].all() and not second.speaks[50:].any()
    assert third.listens[:50].all() and not third.listens[50:].any()
    again = {face: allowed for face, allowed in asked if allowed is not None}
    assert np.array_equal(again[2], ~second.listens) and np.array_equal(again[3], ~third.listens)


def test_nobody_listens_to_a_voice_that_fits_nobody():
    found = who_speaks(np.full((2, 10), -9.0), mean=-1.0, std=1.0)
    assert not found.listens.any()


def test_score_faces_all(three, detector, tmp_path, capfd):
    from avfake import cli
    from avfake.checkpoint import save_detector

    save_detector(detector, tmp_path / 'best_model.pth')
    command = ['score', str(three), '--checkpoint', str(tmp_path / 'best_model.pth'), '--json']
    for faces, lines in (('all', 3), ('speaker', 1)):
        with pytest.raises(SystemExit) as end:
            cli.app([*command, '--faces', faces])
        verdicts = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
        assert end.value.code == 0
        assert len(verdicts) == lines
    assert verdicts[0]['notes'] == ['2 further faces are seen and not judged: use --faces all.']
