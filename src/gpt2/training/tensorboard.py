"""What TensorBoard shows of a run: event files, TFRecords of Event messages. Imports TensorFlow as it writes."""

import os
import socket
import time
from collections.abc import Callable, Mapping
from typing import Any

from gpt2.system.files import make_folder

VERSION = 'brain.Event:2'
Write = Callable[[int, Mapping[str, float | str]], None]


def writer(folder: str | None, first: int) -> Write:
    """A function that writes numbers, and texts, by their names as those of a step into a new file in folder; nothing,
    where that is None. Raises WriteError for a folder that cannot be made.

    The file begins with a mark at which TensorBoard leaves out what it was told of the steps after `first`: of a run
    that was killed, these come again.
    """
    if folder is None:
        return lambda step, values: None
    from gpt2.system.tensorflow import tf

    make_folder(folder, 'choose another --tensorboard')
    name = f'events.out.tfevents.{time.time():.6f}.{socket.gethostname()}.{os.getpid()}'  # in their order by name
    file = tf.io.TFRecordWriter(os.path.join(folder, name))
    v1 = tf.compat.v1

    def write(**fields: Any) -> None:
        file.write(v1.Event(wall_time=time.time(), **fields).SerializeToString())
        file.flush()

    write(file_version=VERSION)
    write(step=first + 1, session_log=v1.SessionLog(status=v1.SessionLog.START))
    return lambda step, values: write(step=step, summary=summary(values))


def summary(values: Mapping[str, float | str]) -> Any:
    """The Summary message of numbers and texts by their names."""
    from gpt2.system.tensorflow import tf

    v1 = tf.compat.v1
    text = v1.SummaryMetadata(plugin_data=v1.SummaryMetadata.PluginData(plugin_name='text'))

    def value(name: str, content: float | str) -> Any:
        if isinstance(content, str):
            return v1.Summary.Value(tag=name, metadata=text, tensor=tf.make_tensor_proto(content))
        return v1.Summary.Value(tag=name, simple_value=content)

    return v1.Summary(value=[value(name, content) for name, content in values.items()])
