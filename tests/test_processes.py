"""Training in two processes, as `accelerate launch` starts them, is training in one: the same gradients, about the same losses, one run to resume."""
import json, os, subprocess, sys
from pathlib import Path

import numpy as np
import torch

from avfake.cache import write_clip
from avfake.detector import Detector, load_tensors, make_config, save_tensors
from avfake.mouth import MouthClip
from avfake.training import SyncObjective, make_accelerator, make_train_config, processes, set_seed, train_detector, train_sync

TINY = make_config('small', vis_backbone_channels=(8, 8, 16, 16), vis_image_size=32, vis_frame_stack=1, vis_transformer_d_model=32,
                   aud_backbone_channels=(80, 16, 16), aud_transformer_d_model=32, fusion_dim=32, ar_layers=1, ar_d_model=32,
                   stream_dropout=0., trim_db=None, allow_out_of_range=True)
QUICK = make_train_config('small', epochs=4, density_epochs=2, batch_size=8, learning_rate=5e-4, augment=False, workers=0,
                          windows_per_clip=4, precision='no', allow_out_of_range=True)


def toy_clip(seed: int, n: int = 34) -> MouthClip:
    "The brightness of the crop is the loudness of the noise, frame by frame."
    rng = np.random.default_rng(seed)
    level = rng.uniform(0, 1, n)
    crops = np.broadcast_to((level*200 + 25).astype(np.uint8)[:, None, None, None], (n, 32, 32, 3)).copy()
    return MouthClip(crops, (rng.standard_normal(n*640)*np.repeat(10.**(2*level - 2), 640)).astype(np.float32)*.2, np.ones(n, bool))


def fix_batch_norm():
    "Its statistics are the only thing that a process keeps to itself on a CPU; nothing else may differ."
    for kind in (torch.nn.BatchNorm1d, torch.nn.BatchNorm2d): kind.train = lambda self, mode=True: torch.nn.Module.train(self, False)


def gradients(out: str):
    "Of one batch."
    fix_batch_norm()
    accelerator, state = make_accelerator(QUICK), processes()
    set_seed(0)
    objective, g = SyncObjective(Detector(TINY)), torch.Generator().manual_seed(1)
    batch = dict(video=torch.rand(8, 16, 3, 32, 32, generator=g), mel=torch.randn(8, 80, 148, generator=g), valid=torch.rand(8, 17, generator=g) > .1)
    batch['valid'][:, 8] = True
    module = accelerator.prepare(objective).train()
    loss, _ = module({k: v.tensor_split(state.num_processes)[state.process_index] for k, v in batch.items()})
    accelerator.backward(loss)
    loss = accelerator.reduce(loss.detach(), 'mean')
    if state.is_main_process: save_tensors(dict(processes=state.num_processes, loss=loss, gradients={k: p.grad for k, p in objective.named_parameters()}), out)


def whole(entries: str, out: str):
    "Both stages, going on where a run has stopped."
    fix_batch_norm()
    paths = sorted(str(p) for p in Path(entries).iterdir())
    detector, history, health = train_detector(TINY, QUICK, paths[:24], paths[24:], Path(out))
    state = processes()
    save_tensors(dict(processes=state.num_processes, weights=detector.state_dict(), losses=history.train_loss.tolist(),
                      validation=history.validation_loss.tolist(), health={k: v for k, v in health.items() if isinstance(v, float)}), Path(out)/f'of {state.process_index}.pt')


def cut(entries: str, out: str):
    "Stage one, killed after its second epoch."
    fix_batch_norm()
    paths = sorted(str(p) for p in Path(entries).iterdir())
    def killer(stage, row):
        if row['epoch'] == 2: os._exit(9)
    (Path(out)/'checkpoints').mkdir(parents=True, exist_ok=True)
    set_seed(QUICK.seed)
    train_sync(Detector(TINY).to(make_accelerator(QUICK).device), paths[:24], paths[24:], QUICK, Path(out)/'checkpoints', killer)


def launch(n: int, what, *args) -> int:
    "Run one of these in so many processes."
    launcher = [sys.executable, '-m', 'accelerate.commands.launch', '--multi_gpu', '--num_processes', str(n)] if n > 1 else [sys.executable]
    env = dict(os.environ, OMP_NUM_THREADS='1', MASTER_PORT='0')
    return subprocess.run([*launcher, __file__, what.__name__, *map(str, args)], env=env, capture_output=True, text=True).returncode


def test_gradients(tmp_path):
    for n in (1, 2): assert launch(n, gradients, tmp_path/str(n)) == 0
    one, two = load_tensors(tmp_path/'1'), load_tensors(tmp_path/'2')
    assert (one['processes'], two['processes']) == (1, 2)
    assert torch.allclose(one['loss'], two['loss'], rtol=1e-6)
    for name, g in one['gradients'].items():
        assert torch.allclose(g, two['gradients'][name], atol=1e-3*max(float(g.abs().max()), 1e-2)), name


def test_training(tmp_path):
    for i in range(32): write_clip(tmp_path/'clips'/f'{i:02d}.zip', [toy_clip(i)])
    for n in (1, 2): assert launch(n, whole, tmp_path/'clips', tmp_path/str(n)) == 0
    one, two, other = (load_tensors(tmp_path/p) for p in ('1/of 0.pt', '2/of 0.pt', '2/of 1.pt'))
    assert (one['processes'], two['processes']) == (1, 2)
    print(json.dumps(dict(one=one['losses'], two=two['losses'], health=[one['health'], two['health']])))
    for k, v in two['weights'].items(): assert torch.equal(v, other['weights'][k]), k  # every process ends with the same detector
    assert np.allclose(one['losses'], two['losses'], rtol=1e-3)

    # killed in two processes, ended in one; killed in one, ended in two
    for first, then in ((2, 1), (1, 2)):
        out = tmp_path/f'{first} then {then}'
        assert launch(first, cut, tmp_path/'clips', out) != 0
        assert len(load_tensors(out/'checkpoints'/'sync.pt')['history']) == 2
        assert launch(then, whole, tmp_path/'clips', out) == 0
        found = load_tensors(out/'of 0.pt')
        straight = one if first == 1 else two
        assert found['losses'][:2] == straight['losses'][:2]
        assert np.allclose(found['losses'], one['losses'], rtol=1e-3)


if __name__ == '__main__': globals()[sys.argv[1]](*sys.argv[2:])
