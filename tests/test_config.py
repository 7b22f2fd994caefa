"""Settings: how they are checked, overridden by name, and read from flags."""

import json
import pickle
from dataclasses import asdict

import pytest

from avfake.autoregressive import DensityConfig
from avfake.detector import DetectorConfig, make_config
from avfake.encoders import StreamConfig
from avfake.faces import MouthConfig
from avfake.run import make_configs
from avfake.sync import SyncConfig
from avfake.training import TrainConfig
from avfake.windows import WindowConfig

PARTS = MouthConfig, WindowConfig, StreamConfig, SyncConfig, DensityConfig, DetectorConfig, TrainConfig


def test_null_on_the_command_line_means_none():
    "Fault 04: `--trim_db null` was dropped, and silence was trimmed at 40 dB against what the user had said."
    assert make_configs('small', trim_db=None)[0].window.trim_db is None
    from avfake.config import read_flags

    assert make_configs('small', **read_flags(['--trim_db', 'null']))[0].window.trim_db is None
    assert make_configs('small')[0].window.trim_db == 40.0  # a flag that is not given changes nothing


def test_null_is_refused_where_it_means_nothing():
    with pytest.raises(ValueError, match='WindowConfig.vis_num_frames = None: input should be a valid integer'):
        make_configs('small', vis_num_frames=None)


@pytest.mark.parametrize(
    'settings, text',
    [
        (dict(vis_num_frames=64), 'WindowConfig.vis_num_frames = 64 is outside 8 to 32; if it is meant'),
        (dict(vis_num_frames='many'), "WindowConfig.vis_num_frames = 'many': input should be a valid integer"),
        (dict(batch_size=2), 'TrainConfig.batch_size = 2 is outside 4 to 32'),
        (dict(density_head='flow'), "DensityConfig.density_head = 'flow' is not one of gaussian, student"),
        (dict(temporal='rnn'), "StreamConfig.temporal = 'rnn' is not one of transformer, mamba, conv"),
        (dict(epoch=3), "Unknown setting 'epoch'. Did you mean 'epochs'? See `avfake settings`."),
        (dict(lr=0.1), "Unknown setting 'lr'. Did you mean 'learning_rate'? See `avfake settings`."),
        (dict(qqqqq=3), "Unknown setting 'qqqqq'. See `avfake settings`."),
        (dict(size='112 pixels'), "MouthConfig.size = '112 pixels'"),
        (dict(aud_pool=3), 'StreamConfig.aud_pool = 3: input should be a valid tuple'),
    ],
)
def test_errors_name_field_value_and_what_is_allowed(settings, text):
    with pytest.raises(ValueError) as error:
        make_configs('small', **settings)
    assert str(error.value).startswith(text)
    assert '\n' not in str(error.value) and 'pydantic' not in str(error.value)


@pytest.mark.parametrize('part', PARTS, ids=lambda p: p.__name__)
def test_configurations_are_frozen_and_travel(part):
    cfg = part()
    with pytest.raises(AttributeError):
        cfg.seed = 1
    assert pickle.loads(pickle.dumps(cfg)) == cfg and hash(cfg) == hash(part())
    assert part(**json.loads(json.dumps(asdict(cfg)))) == cfg
    with pytest.raises(ValueError, match='gone = 7: there is no such setting'):
        part(gone=7)


def test_flat_names_reach_every_part():
    settings = dict(max_delay=10, vis_grey=True, ar_layers=2, size=96, score_stride=4, allow_out_of_range=True)
    cfg = make_config('small', **settings)
    assert (cfg.sync.max_delay, cfg.streams.vis_grey, cfg.density.ar_layers) == (10, True, 2)
    assert (cfg.mouth.size, cfg.score_stride, cfg.window.allow_out_of_range) == (96, 4, True)
