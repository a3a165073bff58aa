"""Training's checkpoints: TensorFlow V2 checkpoints in the release's layout, saved one after another in a folder.

Which files those are says files.py; how they are read without TensorFlow, bundle.py.
"""

import os
import re
from collections.abc import Container

from gpt2 import model
from gpt2.checkpoints.bundle import read_values
from gpt2.checkpoints.files import (
    OPTIMIZER_SUFFIX,
    STATE_FILE,
    CheckpointError,
    files_of,
    find_prefix,
    write_state_file,
)
from gpt2.checkpoints.meta_graph import write_meta_graph
from gpt2.checkpoints.source import as_params
from gpt2.hparams import HParams, variable_shapes
from gpt2.system.files import WriteError
from gpt2.system.tensorflow import tf


def reason(error: Exception) -> str:
    """What a TensorFlow error says, without the names of the operations it wraps around it."""
    message = getattr(error, 'message', None) or str(error)
    return re.sub(r'^\{\{function_node [^}]*\}\} ?|\[Op:.*$', '', message.splitlines()[0]).strip()


def load_params(path: str, hparams: HParams) -> dict:
    """Parameters of the model at path (see find_prefix), as model.forward takes them: TensorFlow variables.

    Variable by variable, so that no second copy of the weights is ever in memory. Raises
    CheckpointError in one line naming file, variable, what was expected and what was found.
    """
    shapes = variable_shapes(hparams)
    return as_params(read_values(find_prefix(path), shapes), len(shapes))


def write_values(prefix: str, values: dict[str, tf.Tensor]) -> None:
    """Write a dict from name to tensor as one V2 checkpoint."""
    names = sorted(values)
    tensors = [values[name] for name in names]
    tf.raw_ops.SaveV2(
        prefix=os.fsencode(prefix), tensor_names=names, shape_and_slices=[''] * len(names), tensors=tensors
    )


def save(
    folder: str, prefix_name: str, hparams: HParams, params: dict, optimizer: dict[str, tf.Tensor] | None = None,
    keep: Container[str] = (),
) -> None:  # fmt: skip
    """Save params as the folder's current checkpoint, with optimizer values beside it.

    The new files have names of their own; the state file that makes them current is renamed into
    place when they are whole, and only then is the previous checkpoint removed. So a crash or a
    full disk leaves the previous one. prefix_name must differ from the current one. keep: names of
    checkpoints that are not removed.
    """
    prefix = os.path.join(folder, prefix_name)
    state = os.path.join(folder, STATE_FILE)
    previous = find_prefix(folder) if os.path.exists(state) else None
    if previous == prefix:
        raise ValueError(f'{prefix} is the current checkpoint; save under another name')
    try:
        if optimizer:
            write_values(prefix + OPTIMIZER_SUFFIX, optimizer)
        write_meta_graph(f'{prefix}.meta', hparams)
        write_values(prefix, model.flatten(params))
        write_state_file(state, prefix_name)
    except (WriteError, tf.errors.OpError) as error:
        remove(prefix)
        raise CheckpointError(f'{prefix} cannot be written ({reason(error)}); free space and run again') from None
    if previous and os.path.basename(previous) not in keep:
        remove(previous)


def remove(prefix: str) -> None:
    """Delete the files of a checkpoint and of the optimizer beside it, whole or cut short. Raises CheckpointError."""
    for path in files_of(prefix):
        try:
            os.remove(path)
        except OSError as error:
            raise CheckpointError(f'{path} cannot be removed ({error.strerror}); remove it by hand') from None
