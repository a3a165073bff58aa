"""Many prompts of a file, and their samples in another: with a tiny model that has the bundled one's vocabulary."""

import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest
from example_models import BUNDLED, as_params, random_values, save
from running import INTERACTIVE, PATIENCE, environment, objects, run

import gpt2
from gpt2.commands.complete import interact_model
from gpt2.errors import Error, UsageError
from gpt2.hparams import HParams
from gpt2.system.locks import locked

SMALL = HParams(n_vocab=8192, n_ctx=950, n_embd=8, n_head=2, n_layer=1)
HOW = {'length': 4, 'seed': 3, 'top_k': 40}
FLAGS = ('--length', '4', '--seed', '3', '--top_k', '40')


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """A models folder with one model, `small`."""
    models = tmp_path_factory.mktemp('models')
    (models / 'small').mkdir()
    save(models / 'small', SMALL, as_params(random_values(SMALL, scale=0.5)))
    for name in ('encoder.json', 'vocab.bpe'):
        (models / 'small' / name).symlink_to(BUNDLED / name)
    return models


@pytest.fixture(scope='module')
def model(folder):
    with gpt2.load('small', str(folder), engine='litert') as model:
        yield model


@pytest.fixture
def complete(folder, tmp_path, monkeypatch):
    """Call the command in a folder of its own."""
    monkeypatch.chdir(tmp_path)

    def call(content=None, name='p.txt', **flags):
        if content is not None:
            (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        how = {'model_name': 'small', 'models_dir': str(folder), 'engine': 'litert'} | HOW
        interact_model(prompts_file=name, **how | flags)

    return call


def read(path):
    return objects(path.read_text(encoding='utf-8'))


def ids_alone(model, line, **how):
    return model.complete(line, **HOW | how).ids


def test_lines_are_continued_in_order_as_alone(complete, model, capsys):
    prompts = ['Once upon a time', ' x', 'The king ' * 150, 'é\u2028ü', 'a', 'The king ' * 300]
    complete('\ufeff' + '\r\n'.join(prompts), batch_size='3')
    found = objects(capsys.readouterr().out)
    assert [(each['line'], each['prompt'], each['sample']) for each in found] == [
        (number, prompt, 1) for number, prompt in enumerate(prompts, 1)
    ]
    assert [each['tokens'] for each in found] == [ids_alone(model, prompt) for prompt in prompts]
    assert set(found[0]) == {'line', 'prompt', 'text', 'tokens', 'seed', 'sample', 'finish_reason'}


def test_a_prompt_that_comes_again_gets_its_next_samples(complete, model, capsys):
    complete('a\nb\na\na', nsamples='2')
    found = objects(capsys.readouterr().out)
    assert [(each['line'], each['prompt'], each['sample']) for each in found] == [
        (1, 'a', 1), (1, 'a', 2), (2, 'b', 1), (2, 'b', 2), (3, 'a', 3), (3, 'a', 4), (4, 'a', 5), (4, 'a', 6),
    ]  # fmt: skip
    expected = [sample.ids for sample in model.complete('a', samples=6, **HOW)]
    assert [each['tokens'] for each in found if each['prompt'] == 'a'] == expected
    assert len({*map(tuple, expected)}) == 6


def test_objects_have_settings_of_their_own(complete, model, capsys):
    own = [
        {}, {'length': 7, 'temperature': 0}, {'seed': 9, 'nsamples': 2}, {'stop': ['e', 'a'], 'length': 30},
        {'ban': 'e', 'logit_bias': {'7': 100}}, {'choices': [' x', ' yes'], 'length': None}, {'logprobs': 2},
        {'beams': 3, 'top_k': 0, 'nsamples': 2}, {'length': 1200, 'beyond_window': True, 'keep_prompt': 2},
        {'repetition_penalty': 1.5, 'no_repeat_ngram': 2},
    ]  # fmt: skip
    complete('\n'.join(json.dumps({'prompt': f'Line {n}'} | each) for n, each in enumerate(own)), 'p.jsonl')
    found = objects(capsys.readouterr().out)
    expected = []
    for number, each in enumerate(own):
        how = {name: value for name, value in each.items() if name != 'nsamples'}
        expected += model.complete(f'Line {number}', samples=each.get('nsamples', 1), **HOW | how)
    assert [each['tokens'] for each in found] == [each.ids for each in expected]
    assert [each['finish_reason'] for each in found] == [each.finish_reason for each in expected]
    assert len(found[7]['logprobs'][0]['likeliest']) == 2 and 'log_probability' in found[8]
    assert len(found[10]['tokens']) == 1200


def test_the_library_does_the_same(model):
    prompts = ['a', 'b', {'prompt': 'a', 'samples': 2}, None, {'prompt': 'c', 'length': 2}]
    found = list(model.complete_each(iter(prompts), batch_size=2, **HOW))
    assert [(each.prompt, each.number) for each in found] == [
        ('a', 1), ('b', 1), ('a', 2), ('a', 3), (None, 1), ('c', 1),
    ]  # fmt: skip
    assert found[3].ids == model.complete('a', samples=3, **HOW)[2].ids
    assert found[4].ids == model.complete(**HOW).ids and len(found[5].ids) == 2
    with pytest.raises(UsageError, match='temperature is -1'):
        model.complete_each(['a'], temperature=-1)
    assert [each.prompt for each in model.complete_each('ab', **HOW)] == ['ab']
    for prompts, message in (
        (5, 'the prompt is 5, expected a text or a list of texts'),
        ([['a']], r"the prompt is \['a'\], expected a text"),
        ([{'prompt': 'a', 'seed': []}], r'seed is \[\], expected an integer'), ({'prompt': 'a'}, 'the prompt is {'),
    ):  # fmt: skip
        with pytest.raises(UsageError, match=message):
            list(model.complete_each(prompts, **HOW))
    assert model.complete('a', batch_size=10**30, **HOW).ids == ids_alone(model, 'a')


@pytest.mark.parametrize('count', [1, 3, 7])
def test_shards_together_are_the_whole(complete, tmp_path, count):
    content = '\n'.join(['a', 'b', 'a', 'c', 'a'])
    complete(content, output='whole', nsamples='2')
    parts = []
    for index in range(1, count + 1):
        complete(output=f'part{index}', shard=f'{index}/{count}', nsamples='2')
        part = read(tmp_path / f'part{index}')
        assert {each['line'] % count for each in part} <= {index % count}
        parts += part
    assert sorted(parts, key=lambda each: (each['line'], each['sample'])) == read(tmp_path / 'whole')


def test_a_run_goes_on_behind_what_is_written(complete, tmp_path, monkeypatch, capsys):
    content = ''.join(f'Line {number}\n' for number in range(12))
    complete(content, output='whole', seed=None)
    whole = (tmp_path / 'whole').read_bytes()
    seed = read(tmp_path / 'whole')[0]['seed']
    for cut in (0, 1, 50, whole.index(b'\n') + 1, whole.index(b'\n') + 2, len(whole) // 2, len(whole) - 1, len(whole)):
        (tmp_path / 'part').write_bytes(whole[:cut])
        (tmp_path / 'part.settings.json').write_bytes((tmp_path / 'whole.settings.json').read_bytes())
        drawn = []
        original = gpt2.api.Model.completions
        monkeypatch.setattr(gpt2.api.Model, 'completions', lambda *each: drawn.append(1) or original(*each))  # noqa: B023
        complete(output='part', seed=None if cut else seed)
        monkeypatch.undo()
        monkeypatch.chdir(tmp_path)
        assert (tmp_path / 'part').read_bytes() == whole
        assert len(drawn) == 12 - whole[:cut].count(b'\n')
    assert not list(tmp_path.glob('*.lock')) and not list(tmp_path.glob('*.part'))


@pytest.mark.parametrize(
    ('content', 'name', 'message'),
    [
        (b'', 'p.txt', 'p.txt is empty, expected a prompt a line'),
        (b'a\n\nb\n', 'p.txt', 'p.txt: line 2: Prompt should not be empty!'),
        (b'\n', 'p.txt', 'p.txt: line 1: Prompt should not be empty!'),
        (b'a\ncaf\xe9\n', 'p.txt', 'p.txt is not UTF-8 at byte 5; convert it, or give --errors replace'),
        (b'a\n' + b'word ' * 2000, 'p.txt', 'p.txt: line 2: the prompt has '),
        (b'a\n' + b'!' + b' a' * 948, 'p.txt', 'p.txt: line 2: 949 prompt tokens and --length 4 are 953, the limit is'),
        (b'{"prompt": "a"}\n{"prompt"\n', 'p.jsonl', "p.jsonl: line 2: '{\"prompt\"' is no JSON, expected an object"),
        (b'{"prompt": "a"}\n\n', 'p.jsonl', "p.jsonl: line 2: '' is no JSON"),
        (b'[' * 100_000, 'p.jsonl', "p.jsonl: line 1: '[["),
        (b'"a"\n', 'p.jsonl', 'p.jsonl: line 1: \'"a"\' is no object with a prompt, as in {"prompt": "Once"'),
        (b'{"top_k": 4}\n', 'p.jsonl', 'p.jsonl: line 1: \'{"top_k": 4}\' is no object with a prompt'),
        (b'{"prompt": "a"}\n{"prompt": "a", "topk": 4}', 'p.jsonl', "p.jsonl: line 2: unknown setting 'topk', exp"),
        (b'{"prompt": "a", "top_k": -1}', 'p.jsonl', 'p.jsonl: line 1: top_k is -1, expected at least 0'),
        (b'{"prompt": "a", "seed": "x"}', 'p.jsonl', "p.jsonl: line 1: seed is 'x'"),
        (b'{"prompt": "a", "nsamples": "2"}', 'p.jsonl', "p.jsonl: line 1: nsamples is '2', expected an integer"),
        (b'{"prompt": "a", "beams": 2, "top_k": 0, "nsamples": 3}', 'p.jsonl', 'p.jsonl: line 1: nsamples is 3'),
        (b'{"prompt": "a", "stop": 5}', 'p.jsonl', 'p.jsonl: line 1: stop is 5, expected a text'),
        (b'{"prompt": "a", "logit_bias": [1]}', 'p.jsonl', 'p.jsonl: line 1: --logit_bias is [1]'),
        (b'{"prompt": "a", "length": 2000}', 'p.jsonl', 'p.jsonl: line 1: --length is 2000'),
        (b'{"prompt": "\\ud800"}', 'p.jsonl', 'p.jsonl: line 1: the prompt is not UTF-8'),
        (b'{"prompt": "a", "stop": ["b", "\\ud800"]}', 'p.jsonl', 'p.jsonl: line 1: the stop is not UTF-8'),
        (b'{"prompt": "a", "ban": {"b": 1}}', 'p.jsonl', "p.jsonl: line 1: ban is {'b': 1}, expected a text"),
        (b'{"prompt": "a", "logit_bias": false}', 'p.jsonl', 'p.jsonl: line 1: --logit_bias is False, expected'),
        (b'a\n' + b'a' * 10**6, 'p.txt', 'p.txt: line 2: the prompt has 1000000 characters, the limit is 950 tokens'),
        (b'{"prompt": "a", "choices": ["' + b'a' * 10**6 + b'"]}', 'p.jsonl', 'line 1: the choice has 1000000 charac'),
    ],
)  # fmt: skip
def test_bad_prompts_are_refused_by_their_line_before_anything_is_drawn(complete, tmp_path, content, name, message):
    with pytest.raises(UsageError) as caught:
        complete(content, name, output='out')
    assert message in str(caught.value)
    assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize(
    ('flags', 'message'),
    [
        ({'shard': '0/2'}, "--shard is '0/2', expected I/N, from 1/N to N/N, as in 1/4"),
        ({'shard': '3/2'}, "--shard is '3/2'"),
        ({'shard': '1'}, "--shard is '1'"),
        ({'shard': '1/' + '1' * 5000}, "--shard is '1/" + '1' * 38 + "...', expected I/N"),
        ({'output': ''}, "--output is '', expected a path; leave it out, and samples are printed"),
        ({'output': '-'}, "--output is '-', expected a path"),
        ({'prompt': 'a'}, '--prompt and --prompts_file exclude each other'),
        ({'prompt_file': 'a'}, '--prompt_file and --prompts_file exclude each other'),
        ({'stream': True}, '--stream needs --batch_size 1, not 8'),
        ({'output': '.'}, '--output . is a folder; name a file'),
        ({'output': os.devnull}, f'--output {os.devnull} is no regular file'),
        ({'output': 'none/out'}, '--output none/out is in a folder that is not there'),
        ({'output': 'p.txt'}, '--output p.txt is there, and has no p.txt.settings.json to say from what'),
    ],
)
def test_bad_flags_are_refused(complete, flags, message):
    with pytest.raises(UsageError) as caught:
        complete('a', **flags)
    assert message in str(caught.value)


def test_files_of_others_are_never_written_over(complete, tmp_path):
    """Of the names that a run needs beside its output."""
    for name, content, message in (
        ('out.settings.json', '{"theme": "dark"}', r'out.settings.json is there, and is none of a prompts file; give'),
        ('out.settings.json', 'theme = dark', r'out.settings.json cannot be read; give another --output'),
        ('out.lock', 'package = []', r"out.lock is another program's, and would be lost; write elsewhere"),
    ):
        (tmp_path / name).write_text(content)
        with pytest.raises(Error, match=message):
            complete('a\n', output='out')
        assert (tmp_path / name).read_text() == content
        (tmp_path / name).unlink()
    assert [path.name for path in tmp_path.iterdir()] == ['p.txt']


def test_seeds_that_mean_the_same_are_the_same(complete, capsys):
    complete('{"prompt": "a", "seed": "9"}\n{"prompt": "a", "seed": 9}', 'p.jsonl')
    assert [each['sample'] for each in objects(capsys.readouterr().out)] == [1, 2]


def test_output_and_shard_need_prompts():
    for flag in ('output', 'shard'):
        with pytest.raises(UsageError, match=f'--{flag} needs --prompts_file'):
            interact_model(prompt='a', **{flag: '1/2'})


def test_another_file_or_other_settings_are_refused_by_name(complete, tmp_path, folder):
    complete('a\nb\n', output='out', ban=['x'])
    before = (tmp_path / 'out').read_bytes()
    for flags, message in (
        ({'content': 'a\nc\n'}, '--output out was begun with another --prompts_file than this one; give another'),
        ({'top_k': 3}, '--output out was begun with --top_k 40, not 3; give that, or give another --output'),
        ({'seed': 4}, '--output out was begun with --seed 3, not 4'),
        ({'nsamples': 2}, '--output out was begun with --nsamples 1, not 2'),
        ({'shard': '1/2'}, '--output out was begun with --shard "1/1", not "1/2"'),
        ({'precision': 'int8'}, '--output out was begun with --precision "float32", not "int8"'),
        ({'model_name': '7M', 'models_dir': str(BUNDLED.parent)}, 'was begun with another model'),
        ({'ban': ['y']}, '--output out was begun with --ban ["x"], not ["y"]'),
    ):
        with pytest.raises(UsageError) as caught:
            complete(**{'content': 'a\nb\n', 'output': 'out', 'ban': ['x']} | flags)
        assert message in str(caught.value)
        assert (tmp_path / 'out').read_bytes() == before


@pytest.mark.parametrize('spoil', ['order', 'no JSON', 'no object', 'too many', 'too deep'])
def test_an_output_that_holds_something_else_is_refused(complete, tmp_path, spoil):
    complete('a\nb\n', output='out')
    path = tmp_path / 'out'
    first, second = path.read_bytes().splitlines(keepends=True)
    path.write_bytes({
        'order': second + first, 'no JSON': b'x\n' + second, 'no object': b'5\n', 'too many': first + second + second,
        'too deep': b'[' * 100_000 + b'\n',
    }[spoil])  # fmt: skip
    with pytest.raises(UsageError, match=r'--output out: line \d is (no JSON|not a sample of p.txt); give another --o'):
        complete(output='out')
    path.write_bytes(first)
    (tmp_path / 'out.settings.json').write_text('{')
    with pytest.raises(UsageError, match=r'out.settings.json cannot be read; give another --output'):
        complete(output='out')


def test_an_output_that_cannot_be_read_is_refused(complete, monkeypatch):
    complete('a\nb\n', output='out')
    opened = open

    def denied(path, *how, **more):
        if path == 'out':
            raise PermissionError(13, 'Permission denied', path)
        return opened(path, *how, **more)

    monkeypatch.setattr(gpt2.commands.many, 'open', denied, raising=False)
    with pytest.raises(UsageError, match=r'--output out cannot be read \(Permission denied\); give another --output'):
        complete(output='out')
    monkeypatch.setattr(gpt2.commands.many, 'read_written', lambda _: [])
    with pytest.raises(Error, match=r'out cannot be written \(Permission denied\); give another --output'):
        complete(output='out')


def test_two_processes_do_not_write_the_same_output(complete):
    with locked('out'), pytest.raises(UsageError, match='--output out is being written by another process'):
        complete('a\n', output='out')


def test_a_full_disk_is_one_line_and_the_run_goes_on_later(complete, tmp_path, monkeypatch):
    complete('a\nb\nc\n', output='whole')
    write = gpt2.commands.many.write_all

    def full(file, text):
        if len((tmp_path / 'out').read_bytes()) > 50:
            file.write(text.encode()[:10])
            raise OSError(28, 'No space left on device')
        write(file, text)

    monkeypatch.setattr(gpt2.commands.many, 'write_all', full)
    with pytest.raises(Error, match=r'out cannot be written \(No space left on device\); free space, and the'):
        complete(output='out', batch_size='1')
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    complete(output='out')
    assert (tmp_path / 'out').read_bytes() == (tmp_path / 'whole').read_bytes()


def test_prompts_are_piped(folder, tmp_path):
    flags = ('--model_name', 'small', '--models_dir', folder, '--engine', 'litert', *FLAGS)
    out, err, status = run(INTERACTIVE, *flags, '--prompts_file', '-', cwd=tmp_path, given=b'a\nb')
    assert (status, [each['prompt'] for each in objects(out)]) == (0, ['a', 'b'])
    assert err.startswith('standard output has 2 samples; 8 tokens drawn, ') and len(err.splitlines()) == 1


def prompts_of(count, encoder, most=900):
    """So many prompts of 1 to `most` tokens."""
    source, words = random.Random(5), encoder.decode(range(300, 5000)).split()
    for _ in range(count):
        ids = encoder.encode(' '.join(source.choices(words, k=most)))[: source.randint(1, most)]
        text = encoder.decode(ids).replace('\n', ' ').replace('\ufffd', '?') or 'a'
        yield text if len(encoder.encode(text)) <= most else 'a'


def kill_again_and_again(command, output, times, longest):
    """Run a command to its end, before which it is killed so many times; how many lines there were each time."""
    seen = []
    for _ in range(times):
        with subprocess.Popen(command, env=environment(), stderr=subprocess.DEVNULL) as process:
            wanted = (seen or [0])[-1] + random.Random(len(seen)).randint(1, longest)
            deadline = time.monotonic() + PATIENCE
            while process.poll() is None and time.monotonic() < deadline:
                if output.exists() and output.read_bytes().count(b'\n') >= wanted:
                    break
                time.sleep(0.01)
            process.send_signal(signal.SIGKILL)
        seen.append(output.read_bytes().count(b'\n'))
    assert subprocess.run(command, env=environment(), timeout=PATIENCE, check=False).returncode == 0
    return seen


@pytest.mark.parametrize(
    ('count', 'kills'), [(40, 2), pytest.param(1000, 10, marks=[pytest.mark.slow, pytest.mark.workers])]
)
def test_a_run_that_is_killed_again_and_again_has_each_line_once(model, folder, tmp_path, count, kills):
    prompts = list(prompts_of(count, model.encoder))
    (tmp_path / 'p.txt').write_text('\n'.join(prompts) + '\n', encoding='utf-8')
    flags = ('--model_name', 'small', '--models_dir', str(folder), '--engine', 'litert', *FLAGS)
    output = tmp_path / 'out'
    files = ('--prompts_file', str(tmp_path / 'p.txt'), '--output', str(output))
    command = [sys.executable, str(INTERACTIVE), *flags, *files]
    seen = kill_again_and_again(command, output, kills, count // (2 * kills))
    assert seen[0] > 0 and seen == sorted(seen) and seen[-1] < count
    found = read(output)
    assert [(each['line'], each['prompt']) for each in found] == [*enumerate(prompts, 1)]
    drawn = {}
    for each in found:
        number = drawn[each['prompt']] = drawn.get(each['prompt'], 0) + 1
        alone, = (sample.ids for sample in model.complete(each['prompt'], samples=number, **HOW)[-1:])
        assert (each['tokens'], each['sample']) == (alone, number)
