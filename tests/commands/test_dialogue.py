"""A conversation, piped and at a terminal, against the texts that its prompts are."""

import io
import sys

import pytest
from commands.test_sampling import terminal  # noqa: F401 - a fixture
from running import BUNDLED, INTERACTIVE, help_names_every_flag_and_no_other, objects

import gpt2
from gpt2 import api
from gpt2.commands.complete import interact_model
from gpt2.errors import UsageError

LABEL = 'Model prompt >>> '
HOW = {'length': 8, 'seed': 3, 'top_k': 40}
LABELS = {'you': 'Tom:', 'they': 'Ann:'}


@pytest.fixture(scope='module')
def model():
    with gpt2.load('7M', engine='litert') as model:
        yield model


@pytest.fixture
def talk(model, monkeypatch, capsys, tmp_path):
    """Type lines; what comes of them: objects with --json, else what is printed, and what is said beside it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(api, 'load_engine', lambda *_: model.engine)

    def call(*lines, **flags):
        given = ''.join(f'{line}\n' for line in lines).encode('utf-8', 'surrogateescape')
        monkeypatch.setattr(sys, 'stdin', io.TextIOWrapper(io.BytesIO(given), 'utf-8', errors='surrogateescape'))
        interact_model(model_name='7M', **HOW | {'json': True, 'dialogue': True} | flags)
        out, err = capsys.readouterr()
        return (objects(out) if flags.get('json', True) else out), err

    return call


def answers(model, prompt, count=1, stop=(), **how):
    found = model.complete(prompt, samples=count, stop=stop, **HOW | how)
    return [each.text for each in found]


def test_each_line_continues_the_conversation(talk, model):
    found, _ = talk('Once upon a time', 'And then', 'The end')
    text = ''
    for said, line in zip(found, ['Once upon a time', 'And then', 'The end']):
        text += f'\n{line}' if text else line
        assert said['prompt'] == text
        assert [said['text']] == answers(model, text)
        text += said['text'].rstrip('\n')


def test_labels_stand_before_what_is_said_and_end_answers(talk, model):
    (first, second), _ = talk('Hello', 'Who are you?', memory=None, **LABELS)
    assert first['prompt'] == 'Tom: Hello\nAnn:'
    stop = ['\nTom:', '\nAnn:']
    assert [first['text']] == answers(model, first['prompt'], stop=stop)
    assert second['prompt'] == f'Tom: Hello\nAnn:{first["text"]}\nTom: Who are you?\nAnn:'


def test_an_answer_ends_at_a_label(talk, model):
    prompt, label = '" Hello\nAnn:', '\n"'
    seed = next(seed for seed in range(50) if label in answers(model, prompt, length=60, seed=seed)[0])
    [said], _ = talk('Hello', length=60, seed=seed, you='"', they='Ann:')
    assert said['prompt'] == prompt and said['finish_reason'] == 'stop'
    assert said['text'] == answers(model, prompt, length=60, seed=seed)[0].split(label)[0]


def test_memory_stays_and_the_oldest_turns_leave(talk, model, tmp_path):
    (tmp_path / 'm').write_bytes(b'The king was old.\r\nThe queen was young.\r\n')
    pinned = 'The king was old.\nThe queen was young.'
    lines = [f'Line {number} ' + 'word ' * 30 for number in range(12)]
    found, _ = talk(*lines, memory='m', length=100)
    room = model.hparams.n_ctx + 1 - 100
    first = 0
    for number, said in enumerate(found):
        turns = [f'{line}{each["text"]}'.rstrip('\n') for line, each in zip(lines[:number], found)] + [lines[number]]
        while len(model.encode('\n'.join([pinned, *turns[first:]]))) > room:
            first += 1
        assert said['prompt'] == '\n'.join([pinned, *turns[first:]])
    assert len(found) == 12 and first > 3


def test_again_undo_and_edit(talk, model):
    (one, two, three), _ = talk('Once', '/again', '/again')
    assert [one['text'], two['text'], three['text']] == answers(model, 'Once', 3)
    assert [each['sample'] for each in (one, two, three)] == [1, 2, 3]
    (one, two, three), _ = talk('Once', 'And', '/undo', 'But')
    assert three['prompt'] == f'Once{one["text"].rstrip()}\nBut'
    (one, two), _ = talk('Once', '/edit  upon a time', 'And')
    assert two['prompt'] == 'Once upon a time\nAnd'
    (one, two), _ = talk('Once', '/edit Hello', 'And', **LABELS)
    assert two['prompt'] == 'Tom: Once\nAnn: Hello\nTom: And\nAnn:'
    [one], _ = talk('//undo')
    assert one['prompt'] == '/undo'


def test_save(talk, tmp_path):
    (tmp_path / 'mine').write_text('x')
    (one, two), err = talk('Once', '/save a b', 'And', '/save a b', '/save mine', '/save .', '/save none/a', '/save')
    assert (tmp_path / 'a b').read_text() == f'Once{one["text"].rstrip()}\nAnd{two["text"].rstrip()}\n'
    assert (tmp_path / 'mine').read_text() == 'x'
    assert err.count('saved to a b') == 2
    for message in ('mine is there already; name another file', '. is there already', 'none/a cannot be written',
                    '/save needs the name of a file'):  # fmt: skip
        assert message in err


def test_commands_that_mean_nothing_are_refused_and_the_conversation_goes_on(talk):
    found, err = talk('/undo', '/again', '/edit x', '/fly', '/undo twice', 'Once', '/edit', '', 'word ' * 2000, 'And')
    assert [each['prompt'].split('\n')[-1] for each in found] == ['Once', 'And']
    assert len(found[1]['prompt'].split('\n')) >= 2
    for message in ('/undo needs something that was said', '/again needs something', '/edit needs something',
                    '/fly is no command; there are /undo, /again, /edit TEXT or /save FILE; a line that begins with //',
                    '/undo twice is no command', '/edit needs the text', 'Prompt should not be empty!'):  # fmt: skip
        assert message in err
    assert 'the limit is' in err


def test_an_answer_that_is_not_utf8_is_refused(talk, tmp_path):
    """Otherwise the conversation that holds it could not be saved."""
    [one], err = talk('Once', '/edit caf\udce9', '/save said')
    assert 'the line is not UTF-8 at byte 9' in err
    assert (tmp_path / 'said').read_text() == f'Once{one["text"].rstrip()}\n'


@pytest.mark.parametrize(
    ('flags', 'message'),
    [
        ({'memory': 'm', 'dialogue': False}, '--memory needs --dialogue'),
        ({'you': 'A:', 'dialogue': False}, '--you needs --dialogue'),
        ({'you': 'A:'}, '--you and --they go together; give both'),
        ({'you': '', 'they': 'B:'}, '--you is empty, expected a label'),
        ({'prompt': 'a'}, '--prompt and --dialogue exclude each other'),
        ({'nsamples': 2}, '--nsamples is 2, expected 1 with --dialogue'),
        ({'batch_size': 2}, '--batch_size is 2, expected 1 with --dialogue'),
        ({'beyond_window': True}, '--dialogue and --beyond_window exclude each other'),
        ({'memory': 'none'}, '--memory none cannot be read'),
        ({'memory': 'long'}, 'the prompt has '),
        ({'memory': 'long', 'length': 500}, 'the prompt has '),
    ],
)
def test_flags_that_mean_nothing_are_refused(talk, tmp_path, flags, message):
    (tmp_path / 'long').write_text('word ' * 600)
    with pytest.raises(UsageError) as caught:
        talk('a', **flags)
    assert message in str(caught.value)


def test_what_is_printed(talk, model):
    out, err = talk('Hello', json=False, **LABELS)
    [text] = answers(model, 'Tom: Hello\nAnn:', stop=['\nTom:', '\nAnn:'])
    assert (out, err) == (f'Tom: Ann:{text}\nTom: \n', '')


def test_help_names_its_flags():
    help_names_every_flag_and_no_other(interact_model)


def test_a_conversation_at_a_terminal(terminal, model, tmp_path):  # noqa: F811
    flags = ('--dialogue', '--engine', 'litert', '--length', '150', '--seed', '3', '--top_k', '40')
    how = {'length': 150, 'stop': ['\nTom:', '\nAnn:']}
    first, second = answers(model, 'Tom: Hello\nAnn:', 2, **how)
    screen = terminal(INTERACTIVE, *BUNDLED, *flags, '--you', 'Tom:', '--they', 'Ann:')
    screen.wait_for('Tom: ')
    screen.type('Hello\r')
    screen.wait_for('Ann:')
    assert screen.wait_for('\r\nTom: ')[0] == first
    screen.type('/again\r')
    screen.wait_for('Ann:')
    assert screen.wait_for('\r\nTom: ')[0] == second
    screen.type(f'/save {tmp_path}/said\r')
    screen.wait_for('saved to')
    screen.wait_for('Tom: ')
    assert (tmp_path / 'said').read_text() == f'Tom: Hello\nAnn:{second}'.rstrip('\n') + '\n'
    screen.type('And\r')
    screen.wait_for('Ann:')
    screen.type('\x03')  # ends the answer, not the conversation
    screen.wait_for('Tom: ')
    assert screen.type_until_it_ends('\x03') == 130
