"""Which clips a folder's names make authentic: never more than the names say. A further layout is one line."""

import json
import tracemalloc
from pathlib import Path

import pytest

from avfake import layouts
from avfake.class_names import class_of_name
from avfake.layouts import Layout, index_videos
from avfake.metadata import AUTHENTIC, TYPES, IndexReport, read_segments

UNCLEAR = [
    'real_time_deepfakes',
    'original-lipsync',
    'Real3DPortrait',
    'Real3D-Portrait',
    'RealTime-Swap',
    'deepfakes_of_originals',
    'real_swapped',
    'authentic_synthesis',
    'not_real',
    'real_data',
    'realistic',
    'genuinely_fake',
    'RealVideo',
    'Realistic-X',
    'unreal',
    'nonreal',
    'surreal',
    'real_fake',
    'really',
    'ground_truth',
    'true',
    'echt',
    '真实',
    '1',
    '2024',
]


def put(root: Path, *paths: str) -> Path:
    for p in paths:
        (root / p).parent.mkdir(parents=True, exist_ok=True)
        (root / p).write_bytes(b'0')
    return root


@pytest.mark.parametrize('name', UNCLEAR)
def test_a_name_that_holds_an_authentic_word_is_not_authentic(name, tmp_path):
    "Fault 09: clips below such folders were labelled authentic, and so trained on."
    assert class_of_name(name) != 0
    put(tmp_path, 'real/1.mp4', 'real/2.mp4', f'{name}/3.mp4')
    with pytest.raises(ValueError, match='unclear names: ') as error:
        index_videos(tmp_path)
    assert name in str(error.value) and 'authentic: real' in str(error.value) and 'Name the folders' in str(error.value)


def test_documented_names():
    "In any case, and with - or a space for _."
    authentic = ['real', 'Reals', 'AUTHENTIC', 'original', 'originals', 'original_sequences', '0_real', 'Celeb-real']
    authentic += ['YouTube-real', 'genuine', 'Original Sequences', AUTHENTIC]
    forged = ['fake', 'forged', 'manipulated', 'manipulated_sequences', 'synthesis', 'Celeb-synthesis', 'deepfakes']
    forged += ['1_fake', 'Deepfakes', *TYPES[1:], 'forged_Real3DPortrait']
    assert [class_of_name(n) for n in authentic] == [0] * len(authentic)
    assert [class_of_name(n) for n in forged] == [1] * len(forged)


def test_methods_beside_an_authentic_folder_are_forged(tmp_path):
    put(tmp_path, 'real/a/1.mp4', 'Wav2Lip/a/1.mp4', 'forged_Real3DPortrait/b/1.mp4', 'fake/b/1.mp4')
    manifest, _ = index_videos(tmp_path)
    assert dict(zip(manifest.category, manifest.label)) == {
        'Wav2Lip': 1,
        'fake': 1,
        'forged_Real3DPortrait': 1,
        'real': 0,
    }


@pytest.mark.parametrize(
    'paths, why',
    [
        (['id00/1.mp4', 'id01/1.mp4'], 'unclear names: id00, id01'),
        (['alice/1.mp4', 'bob/1.mp4'], 'no folder is named authentic'),
        (['fake/1.mp4', 'alice/1.mp4'], 'no folder is named authentic'),
        (['train/real/1.mp4', 'train/fake/1.mp4'], 'unclear names: train'),
        (['real/1.mp4', '2.mp4'], 'videos beside the folders: 2.mp4'),
        (['real/Celeb-synthesis/1.mp4'], 'real holds a folder Celeb-synthesis'),
        ([f'real/FakeAVCeleb/{t}/a/men/id1/1.mp4' for t in TYPES], 'real holds a folder FakeAVCeleb'),
        ([f'{o}/{t}/a/men/id1/1.mp4' for t in TYPES for o in 'ab'], 'they stand in a/, b/: give one of these'),
        (['real/a/1.mp4', 'real/fake/2.mp4'], 'real holds a folder fake'),
        (['fake/real/1.mp4'], 'fake holds a folder real'),
        (['real/Wav2Lip/1.mp4', 'real/alice/1.mp4'], 'real holds a folder Wav2Lip'),
        (['a/b/real/1.mp4', 'a/b/fake/1.mp4'], 'stand in a/b: give such a one'),
        (['real_1.mp4', 'fake_2.mp4'], '1 of 2 are named as forged ones are .fake_2.mp4.'),
        (['id00012/one/1.mp4', 'id00013/two/1.mp4'], 'say so with --layout people'),
    ],
)
@pytest.mark.parametrize('need_authentic', [True, False])
def test_a_label_is_never_guessed(tmp_path, paths, why, need_authentic):
    "A mixture that does not add up is an error that lists the folders, for training and for evaluation."
    with pytest.raises(ValueError, match=why):
        index_videos(put(tmp_path, *paths), need_authentic=need_authentic)


def test_videos_directly_in_a_folder(tmp_path):
    "They count as authentic, as documented; not where the folder itself is named as forged ones are."
    manifest, report = index_videos(put(tmp_path / 'mine', 'a.mp4', 'b.mov'))
    assert (report.layout, manifest.label.tolist(), manifest.source.tolist()) == ('plain', [0, 0], ['a', 'b'])
    with pytest.raises(ValueError, match='named as forged clips are'):
        index_videos(put(tmp_path / 'Celeb-synthesis', 'a.mp4'))


def test_a_layout_is_one_line(tmp_path, monkeypatch):
    "Appended to the list it is chosen where it matches, or by its name."
    put(tmp_path, 's1_bonafide.mp4', 's1_spoof.mp4')

    def read(files, report):
        report.named = True  # of names that hold 'spoof' it is not asked what they mean
        manifest = layouts.PLAIN.read(files, report)
        label = manifest.path.str.contains('spoof').astype(int)
        return manifest.assign(label=label, source=manifest.source.str.split('_').str[0])

    toy = Layout('toy', lambda files: all('_' in p for p in files.videos), read)
    monkeypatch.setattr(layouts, 'LAYOUTS', [*layouts.LAYOUTS, toy])
    manifest, report = index_videos(tmp_path)
    assert (report.layout, manifest.label.tolist(), set(manifest.source)) == ('toy', [0, 1], {'s1'})
    assert index_videos(tmp_path, layout='Toy')[1].layout == 'toy'
    assert index_videos(tmp_path, layout='plain')[0].label.tolist() == [0, 0]
    with pytest.raises(ValueError, match="layout='other' is not one of table, FakeAVCeleb.* toy, plain"):
        index_videos(tmp_path, layout='other')


def test_each_layout_is_found(tmp_path):
    put(tmp_path / 'a', f'{TYPES[0]}/x/men/id1/1.mp4', f'{TYPES[3]}/x/men/id1/2.mp4')
    put(tmp_path / 'b', 'train/1.mp4')
    put(tmp_path / 'c', 'train/id1/x/0/real.mp4')
    put(tmp_path / 'd', 'real/1.mp4')
    entry = dict(split='train', original=None)
    lav = dict(entry, file='train/1.mp4', modify_video=False, modify_audio=False, fake_periods=[])
    av1m = dict(entry, file='id1/x/0/real.mp4', modify_type='real', fake_segments=[])
    (tmp_path / 'b' / 'metadata.json').write_text(json.dumps([lav]))
    (tmp_path / 'c' / 'train_metadata.json').write_text(json.dumps([av1m]))
    found = [index_videos(tmp_path / name)[1].layout for name in 'abcd']
    assert found == ['FakeAVCeleb', 'LAV-DF', 'AV-Deepfake1M', 'plain']


def test_words_with_their_times_take_no_memory(tmp_path):
    "LAV-DF's metadata hold every word of 136,304 clips: as Python objects they would take ten times their text."
    words = [[f'word{i}', round(0.4 * i, 3), round(0.4 * i + 0.3, 3)] for i in range(200)]
    known = dict(modify_video=False, modify_audio=True, split='train', original=None)
    entries = [dict(file=f'{i:06d}.mp4', fake_periods=[[1.5, 2.25]], timestamps=words, **known) for i in range(1000)]
    path = tmp_path / 'metadata.json'
    path.write_text(json.dumps(entries))
    tracemalloc.start()
    rows = read_segments(path, IndexReport())
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(rows) == 1000
    assert set(rows.periods) == {'1.5-2.25'}
    assert peak < 4 * path.stat().st_size
