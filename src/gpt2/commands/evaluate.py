"""The zero-shot evaluation of the GPT-2 paper."""

import dataclasses
import importlib.metadata
import importlib.util
import json as json_format
import os
import platform
import sys
import time

from gpt2.checkpoints.files import find_prefix, index_digest
from gpt2.checkpoints.folders import DEFAULT_MODELS_DIR, expand
from gpt2.commands.flags import boolean, integer, reject_unknown
from gpt2.commands.sampling import open_model
from gpt2.errors import Error, UsageError
from gpt2.evaluation.data import digests, fetch, missing_files
from gpt2.evaluation.report import draw, report
from gpt2.evaluation.tasks import TASKS
from gpt2.scoring.windows import check_stride
from gpt2.system.files import make_folder, whole_file

HELP = f"""\
Evaluate a GPT-2 as the paper does (Radford et al. 2019, section 3), without training it for any task.

    python src/evaluate.py --tasks lambada,wikitext2 --data_dir data --download
    python src/evaluate.py --model_name 355M --data_dir data

Tasks whose files are not in the data folder are skipped with a line that says where they are published.
Results are saved in <output_dir>/<model>.json as each task ends, with the model's identity, the files'
checksums, settings, versions and time; a task that is there with the same of all but versions and time is not
run again, so an interrupted run goes on with the same command. Beside it: <model>.md, a table with the
paper's figures and how each of ours came about, which is printed too, and <model>.png, a chart (needs
matplotlib). Optional packages: pip install -r requirements-evaluate.txt

--tasks NAMES         divided by commas: {", ".join(TASKS)}.
                      Default: all
--data_dir DIR        folder of the data files; needed; ~ and $VARS are expanded
--download            first fetch the files that are missing there and have a public address
--output_dir DIR      where results are saved. Default: evaluation, here
--model_name NAME     folder of the model inside the models folder. Default: 124M if it is there,
                      else the bundled model
--stride N            tokens by which the window moves over long texts, from 1 to n_ctx; smaller is
                      slower and gives lower perplexities. Default: half of n_ctx
--batch_size N        windows scored at once, at least 1; each needs memory. Default: 4
--json                print the results as JSON, not as Markdown
--models_dir DIR      folder of the model folders; ~ and $VARS are expanded. Default: {DEFAULT_MODELS_DIR}, here or
                      else in the repository
"""


def evaluate_model(
    *extra, tasks=None, data_dir=None, download: bool = False, output_dir='evaluation', model_name=None, stride=None,
    batch_size=4, json: bool = False, models_dir=DEFAULT_MODELS_DIR, **unknown,
):  # fmt: skip
    reject_unknown(extra, unknown)
    download, json = boolean('download', download), boolean('json', json)
    batch_size = integer('batch_size', batch_size, 1) or 4
    chosen = choose_tasks(tasks)
    path, hparams, encoder, notice = open_model(model_name, models_dir)
    stride = check_stride('--stride', stride, hparams.n_ctx)
    data_dir, output_dir = check_data_dir(data_dir), expand(output_dir)
    present = present_tasks(chosen, data_dir, download)
    index = index_digest(find_prefix(path))
    model = {'name': os.path.basename(path), 'hparams': dataclasses.asdict(hparams), 'index_sha256': index}
    results_path = os.path.join(output_dir, f'{model["name"]}.json')
    results = load_results(results_path, model)
    settings = {
        task.name: {'recipe': task.recipe, 'stride': stride, 'files': digests(task, data_dir)} for task in present
    }
    left = [task for task in present if not is_done(results['tasks'].get(task.name), settings[task.name])]
    check_packages(left)
    data = {task.name: task.read(*(os.path.join(data_dir, name) for name in task.files)) for task in left}
    make_folder(output_dir, 'choose another --output_dir')
    if left:
        if notice:
            print(notice, file=sys.stderr)
        language_model = load_language_model(path, hparams, encoder, stride, batch_size)
    for task in left:
        results['tasks'][task.name] = evaluated(task, language_model, data.pop(task.name)) | settings[task.name]
        with whole_file(results_path) as file:
            file.write(json_format.dumps(results, indent=1) + '\n')
    shown = {'model': model, 'tasks': {task.name: results['tasks'][task.name] for task in present}}
    with whole_file(os.path.join(output_dir, f'{model["name"]}.md')) as file:
        file.write(report(results))
    save_chart(os.path.join(output_dir, f'{model["name"]}.png'), results)
    print(json_format.dumps(shown) if json else report(shown), end='\n' if json else '')


evaluate_model.__doc__ = HELP


def choose_tasks(names):
    """The tasks that a list of names, divided by commas, means; None means all. Raises UsageError."""
    names = list(TASKS) if names is None else [name.strip() for name in str(names).split(',')]
    for name in names:
        if name not in TASKS:
            raise UsageError(f'--tasks names {name!r}, expected some of {", ".join(TASKS)}')
    return [TASKS[name] for name in dict.fromkeys(names)]


def check_data_dir(data_dir):
    if data_dir is None:
        raise UsageError('give --data_dir, the folder of the data files; --help shows how')
    folder = expand(data_dir)
    if not os.path.isdir(folder):
        raise UsageError(f'--data_dir {folder} is no folder; make it, or name one that is there')
    return folder


def present_tasks(tasks, data_dir, download):
    """Those of tasks whose files are there or could be fetched; says what is missing. Raises UsageError if all are."""
    present, notes = [], []
    for task in tasks:
        if download:
            fetch_missing(task, data_dir)
        missing = missing_files(task, data_dir)
        notes += [f'{task.name}: no {name} in {data_dir}; it is published: {task.files[name]}' for name in missing]
        if not missing:
            present.append(task)
    if not present:
        raise UsageError(f'nothing to evaluate; {"; ".join(notes)}')
    for note in notes:
        print(f'skipping {note}', file=sys.stderr)
    return present


def fetch_missing(task, data_dir):
    for name in missing_files(task, data_dir):
        if task.files[name].url:
            try:
                fetch(task.files[name], os.path.join(data_dir, name))
            except Error as error:
                print(error, file=sys.stderr)


def load_results(path, model):
    """What an earlier run has saved for this model, or nothing yet. Raises Error for another model's."""
    if not os.path.exists(path):
        return {'model': model, 'tasks': {}}
    try:
        with open(path, encoding='utf-8') as file:
            results = json_format.load(file)
        saved = results['model'], {name: entry['metrics'] for name, entry in results['tasks'].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(f'{path} holds no results ({error}); move it away, or give another --output_dir') from None
    if saved[0] != model:
        raise UsageError(f'{path} holds results of another model of that name; give another --output_dir')
    return results


def is_done(entry, settings):
    return entry is not None and all(entry.get(name) == value for name, value in settings.items())


def check_packages(tasks):
    for task in tasks:
        for package in task.requires:
            if importlib.util.find_spec(package) is None:
                raise Error(f'{task.name} needs {package}: pip install -r requirements-evaluate.txt')


def load_language_model(path, hparams, encoder, stride, batch_size):
    """TensorFlow is imported here, once flags and files are checked."""
    from gpt2.checkpoints import release as checkpoint
    from gpt2.evaluation.language_model import LanguageModel

    return LanguageModel(hparams, checkpoint.load_params(path, hparams), encoder, stride, batch_size)


def evaluated(task, language_model, data):
    """What is saved of a task, but for its settings."""
    start = time.monotonic()
    return {
        'metrics': task.run(language_model, data),
        'seconds': time.monotonic() - start,
        'finished': time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime()),
        'versions': versions(task),
    }


def versions(task):
    from gpt2.system.tensorflow import tf

    packages = {package: importlib.metadata.version(package) for package in ('numpy', 'regex', *task.requires)}
    return {'python': platform.python_version(), 'tensorflow': tf.__version__, **packages}


def save_chart(path, results):
    try:
        chart = draw(results)
    except ImportError:
        print('no chart without matplotlib: pip install -r requirements-evaluate.txt', file=sys.stderr)
        return
    if chart:
        with whole_file(path, 'wb') as file:
            chart.savefig(file, format='png')
