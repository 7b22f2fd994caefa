"""Checkpoints: a file of an earlier version scores as it did, what is not known is refused by name."""

import json
from dataclasses import asdict

import numpy as np
import pytest
import torch

from avfake.checkpoint import FORMAT_VERSION, load_detector, load_tensors, save_detector, save_tensors, versions
from avfake.config import override
from avfake.detector import Detector, make_config
from avfake.mouth import MouthClip

TINY = dict(
    vis_backbone='resnet10t',
    vis_backbone_channels=(8, 8, 16, 16),
    vis_pretrained=False,
    vis_image_size=32,
    vis_frame_stack=3,
    vis_transformer_layers=1,
    vis_transformer_d_model=32,
    aud_backbone='conv1d',
    aud_backbone_channels=(80, 16, 16),
    aud_pool=(1, 5),
    aud_transformer_layers=1,
    aud_transformer_d_model=32,
    stream_heads=2,
    fusion_dim=16,
    ar_layers=1,
    ar_d_model=16,
    ar_heads=2,
    allow_out_of_range=True,
)
AS_IT_WAS = dict(  # today's name -> that of version 1 of the format
    sync_frames='match_frames',
    sync_delay='match_delay',
    min_face_detected='min_found',
    negatives='bank',
    reference='usual',
    calibration_identities='calibration_people',
    metadata='about',
    n_negatives='bank_size',
)


def by_formula(detector: torch.nn.Module):
    "Weights that no random generator draws."
    with torch.no_grad():
        for k, x in enumerate([*detector.parameters(), *detector.buffers()]):
            if x.is_floating_point() and x.ndim:
                x.copy_(torch.sin(torch.arange(x.numel()) * (0.7 + 0.1 * (k % 7))).view_as(x) * 0.3)
        for name, x in detector.named_buffers():
            if name.endswith('running_var'):
                x.copy_(1 + x.abs())
    return detector.eval()


def drawn_clip():
    n = 40
    t = np.arange(n * 640) / 16000
    sound = np.sin(2 * np.pi * (200 * t + 300 * t**2)) * (0.2 + 0.1 * np.sin(2 * np.pi * 3 * t))
    y, x = np.mgrid[:112, :112]
    waves = [np.sin(x / 9 + 0.4 * i) + np.cos(y / 7 - 0.3 * i) for i in range(n)]
    crops = np.repeat((127 + 60 * np.stack(waves)).astype(np.uint8)[..., None], 3, -1)
    return MouthClip(crops, sound.astype(np.float32), np.ones(n, bool))


def fitted(cfg):
    "A detector by formula, with negatives and reference statistics."
    detector = by_formula(Detector(cfg))
    pairs = torch.sin(torch.arange(10.0 * 2 * 16 * cfg.dim)).view(10, 2, 16, cfg.dim)
    detector.negatives = torch.nn.functional.normalize(pairs, dim=-1)
    detector.reference = torch.tensor([[-1.0, 0.5], [-3.0, 0.7]])
    detector.whitening.matrix.copy_(torch.eye(cfg.sequence_dim))
    return detector


def renamed(saved):
    return {AS_IT_WAS.get(k, k): renamed(v) if isinstance(v, dict) else v for k, v in saved.items()}


def old_file(path, detector, without=()):
    "What version 1 of the format would have written of it, before some settings existed."
    cfg = renamed(json.loads(json.dumps(asdict(detector.cfg))))
    for part in (cfg, *(v for v in cfg.values() if isinstance(v, dict))):
        for name in without:
            part.pop(name, None)
    content = dict(format='avfake detector', config=json.dumps(cfg), about=json.dumps(dict(seed=3, bank_size=10)))
    save_tensors({**content, 'state_dict': renamed(detector.state_dict())}, path)


GOLDEN = -0.608580  # the score that the code of version 0.1.0 gave this detector and this clip
LATER = ('match_frames', 'match_delay', 'score_windows', 'tolerant', 'vis_frozen', 'follow_every')
LATER += ('vis_encoder', 'aud_encoder')


def test_a_file_of_an_earlier_version_scores_as_it_did(tmp_path):
    "Fault 11: a detector from before windows were asked together was scored with a stretch of 32 frames."
    before = dict(sync_frames=16, sync_delay=0, score_windows=10**9, follow_every=1)
    detector = fitted(make_config('full', **TINY, **before))
    old_file(tmp_path / 'old.pth', detector, without=LATER)
    loaded = load_detector(tmp_path / 'old.pth', 'cpu')
    assert loaded.cfg == detector.cfg
    assert (loaded.cfg.sync_frames, loaded.cfg.sync_delay, loaded.cfg.sync.tolerant) == (16, 0, False)
    assert loaded.metadata == dict(seed=3, n_negatives=10)
    clip = drawn_clip()
    score = loaded.score_clip(clip)
    assert score.score == detector.score_clip(clip).score
    assert score.score == pytest.approx(GOLDEN, abs=1e-4)
    with_today = override(detector.cfg, sync_frames=32, sync_delay=1)
    loaded.cfg = with_today
    assert abs(loaded.score_clip(clip).score - score.score) > 1e-3  # what it said before of such a file


def test_unknown_settings_are_refused_by_name(tmp_path):
    "Fault 11: a field that this version does not know was dropped without a word."
    save_detector(Detector(make_config('full', **TINY)), tmp_path / 'd.pth')
    saved = load_tensors(tmp_path / 'd.pth')
    cfg = json.loads(saved['config'])
    for wrong, name in (
        ({**cfg, 'gone': 7}, 'gone = 7'),
        ({**cfg, 'window': {**cfg['window'], 'hop': 3}}, 'window.hop'),
    ):
        save_tensors({**saved, 'config': json.dumps(wrong)}, tmp_path / 'wrong.pth')
        with pytest.raises(ValueError, match=name):
            load_detector(tmp_path / 'wrong.pth', 'cpu')
    del cfg['density_margin']
    save_tensors({**saved, 'config': json.dumps(cfg)}, tmp_path / 'wrong.pth')
    with pytest.raises(ValueError, match='lacks the setting density_margin'):
        load_detector(tmp_path / 'wrong.pth', 'cpu')


def test_files_carry_their_format_and_newer_ones_are_refused(tmp_path):
    save_detector(Detector(make_config('full', **TINY)), tmp_path / 'd.pth', seed=1)
    saved = load_tensors(tmp_path / 'd.pth')
    assert saved['format_version'] == FORMAT_VERSION
    save_tensors({**saved, 'format_version': FORMAT_VERSION + 1}, tmp_path / 'd.pth')
    with pytest.raises(ValueError, match=f'its format is {FORMAT_VERSION + 1}, this version reads up to'):
        load_detector(tmp_path / 'd.pth', 'cpu')


def test_versions_are_what_a_score_depends_on():
    assert {'avfake', 'torch', 'torchaudio', 'av', 'numpy', 'timm'} <= versions().keys()
    assert not {'librosa', 'pandas', 'seaborn'} & versions().keys()
