"""Cheap checks that the repository is whole: what is generated is up to date, nothing stands where it should not."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted(o for o in (ROOT / 'nbs').rglob('*.ipynb') if '.ipynb_checkpoints' not in o.parts)
sys.path.insert(0, str(ROOT / 'tests'))

TOP_LEVEL = {
    '.ci',
    '.github',
    '.gitignore',
    'CHANGELOG.md',
    'CITATION.cff',
    'CONTRIBUTING.md',
    'LICENSE',
    'MANIFEST.in',
    'Makefile',
    'README.md',
    'avfake',
    'constraints.txt',
    'nbs',
    'papermill_runs',
    'ruff.toml',
    'settings.ini',
    'setup.py',
    'tests',
}
MACHINE_PATH = re.compile(r'(?<![\w.~-])/(?:root|work|home/\w+|Users/\w+)/')
MEGABYTE = 2**20


def run(*args, cwd, **env):
    "What a command prints; its errors, when it fails."
    done = subprocess.run(
        [*map(str, args)],
        cwd=cwd,
        env={**os.environ, **env},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        encoding='utf-8',
        timeout=600,
    )
    assert done.returncode == 0, f'{done.stdout[-5000:]}\n{done.stderr[-5000:]}'
    return done.stdout


def tracked():
    "The files that git holds, as paths from the top; untracked ones stay out."
    if not (ROOT / '.git').exists():
        pytest.skip('not a git checkout')
    return [o for o in run('git', 'ls-files', '-z', cwd=ROOT).split('\0') if o and (ROOT / o).is_file()]


def cells(notebook):
    return json.loads(notebook.read_text(encoding='utf-8'))['cells']


@pytest.fixture
def copy(tmp_path):
    "A copy of what exporting and cleaning read and write."
    ignore = shutil.ignore_patterns('__pycache__', '.ipynb_checkpoints', '.last_checked')
    for name in 'nbs', 'avfake':
        shutil.copytree(ROOT / name, tmp_path / name, ignore=ignore)
    for name in 'settings.ini', 'setup.py', 'README.md', 'LICENSE', 'MANIFEST.in':
        if (ROOT / name).exists():
            shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


# ---------------------------------------------------------------- what is generated


def test_modules_are_what_the_notebooks_export(copy):
    for module in (copy / 'avfake').glob('*.py'):
        if module.name != '__init__.py':
            module.unlink()
    run(sys.executable, '-c', 'from nbdev.doclinks import nbdev_export; nbdev_export()', cwd=copy)
    exported, committed = (
        {o.name: o.read_text(encoding='utf-8') for o in (folder / 'avfake').glob('*.py')} for folder in (copy, ROOT)
    )
    differing = sorted(o for o in exported.keys() | committed.keys() if exported.get(o) != committed.get(o))
    assert not differing, f'`make export` would change {", ".join(differing)}'


def test_notebooks_are_clean(copy):
    run(sys.executable, '-c', 'from nbdev.clean import nbdev_clean; nbdev_clean()', cwd=copy)
    changed = [
        o.name
        for o in NOTEBOOKS
        if o.read_text(encoding='utf-8') != (copy / o.relative_to(ROOT)).read_text(encoding='utf-8')
    ]
    assert not changed, f'`make clean-notebooks` would change {", ".join(changed)}'


@pytest.mark.parametrize('notebook', NOTEBOOKS, ids=lambda o: o.stem)
def test_cells_have_ids(notebook):
    "Without them (they came with nbformat 4.5) every export would differ."
    nb = json.loads(notebook.read_text(encoding='utf-8'))
    assert (nb['nbformat'], nb['nbformat_minor']) >= (4, 5)
    ids = [o.get('id') for o in nb['cells']]
    assert all(ids) and len(set(ids)) == len(ids)


def test_readme_is_what_the_index_notebook_renders_to():
    if not (ROOT / 'nbs' / 'index.ipynb').exists():
        pytest.skip('nbs/index.ipynb is not there yet')
    from readme import render

    assert (ROOT / 'README.md').read_text(encoding='utf-8') == render(), '`make readme` would change README.md'


def test_readme_leaves_out_what_is_hidden_and_moves_links(tmp_path):
    from nbformat import v4, write
    from readme import render

    (tmp_path / 'nbs' / 'images').mkdir(parents=True)
    for name in 'nbs/images/one.png', 'nbs/07_media.ipynb', 'LICENSE':
        (tmp_path / name).touch()
    page = (
        '# T\n\n![fig](images/one.png) [m](07_media.ipynb#top) [l](../LICENSE) [w](https://a.b/c)\n\n```\n[x](y)\n```'
    )
    nb = v4.new_notebook(
        cells=[
            v4.new_markdown_cell(page),
            v4.new_code_cell('#| hide\nhidden'),
            v4.new_code_cell('#| default_exp x'),
            v4.new_code_cell('#| eval: false\nshown', outputs=[v4.new_output('stream', text='said')]),
        ]
    )
    write(nb, tmp_path / 'nbs' / 'index.ipynb')
    text = render(tmp_path / 'nbs' / 'index.ipynb', tmp_path)
    assert (
        '![fig](nbs/images/one.png) [m](nbs/07_media.ipynb#top) [l](LICENSE) [w](https://a.b/c)' in text
        and '[x](y)' in text
    )
    assert (
        'shown' in text and 'said' in text and 'hidden' not in text and '#|' not in text and 'default_exp' not in text
    )
    (tmp_path / 'LICENSE').unlink()
    with pytest.raises(SystemExit, match='links to LICENSE'):
        render(tmp_path / 'nbs' / 'index.ipynb', tmp_path)


PAGES = ['README.md', 'CONTRIBUTING.md', 'CHANGELOG.md', *(o.relative_to(ROOT).as_posix() for o in NOTEBOOKS)]


def prose_of(page):
    "What a reader sees of a page: of a notebook its Markdown, written and put out; code blocks are left out."
    if page.suffix != '.ipynb':
        text = page.read_text(encoding='utf-8')
    else:
        parts = []
        for cell in cells(page):
            if cell['cell_type'] == 'markdown':
                parts.append(''.join(cell['source']))
            for output in cell.get('outputs', []):
                parts.append(''.join(output.get('data', {}).get('text/markdown', '')))
        text = '\n\n'.join(parts)
    return re.sub(r'^(```|~~~).*?^\1[ \t]*$', '', text, flags=re.M | re.S)


def dead_links(page):
    "Targets of a page's links to files that are not there; addresses of the web are left aside."
    targets = re.findall(r'\]\(([^)\s#]+)|\b(?:src|href)="([^"#]+)"', prose_of(page))
    local = [a or b for a, b in targets if not re.match(r'[a-z][a-z0-9+.-]*:', a or b, re.I)]
    return [o for o in local if not (page.parent / o).exists()]


@pytest.mark.parametrize('name', PAGES)
def test_links_of_a_page_lead_somewhere(name):
    assert not dead_links(ROOT / name)


def test_a_dead_link_is_found(tmp_path):
    page = tmp_path / 'page.md'
    page.write_text('[a](there.md#x) [b](gone.ipynb) [c](https://a.b/c) <img src="gone.png">\n```\n[d](code.md)\n```\n')
    (tmp_path / 'there.md').touch()
    assert dead_links(page) == ['gone.ipynb', 'gone.png']


LONGEST_README = 900  # words


def test_readme_is_short():
    text = re.sub(r'\]\([^)]*\)', ']', prose_of(ROOT / 'README.md'))
    words = [o for o in text.split() if re.search(r'\w', o)]
    assert len(words) <= LONGEST_README, f'{len(words)} words: details belong on the pages that README links to'


def test_the_list_of_notebooks_is_complete():
    listed = prose_of(ROOT / 'nbs' / 'notebooks.ipynb')
    missing = [o.name for o in NOTEBOOKS if o.name[:2].isdigit() and f']({o.name})' not in listed]
    assert not missing, f'run nbs/notebooks.ipynb again: {", ".join(missing)}'


# ---------------------------------------------------------------- what is in git


def test_top_level_holds_only_what_belongs_there():
    extra = {o.split('/')[0] for o in tracked()} - TOP_LEVEL
    assert not extra, f'not expected at the top: {", ".join(sorted(extra))}'


LARGEST = {'avfake/detectors/worlds.pth': 12.0}  # MB; the weights that come with the package


def test_no_tracked_file_is_large():
    sizes = {o: (ROOT / o).stat().st_size / MEGABYTE for o in tracked()}
    large = {o: f'{size:.1f} MB' for o, size in sizes.items() if size > LARGEST.get(o, 1.5)}
    assert not large


def test_no_path_of_a_machine_is_tracked():
    found = []
    for name in tracked():
        try:
            text = (ROOT / name).read_text(encoding='utf-8')
        except UnicodeDecodeError:
            continue  # not text
        if name.endswith('.ipynb'):
            text = json.dumps([without_images(o) for o in json.loads(text)['cells']], ensure_ascii=False)
        found += [f'{name}: {text[max(0, o.start() - 40) : o.end() + 40]}' for o in MACHINE_PATH.finditer(text)]
    assert not found, '\n'.join(found)


def without_images(cell):
    "A cell whose outputs hold text only: in the letters of an image any short word turns up by chance."
    outputs = [
        {**o, 'data': {k: v for k, v in o['data'].items() if not k.startswith('image/')}} if 'data' in o else o
        for o in cell.get('outputs', [])
    ]
    return {**cell, 'outputs': outputs}


@pytest.mark.parametrize('notebook', NOTEBOOKS, ids=lambda o: o.stem)
def test_outputs_are_small_and_the_same_everywhere(notebook):
    "No error, warning, temporary folder or progress bar stands in a committed output, and no output is a page long."
    for cell in cells(notebook):
        for output in cell.get('outputs', []):
            assert output['output_type'] != 'error', output
            if output['output_type'] == 'stream':
                assert output['name'] != 'stderr', output
            text = json.dumps(without_images(dict(outputs=[output])), ensure_ascii=False)
            text = re.sub(r'data:[a-z0-9/]+;base64,[A-Za-z0-9+/=]+', 'data', text)  # pictures and films in a page
            assert not re.search(r'/tmp/|ipykernel_\d|\d+%\|', text), text[:2000]
            assert len(text) < 20_000, text[:2000]


def test_licence_is_mit():
    assert (ROOT / 'LICENSE').read_text(encoding='utf-8').startswith('MIT License')


# ---------------------------------------------------------------- what the modules are


def numbered_modules():
    "{module name: number of its notebook}; 03a stands between 03 and 04."
    numbers = {}
    for notebook in NOTEBOOKS:
        name = re.search(r'^#\| *default_exp +(\S+)', '\n'.join(''.join(o['source']) for o in cells(notebook)), re.M)
        number = re.match(r'(\d\d[a-z]?)_', notebook.name)
        if name and number:
            numbers[name[1]] = number[1]
    return numbers


def imported_modules(source):
    "Names of the avfake modules that a module imports, wherever in it."
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [o.name for o in node.names]
        elif isinstance(node, ast.ImportFrom):
            module = '.'.join(filter(None, ['avfake' if node.level else '', node.module]))
            names = [f'{module}.{o.name}' for o in node.names] if module == 'avfake' else [module]
        else:
            continue
        yield from (o.split('.')[1] for o in names if o.startswith('avfake.'))


def test_modules_import_only_lower_numbers():
    numbers = numbered_modules()
    assert len(numbers) == sum(bool(re.match(r'\d', o.name)) for o in NOTEBOOKS), (
        'a numbered notebook exports no module of its own'
    )
    assert numbers.keys() == {o.stem for o in (ROOT / 'avfake').glob('*.py')} - {'__init__', '_modidx'}
    wrong = [
        f'{name} imports {other}'
        for name, number in numbers.items()
        for other in imported_modules((ROOT / 'avfake' / f'{name}.py').read_text(encoding='utf-8'))
        if numbers.get(other, '') >= number and other != name
    ]
    assert not wrong
    assert list(
        imported_modules(
            'from avfake import a\nfrom avfake.b import c\nimport avfake.d as e, os\nfrom . import f\nfrom .g import h'
        )
    ) == ['a', 'b', 'd', 'f', 'g']


def test_ruff_finds_nothing():
    "Formatting and lint of notebooks and tests; `make format` does the first and says the second."
    for command in (['format', '--check', '--quiet'], ['check', '--quiet']):
        run(sys.executable, '-m', 'ruff', *command, '--no-cache', 'nbs', 'tests', 'setup.py', cwd=ROOT)


LONGEST_MODULE = 400  # lines that a notebook exports
LONGEST_FUNCTION = 60


def test_modules_and_functions_are_short():
    long = []
    for path in sorted((ROOT / 'avfake').glob('*.py')):
        if path.stem == '_modidx':  # an index, which nobody reads
            continue
        source = path.read_text(encoding='utf-8')
        if (n := len(source.splitlines())) > LONGEST_MODULE:
            long.append(f'{path.name}: {n} lines')
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.FunctionDef) and (n := node.end_lineno - node.lineno + 1) > LONGEST_FUNCTION:
                long.append(f'{path.name}: {node.name} has {n} lines')
    assert not long


def test_run_notebook_keeps_its_parameters_tag():
    "Without it papermill puts what the user gave above the defaults, which then overwrite it without a word."
    notebook = ROOT / 'nbs' / 'run.ipynb'
    if not notebook.exists():
        pytest.skip('nbs/run.ipynb is not there yet')
    assert sum('parameters' in o['metadata'].get('tags', []) for o in cells(notebook)) == 1


HEAVY = (
    'torch torchaudio torchvision timm librosa sklearn scipy numpy pandas matplotlib seaborn cv2 av pydantic'.split()
)


@pytest.mark.parametrize(
    'code',
    ['import avfake', 'from avfake.cli import main\nsys.argv = ["avfake", "--help"]\nmain()'],
    ids=['import', 'help'],
)
def test_starts_at_once(code, tmp_path):
    "What takes seconds to import is imported where it is used."
    if 'cli' in code and not (ROOT / 'avfake' / 'cli.py').exists():
        pytest.skip('avfake/cli.py is not there yet')
    script = tmp_path / 'start.py'
    script.write_text(
        f'import sys\ntry:\n    exec({code!r})\nexcept SystemExit as e:\n    assert not e.code\n'
        f'print("heavy:", *({set(HEAVY)!r} & sys.modules.keys()))'
    )
    output = run(sys.executable, script, cwd=ROOT, PYTHONPATH=str(ROOT))
    assert output.splitlines()[-1].split() == ['heavy:'], output


SECONDS_EACH = 'timm torchvision torch._dynamo sklearn seaborn scipy.signal scipy.stats'.split()


def test_who_scores_or_prepares_imports_no_more_than_that_takes():
    "What only training, figures or the demo need would take longer than a short clip takes to judge."
    code = (
        'import sys; import avfake.checkpoint, avfake.gallery, avfake.preparation; '
        f'print("heavy:", *({set(SECONDS_EACH)!r} & sys.modules.keys()))'
    )
    assert run(sys.executable, '-c', code, cwd=ROOT, PYTHONPATH=str(ROOT)).split() == ['heavy:']


def test_progress_bars_are_text():
    "Where ipywidgets is installed, `tqdm.auto` draws them into the notebook, and leaves what no file can show."
    modules = (ROOT / 'avfake').glob('*.py')
    assert not [path.name for path in modules if 'tqdm.auto' in path.read_text(encoding='utf-8')]


def test_wheel_is_complete(copy):
    run(
        sys.executable,
        '-m',
        'pip',
        'wheel',
        '.',
        '--no-deps',
        '--no-build-isolation',
        '--quiet',
        '--disable-pip-version-check',
        '-w',
        'wheels',
        cwd=copy,
    )
    (wheel,) = (copy / 'wheels').glob('*.whl')
    names = zipfile.ZipFile(wheel).namelist()
    sources = {
        o.relative_to(ROOT).as_posix()
        for o in (ROOT / 'avfake').rglob('*')
        if o.is_file() and '__pycache__' not in o.parts
    }
    assert not sources - set(names)
    assert not [o for o in names if not o.startswith('avfake')], 'the wheel holds more than the package'
    assert [o for o in names if o.endswith('/entry_points.txt')]
