"""convert.py, as a user runs it."""

import json
import shutil

import pytest
from example_models import BUNDLED, HERE, REPOSITORY
from running import fails_in_one_line, help_names_every_flag_and_no_other, run

from gpt2.checkpoints.convert import Conversion
from gpt2.checkpoints.source import open_source
from gpt2.commands import convert
from gpt2.errors import UsageError

CONVERT = REPOSITORY / 'src' / 'convert.py'
TINY = HERE / 'huggingface' / 'tiny'


def test_three_lines_say_what_was_done(tmp_path):
    out, err, status = run(CONVERT, BUNDLED, 'mine', '--dtype', 'float16', cwd=tmp_path)
    assert (err, status) == ('', 0)
    shape, vocabulary, weights = out.splitlines()
    assert shape == 'shape: 6,967,296 parameters, 6 layers, 8 heads, 256 features, 512 positions'
    assert vocabulary == "vocabulary: 8192 tokens, 1 of them added: '<|endoftext|>'"
    assert weights == f'weights: float16, digest {open_source(str(tmp_path / "mine")).digest()}'
    assert json.loads((tmp_path / 'mine' / 'config.json').read_text())['dtype'] == 'float16'


def test_a_hugging_face_folder_becomes_the_release_s_with_a_notice(tmp_path):
    out, err, status = run(CONVERT, TINY, 'models/mine', cwd=tmp_path)
    assert status == 0
    assert len(out.splitlines()) == 3
    assert err == (
        f'{TINY}: 4 rows of wte belong to no token and are left out: probabilities are those of the tokens alone\n'
    )
    source = open_source(str(tmp_path / 'models' / 'mine'))
    assert (source.format, source.digest()) == ('release', open_source(str(TINY)).digest())


@pytest.mark.parametrize(
    'source, destination, to',
    [
        (BUNDLED, 'mine', 'huggingface'),
        (TINY, 'mine', 'release'),
        (BUNDLED, 'mine.gguf', 'gguf'),
        (TINY, 'mine.gguf', 'gguf'),
    ],
)
def test_the_format_that_is_meant(source, destination, to):
    assert convert.default_format(open_source(str(source)), destination) == to


@pytest.mark.parametrize(
    'arguments, message',
    [
        ([], '0 paths are given'),
        ([BUNDLED], '1 paths are given'),
        ([BUNDLED, 'a', 'b'], '3 paths are given'),
        ([BUNDLED, 'mine', '--to', 'onnx'], "--to is 'onnx', expected release or huggingface or gguf or saved_model"),
        ([BUNDLED, 'mine', '--dtype', 'int4'], "--dtype is 'int4', expected float32 or float16 or bfloat16 or q8_0"),
        ([BUNDLED, 'mine', '--dtype', 'q8_0'], "--dtype is 'q8_0', and --to huggingface holds"),
        ([BUNDLED, '.'], 'is there already; choose another destination'),
        ([BUNDLED, 'mine', '--compress'], 'unknown flag --compress'),
    ],
)
def test_wrong_use_is_one_line(elsewhere, arguments, message):
    fails_in_one_line(CONVERT, arguments, message, elsewhere, {})
    assert list(elsewhere.iterdir()) == []


@pytest.mark.parametrize('name', ['config.json', 'model.safetensors', 'tokenizer.json'])
def test_bad_input_is_one_line_and_leaves_nothing(tmp_path, name):
    folder = shutil.copytree(TINY, tmp_path / 'tiny')
    (folder / name).write_bytes((folder / name).read_bytes()[:50])
    out, err, status = run(CONVERT, folder, tmp_path / 'mine', cwd=tmp_path)
    assert (out, len(err.splitlines()), status) == ('', 1, 1)
    assert name in err
    assert [path.name for path in tmp_path.iterdir()] == ['tiny']


def test_conversion_to_hugging_face_needs_no_tensorflow(tmp_path, without_tensorflow):
    assert run(CONVERT, BUNDLED, 'mine', cwd=tmp_path, **without_tensorflow)[1:] == ('', 0)


def test_many_added_tokens_are_not_all_listed():
    assert convert.listed(['a', 'b']) == "'a', 'b'"
    assert convert.listed(map(str, range(9))) == "'0', '1', '2', '3', '4', ..."


@pytest.mark.parametrize(('dtype', 'end'), [('q8_0', 'digest 00 of the float32 values'), ('float16', 'digest 00')])
def test_the_digest_says_of_what_it_is(dtype, end):
    done = Conversion(open_source(str(TINY)), 'mine', dtype, '00')
    assert convert.report(done).endswith(end)


def test_help():
    help_names_every_flag_and_no_other(convert.convert_model)


def test_paths_are_text():
    with pytest.raises(UsageError, match='1 paths'):
        convert.convert_model('one')
