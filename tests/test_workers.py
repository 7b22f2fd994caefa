"""A job that crashes, hangs or fails costs itself alone."""

import os
import time

import pytest

from avfake.workers import Lost, default_workers, map_isolated


def work(job, announce):
    match job:
        case 'crash':
            os._exit(7)
        case 'hang':
            time.sleep(1000)
        case 'error':
            raise ZeroDivisionError('no')
        case 'long':
            announce(100)
            time.sleep(2.5)
    return job * 2


def test_each_job_has_its_result():
    jobs = ['a', 'crash', 'b', 'error', 'hang', 'c', 'crash', 'd']
    results = list(map_isolated(work, jobs, workers=2, limit=2))
    assert sorted(job for job, _ in results) == sorted(jobs)
    of = dict(results)
    assert [of[o] for o in 'abcd'] == ['aa', 'bb', 'cc', 'dd']
    assert (of['crash'], of['hang']) == (Lost('crash', 'exit code 7'), Lost('time limit'))
    assert isinstance(of['error'], RuntimeError) and 'ZeroDivisionError: no' in str(of['error'])


def test_the_limit_grows_with_what_is_announced():
    assert dict(map_isolated(work, ['long'], 1, limit=1)) == {'long': 'longlong'}
    assert dict(map_isolated(work, ['long'], 1, limit=1, per_unit=0)) == {'long': Lost('time limit')}
    assert dict(map_isolated(work, ['long'], 1, limit=1, max_units=0)) == {'long': Lost('time limit')}


def test_nothing_to_do():
    assert list(map_isolated(work, [], workers=2)) == []
    assert default_workers() >= 1


def test_a_generator_that_is_closed_leaves_no_worker():
    results = map_isolated(work, ['a', 'b', 'c'], workers=1)
    assert next(results) == ('a', 'aa')
    results.close()
    with pytest.raises(StopIteration):
        next(results)
