"""The shape of a GPT-2: its hyperparameters and, from them, every variable of its checkpoint.

Imports no TensorFlow, so that a command can check its arguments before anything heavy is loaded.
"""

import dataclasses
import json
import math

from gpt2.errors import Error
from gpt2.system.files import open_small, whole_file


class HParamsError(Error):
    """An hparams.json that is missing, unreadable or describes no GPT-2."""


@dataclasses.dataclass(frozen=True)
class HParams:
    """Hyperparameters under the names of hparams.json; every value is a positive int."""

    n_vocab: int
    n_ctx: int
    n_embd: int
    n_head: int
    n_layer: int

    def __post_init__(self) -> None:
        for name, value in dataclasses.asdict(self).items():
            if type(value) is not int or value < 1:
                raise HParamsError(f'{name} is {value!r}, expected an integer of at least 1')
        if self.n_embd % self.n_head:
            raise HParamsError(f'n_embd {self.n_embd} is not a multiple of n_head {self.n_head}')


RELEASED_HPARAMS = {
    '124M': HParams(n_vocab=50257, n_ctx=1024, n_embd=768, n_head=12, n_layer=12),
    '355M': HParams(n_vocab=50257, n_ctx=1024, n_embd=1024, n_head=16, n_layer=24),
    '774M': HParams(n_vocab=50257, n_ctx=1024, n_embd=1280, n_head=20, n_layer=36),
    '1558M': HParams(n_vocab=50257, n_ctx=1024, n_embd=1600, n_head=25, n_layer=48),
}


def load_hparams(path: str) -> HParams:
    """Read hparams.json. Raises HParamsError, in one line naming the file and what is wrong."""
    expected = {field.name for field in dataclasses.fields(HParams)}
    remedy = 'download the model again'
    try:
        with open_small(path, 'utf-8-sig') as file:
            values = json.load(file)
    except FileNotFoundError:
        raise HParamsError(f'{path} is not there; {remedy}') from None
    except (OSError, ValueError) as error:
        raise HParamsError(f'{path} cannot be read ({error}); {remedy}') from None
    if not isinstance(values, dict) or set(values) != expected:
        found = sorted(values) if isinstance(values, dict) else type(values).__name__
        raise HParamsError(f'{path} holds {found}, expected {sorted(expected)}; {remedy}')
    try:
        return HParams(**values)
    except HParamsError as error:
        raise HParamsError(f'{path}: {error}; {remedy}') from None


def save_hparams(path: str, hparams: HParams) -> None:
    """Write hparams.json as the release lays it out: one object on one line."""
    with whole_file(path) as file:
        json.dump(dataclasses.asdict(hparams), file)
        file.write('\n')


def variable_shapes(hparams: HParams) -> dict[str, list[int]]:
    """Map each variable of a released checkpoint to its shape; all are float32."""
    embd = hparams.n_embd
    block = {
        'ln_1/g': [embd],
        'ln_1/b': [embd],
        'attn/c_attn/w': [1, embd, 3 * embd],
        'attn/c_attn/b': [3 * embd],
        'attn/c_proj/w': [1, embd, embd],
        'attn/c_proj/b': [embd],
        'ln_2/g': [embd],
        'ln_2/b': [embd],
        'mlp/c_fc/w': [1, embd, 4 * embd],
        'mlp/c_fc/b': [4 * embd],
        'mlp/c_proj/w': [1, 4 * embd, embd],
        'mlp/c_proj/b': [embd],
    }
    shapes = {'model/wte': [hparams.n_vocab, embd], 'model/wpe': [hparams.n_ctx, embd]}
    for layer in range(hparams.n_layer):
        shapes.update({f'model/h{layer}/{name}': shape for name, shape in block.items()})
    return shapes | {'model/ln_f/g': [embd], 'model/ln_f/b': [embd]}


def parameter_count(hparams: HParams) -> int:
    return sum(math.prod(shape) for shape in variable_shapes(hparams).values())


def weights_bytes(hparams: HParams) -> int:
    """Size of model.ckpt.data-00000-of-00001: all parameters as float32, and nothing else."""
    return 4 * parameter_count(hparams)
