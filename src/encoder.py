"""The encoder, under the release's name: `import encoder` is the library's gpt2.encoder."""

from gpt2.encoder import *  # noqa: F403
