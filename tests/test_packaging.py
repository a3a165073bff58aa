"""What pip installs: one package with the bundled model in it, and the console command."""

import email
import json
import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile

import pytest
from example_models import BUNDLED, REPOSITORY
from running import environment

import gpt2

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # comes with pytest there

PROJECT = tomllib.loads((REPOSITORY / 'pyproject.toml').read_text())['project']
SIBLINGS = ('encoder', 'model', 'sample', 'train', 'src', 'tests', 'models')
packaging = pytest.mark.packaging


def requirements(name):
    lines = (REPOSITORY / name).read_text().splitlines()
    return {line for line in lines if line and not line.startswith(('#', 'pytest'))}


# What is said in two places is the same


def test_the_dependencies_are_those_of_the_requirements():
    assert set(PROJECT['dependencies']) == requirements('requirements.txt')
    for extra in ('evaluate', 'convert', 'train', 'regex', 'serve', 'detect', 'data'):
        assert set(PROJECT['optional-dependencies'][extra]) == requirements(f'requirements-{extra}.txt')


def test_the_pythons_are_those_that_make_takes():
    first, last = re.search(r'\((3, \d+)\) <= v <= \((3, \d+)\)', (REPOSITORY / 'Makefile').read_text()).groups()
    beyond = int(last.split()[1]) + 1
    assert PROJECT['requires-python'] == f'>={first.replace(", ", ".")},<3.{beyond}'


# The package as it is built


def pip(*arguments):
    """Run pip; its report is shown where it fails."""
    command = [sys.executable, '-m', 'pip', '--disable-pip-version-check', *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def tracked(folder):
    listed = subprocess.run(['git', 'ls-files', '-z', folder], cwd=REPOSITORY, capture_output=True, check=True)
    return [name for name in listed.stdout.decode().split('\0') if name]


@pytest.fixture(scope='module')
def wheel(tmp_path_factory):
    """The package, built while an export of the bundled model lies beside it."""
    folder = tmp_path_factory.mktemp('wheel')
    export = BUNDLED / 'litert-of-this-test.tflite'
    export.touch()
    try:
        pip('wheel', '--no-deps', '--wheel-dir', folder, REPOSITORY)
    finally:
        export.unlink()
    [wheel] = folder.iterdir()
    return wheel


@packaging
def test_the_wheel_holds_the_library_and_the_bundled_model_and_nothing_else(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    information = f'gpt2-{gpt2.__version__}.dist-info/'
    expected = {name.removeprefix('src/') for name in tracked('src/gpt2')}
    expected |= {f'gpt2/{name}' for name in [*tracked('models/7M'), 'examples/heidi.txt']}
    assert {name for name in names if not name.startswith(information)} == expected
    assert {'gpt2/py.typed', 'gpt2/evaluation/tasks/README.md'} < expected
    assert {f'{information}licenses/LICENSE', f'{information}licenses/NOTICE'} < set(names)


@packaging
def test_what_the_wheel_says_of_itself(wheel):
    archive = zipfile.ZipFile(wheel)
    information = f'gpt2-{gpt2.__version__}.dist-info/'
    said = email.message_from_bytes(archive.read(f'{information}METADATA'))
    assert (said['Name'], said['Version']) == ('gpt2', gpt2.__version__)
    assert set(said.get_all('Provides-Extra')) == set(PROJECT['optional-dependencies'])
    assert said['License-Expression'] == 'MIT'
    command = archive.read(f'{information}entry_points.txt').decode()
    assert command == '[console_scripts]\ngpt2 = gpt2.commands.main:main\n'


@packaging
def test_the_source_distribution_builds_the_same_wheel(wheel, tmp_path):
    pip('install', '--target', tmp_path / 'builder', 'hatchling>=1.27,<2')
    build = [sys.executable, '-m', 'hatchling', 'build', '--target', 'sdist', '--directory', tmp_path / 'sdist']
    subprocess.run(build, cwd=REPOSITORY, env=environment(PYTHONPATH=str(tmp_path / 'builder')), check=True)
    [archive] = (tmp_path / 'sdist').iterdir()
    assert not [name for name in tarfile.open(archive).getnames() if name.endswith('.tflite')]
    pip('wheel', '--no-deps', '--wheel-dir', tmp_path / 'again', archive)
    [again] = (tmp_path / 'again').iterdir()
    assert again.read_bytes() == wheel.read_bytes()


# The package as it is installed


def make_environment(folder):
    """A virtual environment that sees what this interpreter has installed. Returns its python's path."""
    venv.create(folder)
    variables = {'base': str(folder), 'platbase': str(folder)}
    site, scripts = (sysconfig.get_path(name, 'venv', variables) for name in ('purelib', 'scripts'))
    with open(os.path.join(site, 'installed.pth'), 'w') as file:
        file.write('\n'.join({sysconfig.get_path('purelib'), sysconfig.get_path('platlib')}))
    return os.path.join(scripts, 'python')


def ran(*command, cwd):
    """Run a command to its end, with its cache beside cwd: (standard output, standard error, status)."""
    variables = environment(XDG_CACHE_HOME=f'{cwd}-cache')
    done = subprocess.run(command, cwd=cwd, env=variables, capture_output=True, text=True, check=False)
    return done.stdout, done.stderr, done.returncode


@pytest.fixture(scope='module', params=['wheel', 'editable'])
def installed(request, tmp_path_factory):
    """(python, console command) of an environment into which the package was installed.

    Without an index: all that it needs is what requirements.txt installed. Only an editable one needs a
    package more.
    """
    python = make_environment(tmp_path_factory.mktemp(request.param))
    if request.param == 'wheel':
        pip('--python', python, 'install', '--no-index', request.getfixturevalue('wheel'))
    else:
        pip('--python', python, 'install', '--editable', REPOSITORY)
    return python, os.path.join(os.path.dirname(python), 'gpt2')


@packaging
def test_the_console_command(installed, tmp_path):
    _, command = installed
    assert ran(command, '--version', cwd=tmp_path) == (f'gpt2 {gpt2.__version__}\n', '', 0)
    out, err, status = ran(command, 'generate', '--nsamples', '1', '--length', '5', '--json', cwd=tmp_path)
    assert status == 0, err
    assert len(json.loads(out)['tokens']) == 5
    assert not list(tmp_path.iterdir())


@packaging
def test_the_library(installed, tmp_path):
    code = 'import gpt2\nprint(len(gpt2.load("7M").complete("The king", length=5, seed=1).ids))'
    out, err, status = ran(installed[0], '-c', code, cwd=tmp_path)
    assert (out, status) == ('5\n', 0), err
    assert not list(tmp_path.iterdir())


@packaging
def test_a_package_that_is_used_and_removed_leaves_nothing(wheel, tmp_path):
    """What it left would pass for the package itself, where an editable install follows."""
    python = make_environment(tmp_path / 'environment')
    pip('--python', python, 'install', '--no-index', wheel)
    for precision in ('float32', 'int8'):
        out, err, status = ran(python, '-m', 'gpt2', 'export', '--precision', precision, cwd=tmp_path)
        assert (out.startswith(f'{tmp_path}-cache'), status) == (True, 0), err
    pip('--python', python, 'uninstall', '--yes', 'gpt2')
    assert "No module named 'gpt2'" in ran(python, '-c', 'import gpt2', cwd=tmp_path)[1]


@packaging
@pytest.mark.parametrize('name', SIBLINGS)
def test_nothing_beside_the_package_can_be_imported(installed, tmp_path, name):
    python, _ = installed
    assert ran(python, '-c', 'import gpt2', cwd=tmp_path) == ('', '', 0)
    out, err, status = ran(python, '-c', f'import {name}', cwd=tmp_path)
    assert f"No module named '{name}'" in err
    assert (out, status) == ('', 1)
