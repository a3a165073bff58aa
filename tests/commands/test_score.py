"""src/score.py as a user runs it."""

import json
import math
import os
import signal
import subprocess
import sys
import threading

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
    pytest.param(['--lines', 'empty'], 'empty holds no text', id='no line'),
    pytest.param(['--lines', 'short', 'latin1'], 'latin1 is not UTF-8 at byte 3', id='UTF-8, lines'),
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
    err, status = run(SCRIPT, *BUNDLED, '--engine', 'tf', 'short', cwd=files, **without_tensorflow)[1:]
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


# Lines, and texts as other systems write them


@pytest.fixture(scope='module')
def odd_files(tmp_path_factory):
    folder = tmp_path_factory.mktemp('odd')
    contents = {
        'unix': b'The king\nsaid so\n', 'windows': b'\xef\xbb\xbfThe king\r\nsaid so\r\n',
        'lines': 'The king\n\nThe\r\n  \nthe café was so'.encode(), 'words': b'The king',
        b'caf\xe9'.decode('utf-8', 'surrogateescape'): b'The king', 'café 中': b'The king',
    }  # fmt: skip
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return folder


def test_line_ends_and_a_byte_order_mark_make_no_difference(odd_files):
    windows = (odd_files / 'windows').read_bytes()
    out, err, status = run(SCRIPT, *BUNDLED, '--json', 'unix', 'windows', '-', cwd=odd_files, given=windows)
    first, *others = objects(out)
    assert (err, status) == ('', 0) and first['bytes'] == 17
    assert [{**other, 'file': 'unix'} for other in others] == [first] * 2


def test_words_and_bytes_are_those_of_what_is_scored(odd_files):
    out, _, status = run(SCRIPT, *BUNDLED, '--json', '--noend_of_text', 'words', cwd=odd_files)
    [found] = objects(out)
    assert (status, found['tokens'], found['words'], found['bytes']) == (0, 1, 1, len(' king'))
    assert found['perplexity_per_word'] == found['perplexity_per_token']
    out, _, _ = run(SCRIPT, *BUNDLED, '--noend_of_text', 'words', cwd=odd_files)
    assert out.startswith('words: 1 token, 1 word, 5 bytes\n')


@pytest.mark.parametrize('flag', ['--end_of_text', '--noend_of_text'])
def test_lines_have_a_result_each(odd_files, encoder, flag):
    out, err, status = run(SCRIPT, *BUNDLED, '--json', '--per_token', '--lines', flag, 'lines', cwd=odd_files)
    assert (err, status) == ('', 0)
    found = objects(out)
    totals = [entry for entry in found if 'tokens' in entry]
    assert [entry['line'] for entry in totals] == [1, 2, 3, 4, 5]
    for entry, line in zip(totals, ['The king', '', 'The', '  ', 'the café was so']):
        ids = encoder.encode(line)[flag == '--noend_of_text' :]
        tokens = [token for token in found if token['line'] == entry['line'] and 'id' in token]
        assert [token['id'] for token in tokens] == ids and entry['tokens'] == len(ids)
        assert entry['bytes'] == sum(len(token['bytes']) for token in tokens)
        assert entry['log_probability'] == pytest.approx(sum(token['log_probability'] for token in tokens))
        assert (entry['perplexity_per_token'] is None) == (not ids)
    (odd_files / 'last').write_text('the café was so')
    alone = objects(run(SCRIPT, *BUNDLED, '--json', flag, 'last', cwd=odd_files)[0])[0]
    assert {**alone, 'file': 'lines', 'line': 5} == {
        **totals[4],
        **{name: pytest.approx(value, rel=1e-5) for name, value in totals[4].items() if isinstance(value, float)},
    }


def test_lines_are_printed_on_a_line_each(odd_files):
    out, err, status = run(SCRIPT, *BUNDLED, '--lines', 'lines', '-', cwd=odd_files, given=b'a\n')
    lines = out.splitlines()
    assert (err, status, len(lines)) == ('', 0, 6)
    assert lines[0].startswith('lines:1: 2 tokens, 2 words, 8 bytes; log-probability -')
    assert lines[1] == (
        'lines:2: 0 tokens, 0 words, 0 bytes; log-probability 0.0000 nats, 0.0000 bits; '
        'perplexity none a token, none a word; none bits a byte'
    )
    assert lines[5].startswith('-:1: 1 token, 1 word, 1 byte; ')


def test_json_is_utf8_whatever_the_terminal_and_the_file_are_called(odd_files):
    name = b'caf\xe9'.decode('utf-8', 'surrogateescape')
    out, err, status = run(SCRIPT, *BUNDLED, '--json', 'café 中', name, cwd=odd_files, PYTHONIOENCODING='ascii')
    assert (err, status) == ('', 0)
    assert '"file": "café 中"' in out
    assert [entry['file'] for entry in objects(out)] == ['café 中', 'caf\ufffd']


def test_one_pipe_by_two_names_is_refused(odd_files, without_tensorflow):
    fails_in_one_line(
        SCRIPT, [*BUNDLED, '-', '/dev/stdin'], 'can be read only once', odd_files, without_tensorflow
    )


def test_a_file_called_like_standard_input_is_not_it(odd_files, tmp_path):
    (tmp_path / '-').write_text('not this')
    out, err, status = run(SCRIPT, *BUNDLED, '--json', '-', './-', cwd=tmp_path, given=b'The king')
    assert (err, status) == ('', 0) and [entry['bytes'] for entry in objects(out)] == [8, 8]


def test_a_named_pipe_is_read_once(odd_files, tmp_path):
    os.mkfifo(tmp_path / 'pipe')
    writer = threading.Thread(target=(tmp_path / 'pipe').write_bytes, args=[b'The king\r\n'], daemon=True)
    writer.start()
    out, err, status = run(SCRIPT, *BUNDLED, '--json', '--lines', 'pipe', cwd=tmp_path)
    assert (err, status) == ('', 0) and [entry['bytes'] for entry in objects(out)] == [8]
