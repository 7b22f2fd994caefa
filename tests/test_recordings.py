"""A recording unlike those that the detector knows is not judged, unless that is asked for.

One's own clips make it known."""

import json
from dataclasses import asdict

import numpy as np
import pandas as pd
import pytest
import torch
from test_notebooks import run

from avfake.checkpoint import load_detector, save_detector
from avfake.conformal import threshold_at
from avfake.gallery import write_reports
from avfake.recordings import FACTS, KnownRecordings, recording_facts
from avfake.report import examine_speaker
from avfake.results import threshold_of
from avfake.scoring import unfamiliar_notes, unfamiliar_share
from avfake.synthetic import make_clip
from avfake.video import write_video


@pytest.fixture(scope='module')
def video(tmp_path_factory):
    clip = make_clip(0, 2.0)
    return write_video(tmp_path_factory.mktemp('video') / 'somebody.mp4', clip.frames, clip.audio)


def knows(detector, facts, limit=1.0):
    "Let a detector know recordings around some facts."
    detector.recordings.fit(facts + 0.1 * torch.randn(50, len(FACTS), generator=torch.Generator().manual_seed(0)))
    detector.recordings.limit.fill_(limit)
    return detector


def test_a_recording_unlike_those_it_knows_is_not_judged(detector, video):
    judged = examine_speaker(detector, video)
    mine = recording_facts(judged.clip)
    knows(detector, mine, limit=3.0)
    assert examine_speaker(detector, video).verdict.score == judged.verdict.score  # known: judged as before
    other = mine.clone()
    other[FACTS.index('fine detail of the picture')] -= 5
    knows(detector, other, limit=3.0)
    refused = examine_speaker(detector, video)
    assert (refused.verdict.verdict, refused.verdict.score) == ('cannot be judged', None)
    assert refused.verdict.reason == (
        'unfamiliar recording: it differs from those the detector knows in fine detail of the picture'
    )
    assert '--judge_anyway' in str(refused.verdict) and 'fine detail' in refused.body()
    detector.judge_anyway = True
    anyway = examine_speaker(detector, video)
    assert anyway.verdict.score == judged.verdict.score
    assert 'The rate does not hold' in str(anyway.verdict) and 'The rate does not hold' in anyway.body()
    assert json.loads(json.dumps(asdict(anyway.verdict)))['differs'] == ['fine detail of the picture']
    detector.judge_anyway = False
    detector.recordings = KnownRecordings()


def test_a_detector_that_cannot_tell_says_so_once(detector, video, capsys):
    "A checkpoint of an earlier version gave its false-alarm rate for any recording, as if it held."
    assert 'does not tell recordings' in ' '.join(threshold_of(detector).caveats)
    assert len(list(write_reports(detector, [video, video]))) == 2
    assert capsys.readouterr().err.count('avfake: this detector does not tell recordings') == 1
    knows(detector, torch.zeros(len(FACTS)))
    assert 'does not tell recordings' not in ' '.join(threshold_of(detector).caveats)
    detector.recordings = KnownRecordings()


def test_a_checkpoint_keeps_what_is_known_and_one_without_judges_everything(detector, tmp_path):
    known = knows(detector, torch.zeros(len(FACTS)))
    save_detector(known, tmp_path / 'known.pth')
    back = load_detector(tmp_path / 'known.pth', 'cpu').recordings
    assert torch.equal(back.facts, known.recordings.facts) and back.limit == 1
    assert back.differences(torch.full((len(FACTS),), 9.0))
    saved = torch.load(tmp_path / 'known.pth', weights_only=True)
    saved['state_dict'] = {k: v for k, v in saved['state_dict'].items() if not k.startswith('recordings')}
    torch.save(saved, tmp_path / 'earlier.pth')
    assert load_detector(tmp_path / 'earlier.pth', 'cpu').recordings.differences(torch.full((len(FACTS),), 9.0)) == []
    detector.recordings = KnownRecordings()


def test_an_evaluation_says_what_score_would_not_judge():
    rows = pd.DataFrame(dict(label=[0, 0, 0, 0, 1, 1], score=[0, 5, 0, 9, 9, 9.0], unlike=[0.5, 0.5, 2, 2, 0.5, 3]))
    shares = unfamiliar_share(rows, threshold_at(np.arange(4), 0.2))
    assert shares['authentic'] == dict(clips=4, unlike=0.5, false_alarms_of_judged=0.5)
    assert shares['forged'] == dict(clips=2, unlike=0.5)
    assert unfamiliar_notes(shares)[0].startswith('50.0% of 4 authentic clips and 50.0% of 2 forged clips')
    assert unfamiliar_notes(unfamiliar_share(rows.assign(unlike=0.5), None)) == []


def test_twenty_clips_of_ones_own_make_a_detector_for_ones_own_world(detector, tmp_path):
    save_detector(detector, tmp_path / 'theirs.pth')
    for i in range(20):
        clip = make_clip(i, 1.2)
        (tmp_path / 'mine' / f'{i % 4}').mkdir(parents=True, exist_ok=True)
        write_video(tmp_path / 'mine' / f'{i % 4}' / f'{i}.mp4', clip.frames, clip.audio)
    command = [
        '-c',
        'from avfake.cli import main; main()',
        'calibrate',
        '--checkpoint',
        'theirs.pth',
        '--data_dir',
        'mine',
    ]
    options = ['--save', 'mine.pth', '--cache_dir', 'cache', '--layout', 'people', '--workers', '1']
    status, output = run(*command, *options, cwd=tmp_path)
    assert status == 0 and 'from 20 authentic calibration clips' in output, output
    mine = load_detector(tmp_path / 'mine.pth', 'cpu')
    assert len(mine.calibration) == len(mine.recordings.facts) == 20 and mine.recordings.limit.isfinite()
    assert torch.equal(mine.whitening.mean, detector.whitening.mean)  # nothing was trained
    (tmp_path / 'mine' / '0' / '0.mp4').unlink()
    status, output = run(*command, *options, cwd=tmp_path)
    assert status == 2 and '19 authentic clips can be used; a false-alarm rate of 5% takes 20' in output
