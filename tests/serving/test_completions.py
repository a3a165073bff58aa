"""POST /v1/completions: every field, streams, and the same answers whatever else is asked."""

import functools
import inspect
import json
import time

import numpy as np
import pytest
from samples import EVERYTHING

from gpt2.commands.complete import interact_model
from gpt2.commands.generate import sample_model
from gpt2.serving import requests
from gpt2.serving.failures import Failure
from gpt2.serving.schema import CompletionRequest
from gpt2.serving.settings import Settings

PROMPT = 'Once upon a time'
LONG = 'It was the best of times, it was the worst of times, and the clerk wrote it all down. ' * 20


def text(answer):
    return answer['choices'][0]['text']


@pytest.mark.parametrize(
    'settings',
    [
        {}, {'temperature': 0}, {'temperature': 0.7, 'top_k': 40}, {'top_p': 0.9, 'temperature': 1.5}, {'top_k': 1},
        {'stop': ['the', 'of the']}, {'stop': ','}, {'ban': ['the', ' a']},
        {'repetition_penalty': 1.5, 'temperature': 0},
        {**EVERYTHING, 'logit_bias': {'5': 3.0, '7': -100}, 'ban': ',', 'stop': 'of'},
    ],
)  # fmt: skip
def test_the_text_is_that_of_the_library(server, offline, settings):
    expected = offline.complete(PROMPT, seed=7, length=30, samples=3, stop_at_end=True, **settings)
    answer = server.completion(PROMPT, seed=7, max_tokens=30, n=3, **settings)
    assert [choice['text'] for choice in answer['choices']] == [each.text for each in expected]
    reasons = [{'end_of_text': 'stop'}.get(each.finish_reason, each.finish_reason) for each in expected]
    assert [choice['finish_reason'] for choice in answer['choices']] == reasons
    drawn = sum(len(each.ids) for each in expected)
    assert answer['usage'] == {'prompt_tokens': 4, 'completion_tokens': drawn, 'total_tokens': 4 + drawn}


def test_a_text_beyond_the_window(server, offline):
    prompts = [offline.decode(offline.encode(LONG * 2)[:500]), PROMPT]
    how = {'seed': 7, 'top_k': 40, 'repetition_penalty': 1.2, 'beyond_window': True, 'keep_prompt': 5}
    expected = offline.complete(prompts, samples=2, length=30, stop_at_end=True, **how)
    answer = server.completion(prompts, n=2, max_tokens=30, **how)
    assert [choice['text'] for choice in answer['choices']] == [each.text for group in expected for each in group]
    *events, _ = server.events(prompts[0], max_tokens=30, **how)
    assert ''.join(json.loads(event)['choices'][0]['text'] for event in events) == expected[0][0].text


@pytest.mark.parametrize(
    ('fields', 'param', 'words'),
    [
        ({'keep_prompt': 1}, 'keep_prompt', 'means nothing without beyond_window'),
        ({'keep_prompt': 257, 'beyond_window': True}, 'keep_prompt', 'the limit is 256, half of the window'),
        ({'prompt': 'word' + ' word' * 512, 'beyond_window': True}, 'prompt', 'the limit is 512'),
        ({'beams': 2, 'beyond_window': True}, 'beyond_window', 'exclude each other'),
        ({'choices': ['a'], 'beyond_window': True}, 'beyond_window', 'exclude each other'),
        ({'max_tokens': 510}, 'max_tokens', 'max_tokens 509 fits, and beyond_window lifts it'),
    ],
)  # fmt: skip
def test_what_is_not_beyond_the_window(server, fields, param, words):
    error = server.error(**{'prompt': PROMPT, **fields})
    assert error['param'] == param
    assert words in error['message']


def test_prompts_beyond_the_window_are_as_long_as_the_server_lets_them(offline):
    settings, ids = Settings(max_prompt=600, max_tokens=900), [5] * 600

    def work(**fields):
        return requests.completions(CompletionRequest(prompt=ids, **fields), offline, settings)

    assert work(beyond_window=True, max_tokens=900).keep == 0
    for fields, words in [
        ({}, '600 tokens, the limit is 512'), ({'beyond_window': True, 'max_tokens': 901}, 'the limit here is 900'),
        ({'beyond_window': True, 'echo': True, 'logprobs': 0}, 'echo with logprobs is of a prompt of 512 tokens'),
    ]:  # fmt: skip
        with pytest.raises(Failure, match=words):
            work(**fields)


def test_fields_are_those_of_the_sampling_commands():
    """Each of their flags is a field, but for those that are the server's own, or of a terminal, or of files, or for
    what draws nothing beside it."""
    flags = {*inspect.signature(interact_model).parameters, *inspect.signature(sample_model).parameters}
    called = {'length': 'max_tokens', 'nsamples': 'n', 'model_name': 'model'}
    servers = {'models_dir', 'engine', 'precision', 'batch_size'}
    one_at_a_time = {'draft'}
    terminals = {'extra', 'prompt_file', 'prompts_file', 'output', 'shard', 'errors', 'json', 'dialogue', 'memory',
                 'you', 'they'}  # fmt: skip
    insides = {'ablate', 'ablate_from'}  # /v1/inside has it
    fields = {called.get(flag, flag) for flag in flags - servers - one_at_a_time - terminals - insides}
    assert fields <= {*CompletionRequest.model_fields}


def test_choices(server, offline):
    texts = [' there was a king', ' a queen', '.', ',']
    for how in ({}, {'temperature': 0}, {'top_k': 2}):
        expected = offline.complete([PROMPT, 'London'], samples=6, seed=2, choices=texts, **how)
        answer = server.completion([PROMPT, 'London'], n=6, seed=2, choices=texts, **how)
        assert [choice['text'] for choice in answer['choices']] == [each.text for group in expected for each in group]
        assert {choice['finish_reason'] for choice in answer['choices']} == {'stop'}
    drawn = sum(len(each.ids) for group in expected for each in group)
    assert answer['usage']['completion_tokens'] == drawn
    *events, _ = server.events(PROMPT, seed=2, choices=texts)
    assert json.loads(events[0])['choices'][0]['text'] == offline.complete(PROMPT, seed=2, choices=texts).text
    assert server.error(prompt=PROMPT, choices=texts, ban='a')['message'].startswith('choices and ban exclude')
    assert 'twice' in server.error(prompt=PROMPT, choices=['a', 'a'])['message']
    assert 'the longest of choices' in server.error(prompt=LONG, choices=['a b c ' * 100])['message']


def test_a_pattern(server, offline):
    fields = {'seed': 2, 'regex': '( [a-z]{1,6}){1,3}!'}
    expected = offline.complete(PROMPT, samples=3, length=20, **fields)
    answer = server.completion(PROMPT, n=3, max_tokens=20, **fields)
    assert [choice['text'] for choice in answer['choices']] == [each.text for each in expected]
    assert {choice['finish_reason'] for choice in answer['choices']} == {'stop'}
    assert 'unclosed group' in server.error(prompt=PROMPT, regex='(')['message']
    assert server.error(prompt=PROMPT, regex='a', ban='b')['message'].startswith('regex and ban exclude each other')


@pytest.mark.parametrize(
    'settings',
    [
        {'beams': 2}, {'beams': 4, 'n': 3, 'length_penalty': -1.5, 'stop': ' the'},
        {'beams': 3, 'n': 2, 'no_repeat_ngram': 2, 'logit_bias': {'5': 3.0}, 'ban': 'and'},
        {'beams': 2, 'length_penalty': 2, 'stop_at_end': False, 'start': '<|endoftext|>'},
    ],
)  # fmt: skip
def test_beams_are_those_of_the_library(server, offline, settings):
    n = settings.get('n', 1)
    how = {name: value for name, value in settings.items() if name != 'n'}
    prompts = [PROMPT, 'London']
    expected = offline.complete(prompts, samples=n, length=12, **{'stop_at_end': True, **how})
    stream = server.events(PROMPT, max_tokens=60, seed=1, stop_at_end=False)
    begun = [next(stream)]  # beside which they are searched
    answer = server.completion(prompts, max_tokens=12, **settings)
    assert [choice['text'] for choice in answer['choices']] == [each.text for group in expected for each in group]
    reasons = {'end_of_text': 'stop', 'nothing_left': 'stop'}
    assert [choice['finish_reason'] for choice in answer['choices']] == [
        reasons.get(each.finish_reason, each.finish_reason) for group in expected for each in group
    ]
    drawn = sum(len(each.ids) for group in expected for each in group)
    assert answer['usage']['completion_tokens'] == drawn
    *events, _ = [*begun, *stream]
    whole = ''.join(json.loads(event)['choices'][0]['text'] for event in events)
    assert whole == offline.complete(PROMPT, length=60, seed=1).text


@pytest.mark.parametrize(
    ('fields', 'param', 'words'),
    [
        ({'beams': 5}, 'beams', 'the limit here is 4'), ({'beams': 2, 'n': 3}, 'n', 'finds 2 texts at most'),
        ({'beams': 2, 'stream': True}, 'stream', 'exclude each other'),
        ({'beams': 2, 'temperature': 0.5}, 'temperature', 'exclude each other'),
        ({'beams': 2, 'logprobs': 0, 'echo': True}, 'echo', 'means nothing beside beams'),
        ({'choices': ['a'], 'logprobs': 0, 'echo': True}, 'echo', 'means nothing beside choices'),
        ({'beams': 2, 'choices': ['a']}, 'beams', 'exclude each other'),
        ({'length_penalty': 2}, 'length_penalty', 'means nothing without beams'), ({'beams': 0}, 'beams', 'beams is 0'),
    ],
)  # fmt: skip
def test_what_beams_exclude(server, fields, param, words):
    error = server.error(prompt=PROMPT, **fields)
    assert error['param'] == param
    assert words in error['message']


def test_what_is_left_out_or_null_is_as_openai_has_it(server, offline):
    answer = server.completion(PROMPT, seed=3)
    assert text(answer) == offline.complete(PROMPT, seed=3, length=16, stop_at_end=True).text
    assert (answer['object'], answer['model'], answer['choices'][0]['logprobs']) == ('text_completion', '7M', None)
    nulls = dict.fromkeys(
        ['max_tokens', 'temperature', 'top_p', 'top_k', 'n', 'best_of', 'stream', 'logprobs', 'echo', 'stop',
         'presence_penalty', 'frequency_penalty', 'logit_bias', 'model', 'stream_options', 'top_p_rule', 'min_p',
         'typical_p', 'repetition_penalty', 'no_repeat_ngram', 'ban', 'choices', 'regex', 'beams',
         'length_penalty', 'beyond_window', 'keep_prompt']
    )  # fmt: skip
    assert text(server.completion(PROMPT, seed=3, **nulls)) == text(answer)


def test_another_seed_every_time_which_the_answer_names(server):
    answers = [server.completion(PROMPT) for _ in range(2)]
    assert answers[0]['seed'] != answers[1]['seed']
    assert text(server.completion(PROMPT, seed=answers[0]['seed'])) == text(answers[0])


def test_from_nothing(server, offline):
    expected = offline.complete(seed=4, length=20, stop_at_end=True).text
    assert text(server.completion(None, seed=4, max_tokens=20)) == expected


def test_after_an_added_token(server, offline):
    for prompt in (PROMPT, None):
        expected = offline.complete(prompt, seed=4, length=9, start='<|endoftext|>', stop_at_end=True).text
        assert text(server.completion(prompt, seed=4, max_tokens=9, start='<|endoftext|>')) == expected
    assert server.error(prompt=PROMPT, start='<|pad|>')['param'] == 'start'


def test_many_prompts(server, offline):
    prompts = [PROMPT, 'London', LONG]
    expected = offline.complete(prompts, samples=2, seed=5, length=12, stop_at_end=True)
    answer = server.completion(prompts, n=2, seed=5, max_tokens=12)
    assert [choice['index'] for choice in answer['choices']] == list(range(6))
    assert [choice['text'] for choice in answer['choices']] == [each.text for group in expected for each in group]


def test_token_ids_are_prompts_too(server, offline):
    ids = offline.encode(PROMPT)
    expected = text(server.completion(PROMPT, seed=6))
    assert text(server.completion(ids, seed=6)) == expected
    assert [choice['text'] for choice in server.completion([ids, ids], seed=6)['choices']] == [expected] * 2


def test_logprobs_are_those_of_the_model_alone(server, offline):
    answer = server.completion(PROMPT, seed=1, max_tokens=12, temperature=0.5, top_k=3, logprobs=5)
    found = answer['choices'][0]['logprobs']
    scored = offline.score(PROMPT + text(answer), likeliest=5, end_of_text=False).tokens[-12:]
    assert found['tokens'] == [token.bytes.decode() for token in scored]
    assert found['token_logprobs'] == pytest.approx([token.log_probability for token in scored], abs=1e-4)
    for top, token in zip(found['top_logprobs'], scored):
        wanted = {offline.decode([other]): value for other, value in token.likeliest}
        wanted[token.bytes.decode()] = token.log_probability
        assert top == pytest.approx(wanted, abs=1e-4)
    lengths = list(map(len, found['tokens']))
    assert found['text_offset'] == [sum(lengths[:place]) for place in range(12)]


@pytest.mark.parametrize('how', [{'choices': [' there was a king', ' a queen', ' 日本']}, {'beams': 3, 'stop': ' the'}])
def test_logprobs_of_what_is_not_drawn_token_by_token(server, offline, how):
    fields = {'n': 3, 'seed': 2, 'logprobs': 2, 'max_tokens': 12, **how}
    choices = server.completion(PROMPT, **fields)['choices']
    assert len({choice['text'] for choice in choices}) > 1
    for choice in choices:
        found = choice['logprobs']
        scored = offline.score(PROMPT + choice['text'], likeliest=2, end_of_text=False).tokens[3:]
        assert found['token_logprobs'] == pytest.approx([each.log_probability for each in scored], abs=1e-3)
        assert [max(top.values()) for top in found['top_logprobs']] == pytest.approx(
            [each.likeliest[0][1] for each in scored], abs=1e-3
        )
        for offset, token in zip(found['text_offset'], found['tokens']):
            assert token.startswith('bytes:') or choice['text'][offset:].startswith(token)


@pytest.mark.parametrize('length', [0, 1])
@pytest.mark.parametrize('prompt', [PROMPT, LONG], ids=['short', 'long'])
def test_echo_scores_the_prompt(server, offline, prompt, length):
    answer = server.completion(prompt, echo=True, logprobs=1, max_tokens=length, temperature=0)
    found = answer['choices'][0]['logprobs']
    scored = offline.score(prompt, end_of_text=False).tokens
    assert text(answer).startswith(prompt)
    assert len(found['tokens']) == len(scored) + 1 + length
    assert ''.join(found['tokens']) == text(answer)
    assert (found['token_logprobs'][0], found['top_logprobs'][0]) == (None, None)
    end = len(scored) + 1
    wanted = [token.log_probability for token in scored]
    assert found['token_logprobs'][1:end] == pytest.approx(wanted, abs=1e-3)
    likeliest = [token.rank == 1 for token in scored]
    tops = zip(found['token_logprobs'][1:end], found['top_logprobs'][1:end])
    assert [value == max(top.values()) for value, top in tops] == likeliest
    assert all(text(answer)[offset:].startswith(token) for offset, token in zip(found['text_offset'], found['tokens']))


def test_echo_without_logprobs(server):
    answer = server.completion([PROMPT, 'London'], echo=True, max_tokens=0, n=2)
    assert [choice['text'] for choice in answer['choices']] == [PROMPT, PROMPT, 'London', 'London']
    assert {choice['finish_reason'] for choice in answer['choices']} == {'length'}
    assert text(server.completion(PROMPT, max_tokens=0)) == ''


def test_tokens_that_are_no_characters(server):
    found = server.completion('日本', echo=True, logprobs=0, max_tokens=0)['choices'][0]
    written = b''.join(
        bytes(int(byte, 16) for byte in token[8:].split('\\x')) if token.startswith('bytes:') else token.encode()
        for token in found['logprobs']['tokens']
    )
    assert (found['text'], written.decode()) == ('日本', '日本')
    assert found['logprobs']['text_offset'] == sorted(found['logprobs']['text_offset'])
    assert found['logprobs']['text_offset'][-1] == 1


def test_offsets_of_bytes_that_are_no_characters(server, offline):
    ids = [offline.encoder.encoder['a'], *[offline.encoder.encoder[offline.encoder.byte_encoder[0xF0]]] * 3]
    found = server.completion(ids, echo=True, logprobs=0, max_tokens=0)['choices'][0]
    assert (found['text'], found['logprobs']['text_offset']) == ('a' + 3 * '\ufffd', [0, 1, 2, 3])
    bias = {str(ids[1]): 100}
    fields = {'logit_bias': bias, 'temperature': 0, 'logprobs': 0, 'max_tokens': 3}
    *events, _ = server.events(PROMPT, **fields)
    choices = [json.loads(event)['choices'][0] for event in events]
    assert ''.join(choice['text'] for choice in choices) == 3 * '\ufffd'
    assert [offset for choice in choices for offset in choice['logprobs']['text_offset']] == [0, 1, 2]


def test_tokens_after_a_stop_text_are_not_told(server, offline):
    whole = offline.complete(PROMPT, seed=2, length=30).text
    stop = whole[20:24]
    choice = server.completion(PROMPT, seed=2, max_tokens=30, stop=stop, logprobs=0)['choices'][0]
    assert (choice['text'], choice['finish_reason']) == (whole[: whole.find(stop)], 'stop')
    assert max(choice['logprobs']['text_offset']) < len(choice['text'])


def test_best_of_gives_the_likeliest(server, offline):
    drawn = offline.complete(PROMPT, seed=8, length=10, samples=5, stop_at_end=True)
    means = [
        np.mean([token.log_probability for token in offline.score(PROMPT + each.text, end_of_text=False).tokens[-10:]])
        for each in drawn
    ]
    order = np.argsort(means)[::-1]
    answer = server.completion(PROMPT, seed=8, max_tokens=10, n=2, best_of=5)
    assert [choice['text'] for choice in answer['choices']] == [drawn[place].text for place in order[:2]]
    assert answer['usage']['completion_tokens'] == 50


def test_logit_bias_and_penalties(server, offline):
    [token] = offline.encode(' the')
    assert text(server.completion(PROMPT, max_tokens=5, logit_bias={token: 100}, temperature=0)) == ' the' * 5
    for seed in range(3):
        never = {'max_tokens': 60, 'logprobs': 0, 'logit_bias': {token: -100}}
        assert ' the' not in server.completion(PROMPT, seed=seed, **never)['choices'][0]['logprobs']['tokens']
    biased = {'max_tokens': 5, 'logit_bias': {token: 30}, 'temperature': 0}
    for penalty in ('presence_penalty', 'frequency_penalty'):
        assert text(server.completion(PROMPT, **biased, **{penalty: 2})).startswith(' the')
    repeating = {'max_tokens': 60, 'temperature': 0}
    plain, varied = (
        offline.encode(text(server.completion(PROMPT, **repeating, frequency_penalty=penalty))) for penalty in (0, 2)
    )
    assert len(set(varied)) > len(set(plain))


def test_the_end_of_the_text_ends_a_completion_or_does_not(server, offline):
    end = {'logit_bias': {offline.encoder.end_of_text: 100}, 'max_tokens': 4}
    choice = server.completion(PROMPT, logprobs=0, **end)['choices'][0]
    assert (choice['text'], choice['finish_reason'], choice['logprobs']['tokens']) == ('', 'stop', [])
    assert text(server.completion(PROMPT, stop_at_end=False, **end)) == '<|endoftext|>' * 4


def test_a_stream_says_what_the_answer_says(server):
    fields = {'seed': 9, 'max_tokens': 25, 'n': 2, 'logprobs': 2, 'echo': True, 'stop': ['upon the', 'xyz']}
    answer = server.completion(PROMPT, **fields)
    *lines, end = server.events(PROMPT, stream_options={'include_usage': True}, **fields)
    *chunks, last = map(json.loads, lines)
    assert end == '[DONE]'
    assert (last['choices'], last['usage']) == ([], answer['usage'])
    assert {chunk['usage'] for chunk in chunks} == {None}
    for choice in answer['choices']:
        mine = [part for chunk in chunks for part in chunk['choices'] if part['index'] == choice['index']]
        assert len(mine) > 10
        assert ''.join(part['text'] for part in mine) == choice['text']
        for name, values in choice['logprobs'].items():
            assert [value for part in mine for value in part['logprobs'][name]] == values
        assert [part['finish_reason'] for part in mine] == [None] * (len(mine) - 1) + [choice['finish_reason']]


def test_a_stream_has_no_usage_unless_asked(server):
    *lines, end = server.events(PROMPT, max_tokens=3)
    assert end == '[DONE]'
    assert not any('usage' in json.loads(line) for line in lines)


def test_answers_are_those_of_the_library_whatever_else_is_asked(server, offline, at_once):
    cases = [
        (LONG[start * 7 : start * 7 + size], {'seed': seed, 'temperature': temperature, 'top_k': top_k, 'n': n})
        for start, (size, seed, temperature, top_k, n) in enumerate([
            (20, 1, 1, 0, 1), (1400, 2, 0.8, 40, 2), (300, 3, 1.2, 0, 3), (50, 4, 0, 0, 1), (1400, 5, 1, 5, 1),
            (700, 6, 1, 0, 6), (20, 7, 1, 0, 1), (1000, 8, 1, 0, 2), (1000, 8, 1, 0, 2),
        ])
    ]  # fmt: skip

    def asked(number, prompt, fields):
        time.sleep(number * 0.05)  # some while others are in the midst
        return [choice['text'] for choice in server.completion(prompt, max_tokens=40, **fields)['choices']]

    answers = at_once(*(functools.partial(asked, number, *case) for number, case in enumerate(cases)))
    for answer, (prompt, fields) in zip(answers, cases):
        settings = {name: value for name, value in fields.items() if name != 'n'}
        expected = offline.complete(prompt, samples=fields['n'], length=40, stop_at_end=True, **settings)
        assert answer == [each.text for each in expected]
