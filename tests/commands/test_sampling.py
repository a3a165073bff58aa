"""The two sampling scripts, as a user runs them: flags, standard streams, signals, exit status.

Every start of TensorFlow costs seconds, so that one run serves several tests; whatever can be
told without it runs where importing it fails, or in this process with a generator that is a fake.
"""

import inspect
import io
import json
import math
import os
import re
import select
import subprocess
import sys
import time

import numpy as np
import pytest
from example_models import MODELS, REPOSITORY
from running import (
    BUNDLED,
    INTERACTIVE,
    PATIENCE,
    UNCONDITIONAL,
    environment,
    fails_in_one_line,
    header,
    help_names_every_flag_and_no_other,
    objects,
    run,
)

from gpt2 import api
from gpt2.commands import complete as interactive_conditional_samples
from gpt2.commands import generate as generate_unconditional_samples
from gpt2.commands import sampling as sampling_script
from gpt2.encoder import END_OF_TEXT, get_encoder
from gpt2.errors import UsageError
from gpt2.hparams import load_hparams

LABEL = 'Model prompt >>> '
FOOTER = '=' * 80
N_CTX = load_hparams(MODELS / '7M' / 'hparams.json').n_ctx


# Bad input: one line, status 2, nothing heavy loaded

SHARED_MISTAKES = [
    pytest.param(['--nsample', '1'], 'unknown flag --nsample, did you mean --nsamples?', id='unknown flag'),
    pytest.param(['--top_k'], '--top_k needs a value', id='missing value'),
    pytest.param(['--temperature', 'warm'], "--temperature is 'warm'", id='temperature, no number'),
    pytest.param(['--temperature', '-1'], '--temperature is -1', id='temperature, negative'),
    pytest.param(['--temperature', 'nan'], '--temperature is nan', id='temperature, nan'),
    pytest.param(['--temperature', 'inf'], '--temperature is inf', id='temperature, inf'),
    pytest.param(['--top_k', '-1'], '--top_k is -1, expected at least 0', id='top_k, negative'),
    pytest.param(['--top_k', '1.5'], "--top_k is '1.5'", id='top_k, no integer'),
    pytest.param(['--top_p', '0'], '--top_p is 0', id='top_p, zero'),
    pytest.param(['--top_p', '1.5'], '--top_p is 1.5', id='top_p, above 1'),
    pytest.param(['--top_p', 'nan'], '--top_p is nan', id='top_p, nan'),
    pytest.param(['--top_p=-0.5'], '--top_p is -0.5', id='top_p, negative'),
    pytest.param(['--top_p_rule', 'x'], "--top_p_rule is 'x', expected released or inclusive", id='top_p_rule'),
    pytest.param(['--min_p', '2'], '--min_p is 2, expected a number from 0 to 1', id='min_p, above 1'),
    pytest.param([*BUNDLED, '--logit_bias', '9000=1'], '--logit_bias has the token id 9000, expected 0', id='no token'),
    pytest.param(['--length', '0'], '--length is 0, expected at least 1', id='length, zero'),
    pytest.param(['--length', 'long'], "--length is 'long'", id='length, no integer'),
    pytest.param(
        [*BUNDLED, '--length', str(N_CTX + 1)],
        f'--length is {N_CTX + 1}, the model allows at most {N_CTX}',
        id='length, beyond the window',
    ),
    pytest.param(['--nsamples', '-1'], '--nsamples is -1, expected at least 0', id='nsamples, negative'),
    pytest.param(['--nsamples', 'all'], "--nsamples is 'all'", id='nsamples, no integer'),
    pytest.param(['--batch_size', '0'], '--batch_size is 0, expected at least 1', id='batch_size, zero'),
    pytest.param(['--seed', '-1'], '--seed is -1, expected at least 0', id='seed, negative'),
    pytest.param(['--seed', 'x'], "--seed is 'x'", id='seed, no integer'),
    pytest.param(['--engine', 'torch'], "--engine is 'torch', expected auto or tf or litert", id='engine, unknown'),
    pytest.param(
        ['--precision', 'int2'], "--precision is 'int2', expected float32 or int8 or int4", id='precision, unknown'
    ),
    pytest.param(
        ['--engine', 'tf', '--precision', 'int8'], '--precision int8 needs --engine litert', id='int8 on TensorFlow'
    ),
    pytest.param(
        ['--engine', 'tf', '--precision', 'int4'], '--precision int4 needs --engine litert', id='int4 on TensorFlow'
    ),
    pytest.param(['--stop', ''], '--stop is empty', id='stop, empty'),
    pytest.param(['--stream', '--batch_size', '2'], '--stream needs --batch_size 1', id='stream of a batch'),
    pytest.param(['--stream', '--json'], '--stream and --json', id='stream of objects'),
    pytest.param(['--json=maybe'], "--json is 'maybe'", id='json, no boolean'),
    pytest.param(['--model_name', '9M'], '--model_name 7M', id='unknown model'),
    pytest.param(
        ['--model_name', '355M', '--models_dir', '/nowhere'],
        'no model 355M in /nowhere; get it with `python download_model.py 355M --models_dir /nowhere`',
        id='released model, not there',
    ),
    pytest.param(['--model_name', '../7M'], 'no model at ../7M', id='model name, up'),
    pytest.param(['--model_name', '/7M'], 'no model at /7M', id='model name, absolute'),
    pytest.param(['--model_name', ''], "no model at ''", id='model name, empty'),
]
PROMPT_MISTAKES = [
    pytest.param(['--prompt', 'Once', 'upon', 'a', 'time'], "'upon' belongs to no flag; put quotes", id='no quotes'),
    pytest.param(['--prompt', ''], 'Prompt should not be empty!', id='empty prompt, default model'),
    pytest.param(['--prompt', 'a', '--prompt_file', 'b'], '--prompt and --prompt_file exclude', id='both prompts'),
    pytest.param(['--prompt_file', 'missing.txt'], '--prompt_file missing.txt cannot be', id='missing prompt file'),
    pytest.param(['--prompt_file', '.'], '--prompt_file . cannot be read', id='folder as prompt file'),
    pytest.param([*BUNDLED, '--prompt', ''], 'Prompt should not be empty!', id='empty prompt'),
    pytest.param([*BUNDLED, '--prompt_file', '/dev/null'], 'Prompt should not be empty!', id='empty prompt file'),
    pytest.param(
        [*BUNDLED, '--prompt', '!' + ' a' * (N_CTX - 2), '--length', '20'],
        f'{N_CTX - 1} prompt tokens and --length 20 are {N_CTX + 19}, the limit is {N_CTX + 1}; --length 2 fits',
        id='prompt and length beyond the window',
    ),
    pytest.param(
        [*BUNDLED, '--prompt', '!' + ' a' * N_CTX],
        f'the prompt has {N_CTX + 1} tokens, the limit is {N_CTX}',
        id='prompt beyond the window',
    ),
]
UNCONDITIONAL_MISTAKES = [pytest.param(['--prompt', 'a'], 'unknown flag --prompt', id='a prompt')]


@pytest.mark.parametrize(('arguments', 'message'), SHARED_MISTAKES + PROMPT_MISTAKES)
def test_interactive_refuses(elsewhere, without_engines, arguments, message):
    fails_in_one_line(INTERACTIVE, arguments, message, elsewhere, without_engines)


@pytest.mark.parametrize(('arguments', 'message'), SHARED_MISTAKES + UNCONDITIONAL_MISTAKES)
def test_unconditional_refuses(elsewhere, without_engines, arguments, message):
    fails_in_one_line(UNCONDITIONAL, arguments, message, elsewhere, without_engines)


@pytest.mark.parametrize(
    ('engine', 'message'),
    [('tf', 'ImportError: TensorFlow was imported'), ('litert', 'needs a package (LiteRT was imported)')],
)
def test_the_tests_above_would_notice_an_engine(elsewhere, without_engines, engine, message):
    err, status = run(UNCONDITIONAL, *BUNDLED, '--engine', engine, cwd=elsewhere, **without_engines)[1:]
    assert status == 1
    assert message in err.splitlines()[-1]


def test_a_folder_that_holds_half_a_model_ends_with_status_1_and_one_line(elsewhere, without_tensorflow, tmp_path):
    (tmp_path / 'hollow').mkdir()
    (tmp_path / 'hollow' / 'model.ckpt.index').touch()
    arguments = ('--models_dir', tmp_path, '--model_name', 'hollow')
    out, err, status = run(UNCONDITIONAL, *arguments, cwd=elsewhere, **without_tensorflow)
    assert (out, len(err.splitlines()), status) == ('', 1, 1)
    assert f'{tmp_path}/hollow/hparams.json' in err


# Help


@pytest.mark.parametrize(
    'function', [interactive_conditional_samples.interact_model, generate_unconditional_samples.sample_model]
)
def test_help_names_every_flag_and_no_other(function):
    help_names_every_flag_and_no_other(function)


@pytest.mark.parametrize('script', [INTERACTIVE, UNCONDITIONAL])
def test_help_needs_no_tensorflow(elsewhere, without_tensorflow, script):
    out, err, status = run(script, '--help', cwd=elsewhere, **without_tensorflow)
    assert (err, status) == ('', 0)
    assert f'python src/{script.name}' in out


@pytest.mark.parametrize(
    ('function', 'defaults'),
    [
        (interactive_conditional_samples.interact_model, {'nsamples': 1}),
        (generate_unconditional_samples.sample_model, {'nsamples': 0}),
    ],
)
def test_flags_of_the_release_keep_their_defaults(function, defaults):
    # That of batch_size is None, which is 1 for all that the release does.
    released = {'seed': None, 'batch_size': None, 'length': None, 'temperature': 1, 'top_k': 0, 'top_p': 1}
    parameters = inspect.signature(function).parameters
    for name, value in (released | defaults | {'models_dir': 'models'}).items():
        assert parameters[name].default == value, name


# In this process, with a generator that draws one text again and again


@pytest.mark.parametrize(
    ('flags', 'message'),
    [
        ({'typical_p': '0'}, '--typical_p is 0, expected a number above 0 and at most 1'),
        ({'repetition_penalty': '0'}, '--repetition_penalty is 0, expected a number from 0.01 to 100'),
        ({'presence_penalty': '3'}, '--presence_penalty is 3, expected a number from -2 to 2'),
        ({'frequency_penalty': 'x'}, "--frequency_penalty is 'x', expected a number from -2 to 2"),
        ({'no_repeat_ngram': '1.5'}, "--no_repeat_ngram is '1.5', expected an integer of at least 0"),
        ({'ban': ['']}, '--ban is empty, expected a text of at least one character'),
        ({'ban': ['caf\udce9']}, r"--ban is 'caf\udce9', which is not UTF-8; convert it to UTF-8"),
        ({'stop': ['a', 'caf\udce9']}, r"--stop is 'caf\udce9', which is not UTF-8"),
        ({'logit_bias': ['caf\udce9=2']}, r"--logit_bias is 'caf\udce9=2', which is not UTF-8"),
        ({'logit_bias': ['5']}, "--logit_bias is '5', expected TOKEN=B, as in 50256=-100"),
        ({'logit_bias': ['=5']}, "--logit_bias is '=5', expected TOKEN=B"),
        ({'logit_bias': ['5=x']}, "--logit_bias of '5' is 'x', expected a number from -100 to 100"),
        ({'logit_bias': ['5=101']}, "--logit_bias of '5' is 101, expected a number from -100 to 100"),
        ({'logit_bias': ['5=1', '5=1']}, "--logit_bias has '5' twice; give each token once"),
        ({'logit_bias': ['5=1', '05=2']}, "--logit_bias has the token 5 twice, the second time as '05'; give"),
        ({'logit_bias': ['of the=1']}, "--logit_bias has 'of the', which is 2 tokens ["),
    ],
)
@pytest.mark.parametrize('command', ['interact', 'draw_samples'])
def test_settings_that_mean_nothing_are_refused(fake, command, flags, message):
    with pytest.raises(UsageError) as caught:
        globals()[command](**flags, **({'prompt': 'a'} if command == 'interact' else {}))
    assert str(caught.value).startswith(message)
    assert fake.calls == []


@pytest.mark.parametrize(
    ('flags', 'both'),
    [
        ({'choices': '-', 'prompt_file': '-'}, '--prompt_file and --choices'),
        ({'choices': '-', 'prompts_file': '-'}, '--prompts_file and --choices'),
        ({'choices': '-'}, '--choices and what is typed'),
        ({'dialogue': True, 'memory': '-'}, '--memory and what is typed'),
    ],
)
def test_standard_input_is_read_once(fake, flags, both):
    with pytest.raises(UsageError, match=f'^{both} would both be read from standard input; name a file for one$'):
        interact(**flags)


def test_log_probabilities_are_told_in_json(fake, monkeypatch, capsys, encoder):
    logits = np.log(np.arange(1, len(encoder) + 1, dtype=np.float32))
    monkeypatch.setattr(FakeRows, 'logits', property(lambda rows: np.tile(logits, (rows.rows, 1))), raising=False)
    interact(prompt='a', length='2', logprobs='1', json=True)
    [found] = objects(capsys.readouterr().out)
    assert fake.calls[0]['told']
    assert [token['id'] for token in found['logprobs']] == found['tokens']
    total = math.log(sum(range(1, len(encoder) + 1)))
    for token in found['logprobs']:
        assert set(token) == {'id', 'bytes', 'log_probability', 'rank', 'likeliest'}
        assert bytes(token['bytes']) == encoder.decode_bytes([token['id']])
        assert token['log_probability'] == pytest.approx(math.log(token['id'] + 1) - total, abs=1e-4)
        assert token['rank'] == len(encoder) - token['id'] and token['likeliest'][0][0] == len(encoder) - 1
    with pytest.raises(UsageError, match='--logprobs needs --json'):
        interact(prompt='a', logprobs='1')


def test_choices_come_from_a_file(fake, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(api, 'choice_scores', lambda engine, prompt, ids: np.log([0.1, 0.6, 0.3]))
    (tmp_path / 'choices').write_bytes(b' yes\r\n no\n perhaps')
    interact(prompt='a', choices=str(tmp_path / 'choices'), temperature='0', json=True)
    [found] = objects(capsys.readouterr().out)
    assert (found['text'], found['finish_reason']) == (' no', 'choice')
    assert found['choices'] == pytest.approx({' yes': math.log(0.1), ' no': math.log(0.6), ' perhaps': math.log(0.3)})
    (tmp_path / 'gap').write_text('yes\n\nno\n')
    for path, message in (
        (tmp_path / 'none', f'--choices {tmp_path / "none"} cannot be read'),
        (os.devnull, f'--choices {os.devnull}: line 1 is empty'),
        (tmp_path / 'gap', f'--choices {tmp_path / "gap"}: line 2 is empty, expected a text a line'),
    ):
        with pytest.raises(UsageError) as caught:
            interact(prompt='a', choices=str(path))
        assert str(caught.value).startswith(message)
    with pytest.raises(UsageError, match='--choices and --length exclude each other; leave one of them out'):
        interact(prompt='a', choices=str(tmp_path / 'choices'), length='3')


@pytest.mark.parametrize(
    ('flags', 'message'),
    [
        ({'choices': 'choices'}, '--draft and --choices exclude each other; leave one of them out'),
        ({'beams': 2}, '--draft and --beams exclude each other'),
        ({'regex': 'a+'}, '--draft and --regex exclude each other'),
        ({'nsamples': 2, 'batch_size': 2}, '--draft and --batch_size exclude each other'),
        ({'beyond_window': True}, '--draft and --beyond_window exclude each other'),
        ({'ablate': 'h0.mlp.1'}, '--draft and --ablate exclude each other'),
        ({'prompt': None, 'prompts_file': 'choices'}, '--prompts_file and --draft exclude each other'),
        ({'precision': 'int8'}, '--draft needs --precision float32, not int8; leave one of them out'),
        ({'engine': 'tf'}, '--draft needs --engine litert, not tf'),
        ({'draft': 'none-such'}, '--draft: no model none-such'),
        ({'draft': ''}, "--draft: no model at ''"),
    ],
)
def test_a_draft_that_could_guess_nothing_is_refused(fake, tmp_path, monkeypatch, flags, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'choices').write_text(' a\n b\n')
    with pytest.raises(UsageError) as caught:
        interact(**{'prompt': 'a', 'draft': '7M'} | flags)
    assert str(caught.value).startswith(message)
    assert not fake.calls


def test_a_draft_is_loaded_with_the_model(fake, monkeypatch):
    drafts = []
    monkeypatch.setattr(api, 'load_engine', lambda source, engine, precision, draft: drafts.append(draft.path) or fake)
    interact(prompt='a', length='1', draft='7M')
    draw_samples(nsamples='1', length='1', draft='7M')
    assert [os.path.basename(draft) for draft in drafts] == ['7M', '7M'] and len(fake.calls) == 2


def test_every_setting_reaches_the_engine(fake, encoder):
    numbers = {
        'temperature': 0.5, 'top_k': 4, 'top_p': 0.9, 'top_p_rule': 'inclusive', 'min_p': 0.1, 'typical_p': 0.8,
        'repetition_penalty': 1.3, 'presence_penalty': 0.5, 'frequency_penalty': -0.5, 'no_repeat_ngram': 3,
    }  # fmt: skip
    bias = ['7=2.5', ' the=-1', f'{END_OF_TEXT}=-100']
    flags = {name: str(value) for name, value in numbers.items()} | {'logit_bias': bias, 'ban': ['x', 'é']}
    interact(prompt='a', length='1', **flags)
    [call] = fake.calls
    assert call | numbers == call
    assert call['logit_bias'] == ((7, 2.5), (*encoder.encode(' the'), -1.0), (encoder.end_of_text, -100.0))
    assert [rule.words for rule in call['rules']] == [[b'x', 'é'.encode()]]


class FakeEngine:
    """Draws the tokens of one text for every row, over and over, and notes what it was asked for, and how many
    steps were made of it."""

    def __init__(self, tokens):
        self.tokens = tokens
        self.calls = []

    def start(self, prompts, *, numbers, seed, sampling, told=False):
        call = {'context': prompts, 'numbers': numbers, 'seed': seed, 'length': 0, 'told': told} | vars(sampling)
        self.calls.append(call)
        return FakeRows(self, call)


class FakeRows:
    def __init__(self, engine, call):
        self.engine, self.call, self.rows = engine, call, len(call['context'])

    def step(self):
        self.call['length'] += 1
        return [self.engine.tokens[(self.call['length'] - 1) % len(self.engine.tokens)]] * self.rows

    def keep(self, rows):
        self.rows = len(rows)

    def close(self):
        pass


@pytest.fixture
def fake(monkeypatch, encoder):
    """Replaces the engine of both commands; .type(bytes) is what their user types."""
    engine = FakeEngine(encoder.encode('one two three.'))
    monkeypatch.setattr(api, 'load_engine', lambda *_: engine)
    engine.type = lambda data: monkeypatch.setattr(
        sys, 'stdin', io.TextIOWrapper(io.BytesIO(data), errors='surrogateescape')
    )
    engine.prompts = lambda: [encoder.decode(call['context'][0]) for call in engine.calls]
    return engine


def interact(**flags):
    interactive_conditional_samples.interact_model(**({'model_name': '7M'} | flags))


def draw_samples(**flags):
    generate_unconditional_samples.sample_model(**({'model_name': '7M'} | flags))


@pytest.mark.parametrize(
    ('typed', 'prompts'),
    [
        pytest.param(b'', [], id='nothing'),
        pytest.param(b'one\ntwo\n', ['one', 'two'], id='two lines'),
        pytest.param(b'one', ['one'], id='no newline at the end'),
        pytest.param(b'one\\\ntwo\n', ['one\ntwo'], id='a backslash'),
        pytest.param(b'one\\\n\\\ntwo\nthree\n', ['one\n\ntwo', 'three'], id='two backslashes'),
        pytest.param(b'one\\\n', ['one'], id='end of input after a backslash'),
        pytest.param(b'one\\ two\n', ['one\\ two'], id='a backslash inside'),
        pytest.param(b'\n\none\n', ['one'], id='empty lines before'),
        pytest.param(b' \n', [' '], id='a space is a prompt'),
        pytest.param(b'one\r\ntwo\r\n', ['one', 'two'], id='lines as Windows ends them'),
        pytest.param(b'\r\none\r\n', ['one'], id='an empty line as Windows ends it'),
        pytest.param(b'one\\\r\ntwo\r\n', ['one\ntwo'], id='a backslash on Windows'),
        pytest.param('\ufeffone\r\n\ufefftwo\r\n'.encode(), ['one', '\ufefftwo'], id='a byte-order mark'),
        pytest.param(b'caf\xe9\none\n', ['one'], id='a line that is not UTF-8'),
    ],
)
def test_prompts_from_what_is_typed(fake, typed, prompts):
    fake.type(typed)
    interact(length='1')
    assert fake.prompts() == prompts


def test_the_prompt_asks_again_with_another_label_after_a_backslash(fake, capsys):
    fake.type(b'one\\\ntwo\n')
    interact(nsamples='0')
    assert capsys.readouterr().out == f'{LABEL}... {FOOTER}\n{LABEL}\n'


def test_the_first_question_of_a_piped_prompt_is_for_standard_error_with_json(fake, capsys):
    fake.type(b'one\n')
    interact(json='True', length='1')
    out, err = capsys.readouterr()
    assert [sample['prompt'] for sample in objects(out)] == ['one']
    assert err == LABEL * 2 + '\n'


@pytest.mark.parametrize(
    ('content', 'prompt'),
    [
        (b'one', 'one'),
        (b'one\n', 'one'),
        (b'one\r\n', 'one'),
        (b'one\n\n', 'one\n'),
        (b'one\n\ntwo\r\nthree\n', 'one\n\ntwo\nthree'),
        (b'a lone \r stays', 'a lone \r stays'),
        (b'one\\\ntwo', 'one\\\ntwo'),
        (b'\x00\x1b[0m', '\x00\x1b[0m'),
        ('\ufeffnaïve \ufeff😀'.encode(), 'naïve \ufeff😀'),
    ],
)
def test_text_of_a_prompt_file(tmp_path, content, prompt):
    (tmp_path / 'prompt').write_bytes(content)
    assert interactive_conditional_samples.read_prompt_file(tmp_path / 'prompt') == prompt


@pytest.mark.parametrize(
    'prompt', ['one', ' ', '\x00', 'a\nb', '\x1b[31m\x07', '😀', '\ufeff', 'a\r', '-', '--json', END_OF_TEXT]
)
def test_any_prompt_works(fake, capsys, prompt):
    interact(prompt=prompt, json='True', length='1')
    assert [sample['prompt'] for sample in objects(capsys.readouterr().out)] == [prompt]


@pytest.mark.parametrize('prompt', ['\ud800', 'caf\udce9'])
def test_a_prompt_that_is_no_utf8_is_refused_or_replaced(fake, capsys, prompt):
    with pytest.raises(UsageError, match=r'--prompt is not UTF-8 at byte \d; convert it, or give'):
        interact(prompt=prompt)
    interact(prompt=prompt, json='True', length='1', errors='replace')
    assert objects(capsys.readouterr().out)[0]['prompt'].rstrip('\ufffd') == prompt[:-1]


def test_a_prompt_file_that_is_no_utf8_is_refused_or_replaced(fake, tmp_path, capsys):
    (tmp_path / 'prompt').write_bytes(b'caf\xe9 au lait\n')
    with pytest.raises(UsageError, match=r'--prompt_file .* is not UTF-8 at byte 3; convert it, or give --errors'):
        interact(prompt_file=str(tmp_path / 'prompt'))
    interact(prompt_file=str(tmp_path / 'prompt'), json='True', length='1', errors='replace')
    assert objects(capsys.readouterr().out)[0]['prompt'] == 'caf\ufffd au lait'


def test_json_keeps_letters_as_they_are(fake, capsys):
    interact(prompt='Grüße, 漢字', json='True', length='1')
    assert '"prompt": "Grüße, 漢字"' in capsys.readouterr().out


def test_no_samples_load_no_engine(monkeypatch, capsys):
    monkeypatch.setattr(api, 'load_engine', lambda *_: pytest.fail('loaded'))
    interact(prompt='one', nsamples='0')
    assert capsys.readouterr().out == f'{FOOTER}\n'


@pytest.mark.parametrize(
    ('nsamples', 'batch_size', 'batches'),
    [('5', '2', [[1, 2], [3, 4], [5]]), ('4', '2', [[1, 2], [3, 4]]), ('2', '8', [[1, 2]]), ('2', '1', [[1], [2]])],
)
@pytest.mark.parametrize('call', [draw_samples, lambda **flags: interact(prompt='one', **flags)])
def test_samples_are_numbered_once_and_the_last_batch_is_smaller(fake, capsys, call, nsamples, batch_size, batches):
    call(nsamples=nsamples, batch_size=batch_size, length='1')
    assert [list(drawn['numbers']) for drawn in fake.calls] == batches
    numbers = re.findall(r'^=+ SAMPLE (\d+) =+$', capsys.readouterr().out, re.MULTILINE)
    assert numbers == [str(number + 1) for number in range(int(nsamples))]


def test_no_samples_still_end_a_prompt(fake, capsys):
    interact(prompt='one', nsamples='0')
    assert capsys.readouterr().out == f'{FOOTER}\n'


def test_the_unconditional_default_goes_on_until_it_is_stopped(fake, monkeypatch, capsys):
    def write(text):
        if len(fake.calls) == 7:
            raise BrokenPipeError
        return len(text)

    monkeypatch.setattr(sys.stdout, 'write', write)
    with pytest.raises(BrokenPipeError):
        draw_samples(length='1')
    assert [list(call['numbers']) for call in fake.calls] == [[number] for number in range(1, 8)]


@pytest.mark.parametrize(
    ('tokens', 'length', 'drawn'),
    [
        pytest.param(1, None, N_CTX // 2, id='default'),
        pytest.param(N_CTX - 9, None, 10, id='default, shrunk to the room that is left'),
        pytest.param(N_CTX, None, 1, id='default, one token of room'),
        pytest.param(1, N_CTX, N_CTX, id='all the room'),
        pytest.param(N_CTX - 9, 10, 10, id='all the room after a prompt'),
    ],
)
def test_length_after_a_prompt(fake, capsys, encoder, tokens, length, drawn):
    prompt = 'a' + ' a' * (tokens - 1)
    assert len(encoder.encode(prompt)) == tokens
    interact(prompt=prompt, length=length)
    assert fake.calls[0]['length'] == drawn


def test_unconditional_length_is_the_whole_window(fake, capsys):
    draw_samples(nsamples='1')
    assert (fake.calls[0]['length'], len(fake.calls[0]['context'][0])) == (N_CTX, 1)


def test_unconditional_samples_start_from_end_of_text(fake, capsys, encoder):
    draw_samples(nsamples='1', length='1')
    assert fake.calls[0]['context'] == [[encoder.encoder[END_OF_TEXT]]]


def test_settings_reach_the_generator(fake, capsys):
    interact(prompt='one', seed='7', temperature='.5', top_k='40', top_p='.9', length='3')
    expected = {'seed': 7, 'temperature': 0.5, 'top_k': 40, 'top_p': 0.9, 'length': 3}
    assert {name: fake.calls[0][name] for name in expected} == expected


def test_without_a_seed_every_prompt_has_another_and_json_names_it(fake, capsys):
    fake.type(b'one\none\n')
    interact(json='True', length='1', nsamples='2')
    seeds = [sample['seed'] for sample in objects(capsys.readouterr().out)]
    assert seeds == [call['seed'] for call in fake.calls]
    assert seeds[0] == seeds[1] != seeds[2] == seeds[3]


@pytest.mark.parametrize('stream', ['True', 'False'])
def test_a_stop_text_ends_a_sample_before_it(fake, capsys, stream):
    interact(prompt='one', stop=['thr', 'never'], stream=stream, length='50')
    assert capsys.readouterr().out == f'{header(1)}one two \n{FOOTER}\n'


@pytest.mark.parametrize('call', [draw_samples, interact])
def test_bad_settings_are_refused_before_a_prompt_is_asked_for(fake, capsys, call):
    with pytest.raises(UsageError):
        call(length=N_CTX + 1)
    assert capsys.readouterr().out == ''


def test_ctrl_c_during_a_sample_returns_to_the_prompt(fake, capsys, monkeypatch):
    def interrupted(rows):
        if rows.call['length']:
            raise KeyboardInterrupt
        rows.call['length'] += 1
        return [fake.tokens[0]] * rows.rows

    monkeypatch.setattr(FakeRows, 'step', interrupted)
    fake.type(b'one\ntwo\n')
    interact(stream='True')
    assert fake.prompts() == ['one', 'two']
    assert capsys.readouterr().out == f'{LABEL}{header(1)}one\n' * 2 + f'{LABEL}\n'


def test_ctrl_c_at_the_prompt_ends_the_program(fake, capsys, monkeypatch):
    def interrupted(label):
        raise KeyboardInterrupt

    monkeypatch.setattr('builtins.input', interrupted)
    with pytest.raises(KeyboardInterrupt):
        interact()


@pytest.mark.parametrize(
    ('terminal', 'flags', 'stream'),
    [
        (True, {}, True), (True, {'batch_size': '2'}, False), (True, {'json': 'True'}, False),
        (True, {'stream': 'False'}, False), (False, {}, False), (False, {'stream': 'True'}, True),
    ],
)  # fmt: skip
def test_streaming_is_the_default_for_one_sample_on_a_terminal(fake, capsys, monkeypatch, terminal, flags, stream):
    streamed = []
    monkeypatch.setattr(sys.stdout, 'isatty', lambda: terminal)
    monkeypatch.setattr(sampling_script, 'stream_sample', lambda completion, steps: streamed.append(completion))
    interact(prompt='one', length='1', **flags)
    assert bool(streamed) == stream


# A piped session, greedy


@pytest.fixture(scope='module')
def room(encoder):
    """A prompt that leaves room for 12 tokens, and one that leaves room for 11."""
    fitting = '!' + ' a' * (N_CTX - 12)
    assert len(encoder.encode(fitting)) == N_CTX + 1 - 12
    return fitting, f'{fitting} a'


@pytest.fixture(scope='module')
def session(elsewhere, room):
    """Five prompts, two of them twice, and three that cannot be continued; two batches of samples each."""
    prompts = ['Once upon a time', '', room[0], room[1], 'word ' * 2000, 'Once upon a time']
    flags = ('--temperature', '0', '--length', '12', '--nsamples', '3', '--batch_size', '2')
    return run(INTERACTIVE, *BUNDLED, *flags, cwd=elsewhere, given='\n'.join(prompts).encode() + b'\n')


def test_end_of_input_ends_a_session_with_status_0(session):
    assert session[2] == 0


def test_a_session_prints_prompts_and_samples_alone(session):
    samples = ''.join(re.escape(header(number)) + r'(?:[^=]*)\n' for number in (1, 2, 3)) + FOOTER + '\n'
    label = re.escape(LABEL)
    pattern = f'{label}{samples}{label}{label}{samples}{label}{label}{label}{samples}{label}\n'
    assert re.fullmatch(pattern, session[0]), session[0]


def test_bad_prompts_of_a_session_get_a_line_each_on_standard_error(session):
    lines = session[1].splitlines()
    assert len(lines) == 3
    assert lines[0] == 'Prompt should not be empty!'
    numbers = f'{N_CTX - 10} prompt tokens and --length 12 are {N_CTX + 2}, the limit is {N_CTX + 1}; '
    numbers += '--length 11 fits, and --beyond_window lifts it'
    assert lines[1] == numbers
    assert re.fullmatch(
        rf'the prompt has \d+ characters, the limit is {N_CTX} tokens, which are \d+ characters at most; shorten it',
        lines[2],
    )


def test_temperature_0_gives_one_text_again_and_again(session):
    samples = re.findall(r'SAMPLE \d =+\n(.*?)\n=', session[0], re.DOTALL)
    assert len(samples) == 9
    first, last = samples[:3], samples[6:]
    assert first == last
    assert len(set(first)) == 1
    assert first[0].strip()


# A piped session of odd prompts, as JSON

ODD_PROMPTS = [
    (b'plain', 'plain'),
    (b'NUL \x00 inside', 'NUL \x00 inside'),
    (b'control \x01\x07\x08\x1b[31m\x7f\tand tab', 'control \x01\x07\x08\x1b[31m\x7f\tand tab'),
    ('naïve 漢字 😀 \u202e\ufeff'.encode(), 'naïve 漢字 😀 \u202e\ufeff'),
    (b'caf\xe9 \xff\xfe \xf0\x9f', 'caf\ufffd \ufffd\ufffd \ufffd'),
    (b'line separator \xe2\x80\xa8 \x0b\x0c\x1c\x85', 'line separator \u2028 \x0b\x0c\x1c\ufffd'),
    (b'<|endoftext|>', '<|endoftext|>'),
    (b'two\\\nlines', 'two\nlines'),
    (b'cut off\\', 'cut off'),
]


@pytest.fixture(scope='module')
def odd_session(elsewhere):
    flags = ('--json', '--length', '3', '--seed', '5', '--top-k', '40', '--errors', 'replace')
    given = b'\n'.join(typed for typed, _ in ODD_PROMPTS) + b'\n'
    return run(INTERACTIVE, *BUNDLED, *flags, cwd=elsewhere, given=given)


def test_odd_prompts_are_continued_as_they_stand(odd_session):
    out, err, status = odd_session
    assert [sample['prompt'] for sample in objects(out)] == [prompt for _, prompt in ODD_PROMPTS]
    assert status == 0
    assert set(err.split(LABEL)) <= {'', '... ', '\n', '... \n'}


def test_an_object_holds_six_fields(odd_session, encoder):
    for sample in objects(odd_session[0]):
        assert set(sample) == {'prompt', 'text', 'tokens', 'seed', 'sample', 'finish_reason'}
        assert (sample['seed'], sample['sample'], sample['finish_reason']) == (5, 1, 'length')
        assert len(sample['tokens']) == 3
        assert sample['text'] == encoder.decode(sample['tokens'])


# One prompt, five samples, three ways to ask for them

FIVE = ('--seed', '7', '--length', '150')


@pytest.fixture(scope='module')
def one_by_one(elsewhere):
    """python -m from the repository, no model named, none in the models folder that is."""
    arguments = ('--models_dir', elsewhere / 'none', '--prompt', 'Once upon a time', '--json', '--nsamples', '5')
    return run('-m', 'src.interactive_conditional_samples', *arguments, *FIVE, cwd=REPOSITORY)


@pytest.fixture(scope='module')
def in_batches(elsewhere):
    arguments = ('--prompt_file', '-', '--json', '--nsamples', '5', '--batch_size', '4')
    return run(INTERACTIVE, *BUNDLED, *arguments, *FIVE, cwd=elsewhere, given=b'Once upon a time\n')


def test_without_a_model_named_one_line_says_which_is_used(one_by_one):
    out, err, status = one_by_one
    assert status == 0
    assert len(err.splitlines()) == 1
    for part in ('124M', '7M', 'python download_model.py 124M'):
        assert part in err
    assert len(out.splitlines()) == 5


def test_with_a_model_named_standard_error_is_empty(in_batches):
    assert in_batches[1:] == ('', 0)


def test_a_seed_gives_the_same_samples_whatever_the_batch_size(one_by_one, in_batches):
    assert objects(one_by_one[0]) == objects(in_batches[0])


def test_samples_of_one_prompt_differ_and_are_numbered(one_by_one):
    samples = objects(one_by_one[0])
    assert [sample['sample'] for sample in samples] == [1, 2, 3, 4, 5]
    assert len({sample['text'] for sample in samples}) == 5
    assert {sample['prompt'] for sample in samples} == {'Once upon a time'}
    assert {(sample['finish_reason'], len(sample['tokens'])) for sample in samples} == {('length', 150)}


# Unconditional samples


def test_unconditional_samples_are_headed_by_their_numbers(elsewhere):
    flags = ('--nsamples', '5', '--batch_size', '2', '--length', '8', '--top_k', '40', '--top_p', '.9')
    out, err, status = run(UNCONDITIONAL, *BUNDLED, *flags, cwd=elsewhere)
    assert (err, status) == ('', 0)
    pattern = ''.join(re.escape(header(number)) + r'[^=]*\n' for number in range(1, 6))
    assert re.fullmatch(pattern, out), out


def test_samples_end_before_a_stop_text(elsewhere, encoder):
    flags = ('--nsamples', '3', '--batch_size', '2', '--length', '200', '--json', '--stop', 'the', '--stop', 'a')
    out, err, status = run('-m', 'src.generate_unconditional_samples', *BUNDLED, *flags, cwd=REPOSITORY)
    assert (err, status) == ('', 0)
    samples = objects(out)
    assert [(sample['sample'], sample['prompt'], sample['finish_reason']) for sample in samples] == [
        (number, None, 'stop') for number in (1, 2, 3)
    ]
    for sample in samples:
        whole = encoder.decode(sample['tokens'])
        cut = min(whole.find(stop) for stop in ('the', 'a') if stop in whole)
        assert sample['text'] == whole[:cut]
        before = encoder.decode(sample['tokens'][:-1])
        assert 'the' not in before
        assert 'a' not in before


@pytest.fixture(scope='module')
def early_end(tmp_path_factory):
    """A home folder whose models/early is the bundled model, but with its comma and its
    end-of-text token changed about: what it means as a comma ends the text."""
    home = tmp_path_factory.mktemp('home')
    folder = home / 'models' / 'early'
    folder.mkdir(parents=True)
    for path in (MODELS / '7M').iterdir():
        if path.name != 'encoder.json':
            (folder / path.name).symlink_to(path)
    ids = json.loads((MODELS / '7M' / 'encoder.json').read_text())
    ids[END_OF_TEXT], ids[','] = ids[','], ids[END_OF_TEXT]
    (folder / 'encoder.json').write_text(json.dumps(ids))
    return home


def test_samples_end_at_the_end_of_text_token(early_end, elsewhere):
    (elsewhere / 'prompt.txt').write_bytes(b'Once upon a time\n\nthere was a king\n')
    flags = ('--stop_at_end', '--json', '--nsamples', '6', '--batch_size', '6', '--length', '60', '--seed', '1')
    names = ('--models_dir', '~/models', '--model_name', 'early', '--prompt_file', 'prompt.txt')
    out, err, status = run(INTERACTIVE, *names, *flags, cwd=elsewhere, HOME=str(early_end))
    assert (err, status) == ('', 0)
    encoder = get_encoder('early', str(early_end / 'models'))
    end = encoder.encoder[END_OF_TEXT]
    ended = [sample for sample in objects(out) if sample['finish_reason'] == 'end_of_text']
    others = [sample for sample in objects(out) if sample['finish_reason'] == 'length']
    assert len(ended) + len(others) == 6
    assert ended, 'no sample met the token: this test proves nothing'
    assert {sample['prompt'] for sample in objects(out)} == {'Once upon a time\n\nthere was a king'}
    for sample in ended:
        assert sample['tokens'].index(end) == len(sample['tokens']) - 1
        assert sample['text'] == encoder.decode(sample['tokens'][:-1])
    for sample in others:
        assert end not in sample['tokens']
        assert len(sample['tokens']) == 60


# Terminals and pipes


def test_a_terminal_that_knows_only_ascii_gets_question_marks(elsewhere):
    """At this temperature every token is about as likely, those of other scripts among them."""
    flags = ('--temperature', '1e6', '--length', '300', '--seed', '3', '--prompt', 'naïve 漢 😀')
    out, err, status = run(INTERACTIVE, *BUNDLED, *flags, cwd=elsewhere, LC_ALL='C', PYTHONIOENCODING='ascii')
    assert (err, status) == ('', 0)
    assert out.isascii()
    assert out.startswith(header(1))
    assert '?' in out
    assert out.endswith(f'\n{FOOTER}\n')


@pytest.mark.parametrize('flags', [('--help',), (*BUNDLED, '--stream', '--length', '20')], ids=['help', 'samples'])
def test_a_reader_that_goes_away_ends_the_program_quietly(elsewhere, flags):
    with subprocess.Popen(
        [sys.executable, UNCONDITIONAL, *flags],
        cwd=elsewhere, env=environment(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        assert process.stdout.readline().strip()
        process.stdout.close()
        assert process.wait(PATIENCE) == 0
        assert process.stderr.read() == b''


class Terminal:
    """A program on a terminal of its own, at which a user reads and types."""

    def __init__(self, *command, **options):
        pty = pytest.importorskip('pty')
        self.screen, theirs = pty.openpty()
        streams = {'stdin': theirs, 'stdout': theirs, 'stderr': theirs}
        self.process = subprocess.Popen(
            [sys.executable, *map(str, command)], start_new_session=True, preexec_fn=take_terminal, **streams, **options
        )
        os.close(theirs)
        self.output = b''
        self.read_so_far = 0

    def type(self, text):
        os.write(self.screen, text.encode())

    def read(self):
        """Take in what the program has written since; False once it has ended."""
        if not select.select([self.screen], [], [], 1)[0]:
            return True
        try:
            data = os.read(self.screen, 65536)
        except OSError:  # what Linux says of a terminal nobody else holds
            data = b''
        self.output += data
        return bool(data)

    def wait_for(self, text):
        """What comes between the text last waited for and this one, and how many pieces it came in."""
        pieces, deadline = 0, time.monotonic() + PATIENCE
        while (place := self.output.find(text.encode(), self.read_so_far)) < 0:
            pieces += 1
            assert self.read(), f'ended before {text!r}: {self.output!r}'
            assert time.monotonic() < deadline, f'no {text!r} in {self.output!r}'
        before = self.output[self.read_so_far : place].decode().replace('\r\n', '\n')
        self.read_so_far = place + len(text.encode())
        return before, pieces

    def type_until_it_ends(self, text):
        """Type text, again every second, until the program has ended; its status.

        Once is not enough: CPython's readline loses a signal that comes just as it shows the prompt.
        """
        deadline = time.monotonic() + PATIENCE
        self.type(text)
        while self.read():
            assert time.monotonic() < deadline, f'still there after {text!r}: {self.output!r}'
            if not select.select([self.screen], [], [], 1)[0]:
                self.type(text)
        return self.process.wait(PATIENCE)


def take_terminal():
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


@pytest.fixture
def terminal(elsewhere):
    opened = []

    def open_terminal(*command, **changes):
        plain = {'TERM': 'dumb', 'INPUTRC': os.devnull}
        opened.append(Terminal(*command, cwd=elsewhere, env=environment(**plain | changes)))
        return opened[0]

    yield open_terminal
    for each in opened:
        each.process.kill()
        each.process.wait()
        os.close(each.screen)


def test_a_session_at_a_terminal(terminal, one_by_one):
    screen = terminal(INTERACTIVE, *BUNDLED, *FIVE)
    assert re.sub(r'[\w ]+ \.\.\.\r\x1b\[K', '', screen.wait_for(LABEL)[0]) == ''  # 'loading weights ...' goes again

    # A sample appears piece by piece, and is what it is when it is printed whole.
    screen.type('Once upon a time\r')
    assert screen.wait_for(header(1).replace('\n', '\r\n'))[0] == 'Once upon a time\n'
    text, pieces = screen.wait_for(f'\r\n{FOOTER}\r\n')
    assert text == objects(one_by_one[0])[0]['text']
    assert pieces > 5
    assert screen.wait_for(LABEL)[0] == ''

    # An empty prompt is asked for again; a backslash asks for another line.
    screen.type('\r')
    assert screen.wait_for(LABEL)[0].strip() == 'Prompt should not be empty!'
    screen.type('Once upon \\\r')
    screen.wait_for('\r\n... ')
    screen.type('a time\r')
    screen.wait_for(header(1).replace('\n', '\r\n'))

    # Ctrl-C ends a sample that has begun; the next is whole again. At the prompt it ends the program.
    screen.type('\x03')
    cut_short = screen.wait_for(LABEL)[0]
    assert FOOTER not in cut_short
    assert 'Traceback' not in cut_short
    screen.type('Once upon a time\r')
    screen.wait_for(header(1).replace('\n', '\r\n'))
    assert screen.wait_for(f'\r\n{FOOTER}\r\n')[0] == text
    screen.wait_for(LABEL)
    assert screen.type_until_it_ends('\x03') == 130
    assert screen.output[screen.read_so_far :].replace(b'^C', b'').strip() == b''
