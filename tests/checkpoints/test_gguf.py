"""GGUF files: against the package gguf, against llama.cpp, and against whoever writes bad ones."""

import dataclasses
import json
import os
import struct
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import peers
import pytest
from example_models import BUNDLED, REPOSITORY, random_values
from samples import draw_samples

from gpt2 import sample
from gpt2.checkpoints import bundle, gguf
from gpt2.checkpoints.convert import convert
from gpt2.checkpoints.files import CheckpointError
from gpt2.checkpoints.source import Source, load_params, open_source
from gpt2.encoder import END_OF_TEXT, Encoder, bytes_to_unicode
from gpt2.errors import Error, UsageError
from gpt2.hparams import HParams

package = pytest.importorskip('gguf')
MERGES = [('a', 'b'), ('ab', 'c'), ('Ġ', 'a')]
END, START = 259, 260
ADDED = {END_OF_TEXT: END, '<|startoftext|>': START, 'two words': 261}
SHAPE = HParams(n_vocab=262, n_ctx=16, n_embd=32, n_head=4, n_layer=2)
# Keys of a header and their types, as a writer gives them.
KEYS = {
    'general.architecture': 'gpt2', 'gpt2.context_length': 16, 'gpt2.embedding_length': 32, 'gpt2.block_count': 2,
    'gpt2.feed_forward_length': 128, 'gpt2.attention.head_count': 4, 'gpt2.attention.layer_norm_epsilon': 1e-5,
}  # fmt: skip
HUGE = 10**18


def vocabulary(end=END):
    ids = {token: index for index, token in enumerate([*bytes_to_unicode().values(), *map(''.join, MERGES)])}
    return Encoder(ids | {END_OF_TEXT: END}, MERGES, added=dict(ADDED), end_of_text=end)


def source_of(values, hparams=SHAPE, encoder=None):
    return Source('in memory', 'release', hparams, encoder, values.__getitem__, 'none')


@pytest.fixture(scope='module')
def source():
    return source_of(random_values(SHAPE), encoder=vocabulary())


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / 'model.gguf')


def assert_equal_weights(found, expected):
    assert found.shapes == expected.shapes
    for name, value in expected.values():
        assert found.value(name).tobytes() == value.tobytes(), name


def fields(path):
    """Keys and values, and {name: (type, float32 values)}, as the package reads them."""
    reader = package.GGUFReader(path)
    keys = {name: field.contents() for name, field in reader.fields.items() if not name.startswith('GGUF.')}
    tensors = {
        tensor.name: (tensor.tensor_type.name, package.quants.dequantize(tensor.data, tensor.tensor_type))
        for tensor in reader.tensors
    }
    return keys, tensors


def write_by_package(path, tensors, keys=(), types=None):
    """A file by the package: tensors as {name: array}, each stored as types has it or else as float32."""
    writer = package.GGUFWriter(path, KEYS['general.architecture'])
    for name, value in (KEYS | dict(keys)).items():
        add = {int: writer.add_uint32, float: writer.add_float32, str: writer.add_string, bool: writer.add_bool}
        if isinstance(value, list):
            writer.add_array(name, value)
        elif value is not None:
            add[type(value)](name, value)
    for name, value in tensors.items():
        kind = package.GGMLQuantizationType[(types or {}).get(name, 'F32')]
        writer.add_tensor(name, package.quants.quantize(value, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def as_stored(values):
    """Values under the file's names, matrices [outputs, inputs]."""
    return {
        gguf.tensor_name(name): np.ascontiguousarray(value[0].T) if value.ndim == 3 else value
        for name, value in values.items()
    }


def refused(path, *parts):
    with pytest.raises(CheckpointError) as raised:
        gguf.read(path)
    message = str(raised.value)
    assert '\n' not in message
    assert message.startswith(path)
    for part in parts:
        assert part in message


# There and back


def test_float32_there_and_back_is_the_same_in_every_byte(source, path):
    gguf.write(path, source)
    found = open_source(path)
    assert (found.format, found.hparams, found.dtype, found.notices) == ('gguf', SHAPE, 'float32', ())
    assert_equal_weights(found, source)


def test_the_bundled_model_there_and_back_is_the_same_in_every_byte(path, tmp_path):
    release = bundle.read(str(BUNDLED))
    convert(release, path, 'gguf')
    convert(open_source(path), str(tmp_path / 'back'), 'release')
    for name in ('model.ckpt.data-00000-of-00001', 'model.ckpt.index', 'encoder.json', 'vocab.bpe', 'hparams.json'):
        assert (tmp_path / 'back' / name).read_bytes() == (BUNDLED / name).read_bytes(), name


def test_the_vocabulary_comes_back(source, path):
    gguf.write(path, source_of(random_values(SHAPE), encoder=vocabulary(end=START)))
    found = gguf.read(path).encoder
    text = f'abc ab a{END_OF_TEXT}<|startoftext|>two words, ünd'
    for special in (False, True):
        assert found.encode(text, special) == vocabulary().encode(text, special)
    assert found.decode(range(len(found))) == vocabulary().decode(range(len(found)))
    assert (found.added, found.end_of_text) == (ADDED, START)


def test_a_model_whose_end_has_another_name(path):
    ids = {token: index for token, index in vocabulary().encoder.items() if token != END_OF_TEXT}
    encoder = Encoder(ids | {END_OF_TEXT: 259}, MERGES, added={'</s>': 259, 'x y': 260, 'zz': 261}, end_of_text=259)
    gguf.write(path, source_of(random_values(SHAPE), encoder=encoder))
    assert fields(path)[0]['tokenizer.ggml.tokens'][259:] == ['</s>', 'x y', 'zz']
    found = gguf.read(path).encoder
    assert (found.added, found.end_of_text) == (encoder.added, 259)


# As the package reads it


def test_the_header_is_as_llama_cpps_converter_writes_it(source, path):
    gguf.write(path, source)
    keys, _ = fields(path)
    tokens = keys.pop('tokenizer.ggml.tokens')
    assert tokens[:3] == list(bytes_to_unicode().values())[:3]
    assert tokens[256:] == ['ab', 'abc', 'Ġa', *ADDED]
    normal, control = package.TokenType.NORMAL, package.TokenType.CONTROL
    assert keys.pop('tokenizer.ggml.token_type') == [normal] * 259 + [control] * 3
    assert keys.pop('gpt2.attention.layer_norm_epsilon') == pytest.approx(1e-5)
    assert keys == {
        'general.architecture': 'gpt2', 'general.type': 'model', 'general.name': 'in memory',
        'general.quantization_version': package.GGML_QUANT_VERSION,
        'general.file_type': package.LlamaFileType.ALL_F32,
        'gpt2.context_length': 16, 'gpt2.embedding_length': 32, 'gpt2.feed_forward_length': 128, 'gpt2.block_count': 2,
        'gpt2.attention.head_count': 4,
        'tokenizer.ggml.model': 'gpt2', 'tokenizer.ggml.pre': 'gpt-2', 'tokenizer.ggml.merges': ['a b', 'ab c', 'Ġ a'],
        'tokenizer.ggml.bos_token_id': END, 'tokenizer.ggml.eos_token_id': END,
    }  # fmt: skip


def test_tensors_have_the_packages_names_and_shapes(source, path):
    gguf.write(path, source)
    _, tensors = fields(path)
    names = package.get_tensor_name_map(package.MODEL_ARCH.GPT2, SHAPE.n_layer).mapping
    known = {name for _, name in names.values()}
    assert {name.rsplit('.', 1)[0] for name in tensors} <= known
    for name, value in as_stored(random_values(SHAPE)).items():
        kind, found = tensors.pop(name)
        assert kind == 'F32'
        np.testing.assert_array_equal(found, value)
    assert not tensors


@pytest.mark.parametrize(('dtype', 'kind'), [('float16', 'F16'), ('q8_0', 'Q8_0')])
def test_matrices_have_the_dtype_and_the_rest_stays_float32(source, path, dtype, kind):
    gguf.write(path, source, dtype)
    keys, tensors = fields(path)
    assert keys['general.file_type'] == package.LlamaFileType[f'MOSTLY_{kind}']
    for name, value in as_stored(random_values(SHAPE)).items():
        if value.ndim == 1 or name == 'position_embd.weight':
            assert tensors[name][0] == 'F32'
            np.testing.assert_array_equal(tensors[name][1], value)
            continue
        assert tensors[name][0] == kind
        blocks = value.reshape(-1, 32)
        # Half a step, and that the scale itself is a float16.
        step = np.abs(blocks).max(axis=1, keepdims=True) / 127 if kind == 'Q8_0' else np.abs(blocks) / 1024
        assert (np.abs(tensors[name][1].reshape(-1, 32) - blocks) <= step * 0.57 + 1e-7).all()


def test_rows_that_q8_0_cannot_hold_become_float16(path):
    hparams = HParams(n_vocab=262, n_ctx=16, n_embd=40, n_head=4, n_layer=1)
    gguf.write(path, source_of(random_values(hparams), hparams, vocabulary()), 'q8_0')
    _, tensors = fields(path)
    assert tensors['token_embd.weight'][0] == tensors['blk.0.attn_qkv.weight'][0] == 'F16'  # rows of 40
    assert tensors['blk.0.ffn_down.weight'][0] == 'Q8_0'  # rows of 160


# Files of others


@pytest.mark.parametrize('kind', ['F16', 'BF16'])
def test_narrow_floats_are_widened_exactly(path, kind):
    values = random_values(SHAPE)
    stored = as_stored(values)
    matrices = [name for name, value in stored.items() if value.ndim == 2]
    write_by_package(path, stored, types=dict.fromkeys(matrices, kind))
    found = gguf.read(path)
    assert (found.dtype, found.encoder) == ({'F16': 'float16', 'BF16': 'bfloat16'}[kind], None)
    for name, value in found.values():
        expected = values[name]
        if expected.ndim > 1:
            kind_of = package.GGMLQuantizationType[kind]
            expected = package.quants.dequantize(package.quants.quantize(expected, kind_of), kind_of)
        np.testing.assert_array_equal(value, expected)


def test_a_head_that_is_the_table_is_passed_over(path):
    tensors = as_stored(random_values(SHAPE))
    write_by_package(path, tensors | {'output.weight': tensors['token_embd.weight']})
    assert_equal_weights(gguf.read(path), source_of(random_values(SHAPE)))


def test_rows_that_no_token_owns_are_left_out_and_it_is_said(path):
    tokens = [*vocabulary().encoder, '<|startoftext|>', 'two words', '[PAD262]', '[PAD263]']
    hparams = HParams(n_vocab=264, n_ctx=16, n_embd=32, n_head=4, n_layer=2)
    keys = {
        'tokenizer.ggml.model': 'gpt2', 'tokenizer.ggml.tokens': tokens,
        'tokenizer.ggml.token_type': [1] * 259 + [3, 3, 4, 5, 5],
        'tokenizer.ggml.merges': [' '.join(merge) for merge in MERGES], 'tokenizer.ggml.eos_token_id': END,
    }  # fmt: skip
    values = random_values(hparams)
    write_by_package(path, as_stored(values), keys)
    found = gguf.read(path)
    assert (found.hparams, found.encoder.added) == (SHAPE, ADDED)
    np.testing.assert_array_equal(found.value('model/wte'), values['model/wte'][:262])
    assert found.notices[0].startswith('2 rows of wte belong to no token and are left out')


@pytest.mark.parametrize(
    ('keys', 'parts'),
    [
        ({'general.architecture': 'llama'}, ["general.architecture is 'llama', expected 'gpt2'"]),
        ({'gpt2.attention.layer_norm_epsilon': 1e-6}, ['gpt2.attention.layer_norm_epsilon is', 'expected']),
        ({'gpt2.feed_forward_length': 64}, ['gpt2.feed_forward_length is 64, expected 128']),
        ({'gpt2.attention.head_count_kv': 2}, ['gpt2.attention.head_count_kv is 2, expected 4']),
        ({'gpt2.rope.dimension_count': 8}, ['gpt2.rope.dimension_count is 8, which is not known']),
        ({'gpt2.block_count': 3}, ['has no tensor blk.2.attn_norm.weight']),
        ({'gpt2.block_count': 2**32 - 1}, ['block_count is 4294967295, and there are 28 tensors']),
        ({'gpt2.context_length': 8}, ['position_embd.weight is [16, 32], expected [8, 32]']),
        ({'gpt2.attention.head_count': 5}, ['n_embd 32 is not a multiple of n_head 5']),
        ({'gpt2.attention.head_count': None}, ['n_head is None, expected an integer']),
        ({'gpt2.context_length': 'many'}, ["n_ctx is 'many', expected an integer"]),
        ({'tokenizer.ggml.tokens': ['a'], 'tokenizer.ggml.model': 'llama'}, ["tokenizer.ggml.model is 'llama'"]),
        ({'tokenizer.ggml.tokens': ['a'], 'tokenizer.ggml.pre': 'qwen2'}, ["tokenizer.ggml.pre is 'qwen2'"]),
        ({'tokenizer.ggml.tokens': ['a'] * 3}, ['its tokenizer is none of GPT-2']),
        ({'tokenizer.ggml.tokens': ['a'], 'tokenizer.ggml.token_type': [1, 1]}, ['1 tokens and 2 token types']),
        ({'tokenizer.ggml.tokens': 5}, ['its tokenizer is none of GPT-2']),
        ({'tokenizer.ggml.tokens': [1, 2]}, ['its tokenizer is none of GPT-2']),
        ({'tokenizer.ggml.tokens': ['a'], 'tokenizer.ggml.merges': ['a b c']}, ['a merge is not two tokens']),
    ],
)
def test_keys_that_are_not_a_gpt2s_are_refused_by_name_and_value(path, keys, parts):
    write_by_package(path, as_stored(random_values(SHAPE)), keys)
    refused(path, *parts)


@pytest.mark.parametrize('kind', ['Q4_0', 'Q8_0', 'TQ1_0'])
def test_quantised_tensors_are_refused_by_name_and_type(path, kind):
    hparams = HParams(n_vocab=262, n_ctx=16, n_embd=256, n_head=4, n_layer=1)
    keys = {'gpt2.embedding_length': 256, 'gpt2.feed_forward_length': 1024, 'gpt2.block_count': 1}
    write_by_package(path, as_stored(random_values(hparams)), keys, {'blk.0.attn_qkv.weight': kind})
    name = 'of type 34' if kind == 'TQ1_0' else kind
    refused(path, f'blk.0.attn_qkv.weight is {name}, expected F32, F16 or BF16')


def test_tensors_that_are_not_a_gpt2s_are_refused_by_name(path):
    tensors = as_stored(random_values(SHAPE))
    table = tensors['token_embd.weight']
    for change, part in (
        ({'blk.1.ffn_up.bias': None}, 'has no tensor blk.1.ffn_up.bias, expected [128]'),
        ({'token_embd.weight': None}, 'n_vocab is 0, expected an integer of at least 1'),
        ({'blk.0.ffn_gate.weight': table}, 'the tensor blk.0.ffn_gate.weight is none of GPT-2'),
        ({'blk.0.ffn_up.weight': table}, 'blk.0.ffn_up.weight is [262, 32], expected [128, 32]'),
        ({'output.weight': table + 1}, 'output.weight differs from token_embd.weight'),
        ({'output.weight': table[1:]}, 'output.weight is [261, 32], expected [262, 32]'),
    ):
        changed = {name: value for name, value in (tensors | change).items() if value is not None}
        write_by_package(path, changed)
        refused(path, part)


# Damage and malice


def text(value):
    return struct.pack('<Q', len(value)) + value


def header(keys=b'', tensors=0, count=1, version=3):
    return b'GGUF' + struct.pack('<IQQ', version, tensors, count) + keys


CLAIMS = {
    'tensors': header(tensors=HUGE, count=0),
    'keys': header(count=HUGE),
    'a text': header(struct.pack('<Q', HUGE)),
    'a text as value': header(text(b'k') + struct.pack('<IQ', 8, HUGE)),
    'an array of numbers': header(text(b'k') + struct.pack('<IIQ', 9, 10, HUGE)),
    'more numbers than fit': header(text(b'k') + struct.pack('<IIQ', 9, 10, 2**64 - 1)),
    'an array of bytes': header(text(b'k') + struct.pack('<IIQ', 9, 0, HUGE)),
    'an array of texts': header(text(b'k') + struct.pack('<IIQ', 9, 8, HUGE)),
    'an array of empty texts': header(text(b'k') + struct.pack('<IIQ', 9, 8, HUGE)) + bytes(10_000),
    'an array of arrays': header(text(b'k') + struct.pack('<IIQIQ', 9, 9, HUGE, 9, HUGE)),
    'dimensions': header(text(b't') + struct.pack('<I', 2**32 - 1), tensors=1, count=0),
    'an alignment': header(text(b'general.alignment') + struct.pack('<IQ', 10, HUGE)),
    'no alignment': header(text(b'general.alignment') + struct.pack('<II', 4, 0)),
    'an unknown type': header(text(b'k') + struct.pack('<II', 99, 0)),
    'a text that is none': header(text(b'\xff\xfe') + struct.pack('<II', 4, 0)),
    'version 1': header(version=1, count=0),
    'the other byte order': b'GGUF' + struct.pack('>IQQ', 3, 0, 0),
    'nothing': b'GGUF',
}


@pytest.mark.parametrize('claim', CLAIMS)
def test_a_header_that_claims_what_is_not_there_is_refused_and_allocates_nothing(path, claim):
    Path(path).write_bytes(CLAIMS[claim])
    tracemalloc.start()
    try:
        refused(path, 'has no header of a GGUF file')
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()


def test_a_tensor_that_claims_10_to_the_18_rows_is_refused(path):
    tensor = text(b'token_embd.weight') + struct.pack('<IQQIQ', 2, 32, HUGE, 0, 0)
    keys = b''.join(
        text(name.encode()) + {str: lambda v: struct.pack('<I', 8) + text(v.encode()),
                               int: lambda v: struct.pack('<II', 4, v),
                               float: lambda v: struct.pack('<If', 6, v)}[type(value)](value)
        for name, value in KEYS.items()
    )  # fmt: skip
    Path(path).write_bytes(header(keys + tensor, tensors=1, count=len(KEYS)))
    refused(path, 'block_count is 2, and there are 1 tensors')


def test_a_file_that_is_cut_anywhere_is_refused(source, path):
    gguf.write(path, source)
    whole = Path(path).read_bytes()
    places = [*range(4, 40), *range(40, len(whole), 997), len(whole) - 1]
    for place in places:
        Path(path).write_bytes(whole[:place])
        refused(path)


def test_whatever_is_damaged_in_a_header_is_read_or_refused(source, path):
    gguf.write(path, source)
    whole = bytearray(Path(path).read_bytes())
    random = np.random.default_rng(0)
    outcomes = set()
    for _ in range(400):
        changed = bytearray(whole)
        for place in random.integers(4, 9000, size=random.integers(1, 4)):
            changed[place] = random.integers(256)
        Path(path).write_bytes(changed)
        try:
            gguf.read(path)
            outcomes.add('read')
        except CheckpointError as error:
            assert '\n' not in str(error)
            outcomes.add('refused')
    assert outcomes == {'read', 'refused'}


def test_a_file_that_shrinks_while_it_is_read_is_noticed(source, path):
    gguf.write(path, source)
    found = gguf.read(path)
    os.truncate(path, os.path.getsize(path) // 2)
    with pytest.raises(CheckpointError, match='has changed while it was read'):
        list(found.values())


# Writing that fails


def test_a_weight_too_large_for_float16_is_refused(path):
    values = random_values(SHAPE)
    values['model/h1/mlp/c_fc/w'][0, 3, 4] = 70000
    with pytest.raises(Error, match='70000 is too large for float16'):
        convert(source_of(values, encoder=vocabulary()), path, 'gguf', 'float16')
    assert os.listdir(os.path.dirname(path)) == []


def test_other_dtypes_and_models_without_a_vocabulary_are_refused(source, path):
    with pytest.raises(UsageError, match='--to gguf holds float32 or float16 or q8_0'):
        convert(source, path, 'gguf', 'bfloat16')
    with pytest.raises(CheckpointError, match='has no vocabulary'):
        convert(source_of(random_values(SHAPE)), path, 'gguf')
    assert os.listdir(os.path.dirname(path)) == []


def test_without_the_package_files_are_read_and_not_written(source, path, tmp_path):
    gguf.write(path, source)
    (tmp_path / 'fake').mkdir()
    code = f"""
import importlib.abc, sys
class No(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name in ('gguf', 'tensorflow'):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, No())
import importlib.util
find, importlib.util.find_spec = importlib.util.find_spec, lambda name: None if name == 'gguf' else find(name)
from gpt2.checkpoints import gguf
source = gguf.read({path!r})
print(source.digest())
try:
    gguf.write({path + '2'!r}, source)
except Exception as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, '-c', code], cwd=REPOSITORY / 'src', capture_output=True, text=True, check=True
    )
    remedy = 'writing GGUF needs the package gguf: pip install -r requirements-convert.txt'
    assert done.stdout.splitlines() == [source.digest(), remedy]


def test_a_disk_that_fills_is_an_error_and_leaves_nothing(path, tmp_path):
    code = f"""
import resource, signal
from gpt2.checkpoints import bundle
from gpt2.checkpoints.convert import convert
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (3_000_000, 3_000_000))
try:
    convert(bundle.read({str(BUNDLED)!r}), {path!r}, 'gguf')
except Exception as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, '-c', code], cwd=REPOSITORY / 'src', capture_output=True, text=True, check=True
    )
    assert done.stdout == f'{path} cannot be written (File too large); free space, or choose another destination\n'
    assert os.listdir(tmp_path) == []


# llama.cpp

# Takes a file and a list of texts; gives their ids, with and without special tokens, and 100 greedy tokens after each.
LLAMA = """
import itertools, json, sys
import llama_cpp

path, texts = sys.argv[1:]
model = llama_cpp.Llama(path, n_ctx=512, verbose=False)

def ids(text, special):
    return model.tokenize(text.encode(), add_bos=False, special=special)

def greedy(text):
    model.reset()
    return list(itertools.islice(model.generate(ids(text, False), temp=0.0, top_k=1, repeat_penalty=1.0), 100))

found = [[ids(text, False), ids(text, True), greedy(text)] for text in json.loads(texts)]
print(json.dumps([found, model.token_bos(), model.token_eos()]))
"""


def llama(path, texts):
    folder = peers.ENVIRONMENTS / 'llama.cpp'
    if not (folder / 'installed').exists():
        pytest.skip('llama.cpp is not there; `make bench-peers` compiles it')
    command = [folder / 'bin' / 'python', '-c', LLAMA, path, json.dumps(texts)]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


@pytest.mark.peers
@pytest.mark.parametrize('dtype', ['float32', 'float16'])
def test_llama_cpp_continues_as_we_do(path, dtype):
    release = bundle.read(str(BUNDLED))
    convert(release, path, 'gguf', dtype)
    # llama.cpp computes gelu by a table of float16. The likeliest two tokens are never closer than 0.01 here.
    prompts = ['In the garden', "It's 12,345 o'clock;\n\nand   yet"]
    others = ['Größe, 北京 🙂', ' \t\r\n  x', "WE'LL we'll", '<|endoftext|>']
    found, bos, eos = llama(path, prompts + others)
    for text, (plain, _, _) in zip(prompts + others, found):
        assert plain == release.encoder.encode(text)
    generator = sample.Generator(release.hparams, load_params(open_source(path)))
    for (plain, _, greedy), _ in zip(found, prompts):
        [ours] = draw_samples(generator, plain, 100, [1], 1, temperature=0)
        assert greedy == ours
    assert bos == eos == release.encoder.end_of_text


@pytest.mark.peers
@pytest.mark.parametrize('dtype', ['float32', 'q8_0'])
def test_llama_cpp_loads_vocabularies_that_grew(path, dtype):
    hparams = HParams(n_vocab=262, n_ctx=512, n_embd=64, n_head=4, n_layer=2)
    gguf.write(path, source_of(random_values(hparams), hparams, vocabulary(end=START)), dtype)
    texts = ['abc ab a', f'abc{END_OF_TEXT}<|startoftext|>two words, ünd']
    found, bos, eos = llama(path, texts)
    for text, (_, special, greedy) in zip(texts, found):
        assert special == vocabulary().encode(text, special=True)
        assert len(greedy) == 100
    assert (bos, eos) == (END, START)


def test_tokens_by_what_they_are_for_and_none_that_ends(tmp_path):
    roles = {'bos_token': '<|startoftext|>', 'pad_token': 'two words'}
    for number, ends in enumerate([(END, START), ()]):
        plain = vocabulary()
        ids = {token: index for token, index in plain.encoder.items() if token != END_OF_TEXT or ends}
        added = {text if ends or text != END_OF_TEXT else '<s>': index for text, index in ADDED.items()}
        encoder = Encoder(ids, MERGES, added=added, end_of_text=next(iter(ends), None), end_ids=ends, roles=roles)
        done = convert(source_of(random_values(SHAPE), encoder=encoder), str(tmp_path / f'{number}.gguf'), 'gguf')
        again = open_source(done.destination).encoder
        assert (again.end_ids, again.roles) == (ends[:1], roles)
        lost = "'<|startoftext|>' is lost as an end token; the token stays"
        assert list(done.notices) == ([lost] if ends else [])


def test_a_folder_whose_name_is_no_text(tmp_path):
    hparams = HParams(n_vocab=262, n_ctx=8, n_embd=64, n_head=4, n_layer=2)
    named = dataclasses.replace(source_of(random_values(hparams), hparams, vocabulary()), path=os.fsdecode(b'caf\xe9'))
    gguf.write(str(tmp_path / 'mine.gguf'), named)
    assert open_source(str(tmp_path / 'mine.gguf')).format == 'gguf'
