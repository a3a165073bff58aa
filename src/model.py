"""The model, under the release's name: `import model` is the library's gpt2.model."""

from gpt2.model import *  # noqa: F403
