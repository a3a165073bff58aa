"""What the neurons of a model do: over a corpus, beside what is published of them, and as somebody explains them."""

import math
import os
from collections.abc import Iterator, Sequence
from typing import Any

from gpt2.api import Model, open_model
from gpt2.checkpoints.folders import DEFAULT_MODELS_DIR, expand
from gpt2.commands.flags import (
    MODEL_NAME_HELP,
    MODELS_DIR_HELP,
    address,
    boolean,
    choice,
    integer,
    optional_integer,
    print_utf8,
    reject_unknown,
    show_notices,
    texts,
)
from gpt2.errors import UsageError
from gpt2.inspection import published
from gpt2.inspection.names import check_index
from gpt2.inspection.passages import TOKENS, batches, passages
from gpt2.inspection.records import Explanation, NeuronRecord, Passage, as_json, write_record
from gpt2.inspection.simulation import Completions, Simulator, by_words, score_explanation
from gpt2.inspection.survey import OF_A_QUANTILE, QUANTILES, RANDOM, SAMPLE, TOP, survey
from gpt2.system import progress
from gpt2.system.files import check_output
from gpt2.system.text import json_line, one_line
from gpt2.text_stream import Measure

HELP = f"""\
Find out what neurons of a model do: where in a corpus they are most active, beside what OpenAI has published of them.

    python src/inspect_model.py neurons --model_name 7M --layer 3 --neuron 131 --corpus examples/heidi.txt
    python src/inspect_model.py neurons --model_name 7M --layer 3 --corpus examples/heidi.txt --out records
    python src/inspect_model.py neurons --model_name 124M --layer 5 --neuron 131 --published

A corpus is read in passages of {TOKENS} tokens, once, for all neurons that are asked for; at its end a random sample of
{SAMPLE} passages is read again. Of each neuron there are the {TOP} passages in which it is largest, {RANDOM} random
ones, {OF_A_QUANTILE} between each of the quantiles {', '.join(map(str, QUANTILES))}
of the passages' largest activations, and mean, variance, skewness and kurtosis (3 for a normal distribution) over all
tokens.

--layer L             the layer, from 0. Default: all layers
--neuron N            the neuron of that layer, from 0. Default: all neurons, whose records need --out
--corpus FILE         a UTF-8 text; may be given more than once, and words without a flag are files too
--errors HOW          what to do with bytes that are not UTF-8: strict refuses the file, replace puts U+FFFD in
                      their place. Default: strict
--out DIR             write records as the published ones are, DIR/layer/neuron.json; those that are there are replaced
--published           fetch OpenAI's record and explanations of a neuron of 124M or 1558M, and show them beside what
                      the model does here on the same passages
--published_dir DIR   folder in which they are kept. Default: {published.FOLDER}
--url URL             where they are, for a mirror. Default: {published.URL}
--explain TEXT        score an explanation: how well activations that are simulated from it go with the real ones
--simulator S         words, which marks the words that an explanation names; or the address of an API, such as
                      http://localhost:8000/v1, whose model simulates. Default: words
--simulator_model M   the model that is asked for there
--top N               passages that are shown, at least 1. Default: 5
--json                print one JSON object in the published form, with --published and --explain what they say
--batch_size N        passages read at once, at least 1; each needs memory. Default: 32
--seed N              of the random samples, at least 0. Default: 0
{MODEL_NAME_HELP}
{MODELS_DIR_HELP}
"""


def study_neurons(
    *files: str, layer: Any = None, neuron: Any = None, corpus: list | None = None, errors: Any = 'strict',
    out: str | None = None, published: bool = False, published_dir: str = published.FOLDER, url: str = published.URL,
    explain: str | None = None, simulator: str = 'words', simulator_model: str | None = None, top: Any = 5,
    json: bool = False, batch_size: Any = 32, seed: Any = 0, model_name: str | None = None,
    models_dir: str = DEFAULT_MODELS_DIR, **unknown: Any,
) -> None:  # fmt: skip
    reject_unknown((), unknown)
    layer, neuron = optional_integer('layer', layer, 0), optional_integer('neuron', neuron, 0)
    top, size, seed = integer('top', top, 1), integer('batch_size', batch_size, 1), integer('seed', seed, 0)
    json, with_map, errors = (
        boolean('json', json), boolean('published', published), choice('errors', errors, ('strict', 'replace'))
    )  # fmt: skip
    read_from = [*texts(corpus), *files]
    check_asked(layer, neuron, read_from, out, with_map, explain)
    url = address('url', url)
    simulate = make_simulator(simulator, simulator_model)
    model = open_model(model_name, models_dir, engine='tf', prefix='--')
    check_there(model, layer, neuron, bool(read_from))
    show_notices(model.notices)
    if out is not None:
        check_records(expand(out), range(model.hparams.n_layer) if layer is None else [layer])
    if layer is None or neuron is None:
        write_all(model, layer, read_from, errors, size, seed, expand(out or ''))
        return
    record = None
    if read_from:
        [record] = surveyed(model, [layer], range(neuron, neuron + 1), read_from, errors, size, seed)
        if out is not None:
            write_record(expand(out), record)
    found = beside_map(model, layer, neuron, url, expand(published_dir)) if with_map else None
    score = None
    if explain is not None:
        known = record or (found[0] if found else None)
        assert known is not None
        score = Explanation(explain, score_explanation(simulate, explain, [*known.top, *known.random_sample]))
    if json:
        print_utf8()
        print(json_line(whole(record, found, score)))
    else:
        show(record, found, score, top)


study_neurons.__doc__ = HELP
Found = tuple[NeuronRecord, list[Explanation], published.Comparison]


def check_asked(
    layer: int | None, neuron: int | None, files: Sequence[str], out: str | None, with_map: bool,
    explain: str | None,
) -> None:  # fmt: skip
    """Raise UsageError for flags that do not go together."""
    if neuron is not None and layer is None:
        raise UsageError('--neuron needs --layer, the one that it is of')
    if not files and not with_map:
        raise UsageError('give a --corpus, or --published; --help shows how')
    if neuron is None:
        if with_map or explain is not None:
            raise UsageError(f'--{"published" if with_map else "explain"} needs --layer and --neuron')
        if out is None:
            raise UsageError('the records of many neurons need --out, the folder to write them to; or give --neuron')


def check_there(model: Model, layer: int | None, neuron: int | None, surveys: bool) -> None:
    """Raise UsageError for a layer or a neuron that the model does not have, or a window too short for a survey."""
    if surveys and (n_ctx := model.hparams.n_ctx) < TOKENS:
        raise UsageError(f'passages have {TOKENS} tokens, and {model.name} reads up to {n_ctx}; name another model')
    if layer is not None:
        check_index('layer', '--layer', layer, model.hparams.n_layer)
    if neuron is not None:
        check_index('neuron', '--neuron', neuron, 4 * model.hparams.n_embd)


def make_simulator(name: str, model: str | None) -> Simulator:
    if name == 'words':
        if model is not None:
            raise UsageError('--simulator_model means nothing without the address of an API in --simulator')
        return by_words
    return Completions(name, model, os.environ.get('OPENAI_API_KEY'))


def check_records(folder: str, layers: Sequence[int]) -> None:
    """Raise Error where the folders of records, or those in which these would be made, take nothing, before hours of
    reading."""
    for layer in layers:
        path = os.path.join(folder, str(layer), 'a record')
        while not os.path.lexists(os.path.dirname(path) or '.'):
            path = os.path.dirname(path)
        check_output(path, 'name another --out')


def write_all(
    model: Model, layer: int | None, files: Sequence[str], errors: str, size: int, seed: int, folder: str
) -> None:
    """Write the record of every neuron of a layer, or of all layers."""
    layers = range(model.hparams.n_layer) if layer is None else [layer]
    neurons = range(4 * model.hparams.n_embd)
    records = surveyed(model, layers, neurons, files, errors, size, seed)
    for record in progress.bar(records, 'writing', len(layers) * len(neurons), unit='neuron', delay=2):
        write_record(folder, record)


def surveyed(
    model: Model, layers: Sequence[int], neurons: range, files: Sequence[str], errors: str, size: int, seed: int
) -> Iterator[NeuronRecord]:
    """The records of neurons of some layers over files."""
    measure = Measure()
    found = passages(model.encoder, files, errors, measure)
    first = next(found)  # what is wrong with the files is said before anything heavy is loaded
    from gpt2.inspection.reading import make_read

    total = sum(os.path.getsize(file) for file in files if os.path.isfile(file))
    with progress.bar(desc='reading', total=total, unit='B', unit_scale=True, delay=2) as bar:

        def counted() -> Iterator[list[int]]:
            yield first
            for passage in found:
                bar.update(measure.bytes - bar.n)
                yield passage

        read = make_read(model.inside, layers, neurons)
        result = survey(read, batches(counted(), size), layers, neurons, size, seed)
    return result.records(model.encoder)


def beside_map(model: Model, layer: int, neuron: int, url: str, folder: str) -> Found:
    """What is published of a neuron, and the model beside it."""
    record, explanations = published.fetch(url, published.map_of(model.hparams), layer, neuron, folder)
    from gpt2.inspection.reading import make_read

    read = make_read(model.inside, [layer], range(neuron, neuron + 1))
    return record, explanations, published.compare(read, model.encoder, record.passages, model.hparams.n_ctx)


def whole(record: NeuronRecord | None, found: Found | None, score: Explanation | None) -> dict[str, Any]:
    """Everything, for JSON."""
    result: dict[str, Any] = as_json(record) if record else {}
    if found:
        theirs, explanations, comparison = found
        result['published'] = as_json(theirs) | {
            'explanations': [figures_of(each) for each in explanations],
            'correlation': finite(comparison.correlation),
            'largest_difference': finite(comparison.largest_difference),
            'passed_over': comparison.passed_over,
        }
    if score:
        result['explained'] = figures_of(score)
    return result


def figures_of(explanation: Explanation) -> dict[str, Any]:
    return {'explanation': explanation.text, 'ev_correlation_score': finite(explanation.score)}


def finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def show(record: NeuronRecord | None, found: Found | None, score: Explanation | None, top: int) -> None:
    if record:
        print(f'h{record.layer}.mlp.{record.neuron} over the corpus: {moments(record)}')
        show_passages(record.top[:top])
    if found:
        theirs, explanations, comparison = found
        for each in explanations:
            print(f'published: {one_line(each.text)} (score {each.score:.3f})')
        print(f'published record: {moments(theirs)}')
        print(f'here on its {len(comparison.ours)} passages: correlation {comparison.correlation:.4f}, '
              f'largest difference {comparison.largest_difference:.4f}')  # fmt: skip
        if comparison.passed_over:
            print(f'{comparison.passed_over} passages are left out: they hold pieces of characters')
        for published_passage, ours in comparison.ours[:top]:
            show_passages([published_passage], 'published')
            show_passages([ours], 'here')
    if score:
        print(f'explained as {score.text!r}: score {score.score:.3f}')


def moments(record: NeuronRecord) -> str:
    return (f'mean {record.mean:.4g}, variance {record.variance:.4g}, skewness {record.skewness:.4g}, '
            f'kurtosis {record.kurtosis:.4g}')  # fmt: skip


def show_passages(found: Sequence[Passage], label: str = '') -> None:
    """Print passages, the tokens of at least half of the largest activation in brackets."""
    for each in found:
        limit = max(each.activations) / 2
        marked = ''.join(
            f'[{token}]' if value >= limit > 0 else token for token, value in zip(each.tokens, each.activations)
        )
        print(f'{max(each.activations):9.3f}  {label + "  " if label else ""}{one_line(marked)}')
