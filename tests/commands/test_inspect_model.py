"""src/inspect_model.py: what goes on inside a model, and what its neurons do; and --ablate of other commands."""

import sys
import types

import numpy as np
import pytest
from example_models import MODELS, REPOSITORY, TINY
from running import help_names_every_flag_and_no_other, objects

import gpt2
from gpt2.commands import inspect_model, inspect_neurons
from gpt2.commands.main import main
from gpt2.inspection import published, records, survey

TEXT = 'The king and the queen'


@pytest.fixture
def console(monkeypatch, capsys, tmp_path):
    """Runs `gpt2 COMMAND ARGUMENTS` in this process, in a folder of its own, with the bundled model: (standard output,
    standard error, status)."""
    monkeypatch.chdir(tmp_path)

    def run_with(*arguments):
        named = [] if len(arguments) < 3 else ['--model_name', '7M']
        monkeypatch.setattr(sys, 'argv', ['gpt2', *map(str, arguments), *named])
        status = 0
        try:
            main()
        except SystemExit as exit:
            status = exit.code
        return *capsys.readouterr(), status

    return run_with


@pytest.fixture(scope='module')
def model():
    return gpt2.load('7M', str(MODELS), engine='tf')


@pytest.mark.parametrize('function', inspect_model.PARTS.values(), ids=inspect_model.PARTS)
def test_help_names_every_flag_and_no_other(function):
    help_names_every_flag_and_no_other(function)


def test_activations_are_written(console, model, tmp_path):
    out, err, status = console('inspect', 'activations', TEXT, '--names', 'mlp.act,h0.attn.pattern', '--out', 'a.npz')
    assert (out, err, status) == ('', '', 0)
    found, expected = np.load(tmp_path / 'a.npz'), model.activations(TEXT, 'mlp.act,h0.attn.pattern')
    assert set(found) == {'tokens', 'starts', 'mlp.act', 'h0.attn.pattern'}
    np.testing.assert_allclose(found['mlp.act'], expected['mlp.act'], atol=1e-5)


def test_the_lens_ends_with_what_the_model_says(console, model):
    out, err, status = console('inspect', 'lens', TEXT, '--json', '--top', '3')
    found = objects(out)
    assert (err, status) == ('', 0) and ''.join(entry['token'] for entry in found) == TEXT
    score = model.score(TEXT + ' of', likeliest=3, end_of_text=False)
    for entry, token in zip(found, score.tokens, strict=True):
        assert len(entry['layers']) == 6 and all(len(layer) == 3 for layer in entry['layers'])
        expected = [(model.decode([each]), np.exp(value)) for each, value in token.likeliest]
        assert [each for each, _ in entry['layers'][-1]] == [each for each, _ in expected]
        assert [p for _, p in entry['layers'][-1]] == pytest.approx([p for _, p in expected], abs=1e-4)
    plain = console('inspect', 'lens', TEXT)[0].splitlines()
    assert len(plain) == len(found) and plain[-1].split()[-1] == found[-1]['layers'][-1][0][0].strip()


def test_contributions_come_by_size_and_add_up(console):
    arguments = ['inspect', 'contributions', TEXT, '--token', ' and', '--other', ' of']
    [found] = objects(console(*arguments, '--json')[0])
    assert sum(found['parts'].values()) == pytest.approx(found['logit'], abs=1e-3)
    out, err, status = console(*arguments, '--top', '3')
    lead, *rows = out.splitlines()
    assert (err, status, len(rows)) == ('', 0, 3) and lead == f'{found["logit"]:+9.4f}  the lead'
    largest = sorted(found['parts'], key=lambda name: -abs(found['parts'][name]))[:3]
    assert [row.split()[1] for row in rows] == largest


def test_connections_are_the_strongest_first(console, model):
    [found] = objects(console('inspect', 'connections', 'h2.mlp.9', '--top', '4', '--json')[0])
    connections = model.connections('h2.mlp.9')
    strengths = found['input_positive']['strengths']
    assert strengths == sorted(strengths, reverse=True) and strengths[0] == pytest.approx(connections.tokens_in.max())
    assert found['output_negative']['strengths'][0] == pytest.approx(connections.tokens_out.min())
    layer, neuron = (int(part) for part in found['downstream_positive']['neurons'][0][1:].split('.mlp.'))
    assert connections.neurons_out[layer - 3, neuron] == pytest.approx(connections.neurons_out.max())
    assert found['upstream_negative']['neurons'][0].startswith(('h0.mlp.', 'h1.mlp.'))
    out, err, status = console('inspect', 'connections', 'h0.mlp.9')
    assert (err, status, len(out.splitlines())) == ('', 0, 8)


def test_a_text_is_scored_with_changes(console, model, tmp_path):
    (tmp_path / 'a.txt').write_text(TEXT)
    changes = ['--ablate', 'h2.mlp.9=3,h4.head.1=mean', '--ablate_from', 'Once upon a time']
    [found] = objects(console('score', '--json', *changes, 'a.txt')[0])
    expected = model.ablated(changes[1], changes[3]).score(TEXT).log_probability
    assert found['log_probability'] == pytest.approx(expected, abs=1e-4)
    assert found['log_probability'] != pytest.approx(model.score(TEXT).log_probability, abs=1e-2)


@pytest.mark.parametrize('command', [['complete', '--prompt', TEXT], ['generate', '--nsamples', '1']])
def test_samples_are_drawn_with_changes(console, model, monkeypatch, command):
    made = []
    engine = model.engine
    monkeypatch.setattr(gpt2.Model, 'changed_engine', lambda _, *how: made.append(how) or engine)
    out, _, status = console(*command, '--length', '1', '--ablate', 'h2.mlp.9=mean', '--ablate_from', 'Once')
    assert (status, len(made)) == (0, 1) and 'SAMPLE 1' in out
    [(changes, reference)] = made
    assert [(change.name, change.kind) for change in changes] == [('h2.mlp.9', 'mean')] and reference == 'Once'


def test_neurons_of_a_layer_are_written_and_one_is_shown(console, tmp_path, monkeypatch):
    for name, value in (('TOP', 4), ('RANDOM', 2), ('OF_A_QUANTILE', 1)):
        monkeypatch.setattr(survey, name, value)
    book = (REPOSITORY / 'examples' / 'heidi.txt').read_text(encoding='utf-8')
    (tmp_path / 'a.txt').write_text(book[:6000], encoding='utf-8')
    out, err, status = console('inspect', 'neurons', 'a.txt', '--layer', '0', '--out', 'records')
    assert (out, err, status) == ('', '', 0) and len(list((tmp_path / 'records' / '0').iterdir())) == 1024
    record = records.read_record(str(tmp_path / 'records' / '0' / '131.json'))
    arguments = ['inspect', 'neurons', '--corpus', 'a.txt', '--layer', '0', '--neuron', '131', '--explain', 'said']
    [found] = objects(console(*arguments, '--json')[0])
    assert found['most_positive_activation_records'][0]['tokens'] == list(record.top[0].tokens)
    assert found['explained']['explanation'] == 'said' and found['mean'] == pytest.approx(record.mean, abs=1e-5)
    out, err, status = console(*arguments, '--top', '2')
    lines = out.splitlines()
    assert (err, status, len(lines)) == ('', 0, 4) and lines[0].startswith('h0.mlp.131 over the corpus: mean ')
    assert '[' in lines[1] and lines[3].startswith("explained as 'said': score ")


def test_what_is_published_is_shown_beside_the_model(console, monkeypatch, model, tmp_path):
    passage = records.Passage(tuple(model.decode([each]) for each in model.encode(TEXT)), (0.1, 0.2, 0.3, 0.2, 0.9))
    record, told = records.NeuronRecord(2, 9, (passage,)), [records.Explanation('kings', 0.25)]
    asked = []
    monkeypatch.setattr(published, 'map_of', lambda hparams: 'data')
    monkeypatch.setattr(published, 'fetch', lambda *how: asked.append(how) or (record, told))
    arguments = ['inspect', 'neurons', '--published', '--layer', '2', '--neuron', '9', '--url', 'http://here']
    out, err, status = console(*arguments)
    assert (err, status) == ('', 0) and asked == [('http://here', 'data', 2, 9, 'neuron-map')]
    assert 'published: kings (score 0.250)' in out and 'here on its 1 passages: correlation ' in out
    [found] = objects(console(*arguments, '--json', '--explain', 'kings')[0])
    act = model.activations(TEXT, 'h2.mlp.act')['h2.mlp.act'][:, 9]
    assert found['published']['correlation'] == pytest.approx(np.corrcoef(act, passage.activations)[0, 1], abs=1e-3)
    assert found['published']['explanations'] == [{'explanation': 'kings', 'ev_correlation_score': 0.25}]
    assert 'explained' in found


MISTAKES = [
    (['inspect'], 'name one of activations, lens, contributions, connections'),
    (['inspect', 'look'], "'look' is none of activations"),
    (['inspect', 'activations', TEXT, '--names', 'mlp.act'], 'give --names and --out'),
    (['inspect', 'activations', TEXT, '--names', 'h6.mlp.act', '--out', 'a.npz'], 'h6.mlp.act names layer 6; this'),
    (['inspect', 'activations', TEXT, '--names', 'mlp', '--out', 'a.npz'], "'mlp' names nothing inside"),
    (['inspect', 'activations', TEXT, '--names', 'pre', '--out', 'a.txt'], 'a.txt is no name of a file of arrays'),
    (['inspect', 'activations', '--names', 'pre', '--out', 'a.npz'], 'neither given, expected one TEXT in quotes'),
    (['inspect', 'activations', TEXT, '--names', 'pre', '--out', 'a.npz', '--stride', '513'], '--stride is 513'),
    (['inspect', 'lens', ''], 'is empty, expected a text'),
    (['inspect', 'lens', TEXT, '--top', '0'], '--top is 0'),
    (['inspect', 'contributions', TEXT], 'give --token'),
    (['inspect', 'contributions', TEXT, '--token', ' king queen'], 'which is 2 tokens'),
    (['inspect', 'contributions', TEXT, '--token', '1', '--other', '8192'], '--other has the token id 8192, expected'),
    (['inspect', 'connections'], 'give one neuron'),
    (['inspect', 'neurons'], 'give a --corpus, or --published'),
    (['inspect', 'neurons', 'a.txt', '--neuron', '1'], '--neuron needs --layer'),
    (['inspect', 'neurons', 'a.txt', '--layer', '1'], 'the records of many neurons need --out'),
    (['inspect', 'neurons', 'a.txt', '--layer', '6', '--neuron', '1'], '--layer names layer 6; this model has'),
    (['inspect', 'neurons', 'a.txt', '--layer', '1', '--neuron', '1024'], '--neuron names neuron 1024; this model has'),
    (['inspect', 'neurons', 'a.txt', '--layer', '1', '--neuron', '1'], 'there is no passage of 64 tokens'),
    (['inspect', 'neurons', '--published', '--layer', '1', '--neuron', '1', '--url', 'x'], "--url is 'x'"),
    (['inspect', 'neurons', '--published', '--layer', '1'], '--published needs --layer and --neuron'),
    (['inspect', 'neurons', '--published', '--layer', '1', '--neuron', '1'], 'the published map is of 124M and 1558M'),
    (['inspect', 'neurons', 'b.txt', '--layer', '1', '--neuron', '1'], 'b.txt cannot be read'),
    (['inspect', 'neurons', 'a.txt', '--simulator', 'me', '--layer', '1', '--neuron', '1'], "'me' is no address of a"),
    (['inspect', 'neurons', 'a.txt', '--simulator_model', 'm', '--layer', '1', '--neuron', '1'], 'means nothing'),
    (['inspect', 'connections', 'h2.mlp.1024'], 'h2.mlp.1024 names neuron 1024; this model has neurons 0 to 1023'),
    (['inspect', 'connections', 'h2.head.1'], 'h2.head.1 is a head'),
    (['inspect', 'lens', TEXT, '--ablate', 'h0.head.8'], 'h0.head.8 names head 8; this model has heads 0 to 7'),
    (['complete', '--prompt', TEXT, '--ablate', 'h0.head.1=patch'], 'taken from another text; give --ablate_from'),
    (['complete', '--prompt', TEXT, '--ablate_from', TEXT], '--ablate_from means nothing without --ablate'),
    (['generate', '--ablate', 'h0.mlp.1', '--engine', 'litert'], '--ablate needs --engine tf'),
    (['score', '--ablate', 'h0.mlp.1', '--precision', 'int8', 'a.txt'], '--ablate needs --engine tf'),
]  # fmt: skip


def test_nothing_that_steers_a_terminal_is_printed(console, capsys):
    text = 'The \x1b[31mking\r\x9b\n'
    out, _, status = console('inspect', 'lens', text)
    assert status == 0 and '\\x1b' in out and '\\r' in out and not set(out) & {'\x1b', '\r', '\x9b'}
    assert len(out.splitlines()) == len(gpt2.load('7M').encode(text))
    passage = records.Passage(('\x1b[31m', 'red'), (1.0, 2.0))
    record = records.NeuronRecord(3, 131, (passage,))
    explained = [records.Explanation('\x1b]0;title\x07\nlines', 0.5)]
    inspect_neurons.show(record, (record, explained, published.Comparison([(passage, passage)], 0)), None, 1)
    out = capsys.readouterr().out
    assert 'published: \\x1b]0;title\\x07 lines (score 0.500)\n' in out and '\x1b' not in out and out.count('[31m') == 3


def test_records_that_cannot_be_written_are_known_before_the_corpus_is_read(console, tmp_path):
    (tmp_path / 'a.txt').write_text(TEXT)
    for arguments in (['--neuron', '1'], []):
        out, err, status = console('inspect', 'neurons', 'a.txt', '--layer', '1', '--out', 'a.txt/records', *arguments)
        assert (out, status, len(err.splitlines())) == ('', 1, 1) and 'name another --out' in err
    assert [path.name for path in tmp_path.iterdir()] == ['a.txt']


@pytest.mark.parametrize(('arguments', 'message'), MISTAKES)
def test_mistakes_are_one_line(console, arguments, message, tmp_path):
    (tmp_path / 'a.txt').write_text(TEXT)
    out, err, status = console(*arguments)
    assert (out, status, len(err.splitlines())) == ('', 2, 1), err
    assert message in err
    assert [path.name for path in tmp_path.iterdir()] == ['a.txt']


def test_a_model_that_cannot_read_a_passage_is_refused():
    tiny = types.SimpleNamespace(hparams=TINY, name='tiny')
    with pytest.raises(gpt2.UsageError, match=f'passages have 64 tokens, and tiny reads up to {TINY.n_ctx}; name'):
        inspect_neurons.check_there(tiny, 0, 0, True)
    inspect_neurons.check_there(tiny, 0, 0, False)
