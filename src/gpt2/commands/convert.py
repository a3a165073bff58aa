"""Convert a checkpoint from one format to another."""

from collections.abc import Iterable
from typing import Any

from gpt2.checkpoints.convert import WRITERS, Conversion, convert
from gpt2.checkpoints.source import Source, open_source
from gpt2.commands.flags import choice, reject_unknown, show_notices
from gpt2.errors import UsageError
from gpt2.hparams import parameter_count

DTYPES = ('float32', 'float16', 'bfloat16', 'q8_0')
HELP = """\
Convert a model from one format to another.

    python src/convert.py SOURCE DESTINATION
    python src/convert.py path/to/huggingface/folder models/mine
    python src/convert.py models/124M 124M.gguf --dtype q8_0

SOURCE is any model that can be read: a folder of the release's or the prefix of a checkpoint in it, a
folder of Hugging Face's, a GGUF file with float tensors, nanoGPT's ckpt.pt; what is there decides.
DESTINATION must not be there yet; it appears when it is whole.

--to FORMAT    release, a folder as OpenAI's; huggingface, a folder for transformers; gguf, a file for
               llama.cpp; saved_model, a folder for TensorFlow Serving. Default: gguf for a DESTINATION
               that ends in .gguf, else huggingface for a SOURCE of the release's, and release for any other
--dtype TYPE   float32; float16 or bfloat16, to the nearest; q8_0, 8 bits, for gguf alone. The release's
               layout and saved_model hold float32 alone. Default: float32
"""


def convert_model(*paths: Any, to: Any = None, dtype: Any = 'float32', **unknown: Any) -> None:
    reject_unknown((), unknown)
    if len(paths) != 2:
        raise UsageError(f'{len(paths)} paths are given, expected a model and where to write it; --help shows how')
    source, destination = map(str, paths)
    to = to and choice('to', to, tuple(WRITERS))
    dtype = choice('dtype', dtype, DTYPES)
    model = open_source(source)
    show_notices(f'{source}: {notice}' for notice in model.notices)
    done = convert(model, destination, to or default_format(model, destination), dtype)
    show_notices(f'{destination}: {notice}' for notice in done.notices)
    print(report(done))


def default_format(model: Source, destination: str) -> str:
    if destination.endswith('.gguf'):
        return 'gguf'
    return 'huggingface' if model.format == 'release' else 'release'


def report(conversion: Conversion) -> str:
    """Three lines: the model's shape, its vocabulary, its weights."""
    model, vocabulary = conversion.source, conversion.source.encoder
    hparams = model.hparams
    shape = f'{hparams.n_layer} layers, {hparams.n_head} heads, {hparams.n_embd} features, {hparams.n_ctx} positions'
    tokens = 'none'
    if vocabulary:
        tokens = f'{len(vocabulary)} tokens, {len(vocabulary.added)} of them added: {listed(vocabulary.added)}'
    of_what = ' of the float32 values' if conversion.dtype == 'q8_0' else ''
    return (
        f'shape: {parameter_count(hparams):,} parameters, {shape}\n'
        f'vocabulary: {tokens}\n'
        f'weights: {conversion.dtype}, digest {conversion.digest}{of_what}'
    )


def listed(texts: Iterable[str], limit: int = 5) -> str:
    """Texts in quotes, the first few of many."""
    quoted = [repr(text) for text in texts]
    return ', '.join([*quoted[:limit], '...'] if len(quoted) > limit else quoted)


convert_model.__doc__ = HELP
