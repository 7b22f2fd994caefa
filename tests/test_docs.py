"""The site of the documentation: links are moved with the pages, and what is built loads nothing from elsewhere."""

import subprocess
import sys

import docs
import pytest


def test_links_lead_from_page_to_page():
    text = docs.moved_links(
        '[a](../46_sync.ipynb#top) [b](../../CHANGELOG.md) [c](https://a.b)', 'nbs/tutorials/x.ipynb'
    )
    assert text == '[a](../46_sync.md#top) [b](../changelog.md) [c](https://a.b)'
    text = docs.moved_links('[a](nbs/46_sync.ipynb) ![b](nbs/images/report.png) [c](Makefile)', 'README.md')
    assert text == f'[a](46_sync.md) ![b](images/report.png) [c]({docs.REPOSITORY}Makefile)'


def test_a_dead_link_ends_the_build():
    with pytest.raises(SystemExit, match='nbs/gone.ipynb, which is not there'):
        docs.moved_links('[a](../gone.ipynb)', 'nbs/tutorials/x.ipynb')


def test_an_exported_function_has_its_docments():
    page = docs.module_page(docs.ROOT / 'avfake' / 'conformal.py', '10_conformal')
    assert '## `threshold_at`' in page
    assert '# [n] anomaly scores of authentic clips seen neither in training nor in the test' in page


def test_formulas_become_mathml():
    pytest.importorskip('latex2mathml')
    text = docs.with_formulas('a $x^2$ of `$y$`\n\n```\n$z$\n```\n')
    assert '<math' in text and '$x^2$' not in text
    assert '`$y$`' in text and '\n$z$\n' in text


def test_dead_links_and_foreign_scripts_are_found(tmp_path):
    (tmp_path / 'there.html').touch()
    (tmp_path / 'page.html').write_text(
        '<a href="there.html#x">a</a> <a href="gone.html">b</a> <code>src="no"</code> <a href="https://a.b">c</a>'
        '<script src="https://a.b/c.js"></script>'
    )
    assert docs.dead_links(tmp_path) == ['page.html loads https://a.b/c.js', 'page.html: gone.html']


def test_the_site_is_built():
    "With what `make docs` installs; a link to no page ends it."
    pytest.importorskip('material')
    command = [sys.executable, docs.ROOT / 'tests' / 'docs.py']
    done = subprocess.run(command, capture_output=True, text=True, cwd=docs.ROOT, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    assert {'index.html', 'card.html', 'search'} <= {o.name for o in docs.SITE.iterdir()}
