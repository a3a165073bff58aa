"""Code and commands written against the release's layout go on working."""

import pytest
from example_models import BUNDLED, MODELS, REPOSITORY
from running import run

import gpt2.model
import gpt2.sample
from gpt2.encoder import get_encoder

SRC = REPOSITORY / 'src'
HANDING_ON = ('encoder', 'model', 'sample')
COMMANDS = sorted(path for path in SRC.glob('*.py') if path.stem not in ('__init__', *HANDING_ON))


def test_the_encoder_under_the_release_s_name(tmp_path, without_tensorflow):
    code = 'import encoder; enc = encoder.get_encoder("7M", "models"); print(enc.encode("The king"), enc.decode([5]))'
    (tmp_path / 'models').symlink_to(MODELS)
    path = f'{SRC}:{without_tensorflow["PYTHONPATH"]}'
    ours = get_encoder('7M', str(MODELS))
    assert run('-c', code, cwd=tmp_path, PYTHONPATH=path) == (f'{ours.encode("The king")} {ours.decode([5])}\n', '', 0)


def test_the_model_under_the_release_s_names_computes_what_the_library_does(tmp_path):
    """Also as scripts of the release have it: model and sample side by side on the path."""
    code = f"""

import model, sample
import gpt2.model, gpt2.sample
from gpt2.checkpoints.release import load_params
hparams = gpt2.hparams.load_hparams({str(BUNDLED / 'hparams.json')!r})
params = load_params({str(BUNDLED)!r}, hparams)
x = [[1, 2, 3]]
both = [each.logits(params, each.forward(hparams, params, x)).numpy() for each in (model, gpt2.model)]
print((both[0] == both[1]).all())
drawn = [list(each.Generator(hparams, params).generate(x, 3, numbers=[1], seed=1)) for each in (sample, gpt2.sample)]
print(drawn[0] == drawn[1], len(drawn[0]))
"""
    assert run('-c', code, cwd=tmp_path, PYTHONPATH=str(SRC)) == ('True\nTrue 3\n', '', 0)


@pytest.mark.parametrize(('name', 'library'), [('model', gpt2.model), ('sample', gpt2.sample)])
def test_every_public_name_is_handed_on(tmp_path, name, library):
    public = sorted(public for public in vars(library) if not public.startswith('_'))
    code = f'import {name}; print(*sorted(each for each in vars({name}) if not each.startswith("_")))'
    assert run('-c', code, cwd=tmp_path, PYTHONPATH=str(SRC)) == (' '.join(public) + '\n', '', 0)


@pytest.mark.parametrize('script', COMMANDS, ids=lambda path: path.stem)
def test_a_command_in_both_ways_of_starting_it(tmp_path, without_tensorflow, script):
    elsewhere = run(script, '--help', cwd=tmp_path, **without_tensorflow)
    assert elsewhere[1:] == ('', 0)
    assert f'python src/{script.name}' in elsewhere[0]
    assert run(f'src/{script.name}', '--help', cwd=REPOSITORY, **without_tensorflow) == elsewhere
    assert run('-m', f'src.{script.stem}', '--help', cwd=REPOSITORY, **without_tensorflow) == elsewhere


def test_the_downloader_from_any_directory(tmp_path, without_tensorflow):
    elsewhere = run(REPOSITORY / 'download_model.py', '--help', cwd=tmp_path, **without_tensorflow)
    assert elsewhere[1:] == ('', 0)
    assert run('download_model.py', '--help', cwd=REPOSITORY, **without_tensorflow) == elsewhere
