"""The zero-shot evaluation of the GPT-2 paper."""

import dataclasses
import importlib.metadata
import importlib.util
import json as json_format
import os
import platform
import sys
import time
from collections.abc import Iterable, Sequence
from typing import Any

from gpt2.api import open_model
from gpt2.checkpoints.folders import DEFAULT_MODELS_DIR, expand
from gpt2.commands.flags import (
    ENGINE_HELP,
    MODEL_NAME_HELP,
    MODELS_DIR_HELP,
    boolean,
    integer,
    optional_integer,
    print_utf8,
    reject_unknown,
    show_notices,
)
from gpt2.errors import Error, UsageError
from gpt2.evaluation import tasks as tasks_package
from gpt2.evaluation.data import digests, fetch, missing_files
from gpt2.evaluation.language_model import LanguageModel
from gpt2.evaluation.report import draw, report
from gpt2.evaluation.tasks import TASKS
from gpt2.evaluation.tasks.task import Task
from gpt2.scoring.windows import check_stride
from gpt2.system.files import make_folder, whole_file
from gpt2.system.text import json_line, json_text, printable

README = os.path.join(os.path.dirname(tasks_package.__file__), 'README.md')
HELP = f"""\
Evaluate a GPT-2 as the paper does (Radford et al. 2019, section 3), without training it for any task.

    python src/evaluate.py --tasks lambada,wikitext2 --data_dir data --download
    python src/evaluate.py --model_name 355M --data_dir data
    python src/evaluate.py --data_dir data --limit 20

Tasks whose files are not in the data folder, or that need a package that is not installed, are skipped with
a line that says so. Results are saved in <output_dir>/<model>.json as each task ends, with the model's identity,
the files' checksums, settings, versions and time; a task that is there with the same of all but versions and time
is not run again, so an interrupted run goes on with the same command. Beside it: <model>.md, a table with the
paper's figures and how each of ours came about, which is printed too, and <model>.png, a chart (needs
matplotlib). Packages that some tasks and the chart need: pip install sacrebleu rouge-score matplotlib
Files of lines may end them with \\n or \\r\\n and begin with a byte-order mark, which is no text; of enwik8 and
text8 every byte counts.

--tasks NAMES         divided by commas: {", ".join(TASKS)}.
                      Default: all
--data_dir DIR        folder of the data files; needed; ~ and $VARS are expanded. What they are called and where
                      they are published: {README}
--download            first fetch the files that are missing there and have a public address
--limit N             a quick look: only the first N items of each task (passages, questions, sentences, lines of a
                      text, thousands of bytes; CoQA's are conversations). Every figure is marked so, and they are kept
                      apart, in <output_dir>/<model>-first-N.json, .md and .png. Default: all
--output_dir DIR      where results are saved. Default: evaluation, here
{MODEL_NAME_HELP}
--stride N            tokens by which the window moves over long texts, from 1 to n_ctx; smaller is
                      slower and gives lower perplexities. Default: half of n_ctx
--batch_size N        windows that TensorFlow scores at once, at least 1; each needs memory. LiteRT scores them one by
                      one. Default: 4
{ENGINE_HELP}
                      Results of int8 and int4 are kept apart, in <output_dir>/<model>-int8.json, .md and .png
--json                print the results as JSON in UTF-8, not as Markdown
{MODELS_DIR_HELP}
"""


def evaluate_model(
    *extra: str, tasks: Any = None, data_dir: str | None = None, download: bool = False, limit: Any = None,
    output_dir: str = 'evaluation', model_name: str | None = None, stride: Any = None, batch_size: Any = 4,
    json: bool = False, engine: Any = 'auto', precision: Any = 'float32', models_dir: str = DEFAULT_MODELS_DIR,
    **unknown: Any,
) -> None:  # fmt: skip
    reject_unknown(extra, unknown)
    download, json = boolean('download', download), boolean('json', json)
    batch_size, limit = integer('batch_size', batch_size, 1), optional_integer('limit', limit, 1)
    chosen = choose_tasks(tasks)
    model = open_model(model_name, models_dir, engine=engine, precision=precision, prefix='--')
    stride = check_stride('--stride', stride, model.hparams.n_ctx)
    data_dir, output_dir = check_data_dir(data_dir), expand(output_dir)
    present = present_tasks(chosen, data_dir, download)
    name, index = printable(model.name), model.source.identity
    described = {'name': name, 'hparams': dataclasses.asdict(model.hparams), 'index_sha256': index}
    if precision != 'float32':
        name, described['precision'] = f'{name}-{precision}', precision
    results: dict[str, Any] = {'model': described}
    saved = os.path.join(output_dir, name if limit is None else f'{name}-first-{limit}')
    results |= {'limit': limit, 'tasks': load_tasks(f'{saved}.json', results['model'], limit)}
    settings = {
        task.name: {'recipe': task.recipe, 'stride': stride, 'limit': limit, 'files': digests(task, data_dir)}
        for task in present
    }
    left = [task for task in present if not is_done(results['tasks'].get(task.name), settings[task.name])]
    done = [task for task in present if task not in left]
    left = able_tasks(left, model.hparams.n_ctx, others=bool(done))
    data = {task.name: read(task, data_dir, limit) for task in left}
    make_folder(output_dir, 'choose another --output_dir')
    if left:
        show_notices(model.notices)
        language_model = LanguageModel(model.engine, model.encoder, stride, batch_size)
    for task in left:
        results['tasks'][task.name] = evaluated(task, language_model, data.pop(task.name)) | settings[task.name]
        write_whole(f'{saved}.json', json_text(results))
    shown = results | {'tasks': {task.name: results['tasks'][task.name] for task in present if task in done + left}}
    write_whole(f'{saved}.md', report(results))
    save_chart(f'{saved}.png', results)
    if json:
        print_utf8()
    print(json_line(shown) if json else report(shown), end='\n' if json else '')


evaluate_model.__doc__ = HELP


def choose_tasks(names: Any) -> list[Task]:
    """The tasks that a list of names, divided by commas, means; None means all. Raises UsageError."""
    names = list(TASKS) if names is None else [name.strip() for name in str(names).split(',')]
    for name in names:
        if name not in TASKS:
            raise UsageError(f'--tasks names {name!r}, expected some of {", ".join(TASKS)}')
    return [TASKS[name] for name in dict.fromkeys(names)]


def check_data_dir(data_dir: str | None) -> str:
    if data_dir is None:
        raise UsageError('give --data_dir, the folder of the data files; --help shows how')
    folder = expand(data_dir)
    if not os.path.isdir(folder):
        raise UsageError(f'--data_dir {folder} is no folder; make it, or name one that is there')
    return folder


def present_tasks(tasks: Sequence[Task], data_dir: str, download: bool) -> list[Task]:
    """Those of tasks whose files are there or could be fetched; says what is missing. Raises UsageError if all are."""
    if download:
        for task in tasks:
            fetch_missing(task, data_dir)
    missing = {task.name: missing_files(task, data_dir) for task in tasks}
    present = [task for task in tasks if not missing[task.name]]
    absent = [task for task in tasks if missing[task.name]]
    if not absent:
        return present
    if len(absent) == 1:
        [task] = absent
        note = '; '.join(
            f'{task.name}: no {name} in {data_dir}; it is published: {task.files[name]}' for name in missing[task.name]
        )
    else:
        note = f'{names(absent)}: not all of their files are in {data_dir}; {README} says where they are published'
        if not download and any(source.url for task in absent for source in task.files.values()):
            note += ', and --download fetches some'
    if not present:
        raise UsageError(f'nothing to evaluate; {note}')
    show_notices([f'skipping {note}'])
    return present


def names(tasks: Iterable[Task]) -> str:
    return ', '.join(task.name for task in tasks)


def fetch_missing(task: Task, data_dir: str) -> None:
    for name in missing_files(task, data_dir):
        if task.files[name].url:
            try:
                fetch(task.files[name], os.path.join(data_dir, name))
            except Error as error:
                show_notices([str(error)])


def load_tasks(path: str, model: dict[str, Any], limit: int | None) -> dict[str, Any]:
    """The tasks that an earlier run has saved for this model, or none yet. Raises UsageError for what is not that."""
    if not os.path.exists(path):
        return {}
    try:
        with open(path, encoding='utf-8') as file:
            results = json_format.load(file)
        saved = results['model'], results.get('limit')
        tasks = {name: entry for name, entry in results['tasks'].items() if entry['metrics']}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(f'{path} holds no results ({error}); move it away, or give another --output_dir') from None
    if saved != (model, limit):
        raise UsageError(f'{path} holds results of another model of that name; give another --output_dir')
    return tasks


def is_done(entry: dict[str, Any] | None, settings: dict[str, Any]) -> bool:
    return entry is not None and all(entry.get(name) == value for name, value in settings.items())


def able_tasks(tasks: list[Task], n_ctx: int, others: bool) -> list[Task]:
    """Those of tasks whose packages are installed and whose prompts the window has room for; says which are not.

    others: whether anything else can be shown. If nothing can, raises Error.
    """
    notes, able = [], tasks
    lacking = {
        task.name: [pip for package, pip in task.requires.items() if importlib.util.find_spec(package) is None]
        for task in tasks
    }
    if any(lacking.values()):
        without = [task for task in tasks if lacking[task.name]]
        packages = ' '.join(sorted({pip for task in without for pip in lacking[task.name]}))
        notes.append(f'{names(without)}: a package is missing; pip install {packages}')
        able = [task for task in able if task not in without]
    if tight := [task for task in able if n_ctx < 2 * task.draws]:
        longest = max(task.draws for task in tight)
        notes.append(f'{names(tight)}: n_ctx {n_ctx} is too small to draw up to {longest} tokens; take a larger model')
        able = [task for task in able if task not in tight]
    if notes and not able and not others:
        raise Error(f'nothing to evaluate; {"; ".join(notes)}')
    for note in notes:
        show_notices([f'skipping {note}'])
    return able


def read(task: Task, data_dir: str, limit: int | None) -> Any:
    data = task.read(*(os.path.join(data_dir, name) for name in task.files))
    return data if limit is None else task.first(data, limit)


def write_whole(path: str, text: str) -> None:
    with whole_file(path) as file:
        file.write(text)


def evaluated(task: Task, language_model: LanguageModel, data: Any) -> dict[str, Any]:
    """What is saved of a task, but for its settings."""
    start = time.monotonic()
    language_model.task = task.name
    return {
        'metrics': task.run(language_model, data),
        'items': -(-(len(data) - task.shown) // task.item_size),
        'seconds': time.monotonic() - start,
        'finished': time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime()),
        'versions': versions(language_model.engine.package, *task.requires),
    }


def versions(*packages: str) -> dict[str, str]:
    found = {package: importlib.metadata.version(package) for package in ('numpy', 'regex', *packages)}
    return {'python': platform.python_version(), **found}


def save_chart(path: str, results: dict[str, Any]) -> None:
    try:
        chart = draw(results)
    except ImportError:
        print('no chart without matplotlib: pip install matplotlib', file=sys.stderr)
        return
    if chart:
        with whole_file(path, 'wb') as file:
            chart.savefig(file, format='png')
