"""Packaging of avfake: everything it says is read from settings.ini."""

from configparser import ConfigParser
from pathlib import Path

from setuptools import find_packages, setup

here = Path(__file__).parent
config = ConfigParser(delimiters=['='])
config.read(here / 'settings.ini', encoding='utf-8')
cfg = config['DEFAULT']
readme = here / 'README.md'

setup(
    name=cfg['lib_name'],
    version=cfg['version'],
    description=cfg['description'],
    long_description=readme.read_text(encoding='utf-8') if readme.exists() else cfg['description'],
    long_description_content_type='text/markdown',
    author=cfg['author'],
    author_email=cfg['author_email'],
    license='MIT',
    url=cfg['git_url'],
    keywords=cfg['keywords'],
    packages=find_packages(include=['avfake', 'avfake.*']),
    package_data={'avfake': ['py.typed', 'detectors/*', 'face_models/*', 'templates/*']},
    python_requires='>=' + cfg['min_python'],
    install_requires=cfg['requirements'].split(),
    extras_require={
        'app': cfg['app_requirements'].split(),
        'dev': ' '.join(cfg[f'{name}_requirements'] for name in ('dev', 'ray', 'app')).split(),
        'docs': cfg['docs_requirements'].split(),
        'ray': cfg['ray_requirements'].split(),
    },
    entry_points={'console_scripts': cfg['console_scripts'].split(), 'nbdev': ['avfake=avfake._modidx:d']},
    zip_safe=False,
)
