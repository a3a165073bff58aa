"""What a model finds likely in a text; and telling machine text from people's."""

import os
import sys
from collections.abc import Iterable
from typing import Any

from gpt2 import __version__
from gpt2.api import Model, open_model
from gpt2.checkpoints.folders import DEFAULT_MODELS_DIR, expand
from gpt2.commands.flags import (
    ENGINE_HELP,
    MODEL_NAME_HELP,
    MODELS_DIR_HELP,
    address,
    boolean,
    check_packages,
    choice,
    optional_integer,
    print_utf8,
    reject_unknown,
    show_notices,
)
from gpt2.detection import look
from gpt2.detection.detector import CAVEAT, DETECTORS, SHORTEST, Detector
from gpt2.detection.detector import load as load_detector
from gpt2.detection.detector import save as save_detector
from gpt2.detection.features import read_features
from gpt2.detection.reading import Reading, read_texts
from gpt2.detection.report import experience, report
from gpt2.detection.texts import BASE_URL, HUMAN, PUBLISHED, download_texts, named, read_both, read_records
from gpt2.encoder import utf8
from gpt2.errors import UsageError
from gpt2.system.files import check_output, make_folder, new_folder, whole_file
from gpt2.system.text import json_line, one_line, printable, read_text, text_of

REQUIREMENTS = 'requirements-detect.txt'
HELP = """\
Look at a text with a model's eyes, or train a detector of machine text and ask it.

    python src/detect.py look "Once upon a time there was a king."
    python src/detect.py train --human webtext.train.jsonl --machine small-117M.train.jsonl
    python src/detect.py predict --file letter.txt

look                  show each token of a text in the colour of its rank, without a verdict
train                 train a detector on texts of people and of a machine, and say how well it does
predict               say how much a text is like those of the machine; it proves nothing

Each says more with --help after its name.
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
--html PATH           write a page too, with rank, probability and entropy of each token under the pointer; what is
                      there is replaced, unless it is the text
--png PATH            write a picture too, of the first 200 lines of 100 characters; likewise; needs matplotlib
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
        check_packages('--png', ['matplotlib'], REQUIREMENTS)
    check_outputs({'--html': html, '--png': png}, [file])
    show_notices(model.notices)
    [reading] = read_texts(model.engine, model.encoder, [given])
    tokens = look.tokens_of(reading, model.encoder)
    title = printable(f'{name} as {model.name} sees it')
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


def check_outputs(outputs: dict[str, str | None], inputs: Iterable[str | None]) -> None:
    """Raise Error where a file cannot be written, or would take the place of one that is read. outputs: by flag."""
    for flag, output in outputs.items():
        if output is None:
            continue
        path = expand(output)
        check_output(path, f'choose another {flag}')
        if any(each and os.path.exists(each) and os.path.realpath(path) == os.path.realpath(each) for each in inputs):
            raise UsageError(f'{flag} {path} is a file that is read; choose another')


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


TRAIN_HELP = f"""\
Train a detector on texts of people and of a machine, and say how well it does on others.

    python src/detect.py train --human webtext.train.jsonl --machine small-117M.train.jsonl --kind words
    python src/detect.py train --download small-117M-k40 --data_dir data --model_name 124M --limit 5000
    python src/detect.py train --human people.jsonl --machine samples.jsonl --save samples.npz

Three are trained, and each is calibrated: words, the release's baseline, logistic regression on TF-IDF of words and
pairs of them; model, logistic regression on what a model says of the text (mean and spread of surprise, ranks as in
GLTR, entropy, the curvature of Fast-DetectGPT); both, which weighs the two. Printed are what is right of the test,
with 95 % intervals, which people are taken for machines, and what is right by length. Files are JSON lines, objects
with text. Beside NAME.train.jsonl its NAME.valid.jsonl and NAME.test.jsonl are taken for calibration and test, as the
release has them; where one is not there, a tenth of the texts is held back for it. Needs requirements-detect.txt.

--human PATH          texts of people
--machine PATH        texts of a machine; what `--json` of the sampling commands prints is such a file too
--download NAME       first fetch what is missing of the release's texts into --data_dir: those of people, {HUMAN}, and
                      of a model: {", ".join(list(PUBLISHED)[:4])}, and each of
                      them with -k40. They stand for --human and --machine
--data_dir DIR        folder of these files; needed with --download; ~ and $VARS are expanded
--base_url URL        a mirror of them, http or https. Default:
                      {BASE_URL}
--kind K              words, for which no model reads; model; or both, which is all three. Default: both
--limit N             the first N texts of each of the two files only, at least 20. Default: all
--save PATH           where the detector goes, plain arrays without pickle; what is there is replaced. Default:
                      detector.npz
--force               take files that look exchanged: called after the other side, or written by our own commands
--json                print the figures as JSON in UTF-8, not as Markdown
{MODEL_NAME_HELP}
{ENGINE_HELP}
{MODELS_DIR_HELP}
"""


PREDICT_HELP = f"""\
Say how much a text is like those of the machine that a detector was trained on: a probability, which proves nothing.

    python src/detect.py predict --file letter.txt
    python src/detect.py predict --detector samples.npz --json --file texts.jsonl

A text of fewer than {SHORTEST} tokens is refused. Beside the probability is said how often the detector was right of
test texts about as long. It is that of the fullest detector in the file; those it consists of follow in brackets.

{CAVEAT}

--file PATH           a UTF-8 file in place of TEXT; - is standard input, and so is TEXT where it is -. Of a file whose
                      name ends in .jsonl each line is a text, as for train
--detector PATH       what train has saved. Default: detector.npz
--force               judge texts of fewer than {SHORTEST} tokens too
--json                print one JSON object a text and line, in UTF-8: text, what it is called; tokens; probability;
                      words, model and both, as far as the detector has them; experience; caveat
--model_name NAME     the model that the detector was trained with, by its folder or path. Default: what it was called
--engine E            tf, litert or auto, as the sampling commands take it. Default: auto
{MODELS_DIR_HELP}
"""


def train_detector(
    *extra: str, human: str | None = None, machine: str | None = None, download: str | None = None,
    data_dir: str | None = None, base_url: str = BASE_URL, kind: Any = 'both', limit: Any = None,
    save: str = 'detector.npz', force: bool = False, json: bool = False, model_name: str | None = None,
    engine: Any = 'auto', precision: Any = 'float32', models_dir: str = DEFAULT_MODELS_DIR, **unknown: Any,
) -> None:  # fmt: skip
    reject_unknown(extra, unknown)
    force, json, limit = boolean('force', force), boolean('json', json), optional_integer('limit', limit, 20)
    kind, path = choice('kind', kind, DETECTORS), expand(save)
    model = open_model(model_name, models_dir, engine=engine, precision=precision, prefix='--')
    check_packages('training', ['sklearn'], REQUIREMENTS)
    make_folder(os.path.dirname(path) or '.', 'choose another --save')
    check_outputs({'--save': save}, [expand(each) for each in (human, machine) if each])
    files = chosen_files(human, machine, download, data_dir, base_url)
    people, machines = read_both(*files, model.name, limit, force)
    show_notices(model.notices)
    from gpt2.detection.train import train

    detector = train(people, machines, None if kind == 'words' else model.engine, model.encoder, kind)
    names = [named(file)[0] for file in files]
    detector.about.update(
        human=names[0], machine=names[1], limit=limit, published=PUBLISHED.get(names[1]), version=__version__,
        model={'name': model.name, 'identity': model.source.identity, 'precision': precision},
    )
    save_detector(path, detector)
    show_notices(doubts(detector.about))
    if json:
        print_utf8()
    print(json_line(detector.about | {'caveat': CAVEAT}) if json else report(detector.about), end='\n' if json else '')


train_detector.__doc__ = TRAIN_HELP


def chosen_files(
    human: str | None, machine: str | None, download: str | None, data_dir: str | None, base_url: str
) -> tuple[str, str]:
    """The files of people's and of a machine's texts; fetches those that are wanted. Raises Error."""
    if download is None:
        if human is None or machine is None:
            raise UsageError('give --human and --machine, files of texts, or --download; --help shows how')
        return expand(human), expand(machine)
    if human is not None or machine is not None:
        raise UsageError('--download stands for --human and --machine; leave them out')
    choice('download', download, tuple(PUBLISHED))
    if data_dir is None:
        raise UsageError('give --data_dir, the folder where --download puts its files')
    base_url = address('base_url', base_url)
    with new_folder(expand(data_dir), 'choose another --data_dir'):
        return download_texts(download, expand(data_dir), base_url)


def doubts(about: dict[str, Any]) -> list[str]:
    """What a user should know of a detector that was trained, a line each."""
    if not about.get('looks_exchanged'):
        return []
    return [f'the texts of {about["human"]} are more like those of {about["model"]["name"]} itself than the texts of '
            f'{about["machine"]}; were --human and --machine exchanged?']  # fmt: skip


def predict_texts(
    *text: str, file: str | None = None, detector: str = 'detector.npz', force: bool = False, json: bool = False,
    model_name: str | None = None, engine: Any = 'auto', models_dir: str = DEFAULT_MODELS_DIR, **unknown: Any,
) -> None:  # fmt: skip
    reject_unknown((), unknown)
    force, json = boolean('force', force), boolean('json', json)
    found = load_detector(expand(detector))
    texts = given_texts(text, file)
    if found.words:
        check_packages('a detector by words', ['sklearn'], REQUIREMENTS)
    model = model_of(found, model_name, models_dir, engine)
    lengths = [len(model.encoder.encode(each)) for each in texts.values()]
    if not force:
        check_lengths(texts, lengths)
    show_notices(model.notices)
    features = read_features(model.engine, model.encoder, list(texts.values()))[0] if found.reader else None
    probabilities = found.probabilities(found.decisions(list(texts.values()), features))
    if json:
        print_utf8()
    for place, (name, length) in enumerate(zip(texts, lengths)):
        of_text = {kind: float(values[place]) for kind, values in probabilities.items()}
        write_prediction(name, length, of_text, found, json)
    if not json:
        print(f'\n{CAVEAT}')


predict_texts.__doc__ = PREDICT_HELP


def given_texts(words: tuple[str, ...], file: str | None) -> dict[str, str]:
    """{what it is called: a text} of all that a command line names. Raises UsageError."""
    if file is None or not file.endswith('.jsonl') or words:
        return dict([given_text(words, file)])
    return {f'{file}, text {number}': text for number, text in enumerate(read_records(file).texts, start=1)}


def model_of(detector: Detector, model_name: str | None, models_dir: str, engine: Any) -> Model:
    """The model that a detector was trained with. Raises UsageError for another, where it would read."""
    trained = detector.about['model']
    model = open_model(
        model_name or trained['name'], models_dir, engine=engine, precision=trained['precision'], prefix='--'
    )
    if detector.reader and model.source.identity != trained['identity']:
        raise UsageError(f'{model.name} is not the model that the detector was trained with, which was called '
                         f'{trained["name"]}; name that with --model_name')  # fmt: skip
    return model


def check_lengths(texts: dict[str, str], lengths: list[int]) -> None:
    """Raise UsageError for a text that is too short to say anything of."""
    for name, length in zip(texts, lengths):
        if length < SHORTEST:
            raise UsageError(f'{name} has {length} tokens, expected {SHORTEST} or more: of so few nothing can be '
                             'told; give more, or --force')  # fmt: skip


def write_prediction(name: str, length: int, probabilities: dict[str, float], detector: Detector, json: bool) -> None:
    *parts, (best, probability) = probabilities.items()
    known = experience(detector.about, best, length)
    if json:
        print(json_line({'text': name, 'tokens': length, 'probability': probability, **probabilities,
                         'experience': known, 'caveat': CAVEAT}))  # fmt: skip
    else:
        of_parts = f' ({", ".join(f"{part} {value:.3f}" for part, value in parts)})' if parts else ''
        print(f'{one_line(name)}, {length} tokens: machine {probability:.3f}{of_parts}; {known}')


def detect_machine(*words: str) -> None:
    """Raise UsageError: what is wanted is one of `parts`, the functions that main.py runs by the first word."""
    found = f'{words[0]!r} is none of' if words else 'name one of'
    raise UsageError(f'{found} {", ".join(PARTS)}; --help says what they do')


PARTS = {'look': look_at, 'train': train_detector, 'predict': predict_texts}
detect_machine.__doc__ = HELP
detect_machine.parts = PARTS  # type: ignore[attr-defined]
