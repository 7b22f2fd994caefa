"""Who is trained on and who is tested: copies on one side, several targets, a stored split that is read."""

import warnings
from types import SimpleNamespace

import pandas as pd
import pytest

from avfake import preparation
from avfake.detector import make_config
from avfake.identities import same_bytes, seen_identities, trained_copies, trained_digests, video_digests
from avfake.metadata import TYPES, IndexReport
from avfake.preparation import draw_split
from avfake.run import Run, flag_trained
from avfake.splits import check_splits, make_splits
from avfake.stored_splits import apply_split, load_split, save_split, split_hash


def authentic(people: int = 20, clips: int = 4) -> pd.DataFrame:
    rows = [
        dict(path=f'{TYPES[0]}/p{p}/{i}.mp4', category=TYPES[0], method='real', source=f'p{p}', label=0)
        for p in range(people)
        for i in range(clips)
    ]
    return pd.DataFrame(rows).assign(target='', split='unused', seen_identity=False, periods='')


def forged(source: str, target: str, path: str = 'x.mp4') -> dict:
    facts = dict(path=path, category=TYPES[3], method='swap', source=source, target=target, label=1)
    return dict(facts, split='unused', seen_identity=False, periods='')


def table(manifest, digests: dict) -> pd.DataFrame:
    "As `extract_clips` gives it."
    names = [digests.get(p, p) for p in manifest.path]
    return pd.DataFrame(dict(path=manifest.path, entry=[f'{n}.zip' for n in names], reason='', digest=names))


def sides(manifest, digest: dict) -> int:
    "In how many splits, at most, do the same bytes stand?"
    used = manifest[manifest.split != 'unused']
    return used.groupby(used.path.map(lambda p: digest.get(p, p))).split.nunique().max()


def test_the_same_bytes_stay_on_one_side():
    "Fault 12: a clip under two people's names was trained on and tested."
    m = authentic()
    apart = draw_split(m, table(m, {}))
    a = apart.path[apart.split == 'train'].iloc[0]
    b = apart.path[apart.split == 'test'].iloc[0]
    copies = {a: 'same', b: 'same'}
    together = draw_split(m, table(m, copies))
    check_splits(together)
    assert (sides(apart, copies), sides(together, copies)) == (2, 1)
    people = m.source[m.path.isin([a, b])].tolist()
    assert together.split[together.source.isin(people)].nunique() == 1  # the two are split as one
    assert (together.groupby('source').split.nunique() == 1).all()


def test_copies_of_few_people_stay_together():
    "Where train and validation share people, and are divided clip by clip, copies are not divided."
    m = authentic(2, 12)
    copies = dict.fromkeys(m.path[m.source == 'p0'][:4], 'same') | dict.fromkeys(m.path[m.source == 'p1'][:4], 'other')
    for seed in range(5):
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            split = make_splits(m, seed=seed, digests=video_digests(table(m, copies)))
        check_splits(split)
        assert sides(split, copies) == 1
    joined = {m.path[0]: 'same', m.path[12]: 'same'}
    with pytest.raises(ValueError, match='1 identity.*counted as one.*p0/0.mp4.*p1/0.mp4'):
        make_splits(m, digests=video_digests(table(m, joined)))


def test_copies_that_contradict_each_other_are_not_used():
    m = pd.concat([authentic(), pd.DataFrame([forged('p1', 'p2', 'x.mp4')])], ignore_index=True)
    digests = video_digests(table(m, {'x.mp4': 'same', m.path[0]: 'same'}))
    split = make_splits(m, digests=digests).set_index('path').split
    assert (split['x.mp4'], split[m.path[0]]) == ('unused', 'unused')
    assert same_bytes(m, digests).conflict.tolist() == [True, True]


def test_prepare_names_the_copies(monkeypatch):
    m = authentic()
    copies = {m.path[0]: 'same', m.path[40]: 'same'}
    monkeypatch.setattr(preparation, 'index_videos', lambda *a, **k: (m, IndexReport(layout='plain')))
    monkeypatch.setattr(preparation, 'extract_clips', lambda *a, **k: table(m, copies))
    prepared = preparation.prepare('.', make_config('small'))
    assert f'{m.path[0]}, {m.path[40]} are the same video' in str(prepared)
    assert prepared.manifest.split[[0, 40]].nunique() == 1


def test_the_same_bytes_are_never_unseen_in_a_folder_scored_later(tmp_path):
    "A training clip under another name and another person's counts as seen."
    m = authentic()
    split = make_splits(m)
    digests = pd.Series([f'{i:016x}' + 48 * '0' for i in range(len(m))], m.path)
    trained = trained_digests(split, digests)
    assert len(trained) == split.split.isin(['train', 'validation']).sum()
    first = split.path[split.split == 'train'].iloc[0]
    later = pd.DataFrame([dict(m.iloc[0], path='a.mp4', source='x'), dict(m.iloc[0], path='b.mp4', source='x')])
    names = pd.DataFrame(dict(path=later.path, entry='e', reason='', digest=[digests[first], 'f' * 64]))
    assert trained_copies(later, video_digests(names), trained).tolist() == [True, False]
    prepared = preparation.Prepared('.', later.assign(seen_identity=False), names, None)
    detector = SimpleNamespace(metadata=dict(trained_on=[], trained_digests=trained))
    flagged = flag_trained(prepared, detector, Run(tmp_path))
    assert flagged.manifest.seen_identity.tolist() == [True, False]


def test_another_folder_with_the_same_names_is_another_folder(tmp_path):
    "In both there is real/p0/0.mp4: only where the bytes are those of training is the clip one of training's."
    m = authentic()
    digests = pd.Series([f'{i:016x}' + 48 * '0' for i in range(len(m))], m.path)
    split = make_splits(m)
    detector = SimpleNamespace(metadata=dict(trained_on=[], trained_digests=trained_digests(split, digests)))
    detector.metadata['split_hash'] = save_split(split, Run(tmp_path).split, digests=digests)
    names = table(m, digests.to_dict())
    same = flag_trained(preparation.Prepared('.', m, names, None), detector, Run(tmp_path))
    assert same.manifest.split.tolist() == split.split.tolist()
    assert same.manifest.seen_identity.tolist() == split.split.isin(['train', 'validation']).tolist()
    other = names.assign(digest=['f' * 64] * len(m))
    other = flag_trained(preparation.Prepared('.', m, other, None), detector, Run(tmp_path))
    assert set(other.manifest.split) == {'all'} and not other.manifest.seen_identity.any()


def test_seen_identity_knows_every_target(tmp_path):
    "Fault 02: of several targets, 'id2;id1', none was compared with those trained on."
    rows = [forged('id9', 'id1'), forged('id9', 'id2;id1'), forged('id1', ''), forged('id9', 'id11;id2')]
    m = pd.DataFrame(rows).assign(path=['a.mp4', 'b.mp4', 'c.mp4', 'd.mp4'])
    assert seen_identities(m, ['id1']).tolist() == [True, True, True, False]
    prepared = preparation.Prepared('.', m, table(m, {}), None)
    detector = SimpleNamespace(metadata=dict(trained_on=['id1']))
    flagged = flag_trained(prepared, detector, Run(tmp_path))
    assert flagged.manifest.seen_identity.tolist() == [True, True, True, False]


def test_a_stored_split_is_applied_to_the_folder_as_it_is_today(tmp_path):
    "Fault 01, its ground: each video has its stored split; what came later has none; what is gone is listed."
    m = authentic()
    digests = pd.Series([f'{i:016x}' + 48 * '0' for i in range(len(m))], m.path)
    split = make_splits(m, seed=1)
    digest = save_split(split, tmp_path, seed=1, digests=digests)
    stored = load_split(tmp_path)
    same = apply_split(m, stored, digests)
    assert same.is_same and not same.notes() and same.hash == digest == split_hash(same.manifest)
    assert same.manifest.split.tolist() == split.split.tolist()

    trained = split[split.split == 'train']
    tested = split[split.split == 'test']
    gone, changed = tested.path.iloc[0], trained.path.iloc[0]
    came = [dict(m.iloc[0], path='new/1.mp4', source=trained.source.iloc[0]), dict(m.iloc[0], path='new/2.mp4')]
    came += [dict(m.iloc[0], path='new/3.mp4'), forged('nobody', f'else;{trained.source.iloc[0]}', 'new/4.mp4')]
    came = pd.DataFrame(came).assign(source=[trained.source.iloc[0], 'nobody', 'nobody', 'nobody'])
    today = pd.concat([m[m.path != gone], came], ignore_index=True)
    now = pd.concat([digests, pd.Series([digests[trained.path.iloc[1]], 'b'], ['new/2.mp4', 'new/3.mp4'])])
    now[changed] = 'other bytes'
    applied = apply_split(today, stored, now)
    check_splits(applied.manifest)
    rows = applied.manifest.set_index('path')
    assert (applied.new, applied.gone, applied.changed) == (came.path.tolist(), [gone], [changed])
    assert not applied.is_same and applied.copies == ['new/2.mp4'] and len(applied.notes()) == 4
    assert rows.split[[changed, *came.path]].tolist() == [''] * 5
    assert rows.seen_identity[came.path].tolist() == [True, True, False, True]
    old = rows.drop([changed, *came.path])
    assert old.split.tolist() == split.set_index('path').split[old.index].tolist()


def test_a_stored_split_that_was_changed_is_refused(tmp_path):
    save_split(make_splits(authentic()), tmp_path)
    text = (tmp_path / 'split.csv').read_text()
    (tmp_path / 'split.csv').write_text(text.replace(',train,', ',test,', 1))
    with pytest.raises(ValueError, match='does not match the hash'):
        load_split(tmp_path)
