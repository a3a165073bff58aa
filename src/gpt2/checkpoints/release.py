"""The only reader and writer of weights: TensorFlow V2 checkpoints in the release's layout.

Which files those are says files.py.
"""

import contextlib
import os
import re
import tempfile
from collections.abc import Iterator

from tqdm import tqdm

from gpt2 import model
from gpt2.checkpoints.files import (
    DATA_SUFFIX,
    OPTIMIZER_SUFFIX,
    RELEASED_PREFIX,
    STATE_FILE,
    CheckpointError,
    files_of,
    find_prefix,
)
from gpt2.hparams import HParams, variable_shapes
from gpt2.system.files import WriteError, whole_file
from gpt2.system.tensorflow import interrupts_held_back, tf


def read_values(prefix: str, shapes: dict[str, list[int]]) -> Iterator[tuple[str, tf.Tensor]]:
    """Yield (name, float32 tensor) for each variable in shapes, one at a time.

    All names, shapes and dtypes are checked before the first is read; variables that shapes does
    not name, such as an optimizer's, are passed over. Raises CheckpointError.
    """
    with as_tensorflow_reads(prefix) as readable:
        check_variables(prefix, readable, shapes)
        for name in shapes:
            yield name, read_value(prefix, readable, name)


@contextlib.contextmanager
def as_tensorflow_reads(prefix: str) -> Iterator[str]:
    """The prefix under which TensorFlow finds the checkpoint at prefix while it reads it.

    TensorFlow takes what it is to read for a pattern, in UTF-8. A path that is another one as a
    pattern, or none, is read through links of plain names.
    """
    if is_plain(prefix):
        yield prefix
        return
    with contextlib.ExitStack() as stack:
        try:
            place = tempfile.gettempdir() if is_plain(tempfile.gettempdir()) else '/tmp'
            folder = stack.enter_context(tempfile.TemporaryDirectory(dir=place))
            link = os.path.join(folder, RELEASED_PREFIX)
            for path in files_of(prefix):
                os.symlink(os.path.abspath(path), link + path.removeprefix(prefix))
        except OSError as error:
            reach = f'{prefix} cannot be linked to from {place} ({error.strerror})'
            raise CheckpointError(f'{reach}; free space there, or give the folder another name') from None
        yield link


def is_plain(path):
    """Whether TensorFlow finds what lies at path. On Windows, where \\ divides folders, it knows no [ and names
    hold no other mark of a pattern."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return os.name == 'nt' or not set(path) & set('*?[\\')


def check_variables(prefix, readable, shapes):
    """readable: where TensorFlow finds prefix."""
    remedy = 'download the model again, or mend its hparams.json'
    try:
        reader = tf.train.load_checkpoint(readable)
    except (tf.errors.OpError, RuntimeError, ValueError) as error:
        why = reason(error).replace(readable, prefix)
        raise CheckpointError(f'{prefix}.index cannot be read ({why}); download the model again') from None
    found, dtypes = reader.get_variable_to_shape_map(), reader.get_variable_to_dtype_map()
    for name, shape in shapes.items():
        if name not in found:
            raise CheckpointError(f'{prefix}.index has no variable {name}, expected float32 {list(shape)}; {remedy}')
        if list(found[name]) != list(shape) or dtypes[name] != tf.float32:
            expected = f'expected float32 {list(shape)}, found {dtypes[name].name} {found[name]}'
            raise CheckpointError(f'{prefix}.index: {name} does not fit: {expected}; {remedy}')


@interrupts_held_back()
def read_value(prefix, readable, name):
    try:
        return tf.raw_ops.RestoreV2(prefix=readable, tensor_names=[name], shape_and_slices=[''], dtypes=[tf.float32])[0]
    except tf.errors.OpError as error:
        why = reason(error).replace(readable, prefix)
        raise CheckpointError(
            f'{prefix}{DATA_SUFFIX}: {name} cannot be read ({why}); delete it and download the model again'
        ) from None


def reason(error):
    """What a TensorFlow error says, without the names of the operations it wraps around it."""
    message = getattr(error, 'message', None) or str(error)
    return re.sub(r'^\{\{function_node [^}]*\}\} ?|\[Op:.*$', '', message.splitlines()[0]).strip()


def load_params(path: str, hparams: HParams) -> dict:
    """Parameters of the model at path (see find_prefix), as model.forward takes them.

    Variable by variable, so that no second copy of the weights is ever in memory. Raises
    CheckpointError in one line naming file, variable, what was expected and what was found.
    """
    shapes = variable_shapes(hparams)
    values = read_values(find_prefix(path), shapes)
    progress = tqdm(values, 'loading', len(shapes), unit='variable', leave=False, delay=2, disable=None)
    new_variable = interrupts_held_back()(tf.Variable)
    return model.nest({name: new_variable(value, name=name) for name, value in progress})


def write_values(prefix: str, values: dict[str, tf.Tensor]) -> None:
    """Write a dict from name to tensor as one V2 checkpoint."""
    names = sorted(values)
    tensors = [values[name] for name in names]
    tf.raw_ops.SaveV2(
        prefix=os.fsencode(prefix), tensor_names=names, shape_and_slices=[''] * len(names), tensors=tensors
    )


def save(
    folder: str, prefix_name: str, hparams: HParams, params: dict, optimizer: dict[str, tf.Tensor] | None = None
) -> None:
    """Save params as the folder's current checkpoint, with optimizer values beside it.

    The new files have names of their own; the state file that makes them current is renamed into
    place when they are whole, and only then is the previous checkpoint removed. So a crash or a
    full disk leaves the previous one. prefix_name must differ from the current one.
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
    if previous:
        remove(previous)


def write_state_file(state, prefix_name):
    with whole_file(state) as file:
        for field in ('model_checkpoint_path', 'all_model_checkpoint_paths'):
            file.write(f'{field}: "{prefix_name}"\n')


def remove(prefix: str) -> None:
    """Delete the files of a checkpoint and of the optimizer beside it, whole or cut short. Raises CheckpointError."""
    for path in files_of(prefix):
        try:
            os.remove(path)
        except OSError as error:
            raise CheckpointError(f'{path} cannot be removed ({error.strerror}); remove it by hand') from None


def write_meta_graph(path, hparams):
    """Export the graph of the model, as the release does: tokens in, logits and loss out."""
    with tf.Graph().as_default():
        params = model.nest({
            name: tf.compat.v1.get_variable(name, shape, initializer=tf.zeros_initializer(), use_resource=True)
            for name, shape in variable_shapes(hparams).items()
        })
        tokens = tf.compat.v1.placeholder(tf.int32, [None, None], name='tokens')
        tf.identity(model.logits(params, model.forward(hparams, params, tokens)), name='logits')
        tf.identity(model.loss(hparams, params, tokens), name='loss')
        graph = tf.compat.v1.train.Saver().export_meta_graph()
    with whole_file(path, 'wb') as file:
        file.write(graph.SerializeToString())
