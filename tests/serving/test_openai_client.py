"""The client that people have: openai's from the registry, as it is."""

import os
import signal
import time

import numpy as np
import openai
import pytest

PROMPT = 'Once upon a time'


@pytest.fixture
def client(server):
    with openai.OpenAI(base_url=f'{server.address}/v1', api_key='none', max_retries=0) as client:
        yield client


def test_completions(client, offline):
    answer = client.completions.create(
        model='7M', prompt=[PROMPT, 'London'], max_tokens=20, n=2, seed=1, logprobs=2, stop=['.', '\n'], temperature=0.8
    )
    expected = offline.complete(
        [PROMPT, 'London'], samples=2, length=20, seed=1, stop=['.', '\n'], temperature=0.8, stop_at_end=True
    )
    assert [choice.text for choice in answer.choices] == [each.text for group in expected for each in group]
    assert ''.join(answer.choices[0].logprobs.tokens).startswith(answer.choices[0].text)
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


def test_a_stream(client, offline):
    chunks = list(client.completions.create(
        model='7M', prompt=PROMPT, max_tokens=20, seed=1, stream=True, stream_options={'include_usage': True},
        extra_body={'top_k': 40},
    ))  # fmt: skip
    text = ''.join(choice.text for chunk in chunks for choice in chunk.choices)
    assert text == offline.complete(PROMPT, length=20, seed=1, top_k=40, stop_at_end=True).text
    assert chunks[-1].usage.prompt_tokens == 4


def test_models_and_embeddings(client):
    assert [model.id for model in client.models.list()] == ['7M']
    assert client.models.retrieve('7M').object == 'model'
    answer = client.embeddings.create(model='7M', input=[PROMPT, PROMPT])
    assert np.linalg.norm(answer.data[0].embedding) == pytest.approx(1, abs=1e-5)
    assert answer.data[0].embedding == answer.data[1].embedding


@pytest.mark.parametrize(
    ('kind', 'fields'),
    [
        (openai.BadRequestError, {'model': '7M', 'max_tokens': 5000}),
        (openai.BadRequestError, {'model': '7M', 'suffix': 'end'}),
        (openai.NotFoundError, {'model': '124M'}),
    ],
)
def test_errors_are_of_its_own_classes(client, kind, fields):
    with pytest.raises(kind) as found:
        client.completions.create(prompt=PROMPT, **fields)
    assert found.value.body['message'] in str(found.value)


def test_an_error_in_mid_stream(client, server):
    stream = client.completions.create(
        model='7M', prompt=PROMPT, max_tokens=500, n=8, stream=True, extra_body={'stop_at_end': False}
    )
    next(stream)
    [worker] = server.workers()
    os.kill(worker, signal.SIGKILL)
    with pytest.raises(openai.APIError, match='SIGKILL'):
        list(stream)
    end = time.monotonic() + 60
    while server.ask('/health')[0] != 200:
        assert time.monotonic() < end
        time.sleep(0.05)
