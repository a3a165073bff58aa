"""What goes on inside a model as it reads a text, for the page: the endpoint, and the process that looks.

Looking needs TensorFlow, which the processes that draw may not have, and must not hold up; so it has a process of its
own, which is started when somebody first looks, and ends with the server.
"""

import functools
import itertools
import math
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from typing import Annotated, Any

import fastapi
import numpy as np
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

from gpt2.checkpoints.folders import PACKAGE, REPOSITORY
from gpt2.errors import Error, UsageError
from gpt2.hparams import HParams, weights_bytes
from gpt2.inspection import passages, records
from gpt2.inspection.changes import parse
from gpt2.inspection.names import check_index
from gpt2.inspection.published import FOLDER, MAPS
from gpt2.inspection.survey import Top, as_passage, top_passages
from gpt2.serving import answers
from gpt2.serving.failures import Failure
from gpt2.serving.schema import Request, Text
from gpt2.text_stream import Measure

TOKENS = 128  # of a text that is looked into: patterns grow with their square
LIKELIEST = 10  # tokens that may come next
MODELS = 2  # that the process holds; another one takes the place of the one used least recently
PASSAGES = 5
# Where passages are sought that no record tells of, in models that read it in a second or so.
EXAMPLE = os.path.join(REPOSITORY or PACKAGE, 'examples', 'heidi.txt')
SMALL = 100_000_000  # bytes of weights
READ_AT_ONCE = 32  # passages


class InsideRequest(Request):
    """What is to be seen. What is left out is not looked at."""

    text: Text = Field(description=f'Up to {TOKENS} tokens.')
    layer: int | None = Field(0, ge=0, description='Of the head and the neuron that are shown.')
    head: int | None = Field(0, ge=0, description='Whose attention is shown.')
    neuron: int | None = Field(0, ge=0, description='Whose activations are shown.')
    ablate: Annotated[str, Field(max_length=10_000)] | None = Field(
        None, description='Neurons and heads that are made 0, h5.mlp.131,h9.head.6; everything is then as it is so.'
    )
    passages: bool | None = Field(True, description='Whether passages are sought, which takes seconds the first time.')


class Guess(BaseModel):
    """A token, and its probability."""

    id: int
    token: str
    probability: float


class NeuronPassage(BaseModel):
    """Tokens, and a neuron's activation at each."""

    tokens: list[str]
    activations: list[float]


class NeuronExplanation(BaseModel):
    """What somebody says that a neuron does, and its score."""

    explanation: str
    score: float | None


class InsideAnswer(BaseModel):
    """lens: by layer, of each token the likeliest that the layer would say next. pattern: by query, of each key how
    much it is attended to. next, before: what comes next as the model is asked for, and unablated. source: what the
    passages are of."""

    model: str
    tokens: list[str]
    n_layer: int
    n_head: int
    n_neuron: int
    lens: list[list[Guess]]
    pattern: list[list[float]]
    activations: list[float]
    next: list[Guess]
    before: list[Guess]
    source: str | None
    passages: list[NeuronPassage]
    explanations: list[NeuronExplanation]


class Looker:
    """The process that looks, while there is one. Its methods are for threads that may wait."""

    def __init__(self) -> None:
        self.one_at_a_time = threading.Lock()
        self.process: Any = None
        self.connection: Any = None

    def look(self, *asked: Any) -> dict[str, Any]:
        """What look_inside returns. Raises Failure."""
        with self.one_at_a_time:
            if self.process is None or not self.process.is_alive():
                context = multiprocessing.get_context('spawn')  # no thread or socket of the server's goes along
                self.connection, theirs = context.Pipe()
                self.process = context.Process(target=answer, args=[theirs], daemon=True)
                self.process.start()
                theirs.close()
            try:
                self.connection.send(asked)
                kind, found = self.connection.recv()
            except (EOFError, OSError):
                raise Failure(500, 'the process that looks inside ended; send the request again') from None
        if kind == 'found':
            return found
        wrong = kind == 'wrong'
        raise Failure(400 if wrong else 500, found, code='not_supported' if wrong else 'model_failed')


def answer(connection: Any) -> None:
    """Answer until the server goes away, in a process of its own."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the server says when it is over
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())  # in order, or what its locks leave is complained of
    while True:
        try:
            asked = connection.recv()
        except EOFError:
            return
        try:
            said: tuple[str, Any] = ('found', look_inside(*asked))
        except UsageError as error:
            said = 'wrong', str(error)
        except ImportError:
            said = 'wrong', 'looking inside needs TensorFlow, which is not installed where this server runs'
        except Error as error:
            said = 'failed', str(error)
        except Exception as error:
            traceback.print_exception(error)
            said = 'failed', f'the server failed at this request ({type(error).__name__}); its log says how'
        connection.send(said)


@functools.lru_cache(MODELS)
def opened(path: str, models_dir: str) -> tuple[Any, Any]:
    """A model, and what glances at it."""
    from gpt2.api import open_model
    from gpt2.inspection.glance import make_glance

    model = open_model(path, models_dir, engine='tf')
    return model, make_glance(model.inside, min(LIKELIEST, model.hparams.n_vocab))


def look_inside(
    path: str, models_dir: str, text: str, layer: int, head: int, neuron: int, ablate: str | None,
    seek: bool,
) -> dict[str, Any]:  # fmt: skip
    """What InsideAnswer says, but for the model's name; seek: whether passages are sought. Raises Error."""
    model, glance = opened(path, models_dir)
    hparams, encoder = model.hparams, model.encoder
    sizes = {'layer': hparams.n_layer, 'head': hparams.n_head, 'neuron': 4 * hparams.n_embd}
    for (what, count), index in zip(sizes.items(), (layer, head, neuron)):
        check_index(what, 'the request', index, count)
    ids = model.ids_inside(text)
    longest = min(TOKENS, hparams.n_ctx)
    if len(ids) > longest:
        raise UsageError(f'the text has {len(ids)} tokens; up to {longest} can be looked into, shorten it')
    changes = parse(hparams, ablate) if ablate else []
    if asking := [change.name for change in changes if change.asks_for_reference]:
        raise UsageError(f'{asking[0]} is taken from another text, of which a request has none; set or scale it')
    seen = glance(ids, layer, head, neuron, changes)

    def guesses(ids: np.ndarray, probabilities: np.ndarray) -> list[dict[str, Any]]:
        return [{'id': token, 'token': answers.token_text(encoder, token), 'probability': probability}
                for token, probability in zip(ids.tolist(), probabilities.tolist())]  # fmt: skip

    return {
        'tokens': [answers.token_text(encoder, token) for token in ids],
        'n_layer': hparams.n_layer, 'n_head': hparams.n_head, 'n_neuron': 4 * hparams.n_embd,
        'lens': [guesses(*row) for row in zip(*seen.lens)],
        'pattern': seen.pattern.round(5).tolist(),
        'activations': seen.activations.round(5).tolist(),
        'next': guesses(*seen.next), 'before': guesses(*seen.before),
        **known_of(path, models_dir, hparams, layer, neuron, seek),
    }  # fmt: skip


def known_of(path: str, models_dir: str, hparams: HParams, layer: int, neuron: int, seek: bool) -> dict[str, Any]:
    """The top passages and the explanations of a neuron: passages of a record that lies in the model's folder,
    `neurons`, as inspect_model.py writes them, or was fetched of the published map, or else of the example, if
    that is to be sought in."""
    name = MAPS.get(hparams, '')
    known = {
        "this model's records": os.path.join(path, 'neurons', str(layer), f'{neuron}.json'),
        "OpenAI's published record": os.path.join(FOLDER, name, 'collated-activations', str(layer), f'{neuron}.json'),
    }
    source = next((source for source, record in known.items() if os.path.isfile(record)), None)
    top = records.read_record(known[source]).top[:PASSAGES] if source else ()
    if source is None and seek and has_example(hparams):
        source, top = 'a few chapters of Heidi', tuple(example_passages(path, models_dir, layer, neuron))
    explained = os.path.join(FOLDER, name, 'explanations', str(layer), f'{neuron}.jsonl')
    explanations = records.read_explanations(explained) if os.path.isfile(explained) else []
    return {
        'source': source,
        'passages': [{'tokens': each.tokens, 'activations': each.activations} for each in top],
        'explanations': [{'explanation': each.text, 'score': each.score if math.isfinite(each.score) else None}
                         for each in explanations],
    }  # fmt: skip


def has_example(hparams: HParams) -> bool:
    return weights_bytes(hparams) <= SMALL and hparams.n_ctx >= passages.TOKENS and os.path.isfile(EXAMPLE)


def example_passages(path: str, models_dir: str, layer: int, neuron: int) -> Iterator[records.Passage]:
    """Yield the passages of the example in which a neuron is largest."""
    corpus, tops = example(path, models_dir)
    for number, activations in itertools.islice(tops[layer].of(neuron), PASSAGES):
        yield as_passage(opened(path, models_dir)[0].encoder, corpus[number], activations)


@functools.lru_cache(MODELS)
def example(path: str, models_dir: str) -> tuple[np.ndarray, list[Top]]:
    """The passages of the example, and which of them each neuron of a model is largest in."""
    from gpt2.inspection.reading import make_read

    model, _ = opened(path, models_dir)
    layers, neurons = range(model.hparams.n_layer), range(4 * model.hparams.n_embd)
    corpus = np.array([*passages.passages(model.encoder, [EXAMPLE], 'strict', Measure())], np.int32)
    read = make_read(model.inside, layers, neurons)
    return corpus, top_passages(read, corpus, len(layers), len(neurons), READ_AT_ONCE)


async def post_inside(request: fastapi.Request, body: InsideRequest) -> JSONResponse:
    """What goes on inside a model as it reads a text."""
    state = request.app.state
    served = await state.models.get(body.model)
    layer, head, neuron = body.layer or 0, body.head or 0, body.neuron or 0
    ask = functools.partial(
        LOOKER.look, served.files.path, state.settings.models_dir, body.text, layer, head, neuron, body.ablate,
        body.passages is not False,
    )  # fmt: skip
    with served.counted():
        found = await state.looking.run(ask, time.monotonic() + state.settings.time_limit)
    return JSONResponse({'model': served.name, **found})


LOOKER = Looker()
