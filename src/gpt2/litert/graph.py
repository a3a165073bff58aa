"""The graph of GPT-2 in LiteRT's file format, written through the schema that ships with LiteRT.

One graph serves prompts and single tokens of any batch. Its rows are new tokens: some of one
prompt, or one of each sample of a batch. Every row looks at three places: a cache, where all rows look
in one group of slots or each in its own; what earlier blocks of prompts left; and the new tokens
themselves. Prompts leave the first empty, single tokens the second: a masked slot takes no time to speak
of. Who may see whom is said by masks alone, so any row's keys and values may lie in any slot. Nothing in
the graph but the matrices knows the shape of the model's weights, and all of its operators are among
those that XNNPACK takes.

Inputs, float32, where rows, groups (1 or rows), slots and earlier are chosen at run time:
    x      [rows, n_embd]                  embedding of the token and its position
    mask   [rows, 1, slots]                0 where a row may look in the cache, -1e10 elsewhere
    new_mask [rows, earlier + rows]        the same for what came earlier and for the new tokens themselves
    pick   [chosen, rows]                  one 1 a line: the rows whose logits are asked for; the others end in the
                                           last layer, where only their keys and values matter
    ones   [1, 1, slots, 1]                nothing but 1, as LiteRT does not make them
    new_ones [1, earlier + rows, 1]        the same for what came earlier and the new tokens
    earlier k, v [n_head, earlier, n_embd / n_head] a layer
    k, v   [n_head, groups, slots, n_embd / n_head] a layer
Outputs:
    logits [chosen, n_vocab]
    hidden [chosen, n_embd]                of the same rows, after the last norm: what the logits are made from
    k, v   [n_head, rows, n_embd / n_head] a layer: what belongs in the cache afterwards

Weights stay outside the graph: it names them, with their place in the file (see export.py). Matrices are float32, int8
with a scale a row, or int4 with a scale for every BLOCK values of a row.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import ArrayLike, DTypeLike

from gpt2.hparams import HParams
from gpt2.litert.quantise import BLOCK

FILE_IDENTIFIER = b'TFL3'
SCHEMA_VERSION = 3
PLACEHOLDER = 2  # of offsets and sizes not yet known; 0 and 1 mean that the data are in the graph
ANY = -1  # a dimension chosen at run time


class Graph:
    """A LiteRT model of one subgraph under construction. Tensors are ints, their index in it.

    weights maps the name of each stored tensor to its buffer, whose offset and size are to be set
    before serialise().
    """

    def __init__(self) -> None:
        self.subgraph = schema.SubGraphT()
        self.subgraph.tensors, self.subgraph.operators = [], []
        self.model = schema.ModelT()
        self.model.version = SCHEMA_VERSION
        self.model.subgraphs = [self.subgraph]
        self.model.buffers = [schema.BufferT()]  # the first one must be empty
        self.model.operatorCodes = []
        self.weights = {}
        self.constants = {}

    def shape(self, tensor: int) -> list[int]:
        return self.subgraph.tensors[tensor].shapeSignature

    def tensor(self, shape: Sequence[int], kind: str = 'float32', buffer: int = 0, name: str = '') -> int:
        """kind: LiteRT's name of the values' type."""
        found = schema.TensorT()
        found.shape = [max(size, 1) for size in shape]
        found.shapeSignature = list(shape)
        found.hasRank = True
        found.type = getattr(schema.TensorType, kind.upper())
        found.buffer = buffer
        found.name = name or f'tensor_{len(self.subgraph.tensors)}'
        self.subgraph.tensors.append(found)
        return len(self.subgraph.tensors) - 1

    def constant(self, values: ArrayLike, dtype: DTypeLike) -> int:
        """A small constant, kept in the graph itself; equal ones are one."""
        values = np.asarray(values, dtype)
        key = (values.tobytes(), values.shape, values.dtype)
        if key not in self.constants:
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(values.tobytes(), np.uint8)
            self.model.buffers.append(buffer)
            self.constants[key] = self.tensor(values.shape, values.dtype.name, len(self.model.buffers) - 1)
        return self.constants[key]

    def stored(self, name: str, shape: list[int], kind: str = 'float32') -> int:
        """A weight that lies behind the graph in the file, in int4 with its scales beside it."""
        buffer = schema.BufferT()
        buffer.offset = buffer.size = PLACEHOLDER
        self.model.buffers.append(buffer)
        tensor = self.tensor(shape, kind, len(self.model.buffers) - 1, name)
        self.weights[name] = (self.subgraph.tensors[tensor], buffer)
        if kind.startswith('int'):
            quantization = schema.QuantizationParametersT()
            self.subgraph.tensors[tensor].quantization = quantization
        if kind == 'int8':
            quantization.scale = np.ones(shape[0], np.float32)
            quantization.zeroPoint = np.zeros(shape[0], np.int64)
        if kind == 'int4':
            quantization.detailsType = schema.QuantizationDetails.BlockwiseQuantization
            quantization.details = schema.BlockwiseQuantizationT()
            quantization.details.scales = self.stored(f'{name}/scales', [shape[0], shape[1] // BLOCK], 'float16')
            quantization.details.zeroPoints = -1  # none
            quantization.details.blockSize = BLOCK
        return tensor

    def operator(
        self, code: str, inputs: list[int], shapes: list[list[int]], options: str | None = None, **fields: Any
    ) -> list[int]:
        """Append an operator; options is the name of its options, fields their values. Returns its outputs."""
        found = schema.OperatorT()
        found.opcodeIndex = self.operator_code(code)
        found.inputs, found.outputs = inputs, [self.tensor(shape) for shape in shapes]
        if options:
            found.builtinOptionsType = getattr(schema.BuiltinOptions, options)
            found.builtinOptions = getattr(schema, f'{options}T')()
            vars(found.builtinOptions).update(fields)
        self.subgraph.operators.append(found)
        return found.outputs

    def operator_code(self, code: str) -> int:
        value = getattr(schema.BuiltinOperator, code)
        for index, known in enumerate(self.model.operatorCodes):
            if known.builtinCode == value:
                return index
        found = schema.OperatorCodeT()
        found.builtinCode = value
        found.deprecatedBuiltinCode = min(value, 127)  # readers take the larger of the two
        self.model.operatorCodes.append(found)
        return len(self.model.operatorCodes) - 1

    def elementwise(self, code: str, x: int, y: int, options: str) -> int:
        """x and y, broadcast against each other from the last dimension on."""
        one, other = self.shape(x), self.shape(y)
        rank = max(len(one), len(other))
        pairs = zip([1] * (rank - len(one)) + one, [1] * (rank - len(other)) + other)
        return self.operator(code, [x, y], [[b if a == 1 else a for a, b in pairs]], options)[0]

    def add(self, x: int, y: int) -> int:
        return self.elementwise('ADD', x, y, 'AddOptions')

    def subtract(self, x: int, y: int) -> int:
        return self.elementwise('SUB', x, y, 'SubOptions')

    def multiply(self, x: int, y: int) -> int:
        return self.elementwise('MUL', x, y, 'MulOptions')

    def divide(self, x: int, y: int) -> int:
        return self.elementwise('DIV', x, y, 'DivOptions')

    def maximum(self, x: int, y: int) -> int:
        return self.elementwise('MAXIMUM', x, y, 'MaximumMinimumOptions')

    def reduce(self, code: str, x: int) -> int:
        """Over the last axis, which stays with size 1."""
        shape = self.shape(x)
        axis = self.constant([len(shape) - 1], np.int32)
        return self.operator(code, [x, axis], [[*shape[:-1], 1]], 'ReducerOptions', keepDims=True)[0]

    def reshape(self, x: int, shape: list[int]) -> int:
        inputs = [x, self.constant(shape, np.int32)]
        return self.operator('RESHAPE', inputs, [shape], 'ReshapeOptions', newShape=shape)[0]

    def transpose(self, x: int, order: list[int]) -> int:
        shape = self.shape(x)
        inputs = [x, self.constant(order, np.int32)]
        return self.operator('TRANSPOSE', inputs, [[shape[axis] for axis in order]], 'TransposeOptions')[0]

    def split(self, x: int, count: int) -> list[int]:
        """Along the first axis."""
        size, *rest = self.shape(x)
        inputs = [self.constant(0, np.int32), x]
        return self.operator('SPLIT', inputs, [[size // count, *rest]] * count, 'SplitOptions', numSplits=count)

    def join(self, x: int, y: int, axis: int) -> int:
        shape = [ANY if place == axis else size for place, size in enumerate(self.shape(x))]
        return self.operator('CONCATENATION', [x, y], [shape], 'ConcatenationOptions', axis=axis)[0]

    def matmul(self, x: int, y: int, transpose_y: bool = False) -> int:
        """Of matrices in the last two dimensions; those before are broadcast against each other."""
        *batch, rows, _ = self.shape(x)
        *other, inner, outputs = self.shape(y)
        shape = [b if a == 1 else a for a, b in zip(batch, other)] + [rows, inner if transpose_y else outputs]
        return self.operator('BATCH_MATMUL', [x, y], [shape], 'BatchMatMulOptions', adjY=transpose_y)[0]

    def exp(self, x: int) -> int:
        return self.operator('EXP', [x], [self.shape(x)], 'ExpOptions')[0]

    def gelu(self, x: int) -> int:
        return self.operator('GELU', [x], [self.shape(x)], 'GeluOptions', approximate=True)[0]

    def linear(self, x: int, w: int, b: int | None = None) -> int:
        """[rows, inputs] -> [rows, outputs] with w [outputs, inputs]; b None is none.

        With w of integers, x is quantised as it comes, with a scale and a zero point of its own a row.
        """
        inputs, shapes = [x, w, -1 if b is None else b], [[ANY, self.shape(w)[0]]]
        fields = {'asymmetricQuantizeInputs': True}
        return self.operator('FULLY_CONNECTED', inputs, shapes, 'FullyConnectedOptions', **fields)[0]

    def serialise(self) -> bytes:
        builder = flatbuffers.Builder(1 << 20)
        builder.Finish(self.model.Pack(builder), FILE_IDENTIFIER)
        return bytes(builder.Output())


def norm(graph: Graph, x: int, name: str, features: int) -> int:
    centred = graph.subtract(x, graph.reduce('MEAN', x))
    variance = graph.reduce('MEAN', graph.multiply(centred, centred))
    shifted = graph.add(variance, graph.constant(1e-5, np.float32))
    [scale] = graph.operator('RSQRT', [shifted], [graph.shape(shifted)])
    scaled = graph.multiply(graph.multiply(centred, scale), graph.stored(f'{name}/g', [features]))
    return graph.add(scaled, graph.stored(f'{name}/b', [features]))


def matrix_kind(precision: str, name: str, inputs: int) -> str:
    """What a matrix of the blocks is stored as. That of queries, keys and values is a quarter of their weights, and in
    four bits it would change the logits nearly as much as all others together do."""
    return 'int8' if precision == 'int4' and (inputs % BLOCK or name.endswith('/c_attn')) else precision


class Sides(NamedTuple):
    """Of what rows look at: what is for the keys and values in the cache, and what for the new ones."""

    cached: Any
    new: Any


def attend(graph: Graph, q: int, sides: Sides, masks: Sides, ones: Sides) -> int:
    """What queries [heads, rows, features] take from keys and values, [rows, n_embd]. Softmax by hand over cached and
    new keys: joining the two would copy the cached values."""
    (k, v), (new_k, new_v) = sides
    heads, _, features = graph.shape(q)
    scores = graph.matmul(graph.reshape(q, [heads, ANY, 1, features]), k, True)  # -> [heads, rows, 1, slots]
    new_scores = graph.matmul(q, new_k, True)  # -> [heads, rows, earlier + rows]
    scores, new_scores = graph.add(scores, masks.cached), graph.add(new_scores, masks.new)
    largest = graph.reshape(graph.reduce('REDUCE_MAX', scores), [heads, ANY, 1])
    largest = graph.maximum(largest, graph.reduce('REDUCE_MAX', new_scores))
    e = graph.exp(graph.subtract(scores, graph.reshape(largest, [heads, ANY, 1, 1])))
    new_e = graph.exp(graph.subtract(new_scores, largest))
    # By a matrix of ones: its sum goes from slot to slot, and slots that are masked do not change it. That of SUM
    # depends on where they lie.
    total = graph.add(graph.reshape(graph.matmul(e, ones.cached), [heads, ANY, 1]), graph.matmul(new_e, ones.new))
    attended = graph.reshape(graph.matmul(e, v), [heads, ANY, features])
    attended = graph.divide(graph.add(attended, graph.matmul(new_e, new_v)), total)
    return graph.reshape(graph.transpose(attended, [1, 0, 2]), [ANY, heads * features])


def gpt2(hparams: HParams, precision: str) -> Graph:
    """The Graph of a model whose matrices are float32, int8 or int4; in int4 that of the tokens is int8, as are some of
    the blocks'.

    Its weights have the names of the checkpoint's variables; matrices are [outputs, inputs]. What
    computes queries is to be divided by the square root of a head's features.
    """
    graph = Graph()
    embd, heads = hparams.n_embd, hparams.n_head
    features = embd // heads

    def linear(x: int, name: str, inputs: int, outputs: int) -> int:
        w = graph.stored(f'{name}/w', [outputs, inputs], matrix_kind(precision, name, inputs))
        return graph.linear(x, w, graph.stored(f'{name}/b', [outputs]))

    def attention(x: int, name: str, earlier: list[int], cache: list[int]) -> tuple[int, list[int]]:
        qkv = graph.reshape(linear(x, f'{name}/c_attn', embd, 3 * embd), [ANY, 3 * heads, features])
        q, *found = graph.split(graph.transpose(qkv, [1, 0, 2]), 3)  # -> [heads, rows, features]
        new = [graph.join(*pair, axis=1) for pair in zip(earlier, found)]
        return attend(graph, q, Sides(cache, new), Sides(mask, new_mask), Sides(ones, new_ones)), found

    def mlp(x: int, name: str) -> int:
        return linear(graph.gelu(linear(x, f'{name}/c_fc', embd, 4 * embd)), f'{name}/c_proj', 4 * embd, embd)

    x = graph.tensor([ANY, embd], name='x')
    mask = graph.tensor([ANY, 1, ANY], name='mask')
    new_mask = graph.tensor([ANY, ANY], name='new_mask')
    pick = graph.tensor([ANY, ANY], name='pick')
    ones = graph.tensor([1, 1, ANY, 1], name='ones')
    new_ones = graph.tensor([1, ANY, 1], name='new_ones')
    inputs, outputs = [x, mask, new_mask, pick, ones, new_ones], []
    for layer in range(hparams.n_layer):
        block = f'model/h{layer}'
        earlier = [graph.tensor([heads, ANY, features], name=f'h{layer}/earlier/{kind}') for kind in 'kv']
        cache = [graph.tensor([heads, ANY, ANY, features], name=f'h{layer}/{kind}') for kind in 'kv']
        attended, new = attention(norm(graph, x, f'{block}/ln_1', embd), f'{block}/attn', earlier, cache)
        if layer == hparams.n_layer - 1:
            x, attended = graph.matmul(pick, x), graph.matmul(pick, attended)
        x = graph.add(x, linear(attended, f'{block}/attn/c_proj', embd, embd))
        x = graph.add(x, mlp(norm(graph, x, f'{block}/ln_2', embd), f'{block}/mlp'))
        inputs += [*earlier, *cache]
        outputs += new
    chosen = norm(graph, x, 'model/ln_f', embd)
    tokens = graph.stored('model/wte', [hparams.n_vocab, embd], 'float32' if precision == 'float32' else 'int8')
    logits = graph.linear(chosen, tokens)
    graph.subgraph.inputs, graph.subgraph.outputs = inputs, [logits, chosen, *outputs]
    return graph
