"""Prepare text for training, as WebText was made."""

import contextlib
import datetime
import functools
import importlib.util
import inspect
import json
import os
import shlex
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from gpt2 import __version__
from gpt2.checkpoints.folders import BUNDLED_MODEL, DEFAULT_MODELS_DIR, expand, find_vocabulary
from gpt2.commands.flags import boolean, choice, integer, number, optional_integer, reject_unknown, texts
from gpt2.encoder import read_encoder
from gpt2.errors import Error, UsageError
from gpt2.system import progress
from gpt2.system.download import digest
from gpt2.system.files import new_folder, whole_file
from gpt2.system.locks import locked
from gpt2.token_files import vocabulary_digest
from gpt2.training.data import DatasetError, Reading, documents, find_files

STAGES = ('links', 'fetch', 'text', 'filter', 'duplicates', 'contamination', 'tokens')
REPORT = 'report'
FLAGS = 'flags.json'  # in the output: those that were given
LISTS = ('submissions', 'warc', 'html', 'against', 'quality')
QUALITY = ('gopher', 'c4', 'fineweb')
EXECUTORS = ('local', 'slurm', 'ray')
WHOLE = {
    'min_score': (0, 2**63 - 1), 'max_bytes': (1, 10**9), 'threads': (1, 1024), 'min_tokens': (1, 2**63 - 1),
    'seed': (0, 2**63 - 1), 'tasks': (1, 10**5),
}  # fmt: skip
DAY = 86400  # seconds
PACKAGES = ('datatrove', 'orjson', 'xxhash', 'trafilatura', 'lxml_html_clean', 'py3langid', 'warcio', 'protego',
            'zstandard', 'charset_normalizer', 'idna')  # fmt: skip
HELP = f"""\
Prepare text for training as WebText was made: from links that people voted for to shuffled token files.

    python src/prepare_data.py --output webtext --submissions "RS_*.zst" --contact me@example.org
    python src/prepare_data.py --output crawl --warc "crawl/*.warc.gz" --workers 8
    python src/prepare_data.py filter duplicates tokens --output crawl
    python src/train.py webtext/tokens/training --held_out_data webtext/tokens/held-out --model_name mine

Needs the packages of requirements-data.txt. Words are stages, by default all, each on what the one before let through:
links          submissions to Reddit, a JSON object a line, or dumps of them (.zst): those with a score, before a date,
               of http and https, one of each; no Wikipedia, no pictures, films, shops or files
fetch          the pages, from WARC files, from a folder of HTML, or over the network
text           the main text of pages, by trafilatura
filter         English, by py3langid, and long enough
duplicates     one of each text, and of those whose 5-grams are alike (MinHash, similarity about 0.5)
contamination  only with --against: what shares 13-grams of words with evaluation sets
tokens         <output>/tokens/training and held-out, which train.py takes as its data
report         by itself: <output>/report.md, report.png (needs matplotlib), data_card.md; the others end with it
The same command goes on where it was interrupted, and flags that are left out are as they were. What is skipped is
counted with its reason. The result does not depend on --workers or --executor. Where a stage that was begun would have
to be another, for other flags, other input files, or a stage before it that was made again, the command changes
nothing and says which folders to remove.

--output DIR          folder for all of it; needed
--submissions FILE    a file, folder or glob of submissions; may be repeated
--min_score N         lowest score of a submission, at least 0. Default: 3
--before DATE         submissions of earlier days, as 2018-01-01. Default: 2018-01-01
--blocked_domains F   a file of further domains that are left out, with all below them, one a line
--warc FILE           take pages from WARC files, a file, folder or glob; may be repeated. With --submissions only those
                      that a link leads to
--html DIR            take pages from a folder of HTML files; may be repeated
--contact WHO         fetch over the network: an address, of mail or of a page, in ASCII, at which those who are asked
                      for pages reach you; it is sent with every request
--allow_private       fetch from private networks and this computer too. Default: only from the public internet
--try_again           begin fetch anew, over the network, with the pages that it has: only what failed for the time
                      being, as in an outage, is asked for, and links that are new. Default: what is done stays
--max_bytes N         bytes of a page, as sent and unpacked, from 1 to 1000000000. Default: 10000000
--max_seconds X       seconds of a request, above 0, at most 86400. Default: 30
--pause X             seconds between two requests to a host, from 0 to 86400, where its robots.txt asks for no more.
                      Default: 1
--threads N           hosts that a task asks at once, from 1 to 1024. Default: 32
--min_tokens N        tokens of a document, at least 1. Default: 128
--quality NAME        datatrove's rules of that name too: {', '.join(QUALITY)}; may be repeated. Default: none
--against FILE        text of an evaluation set, as train.py reads it; may be repeated
--contaminated HOW    drop, or list alone. Default: drop
--vocabulary NAME     the model whose vocabulary counts and encodes. Default: {BUNDLED_MODEL}
--held_out X          fraction of the documents that tokens holds out, from 0 up to 1. Default: 0.005
--seed N              of the order and of what is held out, at least 0. Default: 0
--tasks N             parts in which the work is done, from 1 to 100000. Default: 8
--workers N           tasks at once, at least 1, each in a process of its own unless it is 1. Default: 1; on Slurm and
                      Ray all
--executor E          local, slurm or ray, which must be set up. Default: local
--partition NAME      of Slurm; needed there
--time T              of Slurm's jobs, as sbatch takes it. Default: 24:00:00
--models_dir DIR      folder of the model folders; ~ and $VARS are expanded. Default: {DEFAULT_MODELS_DIR}
"""


def prepare_data(
    *stages: str, output: str | None = None, submissions: list | None = None, min_score: Any = None, before: Any = None,
    blocked_domains: str | None = None, warc: list | None = None, html: list | None = None, contact: str | None = None,
    allow_private: bool | None = None, try_again: bool = False, max_bytes: Any = None, max_seconds: Any = None,
    pause: Any = None, threads: Any = None, min_tokens: Any = None, quality: list | None = None,
    against: list | None = None, contaminated: Any = None, vocabulary: str | None = None, held_out: Any = None,
    seed: Any = None, tasks: Any = None, workers: Any = None, executor: Any = 'local', partition: str | None = None,
    time: str = '24:00:00', models_dir: str = DEFAULT_MODELS_DIR, **unknown: Any,
) -> None:  # fmt: skip
    flags = {name: value for name, value in locals().items() if name not in NOT_KEPT and value is not None}
    reject_unknown((), unknown)
    progress.show()
    if not output:
        raise UsageError('give --output, the folder for all of it; --help shows how')
    wanted = [choice('stages', stage, (*STAGES, REPORT)) for stage in stages]
    output = os.path.abspath(expand(output))
    flags, again = checked(flags), boolean('try_again', try_again)
    at_once = optional_integer('workers', workers, 1) or (1 if executor == 'local' else -1)
    engine = choice('executor', executor, EXECUTORS), at_once, partition, str(time)
    check_packages()
    check_engine(*engine, output)
    with alone_in(output):
        flags = merged(output, flags)
        check_source(flags, wanted, again)
        carry_out(output, flags, wanted, engine, models_dir, again)


NOT_KEPT = ('stages', 'output', 'try_again', 'workers', 'executor', 'partition', 'time', 'models_dir', 'unknown')
KEPT = frozenset(inspect.signature(prepare_data).parameters) - {*NOT_KEPT}
prepare_data.__doc__ = HELP


@contextlib.contextmanager
def alone_in(output: str) -> Iterator[None]:
    """Context in which no other process prepares data in that folder, which is made. Raises Error."""
    if os.path.exists(output) and not os.path.isdir(output):
        raise UsageError(f'--output {output} is a file; choose another --output')
    waiting = functools.partial(progress.note, f'waiting for who works in {output}')
    with new_folder(output, 'choose another --output'), locked(os.path.join(output, 'prepare'), waiting):
        yield


def checked(flags: Mapping[str, Any]) -> dict[str, Any]:
    """The flags that were given, checked, as JSON has them. Raises UsageError."""
    found = dict(flags)
    found |= {name: whole(name, flags[name], *limit) for name, limit in WHOLE.items() if name in flags}
    limits = {
        'max_seconds': (lambda value: 0 < value <= DAY, f'above 0 and at most {DAY}'),
        'pause': (lambda value: 0 <= value <= DAY, f'from 0 to {DAY}'),
        'held_out': (lambda value: 0 <= value < 1, 'of at least 0 and below 1'),
    }
    found |= {name: number(name, flags[name], *limit) for name, limit in limits.items() if name in flags}
    found |= {name: list(map(str, texts(flags[name]))) for name in LISTS if name in flags}
    for name in ('submissions', 'warc', 'html', 'against'):
        if '' in found.get(name, ()):
            raise UsageError(f'--{name} is empty; give a file, a folder or a glob')
    contact = str(flags.get('contact', '-'))
    if not (contact.isascii() and contact.isprintable() and contact.strip()):
        raise UsageError(f'--contact is {contact!r}, expected an address of mail or of a page, in ASCII')
    for name in found.get('quality', ()):
        choice('quality', name, QUALITY)
    if 'contaminated' in flags:
        choice('contaminated', flags['contaminated'], ('drop', 'list'))
    if 'allow_private' in flags:
        found['allow_private'] = boolean('allow_private', flags['allow_private'])
    if 'before' in flags:
        seconds(flags['before'])
    if 'blocked_domains' in flags:
        found['blocked_domains'] = os.path.abspath(expand(str(flags['blocked_domains'])))
    paths = [name for name in ('submissions', 'warc', 'html', 'against') if name in found]
    return found | {name: [os.path.abspath(expand(path)) for path in found[name]] for name in paths}


def whole(name: str, value: Any, least: int, most: int) -> int:
    """The value of a flag as an integer in a range. Raises UsageError."""
    if (found := integer(name, value, least)) > most:
        raise UsageError(f'--{name} is {found}, expected at most {most}')
    return found


def seconds(date: Any) -> float:
    """A day, in seconds since 1970 until it begins. Raises UsageError."""
    try:
        day = datetime.date.fromisoformat(str(date))
    except ValueError:
        raise UsageError(f'--before is {date!r}, expected a day as 2018-01-01') from None
    return datetime.datetime(day.year, day.month, day.day, tzinfo=datetime.timezone.utc).timestamp()


def merged(output: str, flags: dict[str, Any]) -> dict[str, Any]:
    """The flags, with those that the same output was begun with. Raises UsageError."""
    try:
        with open(os.path.join(output, FLAGS), encoding='utf-8') as file:
            kept = {**json.load(file)}
        if unknown := sorted(set(kept) - KEPT):
            raise ValueError(f'{unknown[0]} is no flag')
        return checked(kept) | flags
    except FileNotFoundError:
        return flags
    except (ValueError, TypeError, OSError) as error:
        raise UsageError(f'{os.path.join(output, FLAGS)} cannot be read ({error}); choose another --output') from None


def check_packages() -> None:
    """Raise Error where a package is missing that only this command needs."""
    if missing := [name for name in PACKAGES if importlib.util.find_spec(name) is None]:
        raise Error(
            f'preparing data needs packages that are not here ({", ".join(missing)}); '
            'pip install -r requirements-data.txt'
        )


def check_source(flags: Mapping[str, Any], wanted: Sequence[str], again: bool) -> None:
    given = [name for name in ('submissions', 'warc', 'html') if flags.get(name)]
    if not given:
        raise UsageError('give --submissions, --warc or --html; --help shows how')
    if 'html' in given and len(given) > 1:
        raise UsageError(f'--html and --{given[0]} exclude each other: files have no address that a link could name')
    fetches = not wanted or 'fetch' in wanted
    if given == ['submissions'] and fetches and not flags.get('contact'):
        raise UsageError('give --contact, at which those who are asked for pages reach you, or --warc with the pages')
    if again and given != ['submissions']:
        raise UsageError(f'--try_again asks for pages over the network, but they come from --{given[-1]}')
    if 'links' in wanted and 'submissions' not in given:
        raise UsageError('links needs --submissions')
    if 'contamination' in wanted and not flags.get('against'):
        raise UsageError('contamination needs --against, the evaluation sets')


def check_engine(kind: str, workers: int, partition: str | None, time: str, output: str) -> None:
    if kind == 'ray' and importlib.util.find_spec('ray') is None:
        raise Error('--executor ray needs the ray package; pip install ray')
    if kind == 'slurm':
        if not partition:
            raise UsageError('--executor slurm needs --partition, where its jobs run')
        for name, value in (('partition', partition), ('time', time), ('output', output)):
            if shlex.quote(value) != value:  # it stands in the jobs' scripts as it is
                raise UsageError(f'--{name} {value!r} holds what a Slurm script cannot; use letters, digits and -_./:')
        if not shutil.which('sbatch'):
            raise Error('--executor slurm needs sbatch, which is not here; run it where jobs are given to Slurm')


def carry_out(
    output: str, flags: Mapping[str, Any], wanted: Sequence[str], engine: Any, models_dir: str, again: bool
) -> None:
    with progress.doing('loading datatrove'):
        from gpt2.preparation import stages
        from gpt2.preparation.executors import Engine
        from gpt2.preparation.report import gathered

    plan = stages.Plan(**fields(output, flags, models_dir), try_again=again)
    chosen = [stage for stage in stages.chain(plan) if not wanted or stage in wanted]
    stages.begin(plan, chosen)
    if 'contamination' in chosen and not stages.is_done(plan, 'contamination'):
        index(plan, flags['against'])
    if chosen:  # and nothing has refused the flags
        with whole_file(os.path.join(output, FLAGS)) as file:
            json.dump(flags, file, indent=1)
    stages.run(plan, chosen, Engine(*engine))
    if engine[0] == 'slurm' and chosen:
        print(f'given to Slurm: {", ".join(chosen)}; once done: python src/prepare_data.py report --output {output}')
        return
    if old := stages.stale(plan):
        progress.note(f'of an earlier run, and not in the report: {", ".join(old)}')
    conclude(plan, gathered(plan))


def fields(output: str, flags: Mapping[str, Any], models_dir: str) -> dict[str, Any]:
    """The fields of a Plan."""
    folder = find_vocabulary(str(flags.get('vocabulary', BUNDLED_MODEL)), models_dir)
    agent = f'gpt2-prepare-data/{__version__} (+{flags["contact"]})' if flags.get('contact') else ''
    renamed = ('before', 'blocked_domains', 'contact', 'vocabulary', 'against')
    plain = {name: value for name, value in flags.items() if name not in renamed}
    plain |= {name: tuple(plain[name]) for name in LISTS if name in plain}
    return plain | {
        'output': output, 'before': seconds(flags.get('before', '2018-01-01')),
        'blocked': frozenset(blocked(flags.get('blocked_domains'))), 'agent': agent, 'vocabulary': folder,
        'vocabulary_digest': vocabulary_digest(read_encoder(folder)),
        'against': tuple(digest(path, 'sha256').hex()[:16] for path in evaluation_sets(flags)),
    }  # fmt: skip


def evaluation_sets(flags: Mapping[str, Any]) -> list[str]:
    """Their files. Raises UsageError."""
    try:
        return find_files(flags.get('against') or ())
    except Error as error:
        raise UsageError(f'--against: {error}') from None


def blocked(path: str | None) -> Iterator[str]:
    """Yield the domains that a file names, a line each, perhaps as `.x.com` or `*.x.com`, and a # before remarks."""
    from gpt2.preparation.addresses import ascii_host

    if path:
        try:
            with open(path, encoding='utf-8-sig') as file:
                lines = [line.partition('#')[0].strip() for line in file]
        except (OSError, UnicodeError) as error:
            raise UsageError(f'--blocked_domains {path} cannot be read: {error}') from None
        for line in filter(None, lines):
            try:
                yield ascii_host(line.removeprefix('*').removeprefix('.'))
            except ValueError:
                raise UsageError(f'--blocked_domains {path}: {line!r} is no domain, expected such as x.com') from None


def index(plan: Any, against: Sequence[str]) -> None:
    """Keep the n-grams of the evaluation sets for the stage that looks for them."""
    from gpt2.preparation.contamination import write_index
    from gpt2.preparation.stages import WORK

    read = (text for path in find_files(against) for text in documents(path, Reading()))
    try:
        write_index(plan.folder('contamination', WORK), read)
    except DatasetError as error:
        reason = str(error).partition('; name')[0]  # --text_field, which this command has not
        raise UsageError(f'--against: {reason}; give text, or records whose field is `text`') from None


def conclude(plan: Any, found: dict[str, dict[str, Any]]) -> None:
    """Write the report, its chart and a data card, unless somebody has written on that; and print the report."""
    from gpt2.preparation.report import card, draw, report

    content = report(plan, found)
    write(os.path.join(plan.output, 'report.md'), content)
    if not os.path.exists(path := os.path.join(plan.output, 'data_card.md')):
        write(path, card(plan, found))
    try:
        chart = draw(found)
    except ImportError:
        print('no chart without matplotlib: pip install matplotlib', file=sys.stderr)
    else:
        with whole_file(os.path.join(plan.output, 'report.png'), 'wb') as file:
            chart.savefig(file, format='png')
    print(content, end='')


def write(path: str, content: str) -> None:
    with whole_file(path) as file:
        file.write(content)
