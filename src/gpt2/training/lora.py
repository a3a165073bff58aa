"""Low-rank adapters (Hu et al. 2021, section 4.1): each matrix W of attention and MLP stays as it is, and what is
trained is the product of two thin ones beside it, W + alpha / rank * A B.

In a model's parameters an adapter lies beside its matrix, `model/h0/attn/c_attn/lora/a` float32 [inputs, rank] and
`.../b` [rank, outputs], where model.linear finds it. Imports TensorFlow as it computes.
"""

import json
import math
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from gpt2.checkpoints.bundle import read_values
from gpt2.checkpoints.files import OPTIMIZER_SUFFIX
from gpt2.checkpoints.folders import OTHER_NAMES
from gpt2.checkpoints.huggingface import their_name
from gpt2.checkpoints.tensor_files import write_safetensors
from gpt2.hparams import HParams, variable_shapes
from gpt2.system.files import whole_file

MATRICES = ('attn/c_attn', 'attn/c_proj', 'mlp/c_fc', 'mlp/c_proj')
ADAPTER, SCALE = '/lora/', 'scale'
# Of peft, the field's library, which finds an adapter by these names.
WEIGHTS, CONFIG = 'adapter_model.safetensors', 'adapter_config.json'
PEFT = 'base_model.model.transformer.'
PEFT_NAMES = {'a': 'lora_A.weight', 'b': 'lora_B.weight'}
HUB_NAMES = {ours: theirs for theirs, ours in OTHER_NAMES.items() if theirs.startswith('gpt2')}


def shapes(hparams: HParams, rank: int) -> dict[str, list[int]]:
    """The variables of all adapters and their shapes."""
    found = {}
    for name, shape in variable_shapes(hparams).items():
        matrix, _, kind = name.rpartition('/')
        if kind == 'w' and matrix.endswith(MATRICES):
            _, inputs, outputs = shape
            found |= {f'{matrix}{ADAPTER}a': [inputs, rank], f'{matrix}{ADAPTER}b': [rank, outputs]}
    return found


def size(hparams: HParams, rank: int) -> int:
    """How many numbers all adapters are."""
    return sum(math.prod(shape) for shape in shapes(hparams, rank).values())


def fresh_values(hparams: HParams, rank: int, seed: int) -> dict[str, np.ndarray]:
    """Of fresh adapters, which change nothing yet: A uniform within 1 / sqrt(inputs), as the paper's code and peft
    have it, and B 0."""
    random = np.random.default_rng(seed)

    def initial_value(name: str, shape: list[int]) -> np.ndarray:
        limit = 1 / math.sqrt(shape[0]) if name.endswith('a') else 0.0
        return random.uniform(-limit, limit, shape).astype(np.float32)

    return {name: initial_value(name, shape) for name, shape in shapes(hparams, rank).items()}


def saved_values(prefix: str, hparams: HParams, rank: int) -> dict[str, np.ndarray]:
    """Of the adapters that are saved beside a checkpoint. Raises CheckpointError."""
    return dict(read_values(prefix + OPTIMIZER_SUFFIX, shapes(hparams, rank)))


def adapted(params: dict, values: Mapping[str, np.ndarray], alpha: float) -> dict:
    """A model's parameters with adapters of these values in them."""
    from gpt2 import model
    from gpt2.system.tensorflow import tf

    found = model.flatten(params) | {name: tf.Variable(value, name=name) for name, value in values.items()}
    scales = {name[:-1] + SCALE: alpha / value.shape[1] for name, value in values.items() if name.endswith('a')}
    return model.nest(found | scales)


def adapters(params: dict) -> dict[str, Any]:
    """The variables of the adapters in a model's parameters; none where there are none."""
    from gpt2 import model

    return {
        name: value for name, value in model.flatten(params).items() if ADAPTER in name and not name.endswith(SCALE)
    }


def merged(params: dict) -> dict:
    """A model's parameters without adapters, each added to its matrix: tensors of the release's shapes."""
    from gpt2 import model
    from gpt2.system.tensorflow import tf

    found = model.flatten(params)

    def whole(name: str, value: Any) -> Any:
        a, b, scale = (found.get(name.removesuffix('/w') + ADAPTER + part) for part in ('a', 'b', SCALE))
        return value if a is None else value + tf.reshape(scale * tf.matmul(a, b), value.shape)

    return model.nest({name: whole(name, value) for name, value in found.items() if ADAPTER not in name})


def write_adapter(folder: str, prefix: str, hparams: HParams, rank: int, alpha: float, base: str) -> None:
    """Write the adapters that are saved beside a checkpoint into a folder, as peft does. base: the model that they
    adapt, by the name that was given."""
    config = {
        'base_model_name_or_path': HUB_NAMES.get(base, base), 'bias': 'none', 'fan_in_fan_out': True,
        'inference_mode': True, 'init_lora_weights': True, 'lora_alpha': alpha, 'lora_dropout': 0.0,
        'peft_type': 'LORA', 'r': rank, 'target_modules': ['c_attn', 'c_proj', 'c_fc'], 'task_type': 'CAUSAL_LM',
    }  # fmt: skip
    with whole_file(os.path.join(folder, CONFIG)) as file:
        json.dump(config, file, indent=2)
    turned = {peft_name(name): value.T for name, value in saved_values(prefix, hparams, rank).items()}
    with whole_file(os.path.join(folder, WEIGHTS), 'wb') as file:
        write_safetensors(file, {name: value.shape for name, value in turned.items()}, turned.__getitem__, 'float32')


def peft_name(name: str) -> str:
    """model/h3/attn/c_attn/lora/a is base_model.model.transformer.h.3.attn.c_attn.lora_A.weight."""
    matrix, _, kind = name.partition(ADAPTER)
    return f'{PEFT}{their_name(matrix)}.{PEFT_NAMES[kind]}'
