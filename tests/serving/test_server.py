"""The other endpoints, errors, limits, safety, faults, and how a server ends."""

import asyncio
import base64
import functools
import json
import os
import signal
import threading

import numpy as np
import pytest
from pydantic import ValidationError
from running import PATIENCE

from gpt2.commands.serve import origins, read_keys, serve_models
from gpt2.errors import UsageError
from gpt2.serving.failures import Failure
from gpt2.serving.models import ServedModel, ServedModels
from gpt2.serving.schema import CompletionRequest, DetokenizeRequest, EmbeddingRequest, ScoreRequest
from gpt2.serving.server import new_server
from gpt2.serving.settings import Settings
from gpt2.system.signals import ends_raised
from serving.conftest import PROMPT, refused, request_head, started, wait_until

ENDLESS = {'max_tokens': 500, 'stop_at_end': False}


def test_the_line_that_is_printed_works(server):
    assert server.lines[0] == f'7M at {server.address}/\n'
    assert server.lines[1].startswith(f'curl {server.address}/v1/completions ')
    body = server.lines[1].split(" -d '")[1].rstrip("'\n").encode()
    assert server.ask('/v1/completions', body=body)[0] == 200


def test_models(server):
    _, answer, _ = server.ask('/v1/models')
    [card] = answer['data']
    assert (answer['object'], card['id'], card['object'], card['owned_by']) == ('list', '7M', 'model', 'gpt2')
    assert server.ask('/v1/models/7M')[1] == card
    assert server.error('/v1/completions', 404, prompt='x', model='124M')['code'] == 'model_not_found'
    for name in ('124M', '..', '%2e%2e%2fother', '../other', '/etc'):
        status, _, _ = server.ask(f'/v1/models/{name}')
        assert status == 404
        assert server.error('/v1/completions', 404, prompt='x', model=name)['param'] == 'model'


def test_tokens(server, offline):
    text = 'Once upon a time, 日本!'
    _, answer, _ = server.ask('/v1/tokenize', {'text': text})
    assert answer['ids'] == offline.encode(text)
    assert answer['tokens'][0] == 'Once'
    assert (answer['n_ctx'], answer['max_prompt']) == (512, 512)
    assert server.ask('/v1/detokenize', {'ids': answer['ids']})[1]['text'] == text
    assert server.error('/v1/detokenize', ids=[8192])['param'] == 'ids'


@pytest.mark.parametrize('end_of_text', [True, False])
@pytest.mark.parametrize('text', [PROMPT, PROMPT * 60, 'a', ''], ids=['short', 'long', 'one', 'none'])
def test_score(server, offline, text, end_of_text):
    expected = offline.score(text, likeliest=3, end_of_text=end_of_text)
    status, answer, _ = server.ask('/v1/score', {'text': text, 'likeliest': 3, 'end_of_text': end_of_text})
    assert status == 200
    assert answer['log_probability'] == pytest.approx(expected.log_probability, abs=1e-2)
    found = answer['tokens']
    assert [(token['id'], token['rank']) for token in found] == [(token.id, token.rank) for token in expected.tokens]
    for token, wanted in zip(found, expected.tokens):
        assert token['log_probability'] == pytest.approx(wanted.log_probability, abs=1e-3)
        assert [other['id'] for other in token['likeliest']] == [other for other, _ in wanted.likeliest]
        assert text[token['offset'] :].startswith(token['token'])
    ids = {'text': offline.encode(text), 'likeliest': 3, 'end_of_text': end_of_text}
    assert server.ask('/v1/score', ids)[1] == answer


@pytest.mark.parametrize('pooling', ['mean', 'last'])
def test_embeddings(server, offline, pooling):
    texts = [PROMPT, 'London ' * 400, 'a']
    fields = {'input': texts, 'pooling': pooling}
    status, answer, _ = server.ask('/v1/embeddings', {**fields, 'normalise': False})
    assert status == 200
    vectors = np.array([each['embedding'] for each in answer['data']])
    wte = np.array(offline.source.value('model/wte'))
    for text, vector in zip(texts, vectors):
        ids = offline.encode(text)
        # What the logits are made from: they tell it, for there are more tokens than features.
        logits = np.concatenate(offline.engine.map_logits(np.array, ids, len(ids) - 1 if pooling == 'last' else 0))
        assert vector @ wte.T == pytest.approx(logits.mean(axis=0), abs=1e-3)
    _, unit, _ = server.ask('/v1/embeddings', {**fields, 'encoding_format': 'base64'})
    decoded = [np.frombuffer(base64.b64decode(each['embedding']), '<f4') for each in unit['data']]
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    np.testing.assert_allclose(decoded, vectors / lengths, atol=1e-5)
    sizes = sum(len(offline.encode(text)) for text in texts)
    assert answer['usage'] == {'prompt_tokens': sizes, 'total_tokens': sizes}


def test_health_and_metrics(server):
    assert server.ask('/health')[:2] == (200, {'status': 'ready'})
    before = {name: server.metric(f'gpt2_{name}_total') for name in ('requests', 'prompt_tokens', 'completion_tokens')}
    first = server.metric('gpt2_time_to_first_token_seconds_count')
    server.completion(PROMPT, max_tokens=5)
    assert server.metric('gpt2_prompt_tokens_total') == before['prompt_tokens'] + 4
    assert server.metric('gpt2_completion_tokens_total') == before['completion_tokens'] + 5
    assert server.metric('gpt2_requests_total') > before['requests']
    assert server.metric('gpt2_time_to_first_token_seconds_count') == first + 1
    server.ask('/v1/score', {'text': 'a'})
    server.ask('/v1/embeddings', {'input': ['a', 'a']})
    assert server.metric('gpt2_prompt_tokens_total') == before['prompt_tokens'] + 4 + 2 + 2


def test_the_page_of_the_api_names_every_field(server):
    status, page, _ = server.ask('/docs')
    assert status == 200
    document = json.loads(server.ask('/openapi.json')[1]) if isinstance(server.ask('/openapi.json')[1], str) else (
        server.ask('/openapi.json')[1])  # fmt: skip
    assert set(document['paths']) == {
        '/v1/completions', '/v1/score', '/v1/embeddings', '/v1/tokenize', '/v1/detokenize', '/v1/inside',
        '/v1/models',
        '/v1/models/{name}', '/health', '/metrics',
    }  # fmt: skip
    for field in document['components']['schemas']['CompletionRequest']['properties']:
        assert f'<code>{field}</code>' in page
    assert 'http:' not in page.replace('http://127', '') and 'https:' not in page


@pytest.mark.parametrize(
    ('fields', 'param', 'words'),
    [
        ({'suffix': 'x'}, 'suffix', 'suffix cannot be honoured'),
        ({'foo bar': 1}, 'foo bar', "'foo bar' is no field that is known"),
        ({'<b>x</b>\n': 1}, '<b>x</b>\n', "'<b>x</b>\\n' is no field that is known"),
        ({'\ud800': 1}, '\\ud800', "'\\ud800' is no field that is known"),
        ({'': 1}, '', "'' is no field that is known"),
        ({'user': 7}, 'user', 'user is 7'),
        ({'stream_options': {'x': 1}, 'stream': True}, 'stream_options.x', 'stream_options.x is no field'),
        ({'max_tokens': '16'}, 'max_tokens', "max_tokens is '16'"),
        ({'max_tokens': -1}, 'max_tokens', 'max_tokens is -1'),
        ({'max_tokens': 510}, 'max_tokens', '4 prompt tokens and max_tokens 510 are 514, the limit is 513; max_tokens'),
        ({'temperature': -1}, 'temperature', 'temperature is -1'),
        ({'top_p': 0}, 'top_p', 'top_p is 0'),
        ({'top_k': -1}, 'top_k', 'top_k is -1'),
        ({'seed': -1}, 'seed', 'seed is -1'),
        ({'n': 0}, 'n', 'n is 0'),
        ({'n': 129}, 'n', 'the limit is 128'),
        ({'n': 3, 'best_of': 2}, 'best_of', 'best_of is 2 and n 3'),
        ({'best_of': 2, 'stream': True}, 'best_of', 'cannot be streamed'),
        ({'stream_options': {}}, 'stream_options', 'nothing without stream'),
        ({'logprobs': 6}, 'logprobs', 'logprobs is 6'),
        ({'stop': ['a'] * 10_000}, 'stop', 'stop has 10000 texts, the limit is 4'),
        ({'stop': ''}, 'stop', '0 characters'),
        ({'stop': 3}, 'stop', 'neither'),
        ({'logit_bias': {'9999': 1}}, 'logit_bias', "'9999', expected 0 to 8191"),
        ({'logit_bias': {'x': 1}}, 'logit_bias', 'token id x, expected'),
        ({'logit_bias': {'0' * 20 + '99999': 1}}, 'logit_bias', 'expected 0 to 8191'),
        ({'logit_bias': {'0' * 5000 + '1': 1}}, 'logit_bias', 'expected 0 to 8191'),
        ({'logit_bias': {'262': 1, '000262': 1}}, 'logit_bias', "'000262', expected 0 to 8191"),
        ({'logit_bias': {'1': 101}}, 'logit_bias', '101'),
        ({'presence_penalty': 3}, 'presence_penalty', '3'),
        ({'min_p': 2}, 'min_p', '2'),
        ({'typical_p': 0}, 'typical_p', '0'),
        ({'top_p_rule': 'x'}, 'top_p_rule', "'x'"),
        ({'repetition_penalty': 0}, 'repetition_penalty', '0'),
        ({'no_repeat_ngram': -1}, 'no_repeat_ngram', '-1'),
        ({'ban': ''}, 'ban', 'a text of 0 characters, expected 1 to 1000'),
        ({'ban': ['a'] * 17}, 'ban', '17 texts, the limit is 16'),
        ({'ban': 5}, 'ban', 'neither a text nor a list of texts'),
        ({'frequency_penalty': -3}, 'frequency_penalty', '-3'),
        ({'prompt': ''}, 'prompt', 'null draws from nothing'),
        ({'prompt': []}, 'prompt', 'empty list'),
        ({'prompt': ['a', 1]}, 'prompt', 'none of'),
        ({'prompt': [9999]}, 'prompt', '9999, expected 0 to 8191'),
        ({'prompt': {'a': 1}}, 'prompt', 'none of'),
        ({'prompt': 'word' + ' word' * 599}, 'prompt', 'tokens, the limit is 512'),
        ({'prompt': '\ud800'}, 'prompt', 'none of'),
        ({'prompt': 'a' * 900_000}, 'prompt', '900000 bytes, more than 512 tokens'),
        ({'prompt': ['a'] * 150_000}, 'prompt', '150000 prompts with 1 samples each'),
        ({'stop': '\ud800'}, 'stop', 'neither'),
        ({'model': 7}, 'model', 'model is 7'),
    ],
)  # fmt: skip
def test_a_field_that_cannot_be_honoured_is_refused_by_name(server, fields, param, words):
    error = server.error(**{'prompt': PROMPT, **fields})
    assert (error['type'], error['param']) == ('invalid_request_error', param)
    assert words in error['message']


@pytest.mark.parametrize(
    ('body', 'words'),
    [
        (b'', 'no JSON'),
        (b'{', 'no JSON: '),
        (b'\xff\xfe', 'not UTF-8, at byte 0'),
        (b'"\xff"', 'not UTF-8, at byte 1'),
        (b'[]', 'no JSON object'),
        (b'{"prompt": "\xff"}', 'not UTF-8, at byte 12'),
        ('{"prompt": "a"}'.encode('utf-16'), 'not UTF-8'),
        (b'[' * 50_000, 'nested too deeply'),
        (b'{"seed": ' + b'9' * 5000 + b'}', 'a whole number of 5000 digits, the limit is 20'),
        (b'{"temperature": NaN}', 'NaN, which is no number'),
        (b'null', 'no JSON object'),
        (b'{"prompt": "a", "seed": 1, "seed": 2}', 'the field seed twice'),
        (b'{"prompt": "a", "logit_bias": {"1": 1, "1": 2}}', "the field '1' twice"),
    ],
)
def test_bodies_that_are_none(server, body, words):
    status, answer, _ = server.ask('/v1/completions', body=body)
    error = answer['error']
    assert (status, error['type'], error['code']) == (400, 'invalid_request_error', 'invalid_request')
    assert words in error['message']


def test_null_is_as_if_it_were_left_out(server):
    names = ('user', 'suffix', 'stop_at_end', 'stream_options')
    expected = server.completion(PROMPT, seed=1, max_tokens=5)['choices']
    assert server.completion(PROMPT, seed=1, max_tokens=5, **dict.fromkeys(names))['choices'] == expected
    assert server.completion(PROMPT, seed=1, max_tokens=5, user='somebody')['choices'] == expected
    fields = dict.fromkeys(('encoding_format', 'pooling', 'normalise', 'user'))
    assert server.ask('/v1/embeddings', {'input': 'a', **fields})[1] == server.ask('/v1/embeddings', {'input': 'a'})[1]
    fields = dict.fromkeys(('likeliest', 'end_of_text'))
    assert server.ask('/v1/score', {'text': 'a', **fields})[1] == server.ask('/v1/score', {'text': 'a'})[1]


def test_texts_beyond_the_limits_are_refused_before_they_are_encoded(server):
    error = server.error('/v1/tokenize', text='a' * 200_001)
    assert (error['param'], error['message']) == ('text', 'text has 200001 characters, the limit is 200000; send parts')
    assert '900000 bytes, more than 512 tokens' in server.error('/v1/score', text='a' * 900_000)['message']
    error = server.error('/v1/embeddings', input=['a'] * 150_000)
    assert (error['param'], error['message']) == ('input', 'input has 150000 texts, the limit is 2048 a request')


def test_other_paths_and_methods(server):
    assert server.ask('/nothing')[0] == 404
    for path in ('/', '/health', '/v1/models', '/docs'):
        status, answer, headers = server.ask(path, method='HEAD', decode=False)
        assert (status, answer, int(headers['Content-Length']) > 0) == (200, b'', True)
    status, answer, headers = server.ask('/v1/completions')
    assert (status, headers['Allow'], set(answer)) == (405, 'POST', {'error'})


def test_a_browser_is_kept_in_its_bounds(server):
    _, _, headers = server.ask('/docs')
    assert (headers['X-Frame-Options'], headers['X-Content-Type-Options']) == ('DENY', 'nosniff')
    assert "frame-ancestors 'none'" in headers['Content-Security-Policy']
    asked = {'Origin': 'https://example.org', 'Access-Control-Request-Method': 'POST'}
    _, _, headers = server.ask('/v1/completions', headers=asked, method='OPTIONS')
    assert 'Access-Control-Allow-Origin' not in headers
    body = json.dumps({'prompt': PROMPT}).encode()
    assert server.ask('/v1/completions', body=body, headers={'Content-Type': 'text/plain'})[0] == 415
    for host, status in [('example.org', 403), ('localhost.example.org:80', 403), ('', 403), ('localhost:1', 200),
                         ('[::1]:80', 200), ('LOCALHOST', 200)]:  # fmt: skip
        assert server.ask('/health', headers={'Host': host})[0] == status, host


@pytest.fixture(scope='module')
def strict(models, tmp_path_factory):
    """A server with keys and narrow limits."""
    keys = tmp_path_factory.mktemp('keys') / 'keys'
    keys.write_text('first-key\nsecond-key\n')
    flags = {
        'api_key_file': keys, 'rate': 5, 'max_body': 2000, 'max_tokens': 50, 'max_prompt': 20, 'max_n': 2,
        'cors': 'https://example.org', 'allow_host': 'gpt2.example.org',
    }  # fmt: skip
    given = [f'--{name}={value}' for name, value in flags.items()]
    with started('--model_name', '7M', '--log', *given, models=models) as running:
        yield running


def test_keys(strict):
    for value in ('', 'Bearer', 'Bearer wrong', 'Bearer first-ke', 'Basic first-key', 'Bearer first-key2', 'first-key'):
        status, answer, _ = strict.ask('/v1/models', headers={'Authorization': value})
        assert (status, answer['error']['code']) == (401, 'invalid_api_key')
    assert strict.ask('/metrics')[0] == 401
    assert strict.ask('/metrics', headers={'Authorization': 'Bearer first-key'})[0] == 200
    assert strict.ask('/health')[0] == 200
    assert strict.ask('/v1/models', headers={'Authorization': 'Bearer second-key'})[0] == 200


def test_limits(strict):
    key = {'Authorization': 'Bearer first-key'}
    found = [
        strict.ask('/v1/completions', content, key)[:2]
        for content in (
            {'prompt': 'x' * 2000}, {'prompt': 'word ' * 21}, {'prompt': PROMPT, 'max_tokens': 51},
            {'prompt': PROMPT, 'n': 3}, {'prompt': PROMPT, 'max_tokens': 50},
        )
    ]  # fmt: skip
    assert [status for status, _ in found] == [413, 400, 400, 400, 200], found[-1]
    messages = [answer['error']['message'] for _, answer in found[:4]]
    for message, number in zip(messages, ('2000', '20', '50', '2')):
        assert f'{number}' in message
    status, answer, headers = strict.ask('/v1/models', headers=key)
    assert (status, answer['error']['type']) == (429, 'rate_limit_error')
    assert 1 <= int(headers['Retry-After']) <= 12


def test_an_origin_that_is_let_in(strict):
    asked = {'Origin': 'https://example.org', 'Access-Control-Request-Method': 'POST', 'Host': 'gpt2.example.org'}
    status, _, headers = strict.ask('/v1/completions', headers=asked, method='OPTIONS')
    assert (status, headers['Access-Control-Allow-Origin']) == (204, 'https://example.org')
    _, _, headers = strict.ask('/health', headers={'Origin': 'https://example.com'})
    assert 'Access-Control-Allow-Origin' not in headers


def test_too_many_requests_are_turned_away(models, at_once):
    with started('--model_name', '7M', '--batch_size', '1', '--queue', '1', models=models) as server:
        streams = [server.events(PROMPT, **ENDLESS), server.events(PROMPT, **ENDLESS)]
        threads = [threading.Thread(target=next, args=(stream,), daemon=True) for stream in streams]
        for thread in threads:
            thread.start()
        wait_until(lambda: server.metric('gpt2_queue_length') == 1)
        status, answer, headers = server.ask('/v1/completions', {'prompt': PROMPT})
        assert (status, answer['error']['code'], headers['Retry-After']) == (429, 'queue_full', '1')


def test_time_is_limited(models):
    with started('--model_name', '7M', '--time_limit', '3', models=models) as server:
        fields = {'max_tokens': 500, 'n': 100, 'stop_at_end': False}
        status, answer, _ = server.ask('/v1/completions', {'prompt': PROMPT, **fields})
        assert (status, answer['error']['type']) == (408, 'timeout_error')
        *texts, last = map(json.loads, server.events(PROMPT, **fields))
        assert last['error']['code'] == 'timeout'
        assert ''.join(choice['text'] for chunk in texts for choice in chunk['choices'])
        wait_until(lambda: server.metric('gpt2_batch_size') == 0)


@pytest.mark.parametrize('stream', [False, True])
def test_a_client_that_goes_away_frees_its_place(server, stream):
    body = json.dumps({'prompt': PROMPT, 'stream': stream, 'n': 100, **ENDLESS}).encode()
    with server.connect() as connection:
        connection.sendall(request_head(len(body)) + body)
        wait_until(lambda: server.metric('gpt2_batch_size') == 4)
    wait_until(lambda: server.metric('gpt2_batch_size') == 0, 5)
    assert server.metric('gpt2_queue_length') == 0


def test_slow_and_broken_clients_are_in_nobodys_way(server):
    body = json.dumps({'prompt': PROMPT, 'stream': True, 'n': 4, **ENDLESS}).encode()
    with server.connect() as reader, server.connect() as writer, server.connect() as silent, server.connect() as broken:
        reader.sendall(request_head(len(body)) + body)  # and reads a byte at a time
        writer.sendall(request_head(500_000) + b'{"prompt": "')  # a body that never ends
        silent.sendall(b'POST /v1/compl')
        broken.sendall(b'\x00\xff\r\n\r\n')
        answer = broken.makefile('rb').read()
        assert answer.startswith(b'HTTP/1.1 400')
        assert b'nosniff' in answer
        assert b'{"error": {' in answer
        for _ in range(3):
            assert reader.recv(1)
            writer.sendall(b'x')
            assert len(server.completion(PROMPT, max_tokens=5)['choices']) == 1
    wait_until(lambda: server.metric('gpt2_batch_size') == 0)


def test_a_body_that_is_longer_than_said(server):
    with server.connect() as connection:
        connection.sendall(
            b'POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n'
            b'Transfer-Encoding: chunked\r\n\r\n'
        )
        chunk = b'10000\r\n' + b'x' * 65536 + b'\r\n'
        with pytest.raises(OSError):  # the server closes
            for _ in range(1000):
                connection.sendall(chunk)
        assert server.ask('/health')[0] == 200


def test_the_answer_to_a_body_that_is_too_long_reaches_who_is_still_sending(server):
    with server.connect() as connection:
        connection.sendall(request_head(3_000_000))
        assert connection.recv(100_000).startswith(b'HTTP/1.1 413')
        for _ in range(30):  # of a connection that is closed one of these would fail
            connection.sendall(b'x' * 100_000)
        assert b'HTTP' not in connection.makefile('rb').read()  # and it ends


@pytest.mark.parametrize(('kind', 'name'), [
    (CompletionRequest, 'prompt'), (CompletionRequest, 'stop'), (CompletionRequest, 'ban'),
    (CompletionRequest, 'choices'), (ScoreRequest, 'text'), (EmbeddingRequest, 'input'), (DetokenizeRequest, 'ids'),
])  # fmt: skip
def test_of_a_long_list_one_fault_is_sought(kind, name):
    for given in ([None] * 1000, [[None] * 1000], [[None]] * 1000):
        with pytest.raises(ValidationError) as found:
            kind(**{name: given})
        assert found.value.error_count() < 5


@pytest.mark.parametrize('given', [
    {'logit_bias': {str(token): 101 for token in range(1000)}}, {f'unknown_{number}': 0 for number in range(1000)},
    {'stream_options': {f'unknown_{number}': 0 for number in range(1000)}},
])  # fmt: skip
def test_of_many_entries_one_fault_is_sought(given):
    with pytest.raises(ValidationError) as found:
        CompletionRequest(**given)
    assert found.value.error_count() == 1


def test_a_name_that_is_no_models_is_cut(models):
    served = ServedModels(Settings(models=('7M',), models_dir=str(models)))
    with pytest.raises(Failure) as found:
        asyncio.run(served.get('x' * 1000))
    assert len(found.value.message) < 200


@pytest.mark.parametrize(('trusted', 'expected'), [(None, '127.0.0.1'), ('127.0.0.1', '192.0.2.1')])
def test_whose_word_is_taken_for_who_asks(trusted, expected, monkeypatch):
    monkeypatch.delenv('FORWARDED_ALLOW_IPS', raising=False)
    if trusted:
        monkeypatch.setenv('FORWARDED_ALLOW_IPS', trusted)
    seen = []

    async def note(scope, receive, send):
        seen.append(scope['client'][0])

    (config := new_server(note, 1, 1).config).load()
    headers = [(b'x-forwarded-for', b'192.0.2.1')]
    asyncio.run(config.loaded_app({'type': 'http', 'client': ('127.0.0.1', 1), 'headers': headers}, None, None))
    assert seen == [expected]


def test_a_process_that_is_killed_is_started_again(models, at_once):
    with started('--model_name', '7M,other', models=models) as server:
        [own] = server.workers()
        expected = server.completion(PROMPT, seed=1, model='other')
        [other] = set(server.workers()) - {own}
        streams = [server.events(PROMPT, n=4, **ENDLESS), server.events(PROMPT, model='other', max_tokens=200)]
        begun = [next(stream) for stream in streams]
        assert all(json.loads(line)['choices'] for line in begun)
        os.kill(own, signal.SIGKILL)
        *_, last = streams[0]
        error = json.loads(last)['error']
        assert (error['type'], error['code']) == ('server_error', 'worker_died')
        assert 'SIGKILL' in error['message']
        *_, last = streams[1]
        assert last == '[DONE]'
        assert server.completion(PROMPT, seed=1, model='7M')['choices'] == expected['choices']
        assert server.metric('gpt2_worker_restarts') == 1
        assert len(server.workers()) == 2
        known = {own, other}
        for _ in range(2):  # the second while it loads
            wait_until(lambda: set(server.workers()) - known)
            [newest] = set(server.workers()) - known
            known.add(newest)
            os.kill(newest, signal.SIGKILL)
        wait_until(lambda: server.ask('/health')[0] == 200)


def test_a_process_that_dies_while_it_loads_promises_nothing(models):
    class Died:
        async def wait(self):
            return -signal.SIGKILL

    async def told():
        [served] = ServedModels(Settings(models=('7M',), models_dir=str(models)))
        process, served.requests[0] = Died(), asyncio.Queue()
        process.stdout = asyncio.StreamReader()
        process.stdout.feed_eof()
        failure = served.requests[0]
        await served.read(process)
        return failure.get_nowait().message, served.fault

    message, fault = asyncio.run(told())
    assert fault == 'the process that computes 7M ended (signal SIGKILL)'
    assert message == f'{fault}; it had not loaded the model yet'


def test_models_are_loaded_when_asked_for_and_let_go(models):
    with started('--model_name', '7M,other', '--max_memory', '60', models=models) as server:
        assert len(server.workers()) == 1
        for name in ('other', '7M', 'other'):
            before = server.workers()
            assert server.completion(PROMPT, model=name)['model'] == name
            assert len(server.workers()) == 1
            assert server.workers() != before
            assert server.ask('/health')[0] == 200  # also of the first, which is loaded again when it is asked
        stream = server.events(PROMPT, model='other', **ENDLESS)
        next(stream)
        assert server.error('/v1/completions', 503, prompt=PROMPT, model='7M')['code'] == 'no_memory'


def test_models_that_are_let_go_fail_nobody(models, at_once):
    with started('--model_name', '7M,other', '--max_memory', '60', models=models) as server:

        def ask(name):
            return server.ask('/v1/completions', {'prompt': PROMPT, 'model': name, 'max_tokens': 3, 'seed': 1})

        for _ in range(3):
            answers = at_once(*(functools.partial(ask, name) for name in ('7M', 'other', '7M', 'other')))
            for status, answer, _ in answers:  # what finds no room is told so
                assert status == 200 or (status, answer['error']['code']) == (503, 'no_memory'), answer
            assert 200 in [status for status, _, _ in answers]
        assert server.metric('gpt2_worker_restarts') == 0


def test_a_model_that_never_fits_is_refused(models):
    with pytest.raises(UsageError, match=r'^7M needs \d+ MB, more than --max_memory 1 allows$'):
        ServedModels(Settings(models=('7M',), models_dir=str(models), max_memory=1))


def test_flags_that_can_mean_nothing(models, tmp_path, capsys):
    with pytest.raises(UsageError, match='two models called 7M'):
        ServedModels(Settings(models=('7M', str(models / '7M')), models_dir=str(models)))
    with pytest.raises(UsageError, match=r'--cors is .example\.org'):
        origins(['example.org'])
    assert origins(['https://example.org', '*']) == ('https://example.org', '*')
    (tmp_path / 'keys').write_bytes(b'\xef\xbb\xbf# of the class\r\nfirst\r\n\n second \n')
    (tmp_path / 'keys').chmod(0o600)
    assert read_keys(str(tmp_path / 'keys')) == ('first', 'second')
    assert capsys.readouterr().err == ''


def test_keys_that_others_can_read_or_no_header_holds(tmp_path, capsys):
    (path := tmp_path / 'keys').write_text('# schlüssel\nfirst\n')
    path.chmod(0o644)
    assert read_keys(str(path)) == ('first',)
    assert capsys.readouterr().err == f'everybody on this machine can read the keys in {path}; chmod 600 keeps them\n'
    path.write_text('first\n\nschlüssel\n')
    with pytest.raises(UsageError, match=r'not ASCII in line 3, .*; make keys of letters, digits and signs'):
        read_keys(str(path))


def test_the_end_lets_requests_come_to_theirs(models):
    with started('--model_name', '7M', models=models) as server:
        stream = server.events(PROMPT, max_tokens=300, stop_at_end=False)
        next(stream)
        workers = server.workers()
        server.process.send_signal(signal.SIGTERM)
        wait_until(lambda: refused(server.port))
        *_, last = stream
        assert last == '[DONE]'
        assert server.process.wait(30) == 0
        lines = server.process.stderr.read().splitlines()
        assert [line for line in lines if not line.startswith('exporting ')] == []
        wait_until(lambda: not any(os.path.exists(f'/proc/{worker}') for worker in workers))


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_an_end_before_it_could_answer_is_one_in_order(models, monkeypatch, number):
    closed = []

    async def start(model):
        signal.raise_signal(number)
        await asyncio.sleep(PATIENCE)

    async def close(served):
        closed.append(served)

    monkeypatch.setattr(ServedModel, 'start', start)
    monkeypatch.setattr(ServedModels, 'close', close)
    with ends_raised():
        serve_models(model_name='7M', models_dir=str(models), port=0)
    assert len(closed) == 1


def test_the_end_waits_no_longer_than_the_grace(models):
    with started('--model_name', '7M', '--grace', '1', models=models) as server:
        stream = server.events(PROMPT, n=100, **ENDLESS)
        next(stream)
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(20) == 0


def test_many_requests_of_which_some_are_cut_off(server, offline):
    """Nothing is lost or mixed up, and nothing stays behind."""
    expected = {seed: offline.complete(PROMPT, seed=seed, length=10, stop_at_end=True).text for seed in range(10)}
    [worker] = server.workers()
    wrong, sizes = [], []

    def ask(start):
        for number in range(start, start + 25):
            if number % 10 == 0:
                stream = server.events(PROMPT, **ENDLESS)
                next(stream)
                stream.close()
            else:
                answer = server.completion(PROMPT, seed=number % 10, max_tokens=10)
                wrong.extend([number] if answer['choices'][0]['text'] != expected[number % 10] else [])

    for _ in range(2):
        threads = [threading.Thread(target=functools.partial(ask, start * 25)) for start in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        sizes.append([resident(worker), resident(server.process.pid)])
    assert wrong == []
    wait_until(lambda: server.metric('gpt2_batch_size') + server.metric('gpt2_queue_length') == 0)
    assert all(after - before < 20 * 2**20 for before, after in zip(*sizes))


def resident(process):
    with open(f'/proc/{process}/statm') as file:
        return int(file.read().split()[1]) * os.sysconf('SC_PAGE_SIZE')
