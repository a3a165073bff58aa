"""The library, as its users call it."""

import json
import math
import os
import subprocess
import sys
import threading

import numpy as np
import pytest
from example_models import BUNDLED, HERE, REPOSITORY
from running import INTERACTIVE, objects, run
from samples import EVERYTHING

import gpt2
from gpt2.encoder import END_OF_TEXT
from gpt2.engine import Engine, Rows

PROMPTS = ['Once upon a time', 'The', 'It was a dark and stormy night; the rain fell in torrents', 'é']


@pytest.fixture(scope='module', params=['litert', 'tf'])
def model(request):
    with gpt2.load('7M', engine=request.param) as model:
        yield model


def texts(completions):
    return [completion.text for completion in completions]


def test_a_text_gives_a_completion_and_lists_give_lists(model):
    how = {'length': 6, 'top_k': 40, 'seed': 1}
    one = model.complete(PROMPTS[0], **how)
    assert isinstance(one, gpt2.Completion)
    assert (one.prompt, one.number, one.seed, one.finish_reason, len(one.ids)) == (PROMPTS[0], 1, 1, 'length', 6)
    assert model.decode(one.ids) == one.text
    three = model.complete(PROMPTS[0], samples=3, **how)
    assert texts(three)[0] == one.text and len({*texts(three)}) == 3
    assert [completion.number for completion in three] == [1, 2, 3]
    many = model.complete(PROMPTS, **how)
    assert many[0].text == one.text and [completion.prompt for completion in many] == PROMPTS
    lists = model.complete(PROMPTS, samples=2, **how)
    assert [texts(group)[0] for group in lists] == texts(many)
    assert model.complete([], **how) == [] and model.complete('The', samples=0, **how) == []
    assert model.complete([], samples=2, **how) == [] and model.complete(['a', 'b'], samples=0, **how) == [[], []]


@pytest.mark.parametrize('how', [{'temperature': 0}, {'top_k': 40}, {'top_p': 0.9, 'temperature': 0.8}])
def test_samples_do_not_depend_on_what_shares_their_batch(model, how):
    random = np.random.default_rng(4)
    words = (HERE / 'held_out.txt').read_text(encoding='utf-8').split()
    sizes = zip(random.integers(len(words) - 300, size=7), (1, 280, 5, 60, 1, 130, 20))
    prompts = [' '.join(words[start : start + count]) for start, count in sizes]
    alone = [model.complete(prompt, seed=3, length=25, **how).text for prompt in prompts]
    assert texts(model.complete(prompts, seed=3, length=25, batch_size=7, **how)) == alone
    assert texts(model.complete(prompts, seed=3, length=25, batch_size=3, **how)) == alone


def test_samples_are_those_of_the_commands(model, tmp_path):
    flags = ('--model_name', '7M', '--seed', '7', '--length', '20', '--top_k', '40', '--nsamples', '3', '--json')
    out, err, status = run(INTERACTIVE, *flags, '--prompt', PROMPTS[0], cwd=tmp_path)
    assert (err, status) == ('', 0)
    found = model.complete(PROMPTS[0], samples=3, seed=7, length=20, top_k=40)
    assert [sample['text'] for sample in objects(out)] == texts(found)


def test_both_engines_draw_the_same():
    models = (gpt2.load('7M', engine=engine) for engine in ('tf', 'litert'))
    one, other = (model.complete(PROMPTS, samples=2, seed=5, top_p=0.9) for model in models)
    assert [texts(group) for group in one] == [texts(group) for group in other]


def test_both_engines_draw_the_same_by_every_setting():
    one, other = (gpt2.load('7M', engine=engine) for engine in ('tf', 'litert'))
    for how in (
        {'min_p': 0.05, 'temperature': 1.3}, {'typical_p': 0.7}, {'top_p': 0.8, 'top_p_rule': 'inclusive'},
        {**EVERYTHING, 'logit_bias': {' the': -5, 11: 2}, 'ban': ['a', 'king']}, {'ban': 'e', 'temperature': 0},
    ):  # fmt: skip
        found = [texts(model.complete(PROMPTS, seed=5, length=25, batch_size=3, **how)) for model in (one, other)]
        assert found[0] == found[1]
        assert 'ban' not in how or not any(word in text for text in found[0] for word in how['ban'])
        assert [''.join(other.stream(PROMPTS[0], seed=5, length=25, **how))] == found[0][:1]


def test_where_nothing_is_left_a_sample_ends(model):
    others = [bytes([code]).decode('utf-8', 'surrogateescape') for code in range(256) if code != ord('e')]
    found = model.complete('The', ban=[*others, 'ee'], seed=1)
    assert (found.text, found.ids, found.finish_reason) == ('e', model.encode('e'), 'nothing_left')
    assert list(model.stream('The', ban=[*others, 'e'])) == []


def test_log_probabilities_of_what_is_drawn_are_the_models_own(model):
    how = {'length': 8, 'seed': 2, 'temperature': 3, 'top_k': 50, 'repetition_penalty': 1.5, 'ban': 'e', 'stop': ','}
    plain = model.complete(PROMPTS[:2], samples=2, **how)
    for group, expected in zip(model.complete(PROMPTS[:2], samples=2, logprobs=3, **how), plain):
        for one, other in zip(group, expected):
            assert (one.ids, one.text, other.logprobs) == (other.ids, other.text, None)
            assert [token.id for token in one.logprobs] == one.ids
            ids = [*model.encode(one.prompt), *one.ids]
            wanted = model.score(model.decode(ids), likeliest=3, end_of_text=False).tokens
            if model.encode(model.decode(ids)) == ids:
                for found, token in zip(one.logprobs, wanted[-len(one.ids) :]):
                    assert (found.bytes, found.rank) == (token.bytes, token.rank)
                    assert found.log_probability == pytest.approx(token.log_probability, abs=1e-3)
                    assert [id for id, _ in found.likeliest] == [id for id, _ in token.likeliest]
    assert model.complete('The', length=2, seed=1, logprobs=0).logprobs[0].likeliest == ()


def test_a_stream_gives_whole_characters_and_in_all_the_text(model):
    expected = model.complete(PROMPTS[3], seed=2, length=60, temperature=2.5).text
    pieces = list(model.stream(PROMPTS[3], seed=2, length=60, temperature=2.5))
    assert ''.join(pieces) == expected and len(pieces) > 10
    assert '' not in pieces


def test_a_text_may_outgrow_the_window(model):
    how = {'seed': 1, 'top_k': 40, 'length': 700, 'beyond_window': True, 'keep_prompt': 3}
    one, other = model.complete(PROMPTS[:2], **how)
    assert (len(one.ids), one.finish_reason) == (700, 'length')
    assert other.ids == model.complete(PROMPTS[1], **how).ids
    inside = {'seed': 1, 'top_k': 40, 'length': 500}
    assert one.ids[:500] == model.complete(PROMPTS[0], **inside).ids
    assert ''.join(model.stream(PROMPTS[0], **how)) == one.text
    stop = one.text[-20:]
    assert model.complete(PROMPTS[0], **how | {'stop': stop}).text == one.text[: one.text.index(stop)]
    long = model.complete('word ' * 600, **how | {'length': 3, 'logprobs': 0})
    assert len(long.ids) == len(long.logprobs) == 3


def test_a_stream_holds_back_what_a_stop_text_may_take(model):
    whole = model.complete(PROMPTS[0], seed=1, length=40, top_k=40).text
    stop = whole[20:26]
    assert ''.join(model.stream(PROMPTS[0], seed=1, length=40, top_k=40, stop=stop)) == whole[: whole.index(stop)]
    found = model.complete(PROMPTS[0], seed=1, length=40, top_k=40, stop=[stop, 'never'])
    assert (found.text, found.finish_reason) == (whole[: whole.index(stop)], 'stop')


def test_from_nothing_means_from_the_end_of_text(model):
    assert model.complete(seed=1, length=9).prompt is None
    assert model.complete(seed=1, length=9).ids == model.complete(None, seed=1, length=9).ids
    assert len(model.complete(seed=1, top_k=1).ids) == model.hparams.n_ctx


def test_without_a_seed_every_call_has_another(model):
    found = [model.complete(PROMPTS[0], length=12) for _ in range(3)]
    assert len({completion.seed for completion in found}) == 3 and len({completion.text for completion in found}) == 3
    again = model.complete(PROMPTS[0], length=12, seed=found[0].seed)
    assert again.text == found[0].text


def test_encode_and_decode(model):
    text = 'Grüße, 漢字 and ' + END_OF_TEXT
    ids = model.encode(text)
    assert model.decode(ids) == text and model.encoder.end_of_text not in ids
    with pytest.raises(gpt2.UsageError, match=r'token id 8192 is outside'):
        model.decode([8192])


def test_a_start_token_stands_before_the_prompt_or_in_place_of_the_end_of_text(model, monkeypatch):
    monkeypatch.setattr(model.encoder, 'added', model.encoder.added | {'<|start|>': 5})
    begun = []
    monkeypatch.setattr(model, 'loaded', Recorder(model.hparams))
    monkeypatch.setattr(Recorder, 'start', lambda engine, prompts, **how: begun.extend(prompts) or Noted(engine, 1))
    for prompt in ('The king', '', None):
        model.complete(prompt, start='<|start|>', length=1)
    assert begun == [[5, *model.encode('The king')], [5], [5]]
    with pytest.raises(gpt2.UsageError, match=r"start is 'x', expected one of the model's added tokens: <\|endoftext"):
        model.complete('a', start='x')


def test_added_tokens_are_encoded_only_where_asked(model):
    assert model.encode(END_OF_TEXT, special=True) == [model.encoder.end_of_text]


def test_scores_are_those_of_the_command(model, tmp_path):
    text = (HERE / 'held_out.txt').read_text(encoding='utf-8')[:4000]
    (tmp_path / 'text').write_text(text, encoding='utf-8')
    script = REPOSITORY / 'src' / 'score.py'
    out = objects(run(script, '--model_name', '7M', '--json', '--per_token', 'text', cwd=tmp_path)[0])
    found = model.score(text)
    assert found.log_probability == pytest.approx(out[-1]['log_probability'], abs=0.02)
    assert [token.id for token in found.tokens] == [line['id'] for line in out[:-1]]
    assert [list(token.bytes) for token in found.tokens] == [line['bytes'] for line in out[:-1]]
    expected = [line['log_probability'] for line in out[:-1]]
    np.testing.assert_allclose([token.log_probability for token in found.tokens], expected, atol=1e-3)
    assert sum(token.rank != line['rank'] for token, line in zip(found.tokens, out)) < len(found.tokens) / 100


def test_a_score_names_the_likeliest(model):
    found = model.score('Once upon a time', likeliest=3)
    assert found.log_probability == pytest.approx(sum(token.log_probability for token in found.tokens), abs=1e-3)
    for token in found.tokens:
        ids, values = zip(*token.likeliest)
        assert list(values) == sorted(values, reverse=True) and len(ids) == 3
        assert (token.id in ids) == (token.rank <= 3)
        if token.rank <= 3:
            assert token.likeliest[token.rank - 1] == pytest.approx((token.id, token.log_probability), abs=1e-5)
    everything = model.score('A', likeliest=10**6).tokens[0].likeliest
    assert len(everything) == 8192 and sum(math.exp(value) for _, value in everything) == pytest.approx(1, abs=1e-4)
    assert [token.likeliest for token in model.score('A b').tokens] == [(), ()]


@pytest.mark.parametrize(
    ('call', 'message'),
    [
        (lambda model: model.complete(''), 'the prompt is empty'),
        (lambda model: model.complete(['a', '']), 'the prompt is empty'),
        (lambda model: model.complete(5), 'the prompt is 5, expected a text'),
        (lambda model: model.complete([5]), 'the prompt is 5, expected a text'),
        (lambda model: model.complete(b'a'), 'expected a text'),
        (lambda model: model.complete('a', length=0), 'length is 0, expected at least 1'),
        (lambda model: model.complete('a', length=513), 'length is 513, the model allows at most 512'),
        (lambda model: model.complete('a b', length=512), '2 prompt tokens and length 512 are 514'),
        (lambda model: model.complete('a' * 4000), 'the limit is 512; shorten it'),
        (lambda model: model.complete('a', samples=-1), 'samples is -1'),
        (lambda model: model.complete('a', samples=1.5), 'samples is 1.5'),
        (lambda model: model.complete('a', batch_size=0), 'batch_size is 0'),
        (lambda model: model.complete('a', seed=-1), 'seed is -1'),
        (lambda model: model.complete('a', seed='x'), "seed is 'x'"),
        (lambda model: model.complete('a', temperature=-1), 'temperature is -1'),
        (lambda model: model.complete('a', top_k=-1), 'top_k is -1'),
        (lambda model: model.complete('a', top_p=0), 'top_p is 0'),
        (lambda model: model.complete('a', stop=''), 'stop is empty'),
        (lambda model: model.complete('a', stop=['b', '']), 'stop is empty'),
        (lambda model: model.complete('a', stop=5), 'stop is 5'),
        (lambda model: model.complete('a', ban=''), 'ban is empty'),
        (lambda model: model.complete('a', ban=[5]), 'ban is 5'),
        (lambda model: model.complete('a', min_p=2), 'min_p is 2'),
        (lambda model: model.complete('a', logprobs=-1), 'logprobs is -1'),
        (lambda model: model.complete('a', logit_bias={8192: 1}), 'logit_bias has the token id 8192, expected 0 to 81'),
        (lambda model: model.complete('a', logit_bias={'of the': 1}), "logit_bias has 'of the', which is 2 tokens ["),
        (lambda model: model.complete('a', logit_bias={'a': 101}), "logit_bias of 'a' is 101, expected a number from"),
        (lambda model: model.complete('a', logit_bias=[1]), 'logit_bias is [1], expected what is added by token'),
        (lambda model: model.complete('a', length=True), 'length is True'),
        (lambda model: model.complete('a', start=['x']), "start is ['x']"),
        (lambda model: model.complete('a', stop_at_end='no'), "stop_at_end is 'no', expected True or False"),
        (lambda model: model.complete({'a', 'b'}), 'expected a text or a list of texts'),
        (lambda model: model.complete({'a': 1}), 'expected a text or a list of texts'),
        (lambda model: model.complete([], top_k=-1), 'top_k is -1'),
        (lambda model: model.complete('a', samples=0, temperature=-1), 'temperature is -1'),
        (lambda model: model.complete('a', samples=0, seed=-1), 'seed is -1'),
        (lambda model: model.complete('a', samples=0, length=0), 'length is 0'),
        (lambda model: model.stream('a', length=0), 'length is 0'),
        (lambda model: model.stream('a', sample=0), 'sample is 0, expected at least 1'),
        (lambda model: model.complete('a', beyond_window=1), 'beyond_window is 1, expected True or False'),
        (lambda model: model.complete('a', keep_prompt=1), 'keep_prompt means nothing without beyond_window'),
        (lambda model: model.complete('a', beyond_window=True, keep_prompt=257), 'keep_prompt is 257, expected'),
        (lambda model: model.complete('', beyond_window=True), 'the prompt is empty'),
        (lambda model: model.complete_each(['a'], batch_size=0), 'batch_size is 0'),
        (lambda model: next(model.complete_each([5])), 'the prompt is 5'),
        (lambda model: model.score(5), 'the text is 5'),
        (lambda model: model.score('a', likeliest=-1), 'likeliest is -1'),
        (lambda model: model.score('a', stride=0), 'stride is 0'),
        (lambda model: model.score('a', stride=513), 'stride is 513, expected at most n_ctx 512'),
        (lambda model: model.encode(5), 'the text is 5'),
        (lambda model: model.decode('a'), 'token id'),
        (lambda model: model.decode(5), 'cannot be decoded'),
        (lambda model: model.decode(None), 'cannot be decoded'),
        (lambda model: model.decode([[1, 2]]), 'cannot be decoded'),
    ],
)
def test_what_means_nothing_is_refused_in_one_line(model, call, message):
    with pytest.raises(gpt2.UsageError) as caught:
        call(model)
    assert message in str(caught.value) and '\n' not in str(caught.value)
    assert '--' not in str(caught.value)


def test_a_refused_list_draws_nothing(model, monkeypatch):
    monkeypatch.setattr(type(model.engine), 'open_rows', lambda *_: pytest.fail('drawn'))
    with pytest.raises(gpt2.UsageError):
        model.complete([*'a' * 20, ''])


@pytest.mark.parametrize(
    ('how', 'message'),
    [
        ({'model_name': 'nothing'}, 'no model nothing'),
        ({'model_name': '7M', 'engine': 'torch'}, "engine is 'torch', expected auto or tf or litert"),
        ({'model_name': '7M', 'precision': 'int2'}, "precision is 'int2'"),
        ({'model_name': '7M', 'engine': 'tf', 'precision': 'int8'}, 'precision int8 needs engine litert'),
        ({'model_name': '7M', 'draft': 'nothing'}, 'draft: no model nothing in .*; name a folder with[^;]*$'),
        ({'model_name': '7M', 'draft': '7M', 'engine': 'tf'}, 'draft needs engine litert, not tf'),
        ({'model_name': '7M', 'draft': '7M', 'precision': 'int8'}, 'draft needs precision float32, not int8'),
    ],
)
def test_loading_what_is_not_there_is_refused(how, message):
    with pytest.raises(gpt2.UsageError, match=message):
        gpt2.load(**how)


def test_a_draft_must_have_the_same_tokens(tmp_path):
    (tmp_path / 'other').mkdir()
    for path in BUNDLED.iterdir():
        if path.suffix != '.tflite':
            (tmp_path / 'other' / path.name).symlink_to(path)
    encoder = json.loads((BUNDLED / 'encoder.json').read_text(encoding='utf-8'))
    encoder['a'], encoder['b'] = encoder['b'], encoder['a']
    (tmp_path / 'other' / 'encoder.json').unlink()
    (tmp_path / 'other' / 'encoder.json').write_text(json.dumps(encoder), encoding='utf-8')
    with pytest.raises(gpt2.UsageError, match=r'other has another vocabulary than .*7M; give a model with the same'):
        gpt2.load('7M', draft=str(tmp_path / 'other'))


def test_a_draft_changes_no_sample():
    with gpt2.load('7M', engine='litert') as plain, gpt2.load('7M', draft='7M') as drafted:
        engine = drafted.engine
        settings = {'top_k': 40}, {'stop': '.'}, {'ban': ' the', 'repetition_penalty': 1.2}, {'regex': '( [a-z]+){9}'}
        for how in [{'length': 40, 'seed': 4} | each for each in settings]:
            for samples in (1, 2):
                expected = texts(plain.complete('The king', samples=samples, **how))
                assert texts(drafted.complete('The king', samples=samples, **how)) == expected
            assert ''.join(drafted.stream('The king', **how)) == plain.complete('The king', **how).text
        for how in (
            {'beams': 2, 'length': 5}, {'choices': [' was', ' had a']}, {'beyond_window': True, 'length': 9},
            {'logprobs': 1, 'length': 9},
        ):  # fmt: skip
            one, other = (model.complete('The king', seed=1, **how) for model in (plain, drafted))
            assert one.ids == other.ids
        assert [token.rank for token in one.logprobs] == [token.rank for token in other.logprobs]
        assert plain.score('The king').log_probability == drafted.score('The king').log_probability
    assert engine.closed and engine.draft.closed


def test_nothing_is_printed(tmp_path):
    code = "import gpt2; m = gpt2.load('7M'); m.complete('a', length=2); m.score('a b'); m.close()"
    done = subprocess.run([sys.executable, '-c', code], cwd=tmp_path, capture_output=True, env=library(), check=True)
    assert (done.stdout, done.stderr) == (b'', b'')


def test_importing_and_litert_need_no_tensorflow(tmp_path, without_tensorflow):
    code = (
        "import sys, gpt2; assert 'ai_edge_litert' not in sys.modules;"
        "m = gpt2.load('7M', engine='litert', precision='int8'); print(len(m.complete('a', length=2, seed=1).ids));"
        "print(m.score('a b').log_probability < 0)"
    )
    path = os.pathsep.join([library()['PYTHONPATH'], without_tensorflow['PYTHONPATH']])
    environment = library() | {'PYTHONPATH': path}
    done = subprocess.run([sys.executable, '-c', code], cwd=tmp_path, capture_output=True, env=environment, check=True)
    assert done.stdout.split() == [b'2', b'True']


def library():
    return os.environ | {'PYTHONPATH': str(REPOSITORY / 'src')}


def test_eight_threads_get_what_one_gets_in_turn(model):
    jobs = [(f'{prompt} {number}', number) for number in range(5) for prompt in PROMPTS] * 8
    expected = {job: model.complete(job[0], seed=job[1], length=8, top_k=40).text for job in dict.fromkeys(jobs)}
    found, failures = {}, []

    def work(thread):
        try:
            for job in jobs[thread * 20 : thread * 20 + 20]:
                found[thread, job] = model.complete(job[0], seed=job[1], length=8, top_k=40).text
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=[thread]) for thread in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert len(found) == 160 and all(text == expected[job] for (_, job), text in found.items())


def test_two_interleaved_streams_are_what_they_are_alone(model):
    alone = [list(model.stream(prompt, seed=1, length=40, top_k=40)) for prompt in PROMPTS[:2]]
    streams = [model.stream(prompt, seed=1, length=40, top_k=40) for prompt in PROMPTS[:2]]
    found = [[], []]
    for _ in range(60):
        for pieces, stream in zip(found, streams):
            pieces.extend(piece for piece in [next(stream, None)] if piece is not None)
    assert found == alone


def test_a_closed_model_says_so():
    model = gpt2.load('7M', engine='litert')
    model.close()
    with pytest.raises(gpt2.Error, match='the model is closed; load it again'):
        model.complete('a', length=1)
    with pytest.raises(gpt2.Error, match='the model is closed'):
        model.score('a')
    model.close()  # again is no mistake
    assert model.encode('a') == gpt2.load('7M').encode('a')


def test_a_model_that_was_never_used_can_be_closed(monkeypatch):
    monkeypatch.setattr(gpt2.api, 'load_engine', lambda *_: pytest.fail('loaded'))
    gpt2.api.open_model('7M').close()


def test_a_path_is_a_model():
    one, other = (gpt2.load(name).complete('a', length=9, seed=1).ids for name in (str(BUNDLED), '7M'))
    assert one == other


class Recorder(Engine):
    """An engine that only notes what rows are left."""

    def __init__(self, hparams):
        super().__init__(hparams)
        self.left = []

    def open_rows(self, prompts, streams, sampling, told=False):
        return Noted(self, len(prompts))

    def map_logits(self, function, ids, first=0):
        raise NotImplementedError


class Noted(Rows):
    def __init__(self, engine, count):
        self.engine, self.count, self.drawn = engine, count, 0

    def step(self):
        self.drawn += 1
        return np.full(self.count, 5)

    def next_logits(self):
        raise NotImplementedError

    def keep(self, rows):
        self.count = len(rows)
        self.engine.left.append((self.drawn, self.count))


def test_rows_are_dropped_as_their_room_ends(monkeypatch):
    model = gpt2.api.open_model('7M')
    engine = Recorder(model.hparams)
    monkeypatch.setattr(gpt2.api, 'load_engine', lambda *_: engine)
    assert len(model.encode('a' * 3)) and model.hparams.n_ctx == 512
    long = '!' + ' a' * 510  # two tokens of room
    found = model.complete(['The', long], length=2)
    assert [len(completion.ids) for completion in found] == [2, 2]
    found = model.complete([long, 'The'])
    assert [len(completion.ids) for completion in found] == [2, 256]
    assert (2, 1) in engine.left
