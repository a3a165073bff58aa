"""A model to read, whatever its format: shape, vocabulary, weights under the release's names. Imports no TensorFlow.

Each format's module has one function `read(path) -> Source`, imported when such a model is met.
"""

import dataclasses
import hashlib
import importlib
import os
from collections.abc import Callable, Iterable, Iterator, Sized

import numpy as np

from gpt2.checkpoints.files import CheckpointError
from gpt2.encoder import Encoder
from gpt2.hparams import HParams, variable_shapes
from gpt2.system import progress
from gpt2.system.files import check_file

# Bytes at either end of a file, and of each block between, by which it is known.
SAMPLED_ENDS, SAMPLED_BLOCK, SAMPLED_BLOCKS = 1 << 16, 1 << 12, 64


@dataclasses.dataclass(frozen=True)
class Source:
    """A model that can be read, one tensor at a time.

    path: as it was given. format: release, huggingface, gguf or nanogpt. encoder: its vocabulary, or
    None where the model has none beside it; encoder.end_of_text is the id of the model's own end token.
    read: from a name of variable_shapes(hparams) to its value, in any order and as often as asked.
    identity: changes whenever a file of the model does; known without reading all weights: see files_identity.
    dtype: in which the weights lie, the widest if there are several. notices: what a user should know,
    a sentence each.
    """

    path: str
    format: str
    hparams: HParams
    encoder: Encoder | None
    read: Callable[[str], np.ndarray]
    identity: str
    dtype: str = 'float32'
    notices: tuple[str, ...] = ()

    @property
    def vocabulary(self) -> Encoder:
        """encoder, where it is there. Raises CheckpointError where it is not."""
        if self.encoder is None:
            raise CheckpointError(f'{self.path} has no vocabulary; put encoder.json and vocab.bpe beside it')
        return self.encoder

    @property
    def shapes(self) -> dict[str, list[int]]:
        """The release's variables and their shapes; a matrix is [1, inputs, outputs]."""
        return variable_shapes(self.hparams)

    def value(self, name: str) -> np.ndarray:
        """A variable, float32, C-contiguous, of the release's shape. Raises CheckpointError if it is damaged."""
        value = np.ascontiguousarray(self.read(name), np.float32)
        if list(value.shape) != self.shapes[name]:
            raise CheckpointError(f'{self.path}: {name} is {list(value.shape)}, expected {self.shapes[name]}')
        return value

    def values(self, names: Iterable[str] | None = None) -> Iterator[tuple[str, np.ndarray]]:
        """(name, value) of each variable, in the order of names, or of variable_shapes; one in memory at a time."""
        for name in self.shapes if names is None else names:
            yield name, self.value(name)

    def digest(self) -> str:
        """SHA-256 of all weights, in hexadecimal: the same in every format that holds the same values."""
        return combined_digest({name: value_digest(value) for name, value in self.values()})


def check_layers(path: str, hparams: HParams, tensors: Sized) -> None:
    """Raise CheckpointError for more layers than there are tensors, before anything is made of each."""
    if hparams.n_layer > len(tensors):
        raise CheckpointError(f'{path}: n_layer is {hparams.n_layer}, and the weights are {len(tensors)} tensors')


def files_identity(paths: Iterable[str]) -> str:
    """SHA-256, in hexadecimal, of files' names, sizes, times and samples of their bytes: of any files, in a few
    milliseconds whatever their size.

    What it cannot see: bytes changed between the samples of a file whose size and both times (mtime, and ctime, which
    no program sets) stay as they were, as after a change of the clock or on a disk that keeps no such times.
    """
    result = hashlib.sha256()
    for path in paths:
        about = os.stat(path)
        result.update(f'{os.path.basename(path)} {about.st_size} {about.st_mtime_ns} {about.st_ctime_ns}\n'.encode())
        with open(path, 'rb', buffering=0) as file:
            for place, size in sampled(about.st_size):
                file.seek(place)
                result.update(file.read(size))
    return result.hexdigest()


def sampled(size: int) -> list[tuple[int, int]]:
    """(place, bytes) of what is read of a file of so many bytes: all of a small one; else its ends, where formats
    have their headers and lists, and blocks at even distances."""
    if size <= 2 * SAMPLED_ENDS + SAMPLED_BLOCKS * SAMPLED_BLOCK:
        return [(0, size)]
    places = [size * number // SAMPLED_BLOCKS for number in range(1, SAMPLED_BLOCKS)]
    return [(0, SAMPLED_ENDS), *((place, SAMPLED_BLOCK) for place in places), (size - SAMPLED_ENDS, SAMPLED_ENDS)]


def without_unowned_rows(path: str, hparams: HParams, encoder: Encoder | None) -> tuple[HParams, list[str]]:
    """(hparams of the tokens alone, what a user should know), hparams.n_vocab being the rows of wte.

    Rows that no token owns, with which some pad a vocabulary, are left out: they are never drawn, and the
    probabilities of the tokens are those given that none of them is drawn. Raises CheckpointError for a
    token without a row.
    """
    if encoder is None or len(encoder) == hparams.n_vocab:
        return hparams, []
    if len(encoder) > hparams.n_vocab:
        raise CheckpointError(f'{path}: the vocabulary has {len(encoder)} tokens, and wte {hparams.n_vocab} rows')
    return dataclasses.replace(hparams, n_vocab=len(encoder)), [
        f'{hparams.n_vocab - len(encoder)} rows of wte belong to no token and are left out: '
        'probabilities are those of the tokens alone'
    ]


def value_digest(value: np.ndarray) -> str:
    """SHA-256 of a variable's shape and little-endian float32 values."""
    result = hashlib.sha256(f'{list(value.shape)}\n'.encode())
    result.update(np.ascontiguousarray(value, '<f4').data)
    return result.hexdigest()


def combined_digest(digests: dict[str, str]) -> str:
    """SHA-256 of the digests of all variables, whatever their order."""
    return hashlib.sha256(''.join(f'{name} {digests[name]}\n' for name in sorted(digests)).encode()).hexdigest()


def open_source(path: str) -> Source:
    """The model at path: a folder of the release or one of its checkpoints' prefix, a Hugging Face
    folder, a GGUF file, or nanoGPT's ckpt.pt. What is there decides. Raises Error in one line.
    """
    path = str(path)
    return importlib.import_module(f'gpt2.checkpoints.{reader(path)}').read(path)


def reader(path: str) -> str:
    """The module that reads what lies at path. Raises CheckpointError."""
    if os.path.isdir(path):
        names = os.listdir(path)
        if 'hparams.json' in names and any(name.endswith('.index') for name in names):
            return 'bundle'
        if 'config.json' in names:
            return 'huggingface'
        if 'ckpt.pt' in names:
            return 'nanogpt'
        if 'hparams.json' in names or 'checkpoint' in names or any(name.endswith('.index') for name in names):
            return 'bundle'  # which says what is missing
    elif os.path.isfile(path):
        try:
            check_file(path)
            with open(path, 'rb') as file:
                start = file.read(4)
        except OSError as error:
            raise CheckpointError(f'{path} cannot be read ({error.strerror}); get the file again') from None
        if start == b'GGUF':
            return 'gguf'
        if path.endswith('.pt'):
            return 'nanogpt'
    elif os.path.exists(f'{path}.index'):
        return 'bundle'
    else:
        raise CheckpointError(f'{path} is not there; name the folder or the file of a model')
    raise CheckpointError(
        f"{path} is no model that can be read: neither a folder of the release's (hparams.json) nor of "
        "Hugging Face's (config.json), nor a GGUF file, nor nanoGPT's ckpt.pt"
    )


def load_params(source: Source) -> dict:
    """Parameters of a source, as model.forward takes them."""
    return as_params(source.values(), len(source.shapes))


def as_params(values: Iterable[tuple[str, np.ndarray]], count: int) -> dict:
    """TensorFlow variables of so many (name, value) pairs, nested as model.forward takes them: made one at a time, so
    that no second copy of the weights is ever in memory."""
    from gpt2 import model
    from gpt2.system.signals import interrupts_held_back
    from gpt2.system.tensorflow import tf

    new_variable = interrupts_held_back()(tf.Variable)
    found = progress.bar(values, 'loading', count, unit='variable', delay=1)
    return model.nest({name: new_variable(value, name=name) for name, value in found})
