"""What the commands say of themselves fits a terminal of 80 columns, and leaves no option or setting without words."""

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from avfake.cli import app
from avfake.config import flat_settings, setting_texts
from avfake.run import RunConfig

COMMANDS = sorted(get_command(app).commands)


def help_lines(*arguments, monkeypatch):
    monkeypatch.setenv('COLUMNS', '80')
    shown = CliRunner().invoke(app, [*arguments, '--help'])
    assert shown.exit_code == 0
    return shown.output.splitlines()


@pytest.mark.parametrize('command', COMMANDS)
def test_each_option_fits_its_line(command, monkeypatch):
    lines = help_lines(command, monkeypatch=monkeypatch)
    options = lines[lines.index('Options:') + 1 :]
    assert options
    for line in options:
        assert line.startswith('  --'), f'goes on from the line before: {line!r}'
        assert len(line.split(None, 2)) == 3, f'an option without words: {line!r}'


def test_no_command_is_cut_off_in_the_list(monkeypatch):
    lines = help_lines(monkeypatch=monkeypatch)
    listed = lines[lines.index('Commands:') + 1 :]
    assert sorted(line.split()[0] for line in listed) == COMMANDS
    assert not [line for line in listed if line.endswith('...')]


def test_each_setting_has_its_sentence():
    config = RunConfig()
    texts = setting_texts(config)
    assert texts.keys() == flat_settings(config).keys()
    for name, text in texts.items():
        assert len(text.split()) > 1 and text.endswith('.'), f'{name}: {text!r}'
