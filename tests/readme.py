"""Write README.md from nbs/index.ipynb (or say with --check whether it is so already).

Cells marked `#| hide` and lines of directives are left out, and links are made to work from the top folder."""

import argparse
import posixpath
import re
import sys
from pathlib import Path

import nbformat
from nbconvert import MarkdownExporter
from traitlets.config import Config

ROOT = Path(__file__).resolve().parent.parent
FENCE = re.compile(r'^(```|~~~).*?^\1[ \t]*$', re.M | re.S)
LINK = re.compile(r'(\]\(|\b(?:src|href)=")([^\s)"#]+)')


def without_directives(nb):
    "As a reader shall see it: `#| hide` takes a cell away, `#| echo: false` its code, `#| output: false` its output."
    cells = []
    for cell in nb.cells:
        directives, source = [], cell.source.split('\n')
        if cell.cell_type == 'code':
            while source and (source[0].startswith('#|') or not source[0].strip()):
                directives.append(source.pop(0)[2:].strip())
        if {'hide', 'include: false'} & set(directives) or any(o.split()[:1] == ['default_exp'] for o in directives):
            continue
        cell.source = '' if 'echo: false' in directives else '\n'.join(source)
        if 'output: false' in directives:
            cell.outputs = []
        if cell.source.strip() or cell.get('outputs'):
            cells.append(cell)
    nb.cells = cells
    return nb


def from_the_top(markdown, root=ROOT):
    "Links that work beside the notebook, made to work beside README.md; one that leads nowhere is an error."

    def link(match):
        before, target = match.groups()
        if re.match(r'[a-z][a-z0-9+.-]*:|/', target, re.I):
            return match[0]
        target = posixpath.normpath(posixpath.join('nbs', target))
        if target.startswith('..') or not (root / target).exists():
            raise SystemExit(f'nbs/index.ipynb links to {target}, which is not there')
        return before + target

    parts, end = [], 0
    for fence in FENCE.finditer(markdown):
        parts += [LINK.sub(link, markdown[end : fence.start()]), fence[0]]
        end = fence.end()
    return ''.join([*parts, LINK.sub(link, markdown[end:])])


def render(path=ROOT / 'nbs' / 'index.ipynb', root=ROOT):
    config = Config()
    config.NbConvertBase.display_data_priority = [
        'text/markdown',
        'text/html',
        'image/png',
        'image/svg+xml',
        'text/plain',
    ]
    notebook = without_directives(nbformat.read(path, as_version=4))
    markdown, resources = MarkdownExporter(config=config).from_notebook_node(notebook)
    if resources['outputs']:
        raise SystemExit(
            f'{path.name}: a cell puts out an image. Save it in nbs/images/ and show it by a markdown link instead.'
        )
    markdown = re.sub(r'^```\w*\n\s*```\n', '', markdown, flags=re.M)  # of cells whose code is not shown
    markdown = re.sub(
        r'<style.*?</style>\s*', '', markdown, flags=re.S
    )  # pandas puts it before a table; GitHub would print it
    return re.sub(r'\n{3,}', '\n\n', from_the_top(markdown, root)).strip() + '\n'


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--check', action='store_true', help='write nothing; exit 1 if README.md is not up to date')
    check, readme, text = parser.parse_args().check, ROOT / 'README.md', render()
    if not check:
        readme.write_text(text, encoding='utf-8')
    elif not readme.exists() or readme.read_text(encoding='utf-8') != text:
        sys.exit('README.md is not what `make readme` writes')
