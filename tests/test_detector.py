"""The detector: known answers for what it says of windows, and of the device it runs on."""

import numpy as np
import pytest
import torch

from avfake import blocks
from avfake.blocks import best_device, fold_norms, make_backbone
from avfake.clip_score import ClipScore
from avfake.config import override
from avfake.detector import Detector, make_config
from avfake.inspection import clip_delay_logits
from avfake.mouth import MouthClip
from avfake.sync import WindowFeatures
from avfake.training import make_accelerator, make_train_config


@pytest.fixture(scope='module')
def detector():
    torch.manual_seed(0)
    return Detector(make_config('small')).eval()


def clip_of(n, seed=0):
    rng = np.random.default_rng(seed)
    sound = (rng.standard_normal(n * 640) * 0.1).astype(np.float32)
    return MouthClip(rng.integers(0, 255, (n, 112, 112, 3), np.uint8), sound, np.ones(n, bool))


def test_logits_stand_in_the_place_of_their_delay():
    windows = WindowFeatures(None, torch.tensor([-1, 0, 3]), None, None, torch.arange(3.0).view(1, 3, 1, 1))
    placed = windows.at_all_delays(torch.tensor([[5.0, 6.0, 7.0]]), 4)
    assert placed.tolist() == [[float('-inf')] * 3 + [5.0, 6.0] + [float('-inf')] * 2 + [7.0, float('-inf')]]
    assert windows.heard.item() == 1.0


def test_a_short_clip_allows_few_delays(detector):
    for windows in detector.sync.windows(clip_of(20), stride=2, max_delay=15):
        assert windows.delays.tolist() == list(range(-4, 5))
        assert windows.valid.sum(1).tolist() == [5, 5, 5]
    (windows,) = detector.sync.windows(clip_of(20), stride=2, max_delay=15, needed=6)
    assert windows.delays.tolist() == list(range(-6, 7)) and not windows.valid[:, :2].any()
    starts, logits = clip_delay_logits(detector, clip_of(20))
    assert starts == [0, 2, 4] and logits.shape == (3, 16, 31)
    assert logits.isfinite().sum((1, 2)).tolist() == [5 * 16] * 3


def test_windows_are_the_same_however_they_are_batched(detector):
    clip = clip_of(50)
    few, many = (
        [torch.cat(x) for x in zip(*((w['log_prob'], w['sync_log_prob']) for w in detector.windows(clip, 2, size)))]
        for size in (3, 64)
    )
    for a, b in zip(few, many):
        assert torch.allclose(a, b, atol=1e-3)


def test_pooled_log_probability_by_hand(detector):
    reference = detector.reference.clone()
    detector.reference.copy_(torch.tensor([[-1.0, 0.5], [-3.0, 2.0]]))
    density = torch.tensor([[-1.0, -1.0], [-2.0, -2.0]])
    pooled = detector.pool(density, torch.tensor([-3.0, -5.0]))
    detector.reference.copy_(reference)
    assert pooled.tolist() == [0.0, -1.0 + (-2.0 + 0.5)]  # at the mean; one and two standard deviations below, less 0.5


def test_stretches_that_stand_out():
    log_prob = np.zeros(100)
    log_prob[20:30], log_prob[70:80] = -5, -9
    score = ClipScore(log_prob, log_prob, log_prob, log_prob, np.eye(31)[15], 4)
    assert [s[:2] for s in score.spans()] == [(2.8, 3.2), (0.8, 1.2)]
    assert score.spans()[0][2] == pytest.approx(9)
    assert ClipScore(*[np.full(9, np.nan)] * 4, np.eye(31)[15], 0).spans() == []


@pytest.mark.parametrize('device', ['cpu', 'cuda', 'mps'])
def test_training_and_scoring_choose_the_same_device(device, monkeypatch):
    "A GPU of Apple trained and did not score."
    monkeypatch.setattr(torch.accelerator, 'is_available', lambda: device != 'cpu')
    monkeypatch.setattr(torch.accelerator, 'current_accelerator', lambda: torch.device(device))
    assert best_device() == torch.device(device)


def test_accelerate_takes_that_device_too():
    assert make_accelerator(make_train_config(precision='no')).device.type == best_device().type


def test_norms_are_folded_without_float64_on_the_device(monkeypatch):
    "GPUs of Apple have no float64: the copy is folded on the CPU and goes back to where its input is."
    net, _ = make_backbone('conv1d', in_channels=3, pool=(1, 5), channels=(80, 16, 16))
    made = []
    cpu = torch.nn.Module.cpu
    monkeypatch.setattr(torch.nn.Module, 'cpu', lambda self: made.append(self) or cpu(self))
    x = torch.rand(2, 3, 80, 20)
    with torch.no_grad():
        folded = blocks.fold_norms(net.eval(), x)
    assert fold_norms is blocks.fold_norms and made
    assert {p.dtype for p in folded.parameters()} == {torch.float32}
    assert torch.allclose(folded(x), net(x), rtol=1e-4, atol=1e-5)


def test_settings_of_a_score_have_ranges():
    with pytest.raises(ValueError, match='DetectorConfig.score_stride = 0 is outside 1 to 1000'):
        override(make_config('small'), score_stride=0)
