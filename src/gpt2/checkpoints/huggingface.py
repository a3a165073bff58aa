"""Hugging Face's folders: config.json, weights in safetensors or PyTorch's files, a tokenizer."""

import json
import math
import os
import re
from typing import Any

import numpy as np

from gpt2.checkpoints import tensor_files, tokenizer
from gpt2.checkpoints.dtypes import FLOATS
from gpt2.checkpoints.files import CheckpointError
from gpt2.checkpoints.source import Source, check_layers, files_identity, without_unowned_rows
from gpt2.checkpoints.tensor_files import Tensor
from gpt2.checkpoints.tokenizer import read_json, read_object
from gpt2.encoder import special_ids
from gpt2.hparams import HParams, HParamsError, parameter_count, variable_shapes
from gpt2.system.files import make_folder, whole_file
from gpt2.system.text import printable

DTYPES = FLOATS
WEIGHTS = ('model.safetensors', 'model.safetensors.index.json', 'pytorch_model.bin', 'pytorch_model.bin.index.json')
PREFIX = 'transformer.'
PASSED_OVER = re.compile(r'(h\.\d+\.attn\.(bias|masked_bias)|multiple_choice_head\..*)')  # buffers, another head
HEAD = 'lm_head.weight'
SHAPE = {'vocab_size': 50257, 'n_positions': 1024, 'n_embd': 768, 'n_head': 12, 'n_layer': 12}  # where nothing is said
OTHER_NAMES = {
    'hidden_size': 'n_embd', 'max_position_embeddings': 'n_positions', 'num_attention_heads': 'n_head',
    'num_hidden_layers': 'n_layer',
}  # fmt: skip
# Fields that change what a model computes, and the values that mean what this program computes. What is
# not there has the first.
OURS = {
    'activation_function': ('gelu_new', 'gelu_fast', 'gelu_pytorch_tanh'),  # three names of one formula
    'layer_norm_epsilon': (1e-5,),
    'add_cross_attention': (False,),
    'is_encoder_decoder': (False,),
    'pruned_heads': (None, {}),
    'quantization_config': (None,),
    'auto_map': (None,),  # code of the model's own
    # Honoured, whatever they say: see query_scale, check_head; in float32 nothing needs an upcast.
    'scale_attn_weights': (True, False),
    'scale_attn_by_inverse_layer_idx': (False, True),
    'reorder_and_upcast_attn': (False, True),
    'tie_word_embeddings': (True, False),
}


def read(path: str) -> Source:
    """The model of a folder as transformers keeps it. Raises CheckpointError for one that is no GPT-2, or
    that computes otherwise than this program does, by name and value."""
    config = read_config(path)
    hparams = hparams_of(path, config)
    tensors, files = read_tensors(path)
    check_tensors(path, tensors, hparams)
    check_head(path, config, tensors)
    encoder, notices = tokenizer.read_vocabulary(path, hparams.n_vocab, end_ids(path, config))
    hparams, unowned = without_unowned_rows(path, hparams, encoder)

    def read_variable(name: str) -> np.ndarray:
        return as_released(name, tensors[their_name(name)].read(), hparams, config)

    dtypes = {tensors[their_name(name)].dtype for name in variable_shapes(hparams)}
    return Source(
        path, 'huggingface', hparams, encoder, read_variable,
        identity=files_identity([os.path.join(path, 'config.json'), *files]),
        dtype=next(dtype for dtype in FLOATS if dtype in dtypes), notices=(*notices, *unowned),
    )  # fmt: skip


def read_config(folder: str) -> dict[str, Any]:
    """The fields of config.json, those of SHAPE and OURS always among them. Raises CheckpointError."""
    path = os.path.join(folder, 'config.json')
    found = read_json(path)
    if not isinstance(found, dict):
        raise CheckpointError(f'{path} is no JSON object; get the file again')
    return completed(path, found)


def completed(path: str, found: dict[str, Any]) -> dict[str, Any]:
    """The fields that a config.json holds, as read_config returns them."""
    architectures = found.get('architectures')
    listed = architectures if isinstance(architectures, list) else [architectures]
    kind = found.get('model_type') or next(iter(listed), None)
    if kind != 'gpt2' and not str(kind).startswith('GPT2'):
        raise CheckpointError(f'{path}: model_type is {kind!r}: not a GPT-2')
    config = SHAPE | {name: values[0] for name, values in OURS.items()} | {'n_inner': None}
    config |= {OTHER_NAMES.get(name, name): value for name, value in found.items()}
    check_arithmetic(path, config)
    return config


def check_arithmetic(path: str, config: dict[str, Any]) -> None:
    """Raise CheckpointError for a field with which a model computes what this program does not."""
    n_embd, n_positions, n_ctx = config['n_embd'], config['n_positions'], config.get('n_ctx')
    inner = 4 * n_embd if isinstance(n_embd, int) else None
    for name, ours in (OURS | {'n_inner': (inner, None)}).items():
        value = config[name]
        if not any(type(value) is type(allowed) and value == allowed for allowed in ours):
            raise CheckpointError(f'{path}: {name} is {value!r}, and this program computes with {ours[0]!r} alone')
    if isinstance(n_ctx, int) and isinstance(n_positions, int) and n_ctx < n_positions:
        raise CheckpointError(f'{path}: n_ctx is {n_ctx} and n_positions {n_positions}, expected the same')


def check_config(path: str, found: Any) -> None:
    """Raise CheckpointError, which names path, where what a config.json holds is no GPT-2 that can be read."""
    if not isinstance(found, dict):
        raise CheckpointError(f'{path} is no JSON object')
    hparams_of(path, completed(path, found))


def hparams_of(path: str, config: dict[str, Any]) -> HParams:
    try:
        return HParams(
            n_vocab=config['vocab_size'], n_ctx=config['n_positions'], n_embd=config['n_embd'],
            n_head=config['n_head'], n_layer=config['n_layer'],
        )  # fmt: skip
    except HParamsError as error:
        raise CheckpointError(f'{path}: config.json: {error}; get the file again') from None


def end_ids(path: str, config: dict[str, Any]) -> list[Any]:
    """The ids of end tokens, as generation_config.json has them or, where it has none, config.json."""
    found = read_object(path, 'generation_config.json').get('eos_token_id')
    found = config.get('eos_token_id') if found is None else found
    return found if isinstance(found, list) else [found]


def read_tensors(folder: str) -> tuple[dict[str, Tensor], list[str]]:
    """({name without prefix: Tensor}, the files they lie in) of a folder. Raises CheckpointError."""
    name = next((name for name in WEIGHTS if os.path.exists(os.path.join(folder, name))), None)
    if name is None:
        raise CheckpointError(f'{folder} has no weights: neither {" nor ".join(WEIGHTS)}')
    read_file = tensor_files.safetensors if 'safetensors' in name else tensor_files.torch_file
    files = shards(folder, name) if name.endswith('.json') else [os.path.join(folder, name)]
    tensors = {name: tensor for file in files for name, tensor in read_file(file).items()}
    return {name.removeprefix(PREFIX): tensor for name, tensor in tensors.items()}, files


def shards(folder: str, index: str) -> list[str]:
    """The files that an index names, all of which are there. Raises CheckpointError."""
    path = os.path.join(folder, index)
    content = read_json(path)
    try:
        names = sorted(set(content['weight_map'].values()))
        plain = all(os.path.basename(name) == name and not name.startswith('.') for name in names) and all(names)
    except (KeyError, TypeError, AttributeError):
        plain = False
    if not plain:
        raise CheckpointError(f'{path} has no weight_map of tensors and files beside it; get the file again')
    for name in names:
        if not os.path.exists(os.path.join(folder, name)):
            raise CheckpointError(f'{os.path.join(folder, name)} is not there, and {index} names it; get it again')
    return [os.path.join(folder, name) for name in names]


def their_name(name: str) -> str:
    """model/h3/attn/c_attn/w is h.3.attn.c_attn.weight; model/wte is wte.weight."""
    name = re.sub(r'^model/(h(\d+)/)?', lambda match: f'h.{match[2]}.' if match[2] else '', name).replace('/', '.')
    return re.sub(r'\.[wg]$|(?<=^w[tp]e)$', '.weight', re.sub(r'\.b$', '.bias', name))


def their_shape(shape: list[int]) -> tuple[int, ...]:
    return tuple(shape[1:] if len(shape) == 3 else shape)


def check_tensors(folder: str, tensors: dict[str, Tensor], hparams: HParams) -> None:
    """Raise CheckpointError unless the tensors are just a GPT-2's."""
    check_layers(folder, hparams, tensors)
    expected = {their_name(name): their_shape(shape) for name, shape in variable_shapes(hparams).items()}
    for name, shape in expected.items():
        if name not in tensors:
            raise CheckpointError(f'{folder} has no tensor {name}, expected {list(shape)}; get the model again')
        tensor = tensors[name]
        if tensor.shape != shape or tensor.dtype not in FLOATS:
            raise CheckpointError(
                f'{tensor.file}: {name} is {tensor.dtype} {list(tensor.shape)}, '
                f'expected {" or ".join(FLOATS)} {list(shape)}; get the model again'
            )
    for name, tensor in tensors.items():
        if name not in expected and name != HEAD and not PASSED_OVER.fullmatch(name):
            raise CheckpointError(f"{tensor.file}: {name} is no tensor of GPT-2's; this program cannot compute with it")


def check_head(folder: str, config: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    """Raise CheckpointError unless the head's weights are wte, as GPT-2's are."""
    if HEAD not in tensors:
        if not config['tie_word_embeddings']:
            raise CheckpointError(f'{folder}: tie_word_embeddings is False, and there is no {HEAD}')
    elif not np.array_equal(tensors[HEAD].read(), tensors['wte.weight'].read()):
        raise CheckpointError(
            f"{folder}: {HEAD} is another matrix than wte.weight (tie_word_embeddings), and GPT-2's is the same"
        )


def query_scale(config: dict[str, Any], hparams: HParams, layer: int) -> float:
    """By what the queries of a layer must be multiplied for scores as config has them."""
    scale = 1 if config['scale_attn_weights'] else math.sqrt(hparams.n_embd // hparams.n_head)
    return scale / (layer + 1) if config['scale_attn_by_inverse_layer_idx'] else scale


def as_released(name: str, value: np.ndarray, hparams: HParams, config: dict[str, Any]) -> np.ndarray:
    """A tensor under the release's name and in its shape; without rows of no token, queries scaled."""
    if name == 'model/wte':
        return value[: hparams.n_vocab]
    if '/c_attn/' in name:
        scale = query_scale(config, hparams, int(name.split('/')[1].removeprefix('h')))
        if scale != 1:
            value = np.concatenate([value[..., : hparams.n_embd] * np.float32(scale), value[..., hparams.n_embd :]], -1)
    return value[np.newaxis] if name.endswith('/w') else value


def write(destination: str, source: Source, dtype: str = 'float32') -> None:
    """Write a source as a new folder that transformers reads. Raises Error, OSError."""
    make_folder(destination, 'choose another destination')
    tokenizer.write_vocabulary(destination, source.vocabulary, source.hparams.n_ctx)
    ids = special_ids(source.vocabulary)
    ends = source.vocabulary.end_ids
    generation = ({'bos_token_id': ends[0]} if ends else {}) | ids
    config = config_of(source, dtype) | {'bos_token_id': None, 'eos_token_id': None} | generation
    config |= {'eos_token_id': ends[0]} if ends else {}
    for name, content in {'config.json': config, 'generation_config.json': generation}.items():
        with whole_file(os.path.join(destination, name)) as file:
            json.dump(content, file, indent=2)
            file.write('\n')
    with whole_file(os.path.join(destination, 'README.md')) as file:
        file.write(model_card(source))
    ours = {PREFIX + their_name(name): name for name in source.shapes}
    shapes = {name: their_shape(source.shapes[ours[name]]) for name in ours}
    with open(os.path.join(destination, 'model.safetensors'), 'wb') as file:
        tensor_files.write_safetensors(file, shapes, lambda name: source.value(ours[name]), dtype)


def config_of(source: Source, dtype: str) -> dict[str, Any]:
    """The content of config.json but the ids of special tokens."""
    hparams = source.hparams
    return {
        'architectures': ['GPT2LMHeadModel'],
        'model_type': 'gpt2',
        'vocab_size': hparams.n_vocab,
        'n_positions': hparams.n_ctx,
        'n_ctx': hparams.n_ctx,
        'n_embd': hparams.n_embd,
        'n_head': hparams.n_head,
        'n_layer': hparams.n_layer,
        'activation_function': 'gelu_new',
        'layer_norm_epsilon': 1e-5,
        'initializer_range': 0.02,
        'attn_pdrop': 0.1,
        'embd_pdrop': 0.1,
        'resid_pdrop': 0.1,
        'dtype': dtype,
    }


def model_card(source: Source) -> str:
    """The beginning of a README.md, for whoever gives the model away to complete."""
    hparams = source.hparams
    return f"""\
---
library_name: transformers
pipeline_tag: text-generation
tags:
- gpt2
---

# {printable(os.path.basename(os.path.abspath(source.path)))}

A GPT-2 of {parameter_count(hparams):,} parameters: {hparams.n_layer} layers, {hparams.n_head} heads, \
{hparams.n_embd} features, {hparams.n_ctx} positions, {hparams.n_vocab} tokens.

What it was trained on, what it is good for, what it must not be used for, and its licence: to be written.
"""
