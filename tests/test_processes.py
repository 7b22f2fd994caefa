"""Training in two processes, as `accelerate launch` starts them, is training in one.

The same gradients, about the same losses, one run to resume."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate.utils import set_seed
from reliability import FULL

from avfake.cache import write_clip
from avfake.checkpoint import load_tensors, save_tensors
from avfake.detector import Detector, make_config
from avfake.environment import end_at_once
from avfake.fitting import train_detector
from avfake.mouth import MouthClip
from avfake.objectives import SyncObjective
from avfake.stages import Clips, train_sync
from avfake.training import make_accelerator, make_train_config, processes

TINY = make_config(
    'small',
    vis_backbone_channels=(8, 8, 16, 16),
    vis_image_size=32,
    vis_frame_stack=1,
    vis_transformer_d_model=32,
    aud_backbone_channels=(80, 16, 16),
    aud_transformer_d_model=32,
    fusion_dim=32,
    ar_layers=1,
    ar_d_model=32,
    score_stride=8,
    stream_dropout=0.0,
    trim_db=None,
    allow_out_of_range=True,
)
QUICK = make_train_config(
    'small',
    epochs=3,
    density_epochs=1,
    batch_size=8,
    accumulation=4,  # of 6 batches an epoch: steps of 4 and 2
    learning_rate=5e-4,
    augment=False,
    workers=0,
    windows_per_clip=2,
    precision='no',
    allow_out_of_range=True,
)


def toy_clip(seed: int, n: int = 26) -> MouthClip:
    "The brightness of the crop is the loudness of the noise, frame by frame."
    rng = np.random.default_rng(seed)
    level = rng.uniform(0, 1, n)
    crops = np.broadcast_to((level * 200 + 25).astype(np.uint8)[:, None, None, None], (n, 32, 32, 3)).copy()
    return MouthClip(
        crops,
        (rng.standard_normal(n * 640) * np.repeat(10.0 ** (2 * level - 2), 640)).astype(np.float32) * 0.2,
        np.ones(n, bool),
    )


def clips_of(folder: str) -> tuple[Clips, Clips]:
    "Training and validation clips, of nobody in particular."
    paths = sorted(str(p) for p in Path(folder).iterdir())
    return Clips('train', paths[:24], [''] * 24), Clips('validation', paths[24:], [''] * len(paths[24:]))


def fix_batch_norm():
    "Its statistics are the only thing that a process keeps to itself on a CPU; nothing else may differ."
    for kind in (torch.nn.BatchNorm1d, torch.nn.BatchNorm2d):
        kind.train = lambda self, mode=True: torch.nn.Module.train(self, False)


def gradients(out: str):
    "Of one batch."
    accelerator, state = make_accelerator(QUICK), processes()
    set_seed(0)
    objective, g = SyncObjective(Detector(TINY)), torch.Generator().manual_seed(1)
    batch = dict(
        video=torch.rand(8, 16, 3, 32, 32, generator=g),
        audio=torch.randn(8, 80, 148, generator=g),
        valid=torch.rand(8, 17, generator=g) > 0.1,
    )
    batch['valid'][:, 8] = True
    module = accelerator.prepare(objective).train()
    loss, _ = module({k: v.tensor_split(state.num_processes)[state.process_index] for k, v in batch.items()})
    accelerator.backward(loss)
    loss = accelerator.reduce(loss.detach(), 'mean')
    if state.is_main_process:
        save_tensors(
            dict(
                processes=state.num_processes, loss=loss, gradients={k: p.grad for k, p in objective.named_parameters()}
            ),
            out,
        )


def whole(entries: str, out: str):
    "Gradients, and both stages, going on where a run has stopped."
    fix_batch_norm()
    Path(out).mkdir(exist_ok=True)
    gradients(f'{out}/gradients.pt')
    train, validation = clips_of(entries)
    detector, history, _ = train_detector(TINY, QUICK, train, validation, None, Path(out))
    state = processes()
    save_tensors(
        dict(weights=detector.state_dict(), losses=history.train_loss.tolist()),
        Path(out) / f'of {state.process_index}.pt',
    )


def cut(entries: str, out: str):
    "Stage one, killed after its second epoch."
    fix_batch_norm()

    def killer(stage, row):
        if row['epoch'] == 2:
            os._exit(9)

    (Path(out) / 'checkpoints').mkdir(parents=True, exist_ok=True)
    set_seed(QUICK.seed)
    train, validation = clips_of(entries)
    train_sync(
        Detector(TINY).to(make_accelerator(QUICK).device),
        train,
        validation,
        QUICK,
        Path(out) / 'checkpoints',
        killer,
    )


def launch(n: int, what, *args, ends: bool = True):
    "Run one of these in so many processes, and see that it ends well, or not at all."
    with socket.socket() as free:
        free.bind(('localhost', 0))
        port = free.getsockname()[1]
    launcher = [
        sys.executable,
        '-m',
        'accelerate.commands.launch',
        '--multi_gpu',
        '--num_processes',
        str(n),
        '--main_process_port',
        str(port),
    ]
    done = subprocess.run(
        [*(launcher if n > 1 else [sys.executable]), __file__, what.__name__, *map(str, args)],
        env=dict(os.environ, OMP_NUM_THREADS='1'),
        capture_output=True,
        text=True,
    )
    assert (done.returncode == 0) == ends, done.stdout + done.stderr


@pytest.fixture(scope='module')
def ended(tmp_path_factory):
    "A folder with clips and what one and two processes have made of them."
    folder = tmp_path_factory.mktemp('processes')
    for i in range(32):
        write_clip(folder / 'clips' / f'{i:02d}.zip', [toy_clip(i)])
    for n in (1, 2):
        launch(n, whole, folder / 'clips', folder / str(n))
    return folder


def test_gradients(ended):
    one, two = (load_tensors(ended / f'{n}' / 'gradients.pt') for n in (1, 2))
    assert (one['processes'], two['processes']) == (1, 2)
    assert torch.allclose(one['loss'], two['loss'], rtol=1e-6)
    for name, g in one['gradients'].items():
        assert torch.allclose(g, two['gradients'][name], atol=1e-3 * max(float(g.abs().max()), 1e-2)), name


def test_training(ended):
    one, two, other = (load_tensors(ended / p) for p in ('1/of 0.pt', '2/of 0.pt', '2/of 1.pt'))
    for k, v in two['weights'].items():
        assert torch.equal(v, other['weights'][k]), k  # every process ends with the same detector
    assert np.allclose(one['losses'], two['losses'], rtol=1e-3)


@pytest.mark.skipif(not FULL, reason='takes minutes: make test-reliability')
@pytest.mark.parametrize('first, then', [(1, 2), (2, 1)])
def test_killed_in_some_and_ended_in_others(ended, first, then):
    out = ended / f'{first} then {then}'
    launch(first, cut, ended / 'clips', out, ends=False)
    assert len(load_tensors(out / 'checkpoints' / 'sync.pt')['history']) == 2
    launch(then, whole, ended / 'clips', out)
    found, one, straight = (load_tensors(ended / p / 'of 0.pt') for p in (out.name, '1', str(first)))
    assert found['losses'][:2] == straight['losses'][:2]
    assert np.allclose(found['losses'], one['losses'], rtol=1e-3)


if __name__ == '__main__':
    end_at_once()
    globals()[sys.argv[1]](*sys.argv[2:])
