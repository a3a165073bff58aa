"""TensorFlow, imported without its chatter and set for this model.

The log level silences TensorFlow once it runs; what its libraries print while they are loaded
ignores every setting, so standard error is held back for that long, and let out if loading fails.
"""

import contextlib
import os
import signal
import tempfile
import threading

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
os.environ.setdefault('TF_FORCE_GPU_ALLOW_GROWTH', 'true')  # do not seize the whole graphics card
# The model is one chain of operations: a second thread that starts operations only gets in the way
# of those that compute one. A token takes an eighth less time on two cores.
os.environ.setdefault('TF_NUM_INTEROP_THREADS', '1')


@contextlib.contextmanager
def standard_error_held_back():
    try:
        original = os.dup(2)
    except OSError:  # closed: nothing can be printed there
        yield
        return
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        except Exception:
            held.seek(0)
            os.write(original, held.read())
            raise
        finally:
            os.dup2(original, 2)
            os.close(original)


@contextlib.contextmanager
def interrupts_held_back():
    """Context at whose end Ctrl-C takes effect, should it come in between.

    TensorFlow does not survive an exception in its midst: about one in fifty ends in a crash, or in
    another exception.
    """
    if threading.current_thread() is not threading.main_thread():  # no other receives signals
        yield
        return
    came = []
    previous = signal.signal(signal.SIGINT, lambda *_: came.append(True))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
    if came:
        signal.raise_signal(signal.SIGINT)


with interrupts_held_back(), standard_error_held_back():
    import tensorflow as tf  # noqa: F401
