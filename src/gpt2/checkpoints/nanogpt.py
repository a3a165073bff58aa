"""nanoGPT's ckpt.pt: linear weights stored [outputs, inputs], perhaps without biases, names of a compiled model."""

import contextlib
import os
from collections.abc import Callable

import numpy as np

from gpt2.checkpoints import folders
from gpt2.checkpoints.dtypes import FLOATS
from gpt2.checkpoints.files import CheckpointError
from gpt2.checkpoints.huggingface import HEAD, PASSED_OVER, PREFIX, their_name
from gpt2.checkpoints.source import Source, check_layers, files_identity, without_unowned_rows
from gpt2.checkpoints.tensor_files import Tensor, load_torch, torch_file
from gpt2.encoder import Encoder, read_encoder
from gpt2.errors import UsageError
from gpt2.hparams import RELEASED_HPARAMS, HParams, HParamsError, variable_shapes

COMPILED = '_orig_mod.'
RELEASED_ROWS = (50257, 50304)  # of the release's vocabulary, and as nanoGPT pads it
GELU = 'nanoGPT computes gelu exactly since June 2023, which ckpt.pt does not say, and GPT-2 by its tanh form'


def read(path: str) -> Source:
    """The model of a ckpt.pt, or of the folder it lies in. Raises CheckpointError."""
    file = os.path.join(path, 'ckpt.pt') if os.path.isdir(path) else path
    hparams = hparams_of(file)
    tensors = {plain(name): tensor for name, tensor in torch_file(file, lambda content: content['model']).items()}
    check_tensors(file, tensors, hparams)
    rows = hparams.n_vocab
    encoder = find_vocabulary(os.path.dirname(file) or '.', rows)
    hparams, notices = without_unowned_rows(path, hparams, encoder)
    return Source(
        path, 'nanogpt', hparams, encoder, reader(tensors, hparams), files_identity([file]),
        tensors['wte.weight'].dtype, (*notices, GELU),
    )  # fmt: skip


def hparams_of(file: str) -> HParams:
    content = load_torch(file)
    try:
        settings = content['model_args']
        return HParams(
            n_vocab=settings['vocab_size'], n_ctx=settings['block_size'], n_embd=settings['n_embd'],
            n_head=settings['n_head'], n_layer=settings['n_layer'],
        )  # fmt: skip
    except (KeyError, TypeError, HParamsError) as error:
        raise CheckpointError(f"{file} is no ckpt.pt of nanoGPT's: model_args: {error}") from None


def plain(name: str) -> str:
    """A tensor's name without what a compiled model and its transformer put before it."""
    return name.removeprefix(COMPILED).removeprefix(PREFIX)


def their_shape(shape: list[int]) -> tuple[int, ...]:
    """[1, inputs, outputs] -> [outputs, inputs]"""
    return tuple(shape[:0:-1] if len(shape) == 3 else shape)


def check_tensors(file: str, tensors: dict[str, Tensor], hparams: HParams) -> None:
    """Raise CheckpointError unless the tensors are just those of the model; a bias may be missing."""
    check_layers(file, hparams, tensors)
    expected = {their_name(name): their_shape(shape) for name, shape in variable_shapes(hparams).items()}
    for name, shape in expected.items():
        if name in tensors:
            tensor = tensors[name]
            if tensor.shape != shape or tensor.dtype not in FLOATS:
                raise CheckpointError(f'{file}: {name} is {tensor.dtype} {list(tensor.shape)}, expected {list(shape)}')
        elif not name.endswith('.bias'):
            raise CheckpointError(f'{file} has no tensor {name}, expected {list(shape)}')
    for name in tensors:
        if name not in expected and name != HEAD and not PASSED_OVER.fullmatch(name):
            raise CheckpointError(f"{file}: {name} is no tensor of GPT-2's; this program cannot compute with it")
    if HEAD in tensors and not np.array_equal(tensors[HEAD].read(), tensors['wte.weight'].read()):
        raise CheckpointError(f"{file}: {HEAD} is another matrix than wte.weight, and GPT-2's is the same")


def reader(tensors: dict[str, Tensor], hparams: HParams) -> Callable[[str], np.ndarray]:
    """The function that reads a variable under the release's name; a bias that is missing is 0."""
    shapes = variable_shapes(hparams)

    def read_variable(name: str) -> np.ndarray:
        stored = tensors.get(their_name(name))
        if stored is None:
            return np.zeros(shapes[name], np.float32)
        if name == 'model/wte':
            return stored.read()[: hparams.n_vocab]
        return stored.read().T[np.newaxis] if name.endswith('/w') else stored.read()

    return read_variable


def find_vocabulary(folder: str, rows: int) -> Encoder | None:
    """The vocabulary beside a ckpt.pt, or else, for as many rows, that of a released model that is here."""
    if os.path.exists(os.path.join(folder, 'encoder.json')):
        return read_encoder(folder)
    for name in RELEASED_HPARAMS if rows in RELEASED_ROWS else ():
        with contextlib.suppress(UsageError):
            return read_encoder(folders.find_vocabulary(name))
    return None
