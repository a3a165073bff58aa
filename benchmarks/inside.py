#!/usr/bin/env python3
"""What it takes to look inside, and that nothing is slower where nobody looks. One JSON object each.

    python benchmarks/inside.py page
    python benchmarks/inside.py taps

page: milliseconds until the server has answered the page's tab Inside, with the bundled model: 20 different texts of 30
tokens, one after another, each a head and a neuron of its own; then the same with a neuron and a head ablated. The
first answer of all, for which the model is loaded, is told beside them.
taps: a synthetic 124M as it is, and with every tap cut out of the source of its forward function: 100 tokens drawn, a
prompt of 512, the best of rounds that alternate; and the operations of both graphs.
"""

import argparse
import ast
import inspect
import json
import pathlib
import random
import statistics
import sys
import tempfile
import types
import urllib.request

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE.parent / 'src'))

from bench import make_checkpoint, seconds  # noqa: E402
from serving import server  # noqa: E402

from gpt2 import model, sample  # noqa: E402
from gpt2.encoder import get_encoder  # noqa: E402

TEXTS, TOKENS = 20, 30
DRAWN, PROMPT, ROUNDS = 100, 512, 6


def texts(seed):
    """Texts of TOKENS tokens each, from all over the example."""
    encoder = get_encoder('7M', str(HERE.parent / 'models'))
    ids, draws = encoder.encode((HERE.parent / 'examples' / 'heidi.txt').read_text()), random.Random(seed)
    while True:
        start = draws.randrange(len(ids) - TOKENS)
        text = encoder.decode(ids[start : start + TOKENS])
        if len(encoder.encode(text)) == TOKENS:
            yield text


def page():
    with server(['--model_name', '7M']) as (address, _):

        def milliseconds(text, number, **more):
            content = {'text': text, 'layer': number % 6, 'head': number % 8, 'neuron': 51 * number, **more}
            request = urllib.request.Request(f'{address}/v1/inside', json.dumps(content).encode(),
                                             {'Content-Type': 'application/json'})  # fmt: skip
            return 1000 * seconds(lambda: json.load(urllib.request.urlopen(request)))

        found = {'first_answer_ms': milliseconds('The king', 0)}
        for name, more in {'plain': {}, 'ablated': {'ablate': 'h3.mlp.131,h4.head.1'}}.items():
            times = sorted(milliseconds(*asked, **more) for asked in zip(texts(name), range(TEXTS)))
            found |= {f'{name}_median_ms': statistics.median(times), f'{name}_p95_ms': times[-2], f'{name}_ms': times}
    return found


class Untapped(ast.NodeTransformer):
    def visit_Call(self, node):
        self.generic_visit(node)
        return node.args[1] if isinstance(node.func, ast.Name) and node.func.id == 'tap' else node


def model_without_taps():
    """The module `model`, as if nobody had thought of taps."""
    without = types.ModuleType('model_without_taps')
    tree = Untapped().visit(ast.parse(inspect.getsource(model)))
    exec(compile(tree, 'model_without_taps', 'exec'), without.__dict__)
    return without


def taps():
    with tempfile.TemporaryDirectory() as folder:
        hparams, params = make_checkpoint(folder)
    prompt = [[number % hparams.n_vocab for number in range(16)]]
    text = list(range(PROMPT))
    engines = {}
    for name, module in {'without': model_without_taps(), 'with': model}.items():
        sample.model = module  # of which an engine's graphs are traced
        engine = engines[name] = sample.Generator(hparams, params)
        list(engine.generate(prompt, 2, numbers=[1], seed=1, top_k=40))
        engine.features([text])
    found = {name: {'drawn': [], 'prompt': []} for name in engines}
    for number in range(ROUNDS):
        for name, engine in sorted(engines.items(), reverse=bool(number % 2)):
            drawn = seconds(lambda: list(engine.generate(prompt, DRAWN, numbers=[1], seed=1, top_k=40)))  # noqa: B023
            found[name]['drawn'].append(DRAWN / drawn)
            found[name]['prompt'].append(PROMPT / seconds(lambda: engine.features([text]).numpy()))  # noqa: B023
    operations = [[each.type for each in engine.token_step.get_concrete_function().graph.get_operations()]
                  for engine in engines.values()]  # fmt: skip
    return {
        name: {f'{what}_tokens_per_second': max(rates) for what, rates in of.items()} for name, of in found.items()
    } | {'operations': len(operations[0]), 'same_operations': operations[0] == operations[1]}


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('what', choices=['page', 'taps'])
    print(json.dumps({'page': page, 'taps': taps}[parser.parse_args().what](), indent=1))
