"""What a folder says of its videos is read, or the user is told: tables, links, names, known sets, few clips."""

import json
import os
import subprocess
import sys
import unicodedata
import warnings
from pathlib import Path

import pandas as pd
import pytest

from avfake.extraction import extract_clips
from avfake.gallery import videos_of
from avfake.layouts import index_videos
from avfake.listing import list_files
from avfake.metadata import TYPES
from avfake.splits import check_splits, make_splits, split_table
from avfake.stored_splits import load_split, save_split

NAMES = (
    'Screen Recording 9.41.00\u202fAM.mp4',
    '\u200eWhatsApp Video.mp4',
    'a\u00a0b.mp4',
    '\u3000.mp4',
    '\U0001f469\u200d\U0001f4bb.mp4',
    'new\nline.mp4',
    'escape\x1b[31m.mp4',
    'film.qt',
    'film.m2t',
)
FILM = b'\0\0\0\x20ftypisom'


def put(root: Path, *paths: str, content: bytes = b'0') -> Path:
    for p in paths:
        (root / p).parent.mkdir(parents=True, exist_ok=True)
        (root / p).write_bytes(content)
    return root


def found(folder: Path, **options) -> list[tuple]:
    manifest, _ = index_videos(folder, **options)
    return [*zip(manifest.path, manifest.label, manifest.source)]


# ---------------------------------------------------------------- tables


FOREIGN = {
    'labels.csv': 'filename,label\na.mp4,FAKE\nb.mp4,REAL\n',
    'train.json': '[["a.mp4", "FAKE"], ["b.mp4", "REAL"]]',
    'list.txt': 'a.mp4 1\nb.mp4 0\n',
    'labels.tsv': 'a.mp4\tfake\n',
    'labels.jsonl': '{"video": "a.mp4", "fake": true}\n',
    '../labels.csv': 'video,label\na.mp4,1\nb.mp4,0\n',
    '../../all.csv': 'up/data/a.mp4,1\n',
    'more/labels.csv': 'a.mp4,1\n',
}


@pytest.mark.parametrize('name', FOREIGN)
def test_a_table_that_names_the_videos_is_never_ignored(name, tmp_path):
    "All were taken for authentic, and those that the table calls forged were trained on."
    data = put(tmp_path / 'up' / 'data', 'a.mp4', 'b.mp4', name)
    (data / name).write_text(FOREIGN[name])
    with pytest.raises(ValueError, match='a.mp4.*is not understood.*--layout plain') as error:
        index_videos(data)
    assert Path(name).name in str(error.value)
    manifest, report = index_videos(data, layout='plain')
    assert manifest.label.tolist() == [0, 0]
    assert any(Path(name).name in note and 'is not read' in note for note in report.notes)


def test_class_folders_do_not_hide_a_table(tmp_path):
    data = put(tmp_path, 'real/a.mp4', 'fake/b.mp4')
    (data / 'labels.csv').write_text('file,label\nreal/a.mp4,fake\n')
    with pytest.raises(ValueError, match='labels.csv names 1 of 2 videos .real/a.mp4.'):
        index_videos(data)


def test_a_table_beside_a_documented_layout(tmp_path):
    "What says nothing of labels is noted, and worlds are read; what speaks of labels is an error there, too."
    put(tmp_path, *(f'{t}/a/men/id1/{i}.mp4' for i, t in enumerate(TYPES)))
    name = f'{TYPES[0]}/a/men/id1/0.mp4'
    (tmp_path / 'provenance.csv').write_text(f'rel,licence\n{name},MIT\n')
    (tmp_path / 'worlds.csv').write_text(f'path,world\n{name},bbc\n')
    manifest, report = index_videos(tmp_path)
    assert manifest.set_index('path').world[name] == 'bbc' and set(manifest.world) == {'', 'bbc'}
    assert [o for o in report.notes if o.startswith('provenance.csv')]
    (tmp_path / 'other.csv').write_text(f'file,label\n{name},fake\n')
    with pytest.raises(ValueError, match='other.csv names 1 of 4 videos'):
        index_videos(tmp_path)


def test_sound_beside_the_videos_is_not_passed_over_in_silence(tmp_path):
    put(tmp_path, 'real/1.mp4', 'real/1.wav', 'fake/1.mp4')
    assert any('real/1.wav' in note and 'path,label,audio' in note for note in index_videos(tmp_path)[1].notes)


@pytest.mark.parametrize(
    'name, text',
    [
        ('README.md', 'a.mp4 is forged'),
        ('a.txt', 'b.mp4 said the speaker'),
        ('sums.txt', f'{"0" * 64}  a.mp4\n{"1" * 64}  b.mp4\n'),
        ('other.csv', 'x.mp4,fake\n'),
        ('results/detailed_results.csv', 'path,label,score,log_prob,sync_score\na.mp4,1,2,3,4\n'),
    ],
)
def test_what_is_no_table_of_the_videos(name, text, tmp_path):
    put(tmp_path, 'a.mp4', 'b.mp4', name)
    (tmp_path / name).write_text(text)
    assert found(tmp_path) == [('a.mp4', 0, 'a'), ('b.mp4', 0, 'b')]


def test_own_outputs_beside_the_videos(tmp_path):
    "A run that is saved into the folder of its videos, and a second index of it."
    put(tmp_path, *(f'real/p{i}/1.mp4' for i in range(8)))
    manifest, _ = index_videos(tmp_path)
    (tmp_path / 'results' / 'split').mkdir(parents=True)
    save_split(make_splits(manifest), tmp_path / 'results' / 'split')
    again, report = index_videos(tmp_path)
    pd.testing.assert_frame_equal(again, manifest)
    assert not report.tables


def test_the_general_table(tmp_path):
    "Labels are words; numbers only where the table says what they mean; what has no label is named."
    data = put(tmp_path / 'set', 'x/1.mp4', 'x/2.mp4', 'x/3.mp4', 'x/3.wav')
    table = data / 'labels.csv'
    table.write_text('path,label,source,audio,world\nx/1.mp4,real,ann,,bbc\nx/3.mp4,forged,ann,x/3.wav,\n')
    manifest, report = index_videos(data)
    assert [*zip(manifest.path, manifest.label, manifest.audio, manifest.world)] == [
        ('x/1.mp4', 0, '', 'bbc'),
        ('x/3.mp4', 1, 'x/3.wav', ''),
    ]
    assert report.layout == 'table' and 'no row in labels.csv, hence no label (x/2.mp4)' in str(report)
    table.write_text('path,label\nx/1.mp4,0\nx/3.mp4,1\n')
    with pytest.raises(ValueError, match='its labels are numbers'):
        index_videos(data)
    table.write_text('path,label,method\nx/1.mp4,1,real\nx/3.mp4,0,swap\n')
    assert [label for _, label, _ in found(data)] == [0, 1]
    table.write_text('path,label\nx/1.mp4,real\nx/1.mp4,fake\nx/2.mp4,real\n')
    manifest, report = index_videos(data)
    assert manifest.path.tolist() == ['x/2.mp4'] and report.left_out['labels.csv: rows with other labels'] == [
        'x/1.mp4'
    ]
    table.write_text('path,label,audio\nx/1.mp4,real,../../secret.wav\nx/2.mp4,real,\n')
    assert found(data)[0][0] == 'x/2.mp4'


def test_a_split_that_a_table_states(tmp_path):
    names = [f'{s}/{i}.mp4' for s in ('train', 'val', 'test') for i in range(6)]
    put(tmp_path, *names)
    rows = [f'{p},real,{p},{p.split("/")[0]}' for p in names]
    (tmp_path / 'labels.csv').write_text('\n'.join(['path,label,source,split', *rows]))
    manifest, _ = index_videos(tmp_path)
    split = make_splits(manifest)
    check_splits(split)
    assert split.split[split.path.str.startswith('test/')].eq('test').all()
    assert split.split[split.path.str.startswith('train/')].eq('train').all()


# ---------------------------------------------------------------- layouts


@pytest.mark.parametrize('prefix', ['', 'FakeAVCeleb_v1.2/', 'FakeAVCeleb_v1.2/FakeAVCeleb_v1.2/', 'real_data/x/'])
def test_fakeavceleb_at_any_depth(prefix, tmp_path):
    "In real_data/ all were authentic."
    put(tmp_path, *(f'{prefix}{t}/African/men/id{i:05d}/{i}.mp4' for t in TYPES for i in range(2)))
    manifest, report = index_videos(tmp_path)
    assert report.layout == 'FakeAVCeleb' and manifest.label.tolist() == (manifest.category != TYPES[0]).tolist()
    assert set(manifest.source) == {'id00000', 'id00001'}


def test_known_sets(tmp_path):
    ff = put(
        tmp_path / 'ff',
        'original_sequences/youtube/c23/videos/000.mp4',
        'manipulated_sequences/Deepfakes/c23/videos/000_001.mp4',
    )
    assert [o[1:] for o in found(ff)] == [(1, '000'), (0, '000')]
    celeb = put(
        tmp_path / 'celeb', 'Celeb-real/id0_0000.mp4', 'Celeb-real/id0_0001.mp4', 'Celeb-synthesis/id0_id1_0000.mp4'
    )
    assert [o[1:] for o in found(celeb)] == [(0, 'id0'), (0, 'id0'), (1, 'id0')]
    dfdc = put(tmp_path / 'dfdc', 'a.mp4', 'b.mp4')
    (dfdc / 'metadata.json').write_text(
        json.dumps({'a.mp4': dict(label='REAL'), 'b.mp4': dict(label='FAKE', original='a.mp4')})
    )
    assert [o[1:] for o in found(dfdc)] == [(0, 'a.mp4'), (1, 'a.mp4')]
    vox = put(tmp_path / 'vox', 'mp4/id00012/21Uxsk56VDQ/00001.mp4', 'mp4/id00017/01dfn2spqyE/00002.mp4')
    assert [o[1:] for o in found(vox)] == [(0, 'id00012'), (0, 'id00017')]
    lips = put(tmp_path / 'lips', '0_real/1.mp4', '1_fake/1.mp4', 'wav/0_real/1.wav', 'wav/1_fake/1.wav')
    assert index_videos(lips)[0].audio.tolist() == ['wav/0_real/1.wav', 'wav/1_fake/1.wav']
    layouts = [index_videos(tmp_path / n)[1].layout for n in ('ff', 'celeb', 'dfdc', 'vox', 'lips')]
    assert layouts == ['FaceForensics++', 'Celeb-DF', 'DFDC', 'people', 'AVLips']


SPEAK = {
    'annotations-real.csv': 'video-file,identity\n284-6880.mp4,284\n377-10294.mp4,377\n',
    'annotations-fake.csv': 'video-file,kind,engine,identity-source,identity-target\n'
    'facefusion-10294-6880.mp4,face-swap,facefusion,377,284\n',
    'annotations-split-def.csv': 'identity,split\n284,test\n377,train\n',
}


@pytest.fixture
def deepspeak(tmp_path):
    put(tmp_path, 'real/284-6880.mp4', 'real/377-10294.mp4', 'fake/facefusion-10294-6880.mp4', 'fake/odd.mp4')
    for name, text in SPEAK.items():
        (tmp_path / name).write_text(text)
    return tmp_path


def test_deepspeak(deepspeak):
    "Its tables ended the run as tables that nobody understands; read as class folders, 284 would be 'facefusion-...'."
    manifest, report = index_videos(deepspeak)
    assert found(deepspeak) == [
        ('fake/facefusion-10294-6880.mp4', 1, '284'),
        ('real/284-6880.mp4', 0, '284'),
        ('real/377-10294.mp4', 0, '377'),
    ]
    assert report.layout == 'DeepSpeak' and manifest.target[0] == '377'
    assert manifest.split.tolist() == ['official-test', 'official-test', 'official-train']
    assert 'fake/odd.mp4' in str(report) and 'hence no label' in str(report)


@pytest.mark.parametrize('name, column', [('annotations-real.csv', 'identity'), ('annotations-fake.csv', 'video-file')])
def test_a_table_of_deepspeak_without_a_column_says_how_to_make_it_clear(name, column, deepspeak):
    (deepspeak / name).write_text(SPEAK[name].replace(column, 'unknown', 1))
    with pytest.raises(ValueError, match=f'no column {column}.*a header with path and label'):
        index_videos(deepspeak)
    lines = ['path,label,source', 'real/284-6880.mp4,real,284', 'fake/odd.mp4,fake,284']
    (deepspeak / 'labels.csv').write_text('\n'.join(lines))
    assert found(deepspeak) == [('fake/odd.mp4', 1, '284'), ('real/284-6880.mp4', 0, '284')]


def test_talkingheadbench(tmp_path):
    "Sound beside the videos was not read, and authentic clips were told by nothing."
    put(
        tmp_path,
        'fake/Hallo/test/00023--abcdefghijk_0--Hallo.mp4',
        'audio/fake/00023--abcdefghijk_0--Hallo.wav',
        'audio/ff++/001.wav',
        'real/001.mp4',
        'real/unlisted.mp4',
    )
    (tmp_path / 'real/real_dataset_split.json').write_text(json.dumps({'Train': {'FaceForensics++': ['001.mp4']}}))
    manifest, report = index_videos(tmp_path)
    assert report.layout == 'TalkingHeadBench' and 'real/unlisted.mp4' in str(report)
    assert found(tmp_path) == [
        ('fake/Hallo/test/00023--abcdefghijk_0--Hallo.mp4', 1, 'FFHQ/00023'),
        ('real/001.mp4', 0, '001'),
    ]
    assert manifest.audio.tolist() == ['audio/fake/00023--abcdefghijk_0--Hallo.wav', 'audio/ff++/001.wav']
    assert manifest.target.tolist() == ['abcdefghijk', '']


def test_av_deepfake1m_plus_plus(tmp_path):
    put(tmp_path, 'val/vox_celeb_2/id00012/x/0/real.mp4', 'val/lrs3/0af00UcTOSc/5/fake_audio.mp4')
    entries = [
        dict(file='vox_celeb_2/id00012/x/0/real.mp4', split='val', modify_type='real', fake_segments=[]),
        dict(
            file='lrs3/0af00UcTOSc/5/fake_audio.mp4', split='val', modify_type='audio_modified', fake_segments=[[1, 2]]
        ),
    ]
    (tmp_path / 'val_metadata.json').write_text(json.dumps(entries))
    assert [o[1:] for o in found(tmp_path)] == [(1, '0af00UcTOSc'), (0, 'id00012')]
    assert index_videos(tmp_path)[1].layout == 'AV-Deepfake1M++'


def test_folders_of_people_are_authentic_only_if_said(tmp_path):
    put(tmp_path, 'mp4/id04/vid0/1.mp4', 'mp4/id05/vid1/1.mp4')
    with pytest.raises(ValueError, match='--layout people'):
        index_videos(tmp_path)
    assert [o[1:] for o in found(tmp_path, layout='people')] == [(0, 'id04'), (0, 'id05')]
    put(tmp_path, 'mp4/faceswap/vid0/1.mp4')
    with pytest.raises(ValueError, match="'faceswap' speaks of forgeries"):
        index_videos(tmp_path, layout='people')


@pytest.mark.parametrize('inner', ['youtube', 'train', 'b/c/d'])
def test_one_folder_below_real_is_nobody(inner, tmp_path):
    "All clips were of one person, who cannot be split."
    put(tmp_path, *(f'real/{inner}/{i}.mp4' for i in range(6)), f'fake/{inner}/3.mp4')
    manifest, report = index_videos(tmp_path)
    assert manifest.source.tolist() == ['3', '0', '1', '2', '3', '4', '5']
    assert inner != 'b/c/d' or 'counts as a person of its own' in str(report)


# ---------------------------------------------------------------- links and names


def test_links(tmp_path):
    "Followed inside the folder and to a folder that is named; others are counted and named; nothing goes round."
    data = put(tmp_path / 'data', 'pool/1.mp4')
    put(tmp_path, 'blobs/07')
    (data / 'real').symlink_to('pool')
    (data / 'pool' / 'up').symlink_to('..')
    (data / 'clip.mp4').symlink_to('../blobs/07')
    files = list_files(data)
    assert files.videos == ['pool/1.mp4', 'real/1.mp4'] and files.skipped['links'] == ['clip.mp4']
    snapshot = tmp_path / 'snapshot'
    snapshot.mkdir()
    (snapshot / 'clip.mp4').symlink_to('../blobs/07')
    with pytest.raises(ValueError, match=r'1 links \(clip.mp4\).*--links DIR'):
        index_videos(snapshot)
    manifest, _ = index_videos(snapshot, links=[tmp_path / 'blobs'])
    assert manifest.path.tolist() == ['clip.mp4']
    with pytest.raises(ValueError, match='leads out of data_dir'):
        extract_clips(manifest, snapshot, tmp_path / 'cache', workers=0)
    table = extract_clips(manifest, snapshot, tmp_path / 'cache', workers=0, links=[tmp_path / 'blobs'])
    assert table.reason.tolist() == ['unreadable']
    outside = manifest.assign(path='../data/pool/1.mp4')
    with pytest.raises(ValueError, match='leads out of data_dir'):
        extract_clips(outside, snapshot, tmp_path / 'cache', workers=0, links=[tmp_path / 'blobs'])


def test_videos_of_any_name(tmp_path):
    put(tmp_path, *NAMES)
    put(tmp_path, 'videoplayback', 'ORIGINAL.TOD', content=FILM)
    put(tmp_path, 'notes', '._a.mp4', 'cover.jpg')
    (tmp_path / os.fsdecode(b'\xff.mp4')).write_bytes(b'0')
    manifest, report = index_videos(tmp_path)
    assert set(manifest.path) == {*NAMES, 'videoplayback', 'ORIGINAL.TOD'}
    assert sum(report.skipped.values()) == 4 and report.skipped['names that are not UTF-8'] == 1
    text = str(report)
    text.encode()
    assert '\x1b' not in text
    (tmp_path / 'store').mkdir()
    save_split(manifest, tmp_path / 'store')
    assert set(load_split(tmp_path / 'store').path) == set(manifest.path)


def test_score_names_what_it_does_not_look_at(tmp_path):
    "'Every video was judged' was said of a folder of which one in five was."
    data = put(tmp_path / 'data', *NAMES, 'Makefile', '.hidden.mp4', '._a.mp4', 'notes.txt')
    put(data, 'videoplayback', content=FILM)
    (data / 'away.mp4').symlink_to('/dev/null')
    found = videos_of([data])
    assert {o.name for o in found.videos} == {*NAMES, 'videoplayback'}
    assert {o.name for o, _ in found.not_looked_at} == {'Makefile', '.hidden.mp4', 'away.mp4'}
    assert {Path(o).name for o in found.no_videos} == {'._a.mp4', 'notes.txt'}
    many = put(tmp_path / 'many', 'a.mp4', *(f'{i}.xyz' for i in range(30)))
    passed = videos_of([many]).not_looked_at
    assert len(passed) == 21 and passed[-1][1].startswith('10 further files')


def test_dry_run(tmp_path):
    put(tmp_path, *(f'real/p{i}/1.mp4' for i in range(6)), 'fake/p1/1.mp4', 'notes.txt')
    command = [sys.executable, '-c', 'from avfake.cli import main; main()', 'extract', '--dry_run', '--data_dir']
    done = subprocess.run([*command, str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for text in ('plain layout: 7 videos', '6 people with authentic clips', 'not videos (notes.txt)', 'real/p0/1.mp4'):
        assert text in done.stdout
    assert 'Training would split it so' in done.stdout


# ---------------------------------------------------------------- few clips


@pytest.mark.parametrize('people', [5, 6, 10, 19])
def test_one_clip_a_person(people, tmp_path):
    "Of 10 authentic clips 6 were trained on and 1 was left to validate, which training refused after the extraction."
    put(tmp_path, *(f'real/p{i}.mp4' for i in range(people)))
    for seed in range(5):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter('always')
            split = make_splits(index_videos(tmp_path)[0], seed=seed)
        check_splits(split)
        table = split_table(split).authentic
        assert min(table['train'], table['validation']) >= 2 and table['test'] >= 1
        assert (table['calibration'] >= 1) == (people >= 6) == (not caught)


def test_too_few_clips_are_refused_with_the_numbers(tmp_path):
    put(tmp_path, *(f'real/p{i}.mp4' for i in range(4)))
    with pytest.raises(ValueError, match='4 authentic clips of 4 people are too few: training takes at least 2 clips'):
        make_splits(index_videos(tmp_path)[0])


@pytest.mark.skipif(not hasattr(os, 'mkfifo'), reason='there are no pipes here')
def test_pipes_and_damaged_tables_stop_nothing(tmp_path):
    "A pipe that is called labels.csv would be waited for, for ever."
    put(tmp_path, 'a.mp4')
    os.mkfifo(tmp_path / 'labels.csv')
    os.mkfifo(tmp_path / 'b.mp4')
    put(tmp_path, 'labels.xlsx', 'labels.csv.gz', content=b'PK\3\4 torn')
    (tmp_path / 'torn.csv.gz').write_bytes(b'\x1f\x8b\x08\0\0\0\0\0\0\3torn')
    (tmp_path / 'labels.json').write_text('[' * 100_000)
    manifest, report = index_videos(tmp_path)
    assert manifest.path.tolist() == ['a.mp4'] and report.skipped['no regular files'] == 2


# ---------------------------------------------------------------- tables as spreadsheets save them


@pytest.mark.parametrize('encoding', ['utf-8-sig', 'utf-16', 'cp1252', 'decomposed', 'capitals'])
def test_a_table_in_another_spelling(encoding, tmp_path):
    "Videos whose names a spreadsheet had spelt in its own way had no label, or the table was not understood."
    put(tmp_path, 'Müller.mp4', 'Zoë.mp4')
    text = 'path,label\nMüller.mp4,real\nZoë.mp4,fake\n'
    match encoding:
        case 'decomposed':
            (tmp_path / 'labels.csv').write_text(unicodedata.normalize('NFD', text), 'utf-8')
        case 'capitals':
            (tmp_path / 'labels.csv').write_text(text.replace('Müller.mp4', 'MÜLLER.MP4'), 'utf-8')
        case _:
            (tmp_path / 'labels.csv').write_text(text, encoding)
    assert [o[:2] for o in found(tmp_path)] == [('Müller.mp4', 0), ('Zoë.mp4', 1)]


def test_a_spelling_that_two_videos_have_is_not_guessed(tmp_path):
    put(tmp_path, 'a.mp4', 'A.mp4', 'b.mp4')
    if len(list(tmp_path.iterdir())) < 3:
        pytest.skip('this file system does not tell a from A')
    (tmp_path / 'labels.csv').write_text('path,label\na.MP4,real\nb.mp4,real\n')
    manifest, report = index_videos(tmp_path)
    assert manifest.path.tolist() == ['b.mp4']
    assert '1 rows without a file (a.MP4)' in str(report) and '2 left out' in str(report)


def test_rows_that_name_no_video_are_shown(tmp_path):
    put(tmp_path, 'a.mp4', 'b.mp4')
    (tmp_path / 'labels.csv').write_text('path,label\na,real\nb,fake\n')
    with pytest.raises(ValueError, match='no row gives a label.*its rows name files that are not there: a, b'):
        index_videos(tmp_path)
