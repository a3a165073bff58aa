"""The application in this process: what must be beside the event loop is."""

import asyncio
import json
import threading
import types

import httpx
import pytest

from gpt2.serving import answers
from gpt2.serving.app import new_app
from gpt2.serving.log import Log
from gpt2.serving.metrics import Metrics
from gpt2.serving.models import ServedModels
from gpt2.serving.settings import Settings
from gpt2.serving.work import Done, Load, Piece, Token, Vector

TOLD = (Token(262, 0, -1.0, 1, ((262, -1.0),)),)


@pytest.mark.parametrize(('path', 'asked', 'event'), [
    ('/v1/completions', {'prompt': 'a', 'logprobs': 1}, Piece(0, ' the', TOLD, 'length', 1)),
    ('/v1/score', {'text': 'a'}, Piece(0, '', TOLD)), ('/v1/embeddings', {'input': 'a'}, Vector(0, (3.0, 4.0))),
])  # fmt: skip
def test_answers_are_made_beside_the_event_loop(models, monkeypatch, path, asked, event):
    """One of 10 MB takes seconds; meanwhile others are answered, and it keeps its place in the queue."""
    settings, made, dumped = Settings(models=('7M',), models_dir=str(models)), [], answers.dumped

    async def ask():
        served = ServedModels(settings)
        served.first.process = types.SimpleNamespace(stdin=types.SimpleNamespace(write=lambda content: None))

        def note(content):
            made.append((threading.current_thread() is threading.main_thread(), len(served.first.requests)))
            return dumped(content)

        monkeypatch.setattr(answers, 'dumped', note)
        transport = httpx.ASGITransport(new_app(settings, served, Metrics(), Log(False)))
        async with httpx.AsyncClient(transport=transport, base_url='http://localhost') as client:
            asking = asyncio.create_task(client.post(path, json=asked))
            while not (served.first.requests or asking.done()):
                await asyncio.sleep(0.01)
            served.first.hear('events', [(0, event), (0, Done(1))], Load(1, 0))
            answer = await asking
        assert not served.first.requests
        return answer

    answer = asyncio.run(ask())
    assert (answer.status_code, made) == (200, [(False, 1)]), answer.text
    assert answer.headers['Content-Type'] == 'application/json'
    told = {'/v1/completions': 'choices', '/v1/score': 'tokens', '/v1/embeddings': 'data'}[path]
    assert len(answer.json()[told]) == 1


def test_an_answer_in_parts_is_the_json_of_the_whole():
    content = {'a': [{'b': [1.5, None], 'c': '日本"\n'}, {}], 'd': [], 'e': {'f': True}, 'g': -0.25, '"': None}
    assert answers.dumped(content).decode() == json.dumps(content, ensure_ascii=False, separators=(',', ':'))
