"""Sampling, under the release's name: `import sample` is the library's gpt2.sample."""

from gpt2.sample import *  # noqa: F403
