"""What a model finds likely in a text; and telling machine text from people's."""

import os
import sys
from typing import Any

from gpt2.api import open_model
from gpt2.checkpoints.folders import DEFAULT_MODELS_DIR, expand
from gpt2.commands.flags import (
    ENGINE_HELP,
    MODEL_NAME_HELP,
    MODELS_DIR_HELP,
    boolean,
    reject_unknown,
    show_notices,
)
from gpt2.detection import look
from gpt2.detection.reading import Reading, read_texts
from gpt2.encoder import utf8
from gpt2.errors import Error, UsageError
from gpt2.system.files import whole_file
from gpt2.system.text import read_text, text_of

HELP = """\
Look at a text with a model's eyes.

    python src/detect.py look "Once upon a time there was a king."
    python src/detect.py look --help

look                  show each token of a text in the colour of its rank, without a verdict
"""
LOOK_HELP = f"""\
Show how likely each token of a text was to a model: in colour by its rank among all that the model could have said.

    python src/detect.py look "Once upon a time there was a king."
    python src/detect.py look --file letter.txt --html letter.html --png letter.png
    python src/detect.py look --per_token - < letter.txt

Colours are for ranks 1-10, 11-100, 101-1000 and above, as in GLTR (Gehrmann et al. 2019). Below the text: how many
tokens each has; the surprise (-log-probability) a token, beside the entropy, which is the surprise that the model
expected; their difference in standard deviations, the curvature of Fast-DetectGPT, which is 0 on average for what the
model draws itself at temperature 1; and how surprise goes with entropy. There is no verdict. Without colours, where
no terminal reads, TERM is dumb or NO_COLOR is set, tokens are printed as with --per_token.
The text is read as what follows the end-of-text token; beyond n_ctx tokens the window moves by half of it.

--file PATH           a UTF-8 file in place of TEXT; - is standard input, and so is TEXT where it is -
--per_token           print a line a token, divided by tabs: rank, probability, surprise and entropy in nats, and
                      the token as Python writes its bytes
--html PATH           write a page too, with rank, probability and entropy of each token under the pointer
--png PATH            write a picture too, of the first 200 lines of 100 characters; needs matplotlib
{MODEL_NAME_HELP}
{ENGINE_HELP}
{MODELS_DIR_HELP}
"""


def look_at(
    *text: str, file: str | None = None, per_token: bool = False, html: str | None = None, png: str | None = None,
    model_name: str | None = None, engine: Any = 'auto', precision: Any = 'float32',
    models_dir: str = DEFAULT_MODELS_DIR, **unknown: Any,
) -> None:  # fmt: skip
    reject_unknown((), unknown)
    per_token = boolean('per_token', per_token)
    name, given = given_text(text, file)
    model = open_model(model_name, models_dir, engine=engine, precision=precision, prefix='--')
    if png is not None:
        check_packages('matplotlib')
    show_notices(model.notices)
    [reading] = read_texts(model.engine, model.encoder, [given])
    tokens = look.tokens_of(reading, model.encoder)
    title = f'{name} as {model.name} sees it'
    if html is not None:
        with whole_file(expand(html)) as page:
            page.write(look.page(title, reading, tokens))
    if png is not None:
        write_picture(expand(png), title, reading, tokens)
    show(reading, tokens, per_token)


look_at.__doc__ = LOOK_HELP


def given_text(words: tuple[str, ...], file: str | None) -> tuple[str, str]:
    """(what it is called, the text) that a command line names. Raises UsageError."""
    if len(words) + (file is not None) != 1:
        found = 'neither' if not words and file is None else ' and '.join(map(repr, words)) or '--file'
        raise UsageError(f'{found} given, expected one TEXT in quotes, or --file PATH')
    if file is None and words != ('-',):
        name, text = 'a text', text_of(utf8(words[0]), 'the text')
    else:
        file = file or '-'
        name, text = 'standard input' if file == '-' else file, read_text(file)
    if not text:
        raise UsageError(f'{name} is empty, expected a text')
    return name, text


def check_packages(*packages: str) -> None:
    """Raise Error where a package is missing that only this command needs."""
    import importlib.util

    if missing := [name for name in packages if importlib.util.find_spec(name) is None]:
        raise Error(
            f'this needs packages that are not here ({", ".join(missing)}); pip install -r requirements-detect.txt'
        )


def write_picture(path: str, title: str, reading: Reading, tokens: list[look.Token]) -> None:
    from gpt2.detection import picture

    with whole_file(path, 'wb') as file:
        picture.save(picture.draw(title, reading, tokens), file)


def show(reading: Reading, tokens: list[look.Token], per_token: bool) -> None:
    colours = look.colours_of(os.environ, sys.stdout.isatty())
    if per_token or not colours:
        print(*look.token_lines(tokens, colours), sep='\n')
    else:
        print(look.terminal_text(tokens, colours))
    print('', *look.terminal_figures(reading, colours), sep='\n')


def detect_machine(*words: str) -> None:
    """Raise UsageError: what is wanted is one of `parts`, the functions that main.py runs by the first word."""
    found = f'{words[0]!r} is none of' if words else 'name one of'
    raise UsageError(f'{found} {", ".join(PARTS)}; --help says what they do')


PARTS = {'look': look_at}
detect_machine.__doc__ = HELP
detect_machine.parts = PARTS  # type: ignore[attr-defined]
