"""What goes on inside a model as it reads a text, for the page: the endpoint, and the process that looks.

Looking needs TensorFlow, which the processes that draw may not have, and must not hold up; so it has a process of its
own, which is started when somebody first looks, and ends with the server.
"""

import functools
import math
import multiprocessing
import os
import signal
import threading
import time
import traceback
from typing import Annotated, Any

import fastapi
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

from gpt2.errors import Error, UsageError
from gpt2.hparams import HParams
from gpt2.inspection import records
from gpt2.inspection.names import check_index
from gpt2.inspection.published import FOLDER, MAPS
from gpt2.serving import answers
from gpt2.serving.failures import Failure
from gpt2.serving.schema import Request, Text

TOKENS = 128  # of a text that is looked into: patterns grow with their square
LIKELIEST = 10  # tokens that may come next
MODELS = 2  # that the process holds; another one takes the place of the one used least recently
PASSAGES = 5


class InsideRequest(Request):
    """What is to be seen. What is left out is not looked at."""

    text: Text = Field(description=f'Up to {TOKENS} tokens.')
    layer: int | None = Field(0, ge=0, description='Of the head and the neuron that are shown.')
    head: int | None = Field(0, ge=0, description='Whose attention is shown.')
    neuron: int | None = Field(0, ge=0, description='Whose activations are shown.')
    ablate: Annotated[str, Field(max_length=10_000)] | None = Field(
        None, description='Neurons and heads that are made 0, h5.mlp.131,h9.head.6; everything is then as it is so.'
    )


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
    much it is attended to. next, before: what comes next as the model is asked for, and unablated."""

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
def opened(path: str, models_dir: str) -> Any:
    from gpt2.api import open_model

    return open_model(path, models_dir, engine='tf')


def look_inside(
    path: str, models_dir: str, text: str, layer: int, head: int, neuron: int, ablate: str | None
) -> dict[str, Any]:
    """What InsideAnswer says, but for the model's name. Raises Error."""
    model = opened(path, models_dir)
    hparams, encoder = model.hparams, model.encoder
    sizes = {'layer': hparams.n_layer, 'head': hparams.n_head, 'neuron': 4 * hparams.n_embd}
    for (what, count), index in zip(sizes.items(), (layer, head, neuron)):
        check_index(what, 'the request', index, count)
    ids = model.encode(text)
    if len(ids) > TOKENS:
        raise UsageError(f'the text has {len(ids)} tokens; up to {TOKENS} can be looked into, shorten it')
    changed = model.ablated(ablate) if ablate else model

    def guess(token: int, probability: float) -> dict[str, Any]:
        return {'id': int(token), 'token': answers.token_text(encoder, int(token)), 'probability': float(probability)}

    lens = changed.lens(text, likeliest=LIKELIEST)
    plain = model.lens(text, likeliest=LIKELIEST) if ablate else lens
    pattern, act = f'h{layer}.attn.pattern', f'h{layer}.mlp.act'
    seen = changed.activations(text, [pattern, act])
    return {
        'tokens': [answers.token_text(encoder, token) for token in ids],
        'n_layer': hparams.n_layer, 'n_head': hparams.n_head, 'n_neuron': 4 * hparams.n_embd,
        'lens': [[guess(*pair) for pair in zip(*row)] for row in zip(lens.ids[..., 0], lens.probabilities[..., 0])],
        'pattern': seen[pattern][head].round(5).tolist(),
        'activations': seen[act][:, neuron].round(5).tolist(),
        'next': [guess(*pair) for pair in zip(lens.ids[-1, -1], lens.probabilities[-1, -1])],
        'before': [guess(*pair) for pair in zip(plain.ids[-1, -1], plain.probabilities[-1, -1])],
        **known_of(path, hparams, layer, neuron),
    }  # fmt: skip


def known_of(path: str, hparams: HParams, layer: int, neuron: int) -> dict[str, Any]:
    """The top passages and the explanations of a neuron: those that lie in the model's folder, `neurons`, as
    inspect_model.py writes them, or were fetched of the published map."""
    name = MAPS.get(hparams, '')
    record, explained = (
        next(filter(os.path.isfile, (os.path.join(*place, f'{neuron}.{end}') for place in places)), None)
        for end, places in (
            ('json', [(path, 'neurons', str(layer)), (FOLDER, name, 'collated-activations', str(layer))]),
            ('jsonl', [(FOLDER, name, 'explanations', str(layer))]),
        )
    )
    passages = records.read_record(record).top[:PASSAGES] if record else ()
    explanations = records.read_explanations(explained) if explained else []
    return {
        'passages': [{'tokens': each.tokens, 'activations': each.activations} for each in passages],
        'explanations': [{'explanation': each.text, 'score': each.score if math.isfinite(each.score) else None}
                         for each in explanations],
    }  # fmt: skip


async def post_inside(request: fastapi.Request, body: InsideRequest) -> JSONResponse:
    """What goes on inside a model as it reads a text."""
    state = request.app.state
    served = await state.models.get(body.model)
    layer, head, neuron = body.layer or 0, body.head or 0, body.neuron or 0
    ask = functools.partial(
        LOOKER.look, served.files.path, state.settings.models_dir, body.text, layer, head, neuron, body.ablate
    )
    with served.counted():
        found = await state.looking.run(ask, time.monotonic() + state.settings.time_limit)
    return JSONResponse({'model': served.name, **found})


LOOKER = Looker()
