"""Files of named tensors as PyTorch's world keeps them: safetensors, read and written, and torch.save's, read.

Only one tensor at a time is in memory, and of a file only what has been asked for.
"""

import dataclasses
import json
import math
import os
import struct
import warnings
import zipfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import IO, Any

import numpy as np

from gpt2.checkpoints.dtypes import STORED_AS, narrowed, widened
from gpt2.checkpoints.files import CheckpointError
from gpt2.system.files import check_file

NAMES = {'F32': 'float32', 'F16': 'float16', 'BF16': 'bfloat16'}
LENGTH = struct.Struct('<Q')  # of the header, before it
REMEDY = 'get the file again'


@dataclasses.dataclass(frozen=True)
class Tensor:
    """A tensor in a file. read: gives its values, float32, or raises CheckpointError."""

    file: str
    dtype: str
    shape: tuple[int, ...]
    read: Callable[[], np.ndarray]


def safetensors(path: str) -> dict[str, Tensor]:
    """The tensors of a safetensors file. Raises CheckpointError for one that is no such file or is cut."""
    try:
        from safetensors import SafetensorError, safe_open
    except ImportError as error:
        raise CheckpointError(f'{path} needs a package ({error}); pip install -r requirements-convert.txt') from None
    try:
        check_file(path)
        with safe_open(path, 'np'):  # which finds sizes that cannot be before anything is made of them
            pass
        with open(path, 'rb') as file:
            header = json.loads(file.read(LENGTH.unpack(file.read(LENGTH.size))[0]))
            start = file.tell()
    except SafetensorError as error:
        raise CheckpointError(f'{path} cannot be read ({error}); {REMEDY}') from None
    except OSError as error:
        raise CheckpointError(f'{path} cannot be read ({error.strerror or error}); {REMEDY}') from None
    header.pop('__metadata__', None)
    return {name: stored_tensor(path, start, entry) for name, entry in header.items()}


def stored_tensor(path: str, start: int, entry: dict) -> Tensor:
    """The tensor of an entry of a header; start is where the header ends."""
    dtype, shape = NAMES.get(entry['dtype'], entry['dtype']), tuple(entry['shape'])
    return Tensor(path, dtype, shape, partial(read_stored, path, start + entry['data_offsets'][0], dtype, shape))


def read_stored(path: str, offset: int, dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    try:
        stored = np.fromfile(path, STORED_AS[dtype], math.prod(shape), offset=offset)
        return widened(stored.reshape(shape), dtype)
    except (OSError, ValueError):  # since it was opened
        raise CheckpointError(f'{path} has changed while it was read; run again') from None


def write_safetensors(file: IO[bytes], shapes: Mapping[str, Sequence[int]], read: Callable, dtype: str) -> None:
    """Write tensors of these shapes, whose values read(name) gives, float32, in their order."""
    header: dict[str, Any] = {'__metadata__': {'format': 'pt'}}
    end = 0
    code = next(code for code, name in NAMES.items() if name == dtype)
    for name, shape in shapes.items():
        start, end = end, end + math.prod(shape) * np.dtype(STORED_AS[dtype]).itemsize
        header[name] = {'dtype': code, 'shape': list(shape), 'data_offsets': [start, end]}
    text = json.dumps(header, separators=(',', ':')).encode()
    text += b' ' * (-len(text) % 8)
    file.write(LENGTH.pack(len(text)) + text)
    for name in shapes:
        file.write(np.ascontiguousarray(narrowed(read(name), dtype)).data)


def torch_file(path: str, part: Callable[[dict], dict] = lambda content: content) -> dict[str, Tensor]:
    """The tensors in the dict that torch.save wrote, or in a part of it. Nothing but tensors and plain
    values is ever made of a file: code in it is not run. Raises CheckpointError.
    """
    content = load_torch(path)
    # In files of before 2020 the tensors cannot be read where they lie.
    again = partial(load_torch, path) if zipfile.is_zipfile(path) else lambda: content

    def read(name: str) -> np.ndarray:
        return part(again())[name].detach().float().contiguous().numpy()

    try:
        tensors = part(content)
        named = all(isinstance(name, str) and hasattr(found, 'is_floating_point') for name, found in tensors.items())
    except (KeyError, AttributeError):
        named = False
    if not named:
        raise CheckpointError(f'{path} holds no tensors by name; {REMEDY}')
    for name, tensor in tensors.items():
        check_values(path, name, tensor)
    return {
        name: Tensor(path, str(tensor.dtype).removeprefix('torch.'), tuple(tensor.shape), partial(read, name))
        for name, tensor in tensors.items()
    }


def check_values(path: str, name: str, tensor: Any) -> None:
    """Raise CheckpointError for a tensor of PyTorch's whose values are not all in the file, one after another."""
    whole = tensor.device.type == 'cpu' and str(tensor.layout) == 'torch.strided'
    if not whole or tensor.untyped_storage().nbytes() < tensor.numel() * tensor.element_size():
        raise CheckpointError(
            f'{path}: {name} is {list(tensor.shape)} ({tensor.layout}, {tensor.device.type}), whose values are not all '
            f'in the file; {REMEDY}'
        )


def load_torch(path: str) -> dict:
    """The dict in a file of torch.save. Raises CheckpointError."""
    try:
        import torch
    except ImportError:
        name = os.path.basename(path)
        raise CheckpointError(f'{path} needs PyTorch: pip install torch, or get the model without {name}') from None
    try:
        check_file(path)
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            content = torch.load(path, map_location='cpu', weights_only=True, mmap=zipfile.is_zipfile(path) or None)
    except OSError as error:
        raise CheckpointError(f'{path} cannot be read ({error.strerror or error}); {REMEDY}') from None
    except Exception as error:  # whatever a damaged file brings about
        unsafe = 'Weights only load failed' in str(error)
        why = 'it holds more than tensors and plain values, which could be code' if unsafe else 'it is damaged'
        raise CheckpointError(f'{path} is not read: {why}; get the model elsewhere') from None
    if not isinstance(content, dict):
        raise CheckpointError(f'{path} holds no tensors by name; {REMEDY}')
    return content
