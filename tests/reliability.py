"""What the reliability tests share: how much to try, and the counts that are printed in the end."""

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

FULL = os.environ.get('AVFAKE_RELIABILITY') == 'full'  # `make test-reliability`; otherwise a quick sample
COUNTS = 'AVFAKE_COUNTS'  # the file in which counts are collected, whatever process they come from


def bytes_of(write: Callable[[Path], None], name: str) -> bytes:
    "What a function writes into a file of that name."
    with tempfile.TemporaryDirectory() as folder:
        write(path := Path(folder) / name)
        return path.read_bytes()


def counts(what: str, **numbers: int):
    "Have these printed at the end of the run."
    if path := os.environ.get(COUNTS):
        with open(path, 'a') as f:
            f.write(json.dumps({what: numbers}) + '\n')


def collected(path: Path) -> dict[str, dict]:
    "All counts, by what they are of; those of one thing from several tests together."
    found = {}
    for line in Path(path).read_text().splitlines():
        for what, numbers in json.loads(line).items():
            found.setdefault(what, {}).update(numbers)
    return found


SITUATIONS = ('labels', 'layouts', 'coverage', 'faces', 'few_clips', 'told')  # test files, a kind of situation each


def situations(stats: dict[str, list]) -> dict[str, dict]:
    "How many situations that users bring were tried, by kind, and how many came out wrong; empty where none was."
    tried = dict.fromkeys(SITUATIONS, 0)
    wrong = 0
    for outcome in ('passed', 'failed', 'error'):
        for report in stats.get(outcome, []):
            kind = Path(report.nodeid.split('::')[0]).stem.removeprefix('test_')
            if kind in tried and getattr(report, 'when', '') == 'call':
                tried[kind] += 1
                wrong += outcome != 'passed'
    return {'situations': tried | dict(wrong=wrong)} if any(tried.values()) else {}


def summary(found: dict[str, dict]) -> list[str]:
    "The counts in words, a line each."
    return [
        f'{what}: ' + ', '.join(f'{n} {k.replace("_", " ")}' for k, n in numbers.items())
        for what, numbers in found.items()
    ]
