"""The probability that a model gives to texts."""

import os
import sys
from collections.abc import Iterable, Iterator
from typing import Any

from tqdm import tqdm

from gpt2.api import open_model
from gpt2.checkpoints.folders import DEFAULT_MODELS_DIR
from gpt2.commands.ablation import ABLATION_HELP, ablated
from gpt2.commands.flags import (
    ENGINE_HELP,
    MODEL_NAME_HELP,
    MODELS_DIR_HELP,
    boolean,
    choice,
    integer,
    print_utf8,
    reject_unknown,
    show_notices,
)
from gpt2.errors import UsageError
from gpt2.scoring.fastest import fastest_score
from gpt2.scoring.scores import Text, TokenScore, score_rows, summary, token_scores
from gpt2.scoring.texts import check_files, is_regular, texts_by_line, whole_texts
from gpt2.scoring.windows import check_stride
from gpt2.system.text import json_line

Scored = tuple[Text, list[int] | None, tuple]  # as score_rows yields it

HELP = f"""\
Print the log-probability that a GPT-2 gives to texts, and what follows from it: perplexity a token
and a word, bits a byte.

    python src/score.py letter.txt
    python src/score.py --model_name 124M --per_token --json - < letter.txt
    python src/score.py --lines --json sentences.txt

Each word is a UTF-8 file, scored by itself; - is standard input. A text is scored as what follows the
end-of-text token, so every token of it is scored, the first too. Beyond n_ctx tokens a window
slides over the text: it holds n_ctx tokens, moves by --stride, and scores those that are new.
A text has two tokens or more.
A byte-order mark at the start of a file is no text, and lines that end with \\r\\n end with \\n; a \\r by itself
stays. A word is what white space divides; bytes are those of UTF-8; both are counted of the text that is scored.

--lines               score each line by itself, without its end, and print one result a line, with the line's
                      number. Every line has one: of an empty line it is log-probability 0 of no tokens
{MODEL_NAME_HELP}
--stride N            tokens by which the window moves, from 1 to n_ctx; each token beyond the first
                      window is predicted from n_ctx - N + 1 tokens or more. Smaller is slower and
                      usually gives the text a higher probability. Default: half of n_ctx
--end_of_text         put the end-of-text token before the text. Default: on. With --noend_of_text the
                      text's first token is only context and is not scored, as in the loss that the
                      released graph computes: neither its bytes nor a word that ends with it count, and a line
                      of one token has log-probability 0 of no tokens
--errors HOW          what to do with bytes that are not UTF-8: strict refuses the file and gives
                      the offset, replace scores U+FFFD in their place. Default: strict
--per_token           print a line a token: id, bytes as Python writes them, log-probability in nats
                      and rank (1 is the likeliest), divided by tabs; then the totals
--json                print one JSON object a line, in UTF-8: with --per_token first one for each token with
                      file, id, bytes, log_probability, rank; then for each file file, model, tokens, words,
                      bytes, log_probability (nats), log_probability_bits, perplexity_per_token,
                      perplexity_per_word, bits_per_byte, stride, end_of_text. With --lines each has line too,
                      from 1. A figure that would divide by nothing is null
--batch_size N        windows that TensorFlow scores at once, at least 1; each needs memory. LiteRT scores them one by
                      one. Default: 4
{ENGINE_HELP}
{ABLATION_HELP}
{MODELS_DIR_HELP}
"""


def score_files(
    *files: str, lines: bool = False, model_name: str | None = None, stride: Any = None, end_of_text: bool = True,
    errors: Any = 'strict', per_token: bool = False, json: bool = False, batch_size: Any = 4,
    engine: Any = 'auto', precision: Any = 'float32', ablate: str | None = None, ablate_from: str | None = None,
    models_dir: str = DEFAULT_MODELS_DIR, **unknown: Any,
) -> None:  # fmt: skip
    reject_unknown((), unknown)
    lines, json = boolean('lines', lines), boolean('json', json)
    end_of_text, per_token = boolean('end_of_text', end_of_text), boolean('per_token', per_token)
    batch_size = integer('batch_size', batch_size, 1)
    errors = choice('errors', errors, ('strict', 'replace'))
    if not files:
        raise UsageError('give a text file, or - for standard input; --help shows how')
    model = open_model(model_name, models_dir, engine=engine, precision=precision, prefix='--')
    model = ablated(model, ablate, ablate_from)
    hparams, encoder = model.hparams, model.encoder
    stride = check_stride('--stride', stride, hparams.n_ctx)
    start = [encoder.end_of_text] if end_of_text else []
    texts = check_files(files, errors, (texts_by_line if lines else whole_texts)(encoder, errors, start))
    show_notices(model.notices)
    score = fastest_score(model.engine)
    settings = {'model': model.name, 'stride': stride, 'end_of_text': end_of_text}
    if json:
        print_utf8()
    for file in files:
        scored = score_rows(score, texts(file), hparams.n_ctx, stride, batch_size)
        hidden = (per_token or lines) and sys.stdout.isatty()
        for text, ids, found in with_progress(file, scored, hidden):
            if ids is None:
                write_totals(text, settings, json)
            elif per_token:
                write_tokens(text.labels, token_scores(encoder, ids, *found), json)


score_files.__doc__ = HELP


def with_progress(file: str, scored: Iterable[Scored], hidden: bool) -> Iterator[Scored]:
    """Yield what score_rows does of a file, beneath a bar, which is gone before what is written at a text's end."""
    size = os.path.getsize(file) if is_regular(file) else None
    bar = {'total': size, 'unit': 'B', 'unit_scale': True, 'leave': False, 'delay': 2}
    with tqdm(desc=f'scoring {file}', disable=True if hidden else None, **bar) as progress:
        ended = 0  # bytes of texts that are done
        for text, ids, found in scored:
            progress.update(ended + text.measure.bytes - progress.n)
            if ids is None:
                ended += text.measure.bytes
                progress.clear()
            yield text, ids, found


def write_tokens(labels: dict[str, Any], tokens: Iterable[TokenScore], json: bool) -> None:
    for token in tokens:
        if json:
            print(json_line({
                **labels, 'id': token.id, 'bytes': list(token.bytes), 'log_probability': token.log_probability,
                'rank': token.rank,
            }))  # fmt: skip
        else:
            print(token.id, repr(token.bytes)[2:-1], f'{token.log_probability:.6f}', token.rank, sep='\t')


def write_totals(text: Text, settings: dict[str, Any], json: bool) -> None:
    figures = summary(text.log_probability, text.tokens, text.measure.words, text.measure.bytes)
    if json:
        model = {'model': settings['model']}
        print(json_line({**text.labels, **model, **figures, **settings}), flush=True)
    else:
        print(*plain_totals(text.labels, figures), sep='; ' if 'line' in text.labels else '\n', flush=True)


def plain_totals(labels: dict[str, Any], figures: dict[str, Any]) -> tuple[str, ...]:
    """The parts of a text's result in words, the first with what it is of."""
    name = ':'.join(map(str, labels.values()))
    sizes = ', '.join(counted(figures[unit], unit) for unit in ('tokens', 'words', 'bytes'))
    nats, bits = figures['log_probability'], figures['log_probability_bits']
    token, word, byte = (
        'none' if figures[figure] is None else f'{figures[figure]:.6g}'
        for figure in ('perplexity_per_token', 'perplexity_per_word', 'bits_per_byte')
    )
    return (
        f'{name}: {sizes}',
        f'log-probability {nats:.4f} nats, {bits:.4f} bits',
        f'perplexity {token} a token, {word} a word; {byte} bits a byte',
    )


def counted(count: int, units: str) -> str:
    """A count with its unit, which is given in the plural."""
    return f'{count} {units.removesuffix("s") if count == 1 else units}'
