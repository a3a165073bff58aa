"""GGUF, the file of llama.cpp: a GPT-2's shape, vocabulary and weights in one. Imports no TensorFlow.

Files are written with the package `gguf` and read without it: a file may come from anybody, and the
package's reader follows whatever count a header claims.
"""

import importlib.util
import math
import os
import re
import struct
from collections.abc import Mapping, Sequence
from typing import IO, Any, NamedTuple

import numpy as np

from gpt2.checkpoints.dtypes import STORED_AS, narrowed, widened
from gpt2.checkpoints.files import CheckpointError
from gpt2.checkpoints.source import Source, files_identity, without_unowned_rows
from gpt2.checkpoints.tokenizer import in_their_words, make_encoder
from gpt2.encoder import END_OF_TEXT, Encoder, VocabularyError
from gpt2.errors import Error
from gpt2.hparams import HParams, HParamsError, variable_shapes
from gpt2.system.text import printable

ARCHITECTURE = 'gpt2'
TOKENIZER = 'gpt2'
PRETOKENIZER = 'gpt-2'
DTYPES = ('float32', 'float16', 'q8_0')
EPSILON = 1e-5
MAGIC, VERSIONS = b'GGUF', (2, 3)
LONGEST_HEADER = 1 << 26  # bytes; that of a GPT-2 takes two million
ALIGNMENT = 32  # bytes, unless the file says otherwise
ARRAY, TEXT = 9, 8
NUMBERS = {0: 'B', 1: 'b', 2: 'H', 3: 'h', 4: 'I', 5: 'i', 6: 'f', 7: '?', 10: 'Q', 11: 'q', 12: 'd'}
NORMAL, CONTROL, USER_DEFINED = 1, 3, 4  # kinds of tokens
ADDED = (CONTROL, USER_DEFINED)
# Keys of tokens by what they are for.
ROLES = {
    'bos_token': 'bos_token_id', 'eos_token': 'eos_token_id', 'unk_token': 'unknown_token_id',
    'pad_token': 'padding_token_id',
}  # fmt: skip
FLOATS = {0: 'float32', 1: 'float16', 30: 'bfloat16'}  # the widest first
QUANTISED = {
    2: 'Q4_0', 3: 'Q4_1', 6: 'Q5_0', 7: 'Q5_1', 8: 'Q8_0', 9: 'Q8_1', 10: 'Q2_K', 11: 'Q3_K', 12: 'Q4_K', 13: 'Q5_K',
    14: 'Q6_K', 15: 'Q8_K',
}  # fmt: skip
PARTS = {
    'ln_1': 'attn_norm', 'attn/c_attn': 'attn_qkv', 'attn/c_proj': 'attn_output',
    'ln_2': 'ffn_norm', 'mlp/c_fc': 'ffn_up', 'mlp/c_proj': 'ffn_down',
}  # fmt: skip
TABLES = {'model/wte': 'token_embd.weight', 'model/wpe': 'position_embd.weight'}
HEAD = 'output.weight'


class Tensor(NamedTuple):
    """Where a tensor lies: its shape as NumPy has it, its type's number, its offset in bytes from the data's start."""

    shape: tuple[int, ...]
    type: int
    offset: int


def tensor_name(name: str) -> str:
    """What a variable of the release is called in the file."""
    if name in TABLES:
        return TABLES[name]
    *path, leaf = name.removeprefix('model/').split('/')
    part = '/'.join(path[1:])
    place = f'blk.{path[0].removeprefix("h")}.{PARTS[part]}' if part else 'output_norm'
    return f'{place}.{"bias" if leaf == "b" else "weight"}'


# Reading


class Header:
    """What a file says before its tensors. What it claims is followed only as far as there are bytes:
    beyond them struct.error or ValueError is raised."""

    def __init__(self, data: bytes) -> None:
        self.data, self.place = data, len(MAGIC)
        if not data.startswith(MAGIC) or self.number('I') not in VERSIONS:
            raise ValueError('neither version 2 nor 3')
        tensors, keys = self.number('Q'), self.number('Q')
        self.keys = dict(self.key() for _ in range(keys))
        self.tensors = dict(self.tensor() for _ in range(tensors))
        alignment = self.keys.get('general.alignment', ALIGNMENT)
        if type(alignment) is not int or not 0 < alignment <= LONGEST_HEADER:
            raise ValueError('an alignment that is none')
        self.end = -(-self.place // alignment) * alignment
        self.data = b''  # has been read

    def number(self, code: str) -> Any:
        [value] = struct.unpack_from(f'<{code}', self.data, self.place)
        self.place += struct.calcsize(f'<{code}')
        return value

    def text(self) -> str:
        length = self.number('Q')
        found = self.data[self.place : self.place + length]
        if len(found) < length:
            raise ValueError('a text that is longer than the file')
        self.place += length
        return found.decode('utf-8')

    def key(self) -> tuple[str, Any]:
        return self.text(), self.value(self.number('I'))

    def value(self, kind: int) -> Any:
        if kind == TEXT:
            return self.text()
        if kind != ARRAY:
            return self.number(self.code(kind))
        kind, count = self.number('I'), self.number('Q')
        if kind == TEXT:
            return [self.text() for _ in range(count)]
        array = np.frombuffer(self.data, np.dtype(f'<{self.code(kind)}'), count, self.place)
        self.place += array.nbytes
        return array.tolist()

    def code(self, kind: int) -> str:
        if kind not in NUMBERS:
            raise ValueError(f'a value of type {kind}')
        return NUMBERS[kind]

    def tensor(self) -> tuple[str, Tensor]:
        name = self.text()
        shape = [self.number('Q') for _ in range(self.number('I'))]
        return name, Tensor(tuple(reversed(shape)), self.number('I'), self.number('Q'))


def read(path: str) -> Source:
    """The model in a GGUF file whose tensors are float32, float16 or bfloat16; values are widened exactly.

    Raises CheckpointError in one line for any other file.
    """
    try:
        with open(path, 'rb') as file:
            size = os.fstat(file.fileno()).st_size
            header = Header(file.read(min(size, LONGEST_HEADER)))
    except OSError as error:
        raise CheckpointError(f'{path} cannot be read ({error.strerror})') from None
    except (struct.error, ValueError, OverflowError) as error:
        reason = 'it breaks off' if isinstance(error, struct.error) else error
        raise CheckpointError(f'{path} has no header of a GGUF file ({reason}); get the file again') from None
    rows = read_hparams(path, header)
    check_tensors(path, header, rows, size)
    head = header.tensors.get(HEAD)
    if head and not np.array_equal(stored_values(path, header, HEAD), stored_values(path, header, TABLES['model/wte'])):
        raise CheckpointError(f'{path}: {HEAD} differs from token_embd.weight; in GPT-2 they are one')
    encoder = read_encoder(path, header)
    hparams, notices = without_unowned_rows(path, rows, encoder)

    def read_variable(name: str) -> np.ndarray:
        value = read_tensor(path, header, name)
        return value[: hparams.n_vocab] if name == 'model/wte' else value

    return Source(
        path, 'gguf', hparams, encoder, read_variable, files_identity([path]), dtype_of(header), tuple(notices)
    )


def read_hparams(path: str, header: Header) -> HParams:
    """HParams of a header. Raises CheckpointError for a key of another architecture, or that is not honoured."""
    keys, prefix = header.keys, f'{ARCHITECTURE}.'
    if keys.get('general.architecture') != ARCHITECTURE:
        found = keys.get('general.architecture')
        raise CheckpointError(f'{path}: general.architecture is {found!r}, expected {ARCHITECTURE!r}')
    table = header.tensors.get(TABLES['model/wte'])
    n_vocab = table.shape[0] if table and table.shape else 0
    fields = {'n_ctx': 'context_length', 'n_embd': 'embedding_length', 'n_layer': 'block_count'}
    names = fields | {'n_head': 'attention.head_count'}
    values: dict[str, Any] = {field: keys.get(prefix + name) for field, name in names.items()}
    try:
        hparams = HParams(n_vocab=n_vocab, **values)
    except HParamsError as error:
        raise CheckpointError(f'{path}: {error}') from None
    honoured = {prefix + name: value for name, value in implied_keys(hparams).items()}
    honoured |= {prefix + name: getattr(hparams, field) for field, name in names.items()}
    for name, value in keys.items():
        if name.startswith(prefix) and (name not in honoured or value != honoured[name]):
            expected = f'expected {honoured[name]!r}' if name in honoured else 'which is not known'
            raise CheckpointError(f'{path}: {name} is {value!r}, {expected}')
    return hparams


def implied_keys(hparams: HParams) -> dict[str, Any]:
    """Keys whose values GPT-2's arithmetic leaves no choice in."""
    heads, features = hparams.n_head, hparams.n_embd // hparams.n_head
    return {
        'feed_forward_length': 4 * hparams.n_embd,
        'attention.layer_norm_epsilon': float(np.float32(EPSILON)),
        'attention.head_count_kv': heads,
        'attention.key_length': features,
        'attention.value_length': features,
        'attention.causal': True,
        'vocab_size': hparams.n_vocab,
    }


def file_shape(shape: Sequence[int]) -> tuple[int, ...]:
    """The shape of a variable as the file has it: a matrix [outputs, inputs]."""
    return tuple(reversed(shape[1:])) if len(shape) == 3 else tuple(shape)


def check_tensors(path: str, header: Header, hparams: HParams, size: int) -> None:
    """Raise CheckpointError unless the tensors are just a GPT-2's, float, and within size bytes."""
    tensors = header.tensors
    if hparams.n_layer > len(tensors):  # before a shape of 10**18 layers is written out
        found = f'{hparams.n_layer}, and there are {len(tensors)} tensors'
        raise CheckpointError(f'{path}: {ARCHITECTURE}.block_count is {found}; get the file again')
    shapes = {tensor_name(name): file_shape(shape) for name, shape in variable_shapes(hparams).items()}
    if HEAD in tensors:
        shapes[HEAD] = shapes[TABLES['model/wte']]
    if unknown := sorted(tensors.keys() - shapes):
        raise CheckpointError(f'{path}: the tensor {unknown[0]} is none of GPT-2')
    for name, shape in shapes.items():
        if name not in tensors:
            raise CheckpointError(f'{path} has no tensor {name}, expected {list(shape)}')
        check_tensor(path, name, tensors[name], shape, size - header.end)


def check_tensor(path: str, name: str, tensor: Tensor, shape: tuple[int, ...], size: int) -> None:
    if tensor.type not in FLOATS:
        found = QUANTISED.get(tensor.type, f'of type {tensor.type}')
        raise CheckpointError(f'{path}: {name} is {found}, expected F32, F16 or BF16; take an unquantised file')
    if tensor.shape != shape:
        raise CheckpointError(f'{path}: {name} is {list(tensor.shape)}, expected {list(shape)}')
    end = tensor.offset + tensor_bytes(tensor)
    if end > size:
        raise CheckpointError(f'{path} is cut short: {name} ends {end - size} bytes behind it; get the file again')


def tensor_bytes(tensor: Tensor) -> int:
    return math.prod(tensor.shape) * np.dtype(STORED_AS[FLOATS[tensor.type]]).itemsize


def stored_values(path: str, header: Header, name: str) -> np.ndarray:
    """A tensor as the file has it."""
    tensor = header.tensors[name]
    try:
        kind, count = STORED_AS[FLOATS[tensor.type]], math.prod(tensor.shape)
        return np.fromfile(path, kind, count, offset=header.end + tensor.offset).reshape(tensor.shape)
    except (OSError, ValueError):  # since it was opened
        raise CheckpointError(f'{path} has changed while it was read; run again') from None


def read_tensor(path: str, header: Header, name: str) -> np.ndarray:
    """A variable of the release, float32."""
    theirs = tensor_name(name)
    value = widened(stored_values(path, header, theirs), FLOATS[header.tensors[theirs].type])
    return value.T[np.newaxis] if name.endswith('/w') else value


def dtype_of(header: Header) -> str:
    """The widest dtype among the matrices; norms, biases and positions are float32 in most files."""
    matrices = [name for name in header.tensors if re.search('(qkv|output|up|down|token_embd).weight$', name)]
    return FLOATS[min(header.tensors[name].type for name in matrices)]


def read_encoder(path: str, header: Header) -> Encoder | None:
    """The Encoder of a header's tokenizer, None if it has none. Tokens that are marked as unused are none."""
    prefix = 'tokenizer.ggml.'
    keys = {name.removeprefix(prefix): value for name, value in header.keys.items() if name.startswith(prefix)}
    if 'tokens' not in keys:
        return None
    for name, expected in (('model', TOKENIZER), ('pre', PRETOKENIZER)):
        if keys.get(name, expected) != expected:
            raise CheckpointError(f'{path}: {prefix}{name} is {keys[name]!r}, expected {expected!r}')
    tokens, merges = keys['tokens'], keys.get('merges', [])
    try:
        kinds = keys.get('token_type', [NORMAL] * len(tokens))
        if len(kinds) != len(tokens):
            raise VocabularyError(f'{len(tokens)} tokens and {len(kinds)} token types')
        kind_of = list(zip(tokens, kinds))
        added = {text: i for i, (text, kind) in enumerate(kind_of) if kind in ADDED or text == END_OF_TEXT}
        vocabulary = {text: i for i, (text, kind) in enumerate(kind_of) if kind == NORMAL}
        pairs = [tuple(merge.split(' ')) for merge in merges]
        if not all(len(pair) == 2 for pair in pairs):
            raise VocabularyError('a merge is not two tokens')
        ends: list[Any] = [keys.get('eos_token_id'), added.get(END_OF_TEXT)]
        ends = [end for end in ends if end in added.values()][:1]
        texts = {index: text for text, index in added.items()}
        roles = {role: texts[keys[name]] for role, name in ROLES.items() if keys.get(name) in texts}
        roles.pop('eos_token', None)
        return make_encoder(vocabulary, pairs, added, ends, roles=roles)
    except (VocabularyError, TypeError, AttributeError) as error:
        why = in_their_words(VocabularyError(str(error)), f'{prefix}tokens and {prefix}merges')
        raise CheckpointError(f'{path}: its tokenizer is none of GPT-2 ({why})') from None


# Writing


def write(destination: str, source: Source, dtype: str = 'float32') -> None:
    """Write a model as a new GGUF file, tensor by tensor. Raises Error, OSError.

    dtype: of DTYPES. It is that of the matrices; norms, biases and positions stay float32, as llama.cpp
    wants them, and matrices whose rows are no multiple of 32 become float16 instead of q8_0.
    """
    if importlib.util.find_spec('gguf') is None:
        raise Error('writing GGUF needs the package gguf: pip install -r requirements-convert.txt')
    types = {name: stored_type(name, shape, dtype) for name, shape in source.shapes.items()}
    write_header(destination, source, dtype, types)
    with open(destination, 'ab') as file:
        for name, value in source.values():
            pad(file)
            file.write(stored(value, types[name]))
        pad(file)


def pad(file: IO[bytes]) -> None:
    file.write(bytes(-file.tell() % ALIGNMENT))


def write_header(path: str, source: Source, dtype: str, types: Mapping[str, Any]) -> None:
    """Write everything before the tensors."""
    import gguf

    writer = gguf.GGUFWriter(path, ARCHITECTURE)
    add_keys(writer, source, dtype)
    add_tokenizer(writer, source.vocabulary)
    for name, shape in source.shapes.items():
        theirs = file_shape(shape)
        size = math.prod(gguf.quants.quant_shape_to_byte_shape(theirs, types[name]))
        writer.add_tensor_info(tensor_name(name), theirs, np.dtype(np.float32), size, types[name])
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
    finally:
        writer.close()


def add_keys(writer: Any, source: Source, dtype: str) -> None:
    import gguf

    kinds = {
        'float32': gguf.LlamaFileType.ALL_F32,
        'float16': gguf.LlamaFileType.MOSTLY_F16,
        'q8_0': gguf.LlamaFileType.MOSTLY_Q8_0,
    }
    hparams = source.hparams
    writer.add_type(gguf.GGUFType.MODEL)
    writer.add_name(printable(os.path.basename(os.path.abspath(source.path)).removesuffix('.gguf')))
    writer.add_context_length(hparams.n_ctx)
    writer.add_embedding_length(hparams.n_embd)
    writer.add_feed_forward_length(4 * hparams.n_embd)
    writer.add_block_count(hparams.n_layer)
    writer.add_head_count(hparams.n_head)
    writer.add_layer_norm_eps(EPSILON)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_file_type(kinds[dtype])


def add_tokenizer(writer: Any, encoder: Encoder) -> None:
    tokens, kinds = token_list(encoder)
    writer.add_tokenizer_model(TOKENIZER)
    writer.add_tokenizer_pre(PRETOKENIZER)
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges([' '.join(pair) for pair in encoder.bpe_ranks])
    ids = {role: encoder.added[text] for role, text in encoder.roles.items()}
    if encoder.end_ids:
        ids = {'bos_token': encoder.encoder[END_OF_TEXT], **ids, 'eos_token': encoder.end_of_text}
    for role, name in ROLES.items():
        if role in ids:
            writer.add_uint32(f'tokenizer.ggml.{name}', ids[role])


def token_list(encoder: Encoder) -> tuple[list[str], list[int]]:
    """(tokens, their kinds), by id."""
    tokens, kinds = [''] * len(encoder), [NORMAL] * len(encoder)
    for text, index in encoder.encoder.items():
        tokens[index] = text
    for text, index in encoder.added.items():
        tokens[index], kinds[index] = text, CONTROL
    return tokens, kinds


def stored_type(name: str, shape: Sequence[int], dtype: str) -> Any:
    from gguf import GGMLQuantizationType as Type

    if dtype == 'float32' or len(shape) == 1 or name == 'model/wpe':
        return Type.F32
    return Type.Q8_0 if dtype == 'q8_0' and file_shape(shape)[-1] % 32 == 0 else Type.F16


def stored(value: np.ndarray, kind: Any) -> np.ndarray:
    """A variable as the file holds it: matrices [outputs, inputs]; q8_0 as bytes. Raises Error: see narrowed()."""
    from gguf.quants import quantize

    value = np.ascontiguousarray(value[0].T) if value.ndim == 3 else value
    return quantize(value, kind) if kind not in FLOATS else narrowed(value, FLOATS[kind])
