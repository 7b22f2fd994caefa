"""What the reliability tests share: how much to try, and the counts that are printed in the end."""
import json, os
from pathlib import Path

FULL = os.environ.get('AVFAKE_RELIABILITY') == 'full'  # `make test-reliability`; otherwise a quick sample
COUNTS = 'AVFAKE_COUNTS'  # the file in which counts are collected, whatever process they come from


def counts(what: str, **numbers: int):
    "Have these printed at the end of the run."
    if path := os.environ.get(COUNTS):
        with open(path, 'a') as f: f.write(json.dumps({what: numbers}) + '\n')


def said(path: Path) -> list[str]:
    "The counts, a line each."
    lines = [json.loads(o) for o in Path(path).read_text().splitlines()] if Path(path).exists() else []
    return [f'{what}: ' + ', '.join(f'{n} {k.replace("_", " ")}' for k, n in numbers.items()) for o in lines for what, numbers in o.items()]
