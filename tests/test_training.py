"""The loop of training: what a step, an epoch and a schedule are, whether or not a run is cut off."""

import math

import pytest
import torch
from torch import nn

import avfake.training as training
from avfake.training import TrainConfig, fit, make_optimiser, make_schedule

EPOCHS = 6
N_BATCHES = 5


class Line(nn.Module):
    "Learns y = 2x."

    def __init__(self):
        super().__init__()
        self.net = nn.Linear(1, 1)

    def forward(self, batch):
        return (self.net(batch['x']) - 2 * batch['x']).square().mean(), {}


def batches(epoch: int) -> list[dict]:
    g = torch.Generator().manual_seed(epoch)
    return [dict(x=torch.randn(8, 1, generator=g)) for _ in range(N_BATCHES)]


def train(folder, accumulation: int, log=lambda stage, row: None, learning_rate: float = 1e-3):
    "A line and its history; goes on where an earlier call in the same folder was cut off."
    torch.manual_seed(0)
    line = Line()
    cfg = TrainConfig(learning_rate=learning_rate, accumulation=accumulation, patience=99, precision='no')

    def validate():
        return dict(validation_loss=line(dict(x=torch.ones(3, 1)))[0].item())

    history = fit('sync', line, batches, N_BATCHES, validate, EPOCHS, cfg, folder / 'c.pt', 'a', log)
    return line, history


@pytest.fixture
def count_steps(monkeypatch):
    "How many steps the optimiser has taken."
    taken = []

    def counted(*args, **settings):
        optimiser = make_optimiser(*args, **settings)
        optimiser.register_step_post_hook(lambda *_: taken.append(1))
        return optimiser

    monkeypatch.setattr(training, 'make_optimiser', counted)
    return taken


@pytest.mark.parametrize('accumulation', [1, 3, 8])
def test_an_epoch_ends_with_a_step(tmp_path, count_steps, accumulation):
    "Fault 03: with accumulation the optimiser took fewer steps than the schedule was made for, which did not end."
    _, history = train(tmp_path, accumulation)
    steps = math.ceil(N_BATCHES / accumulation)
    assert len(count_steps) == EPOCHS * steps
    assert history.step.tolist() == [steps * (i + 1) for i in range(EPOCHS)]
    assert history.learning_rate.iloc[-1] == 0.0


@pytest.mark.parametrize('accumulation', [1, 3, 8])
def test_cut_off_and_resumed_is_the_same(tmp_path, accumulation):
    "Fault 03: gradients that crossed from one epoch into the next were lost when a run was cut off between them."
    (tmp_path / 'whole').mkdir()
    (tmp_path / 'cut').mkdir()
    whole, history = train(tmp_path / 'whole', accumulation)

    def stop(stage, row):
        if row['epoch'] == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / 'cut', accumulation, stop)
    resumed, again = train(tmp_path / 'cut', accumulation)
    for name, weights in whole.state_dict().items():
        assert torch.equal(weights, resumed.state_dict()[name])
    assert history.drop(columns='seconds').equals(again.drop(columns='seconds'))


def test_the_last_step_of_an_epoch_is_weighted_by_its_batches(tmp_path, monkeypatch):
    "Of 5 batches with accumulation 3 the second step has the mean gradient of 2, not a third of their sum."
    found = []
    take_step = training.TrainingState.take_step

    def spy(state):
        found.append(state.objective.net.weight.grad.clone())
        take_step(state)

    monkeypatch.setattr(training.TrainingState, 'take_step', spy)
    train(tmp_path, 3, learning_rate=1e-5)  # the weights hardly move
    torch.manual_seed(0)
    line = Line()
    losses = [line(batch)[0] for batch in batches(0)]
    for step, group in enumerate((losses[:3], losses[3:])):
        expected = torch.autograd.grad(torch.stack(group).mean(), line.net.weight, retain_graph=True)[0]
        assert torch.allclose(found[step], expected, atol=1e-3)


def test_batches_that_the_schedule_does_not_count_on_are_an_error(tmp_path):
    line = Line()
    with pytest.raises(RuntimeError, match='an epoch of 5 batches, but the schedule counts on 7'):
        fit('sync', line, batches, 7, dict, 1, TrainConfig(precision='no'), tmp_path / 'c.pt', 'a')


@pytest.mark.parametrize('steps, warmup', [(10, 0.2), (500, 0.1), (40, 0.0), (3, 1.0)])
def test_schedule_is_about_the_home_made_one(steps, warmup):
    "The curve before timm's: the warm-up is the same, the cosine begins one step earlier, and both end at 0."

    def before(step):
        rising = max(1, round(warmup * steps))
        if step < rising:
            return (step + 1) / rising
        return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - rising) / max(1, steps - rising))))

    optimiser = make_optimiser(nn.Linear(2, 2), TrainConfig(learning_rate=1e-3))
    schedule = make_schedule(optimiser, steps, warmup)
    rising = max(1, round(warmup * steps))
    for step in range(steps + 1):
        schedule.step_update(step)
        rate = optimiser.param_groups[0]['lr'] / 1e-3
        tolerance = 1e-12 if step < rising else math.pi / 2 / max(1, steps - rising)
        assert rate == pytest.approx(before(step), abs=tolerance)
    assert rate == 0.0
