"""src/score.py as a user runs it."""

import json
import math
import signal
import subprocess
import sys

import pytest
from example_models import HERE, MODELS, REPOSITORY
from running import BUNDLED, PATIENCE, environment, fails_in_one_line, help_names_every_flag_and_no_other, objects, run

from gpt2.commands import score
from gpt2.encoder import get_encoder

SCRIPT = REPOSITORY / 'src' / 'score.py'
GOLDENS = json.loads((HERE / 'score_goldens.json').read_text())


@pytest.fixture(scope='module')
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp('texts')
    encoder = get_encoder('7M', str(MODELS))
    short = encoder.decode(encoder.encode(GOLDENS['text'])[:20])
    contents = {
        'long': GOLDENS['text'].encode(), 'short': short.encode(), 'empty': b'', 'one': b'a', 'two': b'a b',
        'latin1': b'caf\xe9 au lait',
    }  # fmt: skip
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return folder


MISTAKES = [
    pytest.param([], 'give a text file', id='no file'),
    pytest.param(['missing'], 'missing cannot be read: No such file', id='missing file'),
    pytest.param(['.'], '. cannot be read', id='folder'),
    pytest.param(['short', 'empty'], 'empty holds no text, expected two tokens', id='empty text'),
    pytest.param(['-'], '- holds no text', id='empty standard input'),
    pytest.param(['-', '-'], '- can be read only once', id='standard input twice'),
    pytest.param(['short', 'one'], 'one holds a text of one token, expected two tokens or more', id='one token'),
    pytest.param(['one', '--noend_of_text'], 'one holds a text of one token', id='one token, only context'),
    pytest.param(['short', 'latin1'], 'latin1 is not UTF-8 at byte 3; convert it, or give --errors', id='UTF-8'),
    pytest.param(['short', '--errors', 'ignore'], "--errors is 'ignore', expected strict or replace", id='errors'),
    pytest.param(['short', '--stride', '0'], '--stride is 0, expected at least 1', id='stride, zero'),
    pytest.param(['short', '--stride', '513'], '--stride is 513, expected at most n_ctx 512', id='stride, too long'),
    pytest.param(['short', '--stride', 'half'], "--stride is 'half', expected an integer", id='stride, no integer'),
    pytest.param(['short', '--batch_size', '0'], '--batch_size is 0', id='batch size'),
    pytest.param(['short', '--tokens'], 'unknown flag --tokens', id='unknown flag'),
    pytest.param(['short', '--model_name', '9M'], 'no model 9M', id='unknown model'),
]


@pytest.mark.parametrize(('arguments', 'message'), MISTAKES)
def test_refuses(files, without_tensorflow, arguments, message):
    fails_in_one_line(SCRIPT, [*BUNDLED, *arguments], message, files, without_tensorflow)


def test_the_test_above_would_notice_tensorflow(files, without_tensorflow):
    err, status = run(SCRIPT, *BUNDLED, 'short', cwd=files, **without_tensorflow)[1:]
    assert (status, err.splitlines()[-1]) == (1, 'ImportError: TensorFlow was imported')


def test_help_names_every_flag_and_no_other():
    help_names_every_flag_and_no_other(score.score_files)


def test_tokens_and_totals_of_several_files_agree(files):
    """Per token as transformers has them; totals as their sums; a file given through a pipe as from disk."""
    given = (files / 'long').read_bytes()
    arguments = [*BUNDLED, '--json', '--per_token', '--stride', str(GOLDENS['stride']), 'long', '-', 'short']
    out, err, status = run(SCRIPT, *arguments, cwd=files, given=given)
    assert (err, status) == ('', 0)
    found = objects(out)
    totals = {entry['file']: entry for entry in found if 'tokens' in entry}
    assert list(totals) == ['long', '-', 'short'] and 'tokens' in found[-1]
    for name, total in totals.items():
        tokens = [entry for entry in found if entry['file'] == name and 'id' in entry]
        text = b''.join(bytes(entry['bytes']) for entry in tokens)
        values = [entry['log_probability'] for entry in tokens]
        assert text == (files / 'long').read_bytes()[: len(text)] and total['tokens'] == len(tokens) > 1
        assert values == pytest.approx(GOLDENS['log_probabilities'][: len(tokens)], abs=1e-3)
        assert total['log_probability'] == pytest.approx(sum(values), abs=1e-6)
        assert total['log_probability_bits'] == pytest.approx(sum(values) / math.log(2), abs=1e-6)
        assert (total['bytes'], total['words']) == (len(text), len(text.split()))
        assert math.log(total['perplexity_per_token']) == pytest.approx(-sum(values) / len(tokens))
        assert math.log(total['perplexity_per_word']) == pytest.approx(-sum(values) / len(text.split()))
        assert total['bits_per_byte'] == pytest.approx(-sum(values) / math.log(2) / len(text))
        assert (total['model'], total['stride'], total['end_of_text']) == ('7M', GOLDENS['stride'], True)
    assert {**totals['-'], 'file': 'long'} == totals['long']


def test_plain_output_and_a_text_without_a_start(files):
    out, err, status = run(SCRIPT, *BUNDLED, '--per_token', 'short', 'latin1', '--errors=replace', cwd=files)
    assert (err, status) == ('', 0)
    lines = out.splitlines()
    assert lines[0].split('\t')[1] == 'down'
    assert lines[20].startswith('short: 20 tokens, ')
    assert "caf\\xef\\xbf\\xbd au lait" in ''.join(line.split('\t')[1] for line in lines[23:] if '\t' in line)
    out, err, status = run(SCRIPT, *BUNDLED, '--json', '--per_token', '--noend_of_text', 'short', cwd=files)
    *tokens, total = objects(out)
    assert len(tokens) == total['tokens'] == 19
    assert total['bytes'] == sum(len(entry['bytes']) for entry in tokens)
    assert total['log_probability'] != pytest.approx(sum(GOLDENS['log_probabilities'][1:20]), abs=0.01)


@pytest.mark.parametrize(('flag', 'scored'), [('--end_of_text', 2), ('--noend_of_text', 1)])
def test_two_tokens_are_enough(files, flag, scored):
    out, _, status = run(SCRIPT, *BUNDLED, '--json', flag, 'two', cwd=files)
    assert status == 0 and objects(out)[0]['tokens'] == scored


def test_ctrl_c_ends_with_130_after_what_was_printed(files):
    command = [sys.executable, SCRIPT, *BUNDLED, '--per_token', '--batch_size', '1', '-']
    pipes = {'stdin': subprocess.PIPE, 'stdout': subprocess.PIPE, 'stderr': subprocess.PIPE}
    with subprocess.Popen(command, cwd=files, env=environment(), **pipes) as process:
        process.stdin.write(GOLDENS['text'].encode() * 8)  # less than a pipe holds; and more could come
        process.stdin.flush()
        first = process.stdout.readline()
        process.send_signal(signal.SIGINT)
        rest = process.stdout.readlines()
        assert (process.wait(PATIENCE), process.stderr.read()) == (130, b'')
    assert first.split(b'\t')[1] == b'down' and len(rest) < 8 * len(GOLDENS['log_probabilities'])


def test_figures_that_are_no_number_are_none():
    assert score.summary(-10.0, 2, 0, 8)['perplexity_per_word'] is None
    assert score.summary(-1e6, 10**4, 1, 8)['perplexity_per_word'] is None
