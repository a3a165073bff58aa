"""What goes on inside a model, and what its neurons do."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from gpt2.api import Model, open_model
from gpt2.checkpoints.folders import DEFAULT_MODELS_DIR, expand
from gpt2.commands.ablation import ABLATION_HELP, ablated
from gpt2.commands.detect import given_text
from gpt2.commands.flags import (
    MODEL_NAME_HELP,
    MODELS_DIR_HELP,
    boolean,
    integer,
    optional_integer,
    print_utf8,
    reject_unknown,
    show_notices,
)
from gpt2.commands.inspect_neurons import study_neurons
from gpt2.encoder import Encoder
from gpt2.errors import UsageError
from gpt2.inspection.connections import strongest
from gpt2.system.text import escaped, json_line

HELP = """\
See what goes on inside a model, and what its neurons do.

    python src/inspect_model.py lens "The king and the"
    python src/inspect_model.py lens --help

activations           write what goes on inside as a text is read to a file of arrays
lens                  show what each layer would say next: the final norm and the logits of its stream
contributions         show how much each head and MLP adds to the logit of a token, or to its lead over another
connections           show with which tokens and neurons a neuron is connected most strongly
neurons               find out what neurons do: over a corpus, as published, and as somebody explains them
"""
TEXT_HELP = '--file PATH           a UTF-8 file in place of TEXT; - is standard input, and so is TEXT where it is -'
JSON_HELP = '--json                print JSON, in UTF-8'
ACTIVATIONS_HELP = f"""\
Write what goes on inside a model as it reads a text to a file of arrays.

    python src/inspect_model.py activations "The king and the queen" --names mlp.act,attn.pattern --out found.npz

Each name is an array, float32, beside tokens (the ids) and starts (the first token that each token sees). Names are
the checkpoint's: h5.mlp.act is that of layer 5, mlp.act that of all layers along a first axis. docs/inside.md
lists them all with their shapes. A text longer than n_ctx is read in windows, and written as it is read.

{TEXT_HELP}
--names LIST          what to write, with commas between names
--out FILE            the file, .npz or .safetensors, which replaces what is there when it is whole, and needs its room
                      twice till then
--stride N            tokens by which the window moves over a longer text, from 1 to n_ctx; a token is seen in the
                      first window that holds it. Default: half of n_ctx
--end_of_text         put the end-of-text token before the text
{ABLATION_HELP}
{MODEL_NAME_HELP}
{MODELS_DIR_HELP}
"""
LENS_HELP = f"""\
Show what each layer of a model would say next after each token of a text: the logit lens (nostalgebraist 2020), which
takes the stream that leaves a layer for the last one's.

    python src/inspect_model.py lens "The king and the"

A line for each token: what is read, and of each layer the likeliest token. The last layer says what the model says.

{TEXT_HELP}
--top N               likeliest tokens of each layer in JSON, at least 1. Default: 1
{JSON_HELP}: an object a token, with token, and layers, of each a list of [token, probability]
{ABLATION_HELP}
{MODEL_NAME_HELP}
{MODELS_DIR_HELP}
"""
CONTRIBUTIONS_HELP = f"""\
Show how much each part of a model adds, directly, to the logit of the token that follows a text, or to its lead over
another token.

    python src/inspect_model.py contributions "The king and the" --token " queen" --other " king"

The stream that the final norm reads is a sum of what the embeddings, heads, MLPs and biases write, so a logit is one
too, with the norm's deviation as it was; the figures add up to it. Parts come by size.

{TEXT_HELP}
--token TOKEN         the token: an id, or a text that is one token
--other TOKEN         another one: figures are then of the logit of --token less that of this one
--neurons             show each neuron of the MLPs, not each MLP
--top N               parts that are shown, at least 1. Default: 20
{JSON_HELP}: one object with logit and parts, all of them
{ABLATION_HELP}
{MODEL_NAME_HELP}
{MODELS_DIR_HELP}
"""
CONNECTIONS_HELP = f"""\
Show with which tokens and which neurons of other layers a neuron is connected most strongly, by weights alone, as
OpenAI's neuron map defines it.

    python src/inspect_model.py connections h3.mlp.131

--top N               connections of each kind and sign, at least 1. Default: 10
{JSON_HELP}: one object; tokens as in the published records
{MODEL_NAME_HELP}
{MODELS_DIR_HELP}
"""


def write_activations(
    *text: str, file: str | None = None, names: str | None = None, out: str | None = None, stride: Any = None,
    end_of_text: bool = False, ablate: str | None = None, ablate_from: str | None = None,
    model_name: str | None = None, models_dir: str = DEFAULT_MODELS_DIR, **unknown: Any,
) -> None:  # fmt: skip
    reject_unknown((), unknown)
    if names is None or out is None:
        raise UsageError('give --names and --out; --help says which names there are')
    _, given = given_text(text, file)
    model = opened(model_name, models_dir, ablate, ablate_from)
    end_of_text, stride = boolean('end_of_text', end_of_text), optional_integer('stride', stride, 1)
    model.save_activations(expand(out), given, names, end_of_text=end_of_text, stride=stride)


def show_lens(
    *text: str, file: str | None = None, top: Any = 1, json: bool = False, ablate: str | None = None,
    ablate_from: str | None = None, model_name: str | None = None, models_dir: str = DEFAULT_MODELS_DIR,
    **unknown: Any,
) -> None:  # fmt: skip
    reject_unknown((), unknown)
    top, json = integer('top', top, 1), boolean('json', json)
    _, given = given_text(text, file)
    model = opened(model_name, models_dir, ablate, ablate_from)
    found = model.lens(given, likeliest=top)
    tokens = [shown(model.encoder, token) for token in model.encode(given)]
    if json:
        print_utf8()
    width = max(map(len, tokens))
    for place, token in enumerate(tokens):
        layers = [
            [[shown(model.encoder, each), round(float(p), 6)] for each, p in zip(ids[place], probabilities[place])]
            for ids, probabilities in zip(found.ids, found.probabilities)
        ]
        if json:
            print(json_line({'token': token, 'layers': layers}))
        else:
            print(f'{token:<{width}}', *(f'{layer[0][0]:<12}' for layer in layers))


def show_contributions(
    *text: str, file: str | None = None, token: str | None = None, other: str | None = None, neurons: bool = False,
    top: Any = 20, json: bool = False, ablate: str | None = None, ablate_from: str | None = None,
    model_name: str | None = None, models_dir: str = DEFAULT_MODELS_DIR, **unknown: Any,
) -> None:  # fmt: skip
    reject_unknown((), unknown)
    top, json, neurons = integer('top', top, 1), boolean('json', json), boolean('neurons', neurons)
    if token is None:
        raise UsageError('give --token, such as " queen"; --help shows how')
    _, given = given_text(text, file)
    model = opened(model_name, models_dir, ablate, ablate_from)
    found = model.contributions(given, token, other, neurons=neurons)
    if json:
        print_utf8()
        print(json_line({'logit': found.logit, 'parts': found.parts}))
        return
    print(f'{found.logit:+9.4f}  the logit' if other is None else f'{found.logit:+9.4f}  the lead')
    for name, value in sorted(found.parts.items(), key=lambda item: -abs(item[1]))[:top]:
        print(f'{value:+9.4f}  {name}')


def show_connections(
    *neuron: str, top: Any = 10, json: bool = False, model_name: str | None = None,
    models_dir: str = DEFAULT_MODELS_DIR, **unknown: Any,
) -> None:  # fmt: skip
    reject_unknown((), unknown)
    top, json = integer('top', top, 1), boolean('json', json)
    if len(neuron) != 1:
        raise UsageError('give one neuron, as h3.mlp.131 is one')
    model = open_model(model_name, models_dir, prefix='--')
    found = model.connections(neuron[0])
    layer = len(found.neurons_in)
    kinds: dict[str, tuple[np.ndarray, Any]] = {
        'input': (found.tokens_in, lambda place: shown(model.encoder, place[0])),
        'output': (found.tokens_out, lambda place: shown(model.encoder, place[0])),
        'upstream': (found.neurons_in, lambda place: f'h{place[0]}.mlp.{place[1]}'),
        'downstream': (found.neurons_out, lambda place: f'h{layer + 1 + place[0]}.mlp.{place[1]}'),
    }
    lists = {
        f'{kind}_{word}': [(name(place), strength) for place, strength in strongest(strengths, top, sign)]
        for kind, (strengths, name) in kinds.items()
        for word, sign in (('positive', 1), ('negative', -1))
    }
    if json:
        print_utf8()
        print(json_line({'neuron': neuron[0]} | {name: columns(name, pairs) for name, pairs in lists.items()}))
        return
    for name, pairs in lists.items():
        print(f'{name.replace("_", ", ")}:', *(f'{each} {strength:+.3f}' for each, strength in pairs), sep='  ')


def columns(name: str, pairs: Sequence[tuple[str, float]]) -> dict[str, list]:
    """Pairs as the published records have them."""
    what = 'tokens' if name.startswith(('input', 'output')) else 'neurons'
    return {what: [each for each, _ in pairs], 'strengths': [strength for _, strength in pairs]}


def opened(model_name: str | None, models_dir: str, ablate: str | None, ablate_from: str | None) -> Model:
    """The model that flags name, with changes, nothing heavy loaded. Raises UsageError."""
    model = open_model(model_name, models_dir, engine='tf', prefix='--')
    show_notices(model.notices)
    return ablated(model, ablate, ablate_from)


def shown(encoder: Encoder, token: int) -> str:
    """A token as a text on one line."""
    return escaped(encoder.decode([int(token)]))


def inspect_model(*words: str) -> None:
    """Raise UsageError: what is wanted is one of `parts`, the functions that main.py runs by the first word."""
    found = f'{words[0]!r} is none of' if words else 'name one of'
    raise UsageError(f'{found} {", ".join(PARTS)}; --help says what they do')


PARTS = {
    'activations': write_activations, 'lens': show_lens, 'contributions': show_contributions,
    'connections': show_connections, 'neurons': study_neurons,
}  # fmt: skip
write_activations.__doc__, show_lens.__doc__ = ACTIVATIONS_HELP, LENS_HELP
show_contributions.__doc__, show_connections.__doc__ = CONTRIBUTIONS_HELP, CONNECTIONS_HELP
inspect_model.__doc__ = HELP
inspect_model.parts = PARTS  # type: ignore[attr-defined]
