"""The endpoints."""

import asyncio
import contextlib
import functools
import html
import json
import mimetypes
import os
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any, TypeVar

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response, StreamingResponse
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.responses import FileResponse
from starlette.staticfiles import StaticFiles

from gpt2 import __version__
from gpt2.serving import answers, inside, requests, schema
from gpt2.serving.bodies import check_body
from gpt2.serving.encoding import Encoding
from gpt2.serving.failures import Failure, cut
from gpt2.serving.gate import Gate, sent
from gpt2.serving.log import Log
from gpt2.serving.metrics import Metrics
from gpt2.serving.models import ServedModel, ServedModels
from gpt2.serving.settings import Settings
from gpt2.serving.work import Done, Piece, Vector

PAGE = os.path.join(os.path.dirname(os.path.abspath(__file__)), 'page')
ERRORS: dict[int | str, dict[str, Any]] = {status: {'model': schema.ErrorAnswer} for status in ('4XX', '5XX')}
OTHER_ANSWERS: dict[str, dict[int | str, dict[str, Any]]] = {
    '/v1/completions': {200: {'content': {'text/event-stream': {'schema': {}}}}},
    '/health': {503: {'model': schema.Health}},
}
Result = TypeVar('Result')
mimetypes.add_type('text/javascript', '.js')  # which some systems call otherwise; then a browser takes no module


def new_app(settings: Settings, models: ServedModels, metrics: Metrics, log: Log) -> Gate:
    """The ASGI application of a server."""
    app = FastAPI(title='GPT-2', version=__version__, docs_url=None, redoc_url=None)
    app.router.route_class = Route
    for name in ('encoding', 'answering', 'looking'):  # each with threads of its own
        setattr(app.state, name, Encoding(settings.time_limit))
    app.state.settings, app.state.models, app.state.metrics, app.state.log = settings, models, metrics, log
    app.add_exception_handler(Failure, failed)
    app.add_exception_handler(RequestValidationError, not_understood)
    app.add_exception_handler(HTTPException, not_here)
    app.add_exception_handler(Exception, went_wrong)
    for method, path, endpoint, model in ENDPOINTS:
        how: dict[str, Any] = {} if model else {'response_class': PlainTextResponse}
        how['responses'] = ERRORS | OTHER_ANSWERS.get(path, {})
        app.add_api_route(path, endpoint, methods=[method], response_model=model, **how)
        if method == 'GET':  # whatever can be had can be asked after
            app.add_api_route(path, endpoint, methods=['HEAD'], response_model=None, include_in_schema=False)
    both: dict[str, Any] = {'methods': ['GET', 'HEAD'], 'include_in_schema': False}
    app.add_api_route('/docs', lambda: HTMLResponse(documentation(app.openapi())), **both)
    app.add_api_route('/', lambda: FileResponse(os.path.join(PAGE, 'index.html')), **both)
    app.mount('/page', StaticFiles(directory=PAGE))

    known = {path for _, path, _, _ in ENDPOINTS}

    def told(method: str, path: str, status: int, seconds: float) -> None:
        metrics.requests.labels(path if path in known else 'other', str(status)).inc()
        log.write(f'{method} {path} {status} {seconds:.3f} s')

    return Gate(app, settings, told)


class Route(APIRoute):
    """An endpoint. A body that is no good is refused before anything is made of it."""

    def get_route_handler(self) -> Callable:
        handle = super().get_route_handler()

        async def checked(request: Request) -> Response:
            if request.method == 'POST':
                check_body(await request.body())
            return await handle(request)

        return checked


async def failed(request: Request, failure: Exception) -> Response:
    assert isinstance(failure, Failure)
    return JSONResponse(failure.content, failure.status, failure.headers)


async def not_understood(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    field, message = schema.explained(list(error.errors()))
    return await failed(request, Failure(400, message, field, 'invalid_request'))


async def not_here(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    message = f'{request.method} {request.url.path}: {error.detail}; /docs lists what there is'
    answer = await failed(request, Failure(error.status_code, message))
    answer.headers.update(error.headers or {})
    return answer


async def went_wrong(request: Request, error: Exception) -> Response:
    return await failed(request, Failure(500, 'the server failed; its log says how'))


async def post_completions(request: Request, body: schema.CompletionRequest) -> Response:
    """Continue a prompt."""
    deadline = new_deadline(request)
    served, model = await chosen(request, body.model)
    work = await encoded(request, served, deadline, requests.completions, body, model, request.app.state.settings)
    if request.app.state.settings.log_prompts:
        request.app.state.log.write(f'prompt {json.dumps(body.prompt)}')
    texts = [model.decode(ids) if work.echo else '' for ids in work.prompts]
    shown = [text for text in texts for _ in range(work.n)]
    choices = answers.Choices(served.name, model.encoder, work.seed, shown, work.logprobs)
    sizes = work.prompt_tokens
    events = watched(request, served, work, deadline)
    if not body.stream:
        async with contextlib.aclosing(events):
            done = await unless_gone(request, gathered(events, choices.add))
            return await answered(request, deadline, lambda: choices.whole(answers.usage(sizes, done.drawn)))
    with_usage = bool(body.stream_options and body.stream_options.include_usage)
    first = await unless_gone(request, anext(events))  # so that what fails at once is no stream
    lines = stream(first, events, choices, sizes, with_usage)
    return StreamingResponse(lines, media_type='text/event-stream', headers={'Cache-Control': 'no-store'})


async def stream(
    first: Any, events: AsyncGenerator[Any, None], choices: answers.Choices, sizes: int, with_usage: bool
) -> AsyncGenerator[str, None]:
    """Yield the lines of a stream of server-sent events."""
    usage: dict[str, Any] = {'usage': None} if with_usage else {}
    async with contextlib.aclosing(events):
        for chunk in choices.opening():
            yield sent({**chunk, **usage})
        event = first
        try:
            while not isinstance(event, Done):
                if isinstance(event, Piece):
                    yield sent({**choices.chunk(event), **usage})
                event = await anext(events)
        except Failure as failure:
            yield sent(failure.content)
            return
    if with_usage:
        yield sent(choices.last_chunk(answers.usage(sizes, event.drawn)))
    yield 'data: [DONE]\n\n'


async def watched(
    request: Request, served: ServedModel, work: Any, deadline: float
) -> AsyncGenerator[Any, None]:
    """The events of a piece of work, whose tokens and times are counted."""
    state = request.app.state
    watch, unheard = state.metrics.watch(), True
    try:
        async with contextlib.aclosing(served.ask(work, deadline)) as events:
            async for event in events:
                if unheard:  # it was let in
                    state.metrics.prompt_tokens.inc(work.prompt_tokens)
                    unheard = False
                if isinstance(event, Piece):
                    watch.drew(event.drawn)
                yield event
    finally:
        watch.ended()


def new_deadline(request: Request) -> float:
    """Until when a request that came now is answered, by time.monotonic()."""
    return time.monotonic() + request.app.state.settings.time_limit


async def encoded(
    request: Request, served: ServedModel, deadline: float, function: Callable[..., Result], *given: Any
) -> Result:
    """What function makes of texts, beside the event loop. Raises Failure."""
    with served.counted():
        work = request.app.state.encoding.run(functools.partial(function, *given), deadline)
        return await unless_gone(request, work)


async def answered(request: Request, deadline: float, content: Callable[[], dict[str, Any]]) -> Response:
    """The answer whose content a function makes, beside the event loop: one of 10 MB takes seconds. Raises Failure.

    To be called before the events are closed, so that the request keeps its place in the queue until then.
    """
    made = request.app.state.answering.run(lambda: answers.dumped(content()), deadline)
    return Response(await unless_gone(request, made), media_type='application/json')


async def gathered(events: AsyncGenerator[Any, None], take: Callable[[Any], None]) -> Done:
    """Give all events but the last to take; returns that one."""
    async for event in events:
        if isinstance(event, Done):
            return event
        take(event)
    raise AssertionError('no end')


async def unless_gone(request: Request, result: Awaitable[Result]) -> Result:
    """The result, unless the client goes away first: then it is not waited for. Raises Failure."""

    async def gone() -> None:
        while (await request.receive())['type'] != 'http.disconnect':
            pass

    tasks: list[asyncio.Future] = [asyncio.ensure_future(result), asyncio.ensure_future(gone())]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if tasks[0].done():
            return tasks[0].result()
        raise Failure(499, 'the client went away')  # nobody reads it; the log has it
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def chosen(request: Request, name: str | None) -> tuple[ServedModel, Any]:
    """The served model of a name, and its vocabulary and shape."""
    served = await request.app.state.models.get(name)
    return served, await served.opened()


async def post_score(request: Request, body: schema.ScoreRequest) -> Response:
    """How likely each token of a text is."""
    deadline = new_deadline(request)
    served, model = await chosen(request, body.model)
    work = await encoded(request, served, deadline, requests.scoring, body, model, request.app.state.settings)
    tokens: list = []
    # Offsets are those of the text alone.
    shift = len(model.decode([work.ids[0]])) if work.ids and requests.value(body.end_of_text, True) else 0
    content = functools.partial(answers.score, served.name, model.encoder, tokens, shift)
    if len(work.ids) < 2:
        return JSONResponse(content())
    async with contextlib.aclosing(watched(request, served, work, deadline)) as events:
        await unless_gone(request, gathered(events, lambda piece: tokens.extend(piece.tokens)))
        return await answered(request, deadline, content)


async def post_embeddings(request: Request, body: schema.EmbeddingRequest) -> Response:
    """What the model makes of texts: n_embd numbers each, 768 for 124M, 1024, 1280 and 1600 for the larger ones."""
    deadline = new_deadline(request)
    served, model = await chosen(request, body.model)
    work = await encoded(request, served, deadline, requests.embedding, body, model, request.app.state.settings)
    vectors: dict[int, Vector] = {}
    normalise, form = requests.value(body.normalise, True), requests.value(body.encoding_format, 'float')
    content = functools.partial(answers.embeddings, served.name, vectors, work.prompt_tokens, normalise, form)
    async with contextlib.aclosing(watched(request, served, work, deadline)) as events:
        await unless_gone(request, gathered(events, lambda vector: vectors.update({vector.index: vector})))
        return await answered(request, deadline, content)


async def post_tokenize(request: Request, body: schema.TokenizeRequest) -> Response:
    """The token ids of a text."""
    served, model = await chosen(request, body.model)
    ids, tokens = await encoded(request, served, new_deadline(request), requests.tokens, body, model)
    sizes = {'n_ctx': model.hparams.n_ctx, 'max_prompt': requests.max_prompt(model, request.app.state.settings)}
    return JSONResponse({'model': served.name, 'ids': ids, 'tokens': tokens, **sizes})


async def post_detokenize(request: Request, body: schema.DetokenizeRequest) -> Response:
    """The text of token ids."""
    served, model = await chosen(request, body.model)
    text = await encoded(request, served, new_deadline(request), requests.text_of, body, model)
    return JSONResponse({'model': served.name, 'text': text})


async def get_models(request: Request) -> Response:
    """The models that are served."""
    return JSONResponse({'object': 'list', 'data': [card(model) for model in request.app.state.models]})


async def get_model(request: Request, name: str) -> Response:
    """One of them."""
    models = request.app.state.models.models
    if name not in models:
        raise Failure(404, f'there is no model {cut(repr(name))} here; /v1/models lists those that are', 'model',
                      'model_not_found')  # fmt: skip
    return JSONResponse(card(models[name]))


def card(model: ServedModel) -> dict[str, Any]:
    return {'id': model.name, 'object': 'model', 'created': model.created, 'owned_by': 'gpt2',
            'ready': model.ready}  # fmt: skip


async def get_health(request: Request) -> Response:
    """Whether the first model is loaded: 200 if it is, or was let go of for another one; 503 while it is loading."""
    first = request.app.state.models.first
    ready = first.ready or first.let_go
    if not ready:  # its process may have ended before it was ready; where /health is 503 nobody asks for another one
        with contextlib.suppress(Failure):
            await first.start()
    return JSONResponse({'status': 'ready' if ready else 'loading'}, 200 if ready else 503)


async def get_metrics(request: Request) -> Response:
    """Counts and times, for Prometheus."""
    state = request.app.state
    text = state.metrics.text(state.models)
    return Response(text, media_type='text/plain; version=0.0.4; charset=utf-8')


ENDPOINTS: list[tuple[str, str, Callable, Any]] = [
    ('POST', '/v1/completions', post_completions, schema.Completion),
    ('POST', '/v1/score', post_score, schema.Score),
    ('POST', '/v1/embeddings', post_embeddings, schema.Embeddings),
    ('POST', '/v1/tokenize', post_tokenize, schema.Tokens),
    ('POST', '/v1/detokenize', post_detokenize, schema.Detokenized),
    ('POST', '/v1/inside', inside.post_inside, inside.InsideAnswer),
    ('GET', '/v1/models', get_models, schema.ModelList),
    ('GET', '/v1/models/{name}', get_model, schema.ModelCard),
    ('GET', '/health', get_health, schema.Health),
    ('GET', '/metrics', get_metrics, None),
]


def documentation(document: dict[str, Any]) -> str:
    """A page that shows an OpenAPI document, and needs nothing from anywhere."""
    parts = [f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{document["info"]["title"]}</title>',
             f'<h1>{document["info"]["title"]} {document["info"]["version"]}</h1>',
             '<p>The same for programs: <a href="/openapi.json">/openapi.json</a>.</p>']  # fmt: skip
    for path, methods in document['paths'].items():
        for method, operation in methods.items():
            parts.append(f'<h2>{method.upper()} {html.escape(path)}</h2><p>{html.escape(operation["description"])}</p>')
            content = operation.get('requestBody', {}).get('content', {}).get('application/json', {})
            if reference := content.get('schema', {}).get('$ref'):
                parts.append(fields(document['components']['schemas'][reference.rpartition('/')[2]]))
    return '\n'.join(parts)


def fields(described: dict[str, Any]) -> str:
    """The fields of a request as a table."""
    rows = [
        f'<tr><td><code>{html.escape(name)}</code><td>{html.escape(json.dumps(field.get("default", "required")))}'
        f'<td>{html.escape(field.get("description", ""))}'
        for name, field in described['properties'].items()
    ]
    return f'<table><tr><th>field<th>default<th>meaning{"".join(rows)}</table>'
