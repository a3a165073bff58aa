"""TensorFlow, imported without its chatter and set for this model.

The log level silences TensorFlow once it runs; standard error is held back while it is loaded.
"""

import functools
import os

from gpt2.system.signals import interrupts_held_back, standard_error_held_back

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
os.environ.setdefault('TF_FORCE_GPU_ALLOW_GROWTH', 'true')  # do not seize the whole graphics card
# The model is one chain of operations: a second thread that starts operations only gets in the way
# of those that compute one. A token takes an eighth less time on two cores.
os.environ.setdefault('TF_NUM_INTEROP_THREADS', '1')

with interrupts_held_back(), standard_error_held_back():
    import tensorflow as tf

# A function as a graph. The rewriting of Python's own branches and loops takes seconds, and nothing here needs it.
traced = functools.partial(tf.function, autograph=False)
PROCESS = os.getpid()  # that TensorFlow's threads are in
