"""The probability that a model gives to texts."""

import itertools
import json as json_format
import math
import os
import sys

from tqdm import tqdm

from gpt2.checkpoints.folders import DEFAULT_MODELS_DIR
from gpt2.commands.flags import boolean, choice, integer, reject_unknown
from gpt2.commands.sampling import open_model
from gpt2.encoder import END_OF_TEXT
from gpt2.errors import UsageError
from gpt2.scoring.text_stream import Measure, encode_stream
from gpt2.scoring.windows import batches, windows
from gpt2.system.text import CONVERT_OR_REPLACE, pieces

HELP = f"""\
Print the log-probability that a GPT-2 gives to texts, and what follows from it: perplexity a token
and a word, bits a byte.

    python src/score.py letter.txt
    python src/score.py --model_name 124M --per_token --json - < letter.txt

Each word is a UTF-8 file, scored by itself; - is standard input. A text is scored as what follows the
end-of-text token, so every token of it is scored, the first too. Beyond n_ctx tokens a window
slides over the text: it holds n_ctx tokens, moves by --stride, and scores those that are new.
A text has two tokens or more.
A word is what white space divides; bytes are those of UTF-8.

--model_name NAME     folder of the model inside the models folder. Default: 124M if it is there,
                      else the bundled model
--stride N            tokens by which the window moves, from 1 to n_ctx; each token beyond the first
                      window is predicted from n_ctx - N + 1 tokens or more. Smaller is slower and
                      usually gives the text a higher probability. Default: half of n_ctx
--end_of_text         put the end-of-text token before the text. Default: on. With --noend_of_text the
                      text's first token is only context and is not scored, as in the loss that the
                      released graph computes
--errors HOW          what to do with bytes that are not UTF-8: strict refuses the file and gives
                      the offset, replace scores U+FFFD in their place. Default: strict
--per_token           print a line a token: id, bytes as Python writes them, log-probability in nats
                      and rank (1 is the likeliest), divided by tabs; then the totals
--json                print one JSON object a line: with --per_token first one for each token with
                      file, id, bytes, log_probability, rank; then for each file file, model, tokens, words,
                      bytes, log_probability (nats), log_probability_bits, perplexity_per_token,
                      perplexity_per_word, bits_per_byte, stride, end_of_text
--batch_size N        windows scored at once, at least 1; each needs memory. Default: 4
--models_dir DIR      folder of the model folders; ~ and $VARS are expanded. Default: {DEFAULT_MODELS_DIR}, here or
                      else in the repository
"""


def score_files(
    *files, model_name=None, stride=None, end_of_text: bool = True, errors='strict', per_token: bool = False,
    json: bool = False, batch_size=4, models_dir=DEFAULT_MODELS_DIR, **unknown,
):  # fmt: skip
    reject_unknown((), unknown)
    end_of_text, per_token = boolean('end_of_text', end_of_text), boolean('per_token', per_token)
    json, batch_size = boolean('json', json), integer('batch_size', batch_size, 1) or 4
    errors = choice('errors', errors, ('strict', 'replace'))
    path, hparams, encoder, notice = open_model(model_name, models_dir)
    stride = check_stride(stride, hparams.n_ctx)
    start = [encoder.encoder[END_OF_TEXT]] if end_of_text else []
    once = check_files(files, encoder, errors, start)
    score = load_score(path, hparams, notice)
    for file in files:
        ids, measure = once.get(file) or open_text(file, encoder, errors, start)
        tokens, log_probability = 0, 0.0
        with progress(file, hidden=per_token and sys.stdout.isatty()) as read:
            for batch in batches(windows(ids, hparams.n_ctx, stride), batch_size * hparams.n_ctx):
                for (row, count), (log_probabilities, ranks, _) in zip(batch, score(batch)):
                    if per_token:
                        write_tokens(file, encoder, row[-count:], log_probabilities, ranks, json)
                    tokens += count
                    log_probability += log_probabilities.sum(dtype='float64').item()
                read.update(measure.bytes - read.n)
        figures = summary(log_probability, tokens, measure.words, measure.bytes)
        model = os.path.basename(path)
        write_summary({'file': file, 'model': model, **figures, 'stride': stride, 'end_of_text': end_of_text}, json)


score_files.__doc__ = HELP


def check_stride(stride, n_ctx):
    """Tokens by which the window moves: stride, or when it is None half the window. Raises UsageError."""
    stride = integer('stride', stride, 1)
    if stride is None:
        return max(1, n_ctx // 2)
    if stride > n_ctx:
        raise UsageError(f'--stride is {stride}, expected at most n_ctx {n_ctx}')
    return stride


def check_files(files, encoder, errors, start):
    """Raise UsageError for files that cannot be scored.

    Regular files are read to their end now, so that a bad byte in the last does not end an hour's
    work. What can be read only once is opened here: returns what open_text gives, by name.
    """
    if not files:
        raise UsageError('give a text file, or - for standard input; --help shows how')
    once = {}
    for file in files:
        regular = os.path.isfile(file)
        if not regular and files.count(file) > 1:
            raise UsageError(f'{file} can be read only once; give it once, or a regular file')
        if regular:
            for _ in pieces(file, errors, CONVERT_OR_REPLACE):
                pass
        text = open_text(file, encoder, errors, start)
        if not regular:
            once[file] = text
    return once


def open_text(file, encoder, errors, start):
    """(ids, measure) of a text: an iterator of its token ids after those of start, and the Measure,
    which grows with them, of what is scored: all but the first id. Raises UsageError for less than two tokens.
    """
    measure = Measure()
    ids = itertools.chain(start, encode_stream(encoder, pieces(file, errors, CONVERT_OR_REPLACE), measure))
    first = list(itertools.islice(ids, len(start) + 2))
    if len(first) < len(start) + 2:
        found = 'no text' if first == start else 'a text of one token'
        raise UsageError(f'{file} holds {found}, expected two tokens or more; give a longer text')
    if not start:
        measure.bytes -= len(encoder.decode_bytes(first[:1]))
    return itertools.chain(first, ids), measure


def load_score(path, hparams, notice):
    """The scoring function of a model. TensorFlow is imported here, once flags and files are checked."""
    if notice:
        print(notice, file=sys.stderr)
    from gpt2.checkpoints import release as checkpoint
    from gpt2.scoring import log_probabilities as scoring

    return scoring.make_score(hparams, checkpoint.load_params(path, hparams))


def progress(file, hidden):
    size = os.path.getsize(file) if os.path.isfile(file) else None
    return tqdm(
        desc='scoring', total=size, unit='B', unit_scale=True, leave=False, delay=2, disable=True if hidden else None
    )


def write_tokens(file, encoder, ids, log_probabilities, ranks, json):
    for token, log_probability, rank in zip(ids, log_probabilities.tolist(), ranks.tolist()):
        text = encoder.decode_bytes([token])
        if json:
            print(json_format.dumps({
                'file': file, 'id': token, 'bytes': list(text), 'log_probability': log_probability, 'rank': rank,
            }))  # fmt: skip
        else:
            print(token, repr(text)[2:-1], f'{log_probability:.6f}', rank, sep='\t')


def exponential(nats, count):
    """exp(nats / count), or None where that is no number: without a count, or beyond what a float holds."""
    try:
        return math.exp(nats / count)
    except (ZeroDivisionError, OverflowError):
        return None


def summary(log_probability, tokens, words, bytes_):
    """The figures of a text from its log-probability in nats and its size."""
    bits = log_probability / math.log(2)
    return {
        'tokens': tokens,
        'words': words,
        'bytes': bytes_,
        'log_probability': log_probability,
        'log_probability_bits': bits,
        'perplexity_per_token': exponential(-log_probability, tokens),
        'perplexity_per_word': exponential(-log_probability, words),
        'bits_per_byte': -bits / bytes_,
    }


def write_summary(figures, json):
    if json:
        print(json_format.dumps(figures), flush=True)
        return
    texts = {
        name: 'none' if value is None else f'{value:.6g}' if name.startswith(('perp', 'bits')) else f'{value:.4f}'
        for name, value in figures.items()
        if isinstance(value, float) or value is None
    }
    shown = figures | texts
    print(
        f'{shown["file"]}: {shown["tokens"]} tokens, {shown["words"]} words, {shown["bytes"]} bytes\n'
        f'log-probability {shown["log_probability"]} nats, {shown["log_probability_bits"]} bits\n'
        f'perplexity {shown["perplexity_per_token"]} a token, {shown["perplexity_per_word"]} a word; '
        f'{shown["bits_per_byte"]} bits a byte',
        flush=True,
    )
