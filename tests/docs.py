"""Build the site of the documentation from what is there: README, notebooks, the exported modules, the model card.

`python tests/docs.py` writes Markdown into build/docs, and the site with mkdocs into _docs. Nothing on the pages is
loaded from elsewhere: they can be read, and searched, from the disk."""

import argparse
import ast
import html
import os
import posixpath
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import nbformat
import yaml
from nbconvert import MarkdownExporter
from readme import FENCE, LINK, ROOT, without_directives
from traitlets.config import Config

SOURCE = ROOT / 'build' / 'docs'
SITE = ROOT / '_docs'
REPOSITORY = 'https://github.com/avfake/avfake/blob/main/'
TUTORIALS = ('start_here', 'score_a_video', 'train_on_your_own', 'evaluate_and_compare', 'bring_it_to_your_world')
RESULTS = ('worlds', 'wild', 'newsreaders', 'evaluation', 'results', 'calibration')
OTHER_PAGES = ('CHANGELOG.md', 'CONTRIBUTING.md')
STYLE = """
.md-typeset table:not([class]) { display: table; font-size: .68rem; }
.md-typeset__table { width: 100%; overflow-x: auto; }
.md-typeset table.dataframe { display: block; overflow-x: auto; font-size: .68rem; }
.md-typeset img { max-width: 100%; }
.md-grid { max-width: 76rem; }
"""

SHIM = 'https://unpkg.com/iframe-worker/shim'  # what the theme would load to search from the disk, without a server
WORKER = """
// A worker may not be started from the disk: a hidden frame does its work.
if (location.protocol === "file:") window.Worker = class extends EventTarget {
  constructor(url) {
    super()
    const frame = document.createElement("iframe")
    frame.hidden = true
    document.body.appendChild(frame)
    const inner = this.inner = frame.contentWindow
    window.addEventListener("message", event => {
      if (event.source !== inner) return
      const told = new MessageEvent("message", {data: event.data})
      if (this.onmessage) this.onmessage(told)
      this.dispatchEvent(told)
    })
    this.ready = new Promise(done => { inner.workerIsReady = done })
    inner.document.open()
    inner.document.write(`<html><body><script>
      function importScripts(...urls) {
        return urls.reduce((before, url) => before.then(() => new Promise(done => {
          const script = document.createElement("script")
          script.src = url
          script.onload = done
          document.body.appendChild(script)
        })), Promise.resolve())
      }
      function postMessage(data) {
        parent.dispatchEvent(new MessageEvent("message", {data, source: self}))
      }
    <\\/script><script src="${url}" onload="workerIsReady()"><\\/script></body></html>`)
    inner.document.close()
  }
  postMessage(data) {
    this.ready.then(() => this.inner.dispatchEvent(new MessageEvent("message", {data})))
  }
  terminate() {}
}
"""


# ---------------------------------------------------------------- where a file of the repository stands on the site


def place(path: str) -> str:
    "Of a file of the repository, from its top: the page it becomes; '' if it becomes none."
    if path == 'README.md' or path == 'nbs/index.ipynb':
        return 'index.md'
    if path in OTHER_PAGES:
        return path.lower()
    if path.endswith('.ipynb'):
        return path.removeprefix('nbs/').removesuffix('.ipynb') + '.md'
    if path.startswith('nbs/images/'):
        return path.removeprefix('nbs/')
    return ''


def moved_links(markdown: str, of: str) -> str:
    "Links between files of the repository, made links between pages; others lead to the repository."
    page = place(of)

    def moved(match):
        before, target = match.groups()
        if re.match(r'[a-z][a-z0-9+.-]*:|/', target, re.I):
            return match[0]
        path = posixpath.normpath(posixpath.join(posixpath.dirname(of), target))
        if not (ROOT / path).exists():
            raise SystemExit(f'{of} links to {path}, which is not there')
        if to := place(path):
            return before + posixpath.relpath(to, posixpath.dirname(page) or '.')
        return before + REPOSITORY + path

    parts = []
    end = 0
    for fence in FENCE.finditer(markdown):
        parts += [LINK.sub(moved, markdown[end : fence.start()]), fence[0]]
        end = fence.end()
    return ''.join([*parts, LINK.sub(moved, markdown[end:])])


# ---------------------------------------------------------------- pages


def with_formulas(markdown: str) -> str:
    "TeX between dollars becomes MathML, which browsers show without help."
    from latex2mathml.converter import convert

    def shown(match, display):
        return convert(html.unescape(match[1]), display=display)

    parts = []
    end = 0
    for fence in [*re.finditer(r'^(```|~~~).*?^\1[ \t]*$|`[^`\n]+`', markdown, re.M | re.S), None]:
        text = markdown[end : fence.start() if fence else None]
        text = re.sub(r'\$\$(.+?)\$\$', lambda m: shown(m, 'block'), text, flags=re.S)
        text = re.sub(r'(?<![\\$\w])\$(\S(?:[^$\n]*?\S)?)\$(?![\w$])', lambda m: shown(m, 'inline'), text)
        parts.append(text)
        if fence:
            parts.append(fence[0])
            end = fence.end()
    return ''.join(parts)


def notebook_page(path: Path) -> tuple:  # (Markdown, {name: bytes} of its pictures)
    "A notebook as a page: what a reader shall see of it."
    config = Config()
    config.NbConvertBase.display_data_priority = ['text/markdown', 'image/png', 'text/html', 'text/plain']
    notebook = without_directives(nbformat.read(path, as_version=4))
    notebook.metadata['language_info'] = dict(name='python')  # for the colours of the code
    for cell in notebook.cells:
        for output in cell.get('outputs', []):
            data = output.get('data', {})
            if len(data.get('text/html', '')) > 20_000 or '<!doctype' in data.get('text/html', '').lower():
                del data['text/html']  # a page within a page
    resources = {'unique_key': f'{path.stem}_files', 'output_files_dir': f'{path.stem}_files'}
    markdown, resources = MarkdownExporter(config=config).from_notebook_node(notebook, resources)
    markdown = re.sub(r'^```\w*\n\s*```\n', '', markdown, flags=re.M)
    markdown = re.sub(r'<style.*?</style>\s*', '', markdown, flags=re.S)
    return markdown, resources['outputs']


def write(page: str, text: str):
    path = SOURCE / page
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding='utf-8')


def write_notebooks() -> list[str]:  # the pages
    pages = []
    for path in sorted((ROOT / 'nbs').rglob('*.ipynb')):
        of = path.relative_to(ROOT).as_posix()
        if path.name == 'index.ipynb' or '.ipynb_checkpoints' in path.parts:
            continue
        markdown, pictures = notebook_page(path)
        for name in pictures:  # their links stand before all others are looked up
            markdown = markdown.replace(f']({name})', f'](picture:{name})')
        markdown = moved_links(markdown, of).replace('](picture:', '](')
        page = place(of)
        write(page, with_formulas(markdown))
        for name, content in pictures.items():
            target = (SOURCE / page).parent / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
        pages.append(page)
    executed = 'papermill_runs/demo.ipynb'
    markdown, pictures = notebook_page(ROOT / executed)
    for name, content in pictures.items():
        target = (SOURCE / executed).parent / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
        markdown = markdown.replace(f']({name})', f'](picture:{name})')
    write(place(executed), with_formulas(re.sub(LINK, unlinked, markdown).replace('](picture:', '](')))
    return pages


def unlinked(match):
    "Links of an executed notebook are those of the one it was made of, which stands elsewhere."
    before, target = match.groups()
    if re.match(r'[a-z][a-z0-9+.-]*:', target, re.I):
        return match[0]
    path = posixpath.normpath(posixpath.join('nbs', target))
    to = place(path)
    return before + (posixpath.relpath(to, 'papermill_runs') if to else REPOSITORY + path)


# ---------------------------------------------------------------- the API, out of docments


def signature(node, lines: list[str]) -> str:
    "As it stands in the source, with what is said of each argument."
    body = node.body[0].lineno - 1 if node.body[0].lineno > node.lineno else node.lineno
    return '\n'.join(line[node.col_offset :] for line in lines[node.lineno - 1 : body]).rstrip()


def fields(node, lines: list[str]) -> str:
    "A class up to its first method: its name, and its fields with what is said of each."
    end = node.end_lineno
    start = node.lineno - 1
    first = node.body[0]
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
        doc = range(first.lineno - 1, first.end_lineno)
    else:
        doc = range(0)
    for part in node.body:
        if isinstance(part, ast.FunctionDef):
            end = min([part.lineno, *(o.lineno for o in part.decorator_list)]) - 1
            break
    kept = [line for i, line in enumerate(lines[start:end], start) if i not in doc]
    return re.sub(r':\n\n+', ':\n', '\n'.join(kept).strip(), count=1)


def described(node, lines: list[str], level: int, owner: str = '') -> list[str]:
    name = f'{owner}.{node.name}' if owner else node.name
    code = fields(node, lines) if isinstance(node, ast.ClassDef) else signature(node, lines)
    parts = [f'{"#" * level} `{name}`', '', ast.get_docstring(node) or '', '', '```python', code, '```', '']
    if isinstance(node, ast.ClassDef):
        for part in node.body:
            if isinstance(part, ast.FunctionDef) and not part.name.startswith('_') and ast.get_docstring(part):
                parts += described(part, lines, level + 1, node.name)
    return parts


def module_page(path: Path, notebook: str) -> str:
    source = path.read_text(encoding='utf-8')
    tree = ast.parse(source)
    lines = source.splitlines()
    parts = [f'# avfake.{path.stem}', '', ast.get_docstring(tree) or '', '']
    parts += [f'Shown at work in [{notebook}](../{notebook}.md).', '']
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith('_'):
            parts += described(node, lines, 2)
    return '\n'.join(parts)


def write_api() -> list[str]:  # the pages
    pages = []
    rows = ['# API', '', 'Every module, with what its source says of each argument: shapes, units, what is raised.', '']
    rows += ['| module | what it does |', '|---|---|']
    modules = []
    for path in sorted((ROOT / 'avfake').glob('[a-z]*.py')):
        source = path.read_text(encoding='utf-8')
        notebook = re.search(r'File to edit: \.\./nbs/(\S+)\.ipynb', source)
        if notebook:
            modules.append((notebook[1], path))
    for notebook, path in sorted(modules):
        write(f'api/{path.stem}.md', module_page(path, notebook))
        pages.append(f'api/{path.stem}.md')
        said = (ast.get_docstring(ast.parse(path.read_text(encoding='utf-8'))) or '').split('\n\n')[0]
        rows.append(f'| [{path.stem}]({path.stem}.md) | {" ".join(said.split()).replace("|", chr(92) + "|")} |')
    write('api/index.md', '\n'.join(rows) + '\n')
    return pages


# ---------------------------------------------------------------- all of it


def write_card():
    "The text of `avfake card`."
    from avfake.card import card_of
    from avfake.checkpoint import load_detector

    write('card.md', card_of(load_detector()) + '\n')


def navigation(pages: list[str], api: list[str]) -> list:
    library = [page for page in pages if re.match(r'\d\d', page)]
    experiments = [page for page in pages if page.startswith('experiments/')]
    first = [f'experiments/{name}.md' for name in RESULTS]
    return [
        {'avfake': 'index.md'},
        {'Tutorials': [f'tutorials/{name}.md' for name in TUTORIALS]},
        {'Results': [*first, *(page for page in experiments if page not in first), 'benchmarks.md', 'reliability.md']},
        {'Model card': 'card.md'},
        {'API': ['api/index.md', *api]},
        {'Notebooks': ['notebooks.md', 'run.md', 'explore.md', 'papermill_runs/demo.md', *library]},
        {'Project': ['contributing.md', 'changelog.md']},
    ]


def settings(nav: list) -> dict:
    "Of mkdocs: no font, script or picture from elsewhere; every link is checked."
    links = dict(not_found='warn', absolute_links='warn', unrecognized_links='warn', anchors='info')
    theme = dict(
        name='material',
        font=False,
        features=['navigation.tabs', 'navigation.indexes', 'navigation.top', 'search.highlight', 'content.code.copy'],
    )
    return dict(
        site_name='avfake',
        docs_dir=str(SOURCE),
        site_dir=str(SITE),
        use_directory_urls=False,
        theme=theme,
        extra_css=['style.css'],
        plugins=['search', 'offline'],
        markdown_extensions=[
            'tables',
            'fenced_code',
            'md_in_html',
            'toc',
            'pymdownx.highlight',
            'pymdownx.superfences',
        ],
        validation=dict(links=links, nav=dict(omitted_files='warn', not_found='warn')),
        nav=nav,
    )


def write_source() -> Path:  # the settings of mkdocs
    "Everything that mkdocs reads."
    shutil.rmtree(SOURCE, ignore_errors=True)
    write('style.css', STYLE)
    write('worker.js', WORKER)
    shutil.copytree(ROOT / 'nbs' / 'images', SOURCE / 'images')
    for name in ('README.md', *OTHER_PAGES):
        write(place(name), moved_links((ROOT / name).read_text(encoding='utf-8'), name))
    write_card()
    nav = navigation(write_notebooks(), write_api())
    path = SOURCE.parent / 'mkdocs.yml'
    path.write_text(yaml.safe_dump(settings(nav), sort_keys=False), encoding='utf-8')
    return path


def load_from_here(site: Path = SITE):
    "What the theme loads from elsewhere stands beside the pages."
    for page in site.rglob('*.html'):
        text = page.read_text(encoding='utf-8')
        here = posixpath.relpath('worker.js', page.relative_to(site).parent.as_posix())
        page.write_text(text.replace(SHIM, here), encoding='utf-8')


class Targets(HTMLParser):
    "What a page links to, and what it loads."

    def __init__(self, text: str):
        super().__init__()
        self.linked = []
        self.loaded = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        for name, value in attributes:
            if name == 'src' or (tag == 'link' and name == 'href' and ('rel', 'stylesheet') in attributes):
                self.loaded.append(value)
            elif name == 'href':
                self.linked.append(value)


def dead_links(site: Path = SITE) -> list[str]:
    "Links of the built pages to files that are not there, and whatever is loaded from elsewhere."
    dead = []
    for page in site.rglob('*.html'):
        targets = Targets(page.read_text(encoding='utf-8'))
        where = page.relative_to(site)
        dead += [f'{where} loads {o}' for o in targets.loaded if re.match('https?:|//', o)]
        for target in targets.linked + targets.loaded:
            path = re.split('[?#]', target)[0]
            if path and not re.match(r'[a-z][a-z0-9+.-]*:|/', path, re.I) and not (page.parent / path).exists():
                dead.append(f'{where}: {path}')
    return dead


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--source', action='store_true', help='only write what mkdocs reads')
    only_source = parser.parse_args().source
    written = write_source()
    if only_source:
        sys.exit()
    environment = {**os.environ, 'NO_MKDOCS_2_WARNING': '1'}
    command = [sys.executable, '-m', 'mkdocs', 'build', '--strict', '--quiet', '--clean', '-f', written]
    if status := subprocess.run([*map(str, command)], env=environment).returncode:
        sys.exit(status)
    load_from_here()
    if dead := dead_links():
        sys.exit('\n'.join(['dead links:', *dead]))
    print(f'The site: {SITE.relative_to(ROOT)}/index.html')
