"""The documentation: its commands and its Python are run, its links lead somewhere, its tables name every flag.

A command is run as a reader would run it, by a shell, in a folder that looks like a clone: `models/124M` is the
bundled model there. Those of train.py, from which no shell could take anything, are run with the same words in this
process, which loads TensorFlow once. SMALLER makes commands quick. What is printed after a command as its output is
compared, and then nothing is changed. Commands that cannot be run are in NOT_RUN with the reason; in the pages `sh`
fences are commands, and a command anywhere else is an error.
"""

import inspect
import itertools
import json
import os
import pathlib
import re
import runpy
import shlex
import subprocess
import sys
from typing import NamedTuple

import example_pages
import pytest
from example_models import BUNDLED, REPOSITORY
from running import PATIENCE, environment

from gpt2.commands.complete import interact_model
from gpt2.commands.convert import convert_model
from gpt2.commands.detect import look_at, predict_texts, train_detector
from gpt2.commands.evaluate import evaluate_model
from gpt2.commands.generate import sample_model
from gpt2.commands.main import COMMANDS
from gpt2.commands.overlap import measure_overlap
from gpt2.commands.prepare_data import prepare_data
from gpt2.commands.score import score_files
from gpt2.commands.train import train_model
from gpt2.system import progress

PAGES = [
    'README.md', *sorted(f'docs/{path.name}' for path in (REPOSITORY / 'docs').glob('*.md')),
    'benchmarks/README.md', 'models/7M/README.md',
]  # fmt: skip
LINKED = [*PAGES, 'CHANGELOG.md', 'model_card.md', 'src/gpt2/evaluation/tasks/README.md', 'tests/release/README.md']
# Their commands load TensorFlow again and again.
SLOW = {
    'README.md', 'docs/data.md', 'docs/detection.md', 'docs/formats.md', 'docs/inside.md', 'docs/training.md',
    'docs/scoring.md', 'models/7M/README.md',
}  # fmt: skip

# Flags that make a command quick, in place of what is shown for them, or beside it.
SMALLER = {
    'complete': {'length': 2},
    'generate': {'length': 2},
    'train': {'steps': 1, 'warmup': 0, 'batch_size': 1, 'window': 8},
    'evaluate': {'limit': 1},
}
FROM_SCRATCH = {'n_ctx': 8, 'n_embd': 8, 'n_head': 1, 'n_layer': 1}  # for train without a model to begin with
# Beginnings of commands that are not run, and why.
NOT_RUN = {
    r'python src/(prepare_data\.py --output|train\.py) webtext': 'it fetches pages; tests/preparation has servers',
    r'make ': 'it makes an environment, for which packages must be fetched; .ci/run does so',
    r'python src/convert\.py out/ckpt\.pt ': 'it needs PyTorch; tests/checkpoints/test_nanogpt.py has a ckpt.pt',
    r'pip install ': 'it fetches packages; tests/test_packaging.py installs this one',
    r'python src/serve\.py': 'it serves until it is told to end, as in tests/serving',
    r'curl ': 'it asks a server that Docker runs',
    r'docker(/verify)? ': 'it needs Docker; docker/verify runs these in an image',
    r'kubernetes-validate ': 'it needs a package of that name',
    r'mkdir -p models$': 'it is there, for Docker',
    r'(\w+=\S+ )?python download_model\.py ': 'it needs a network; tests/commands/test_download_model.py has a server',
    r'(\w+=\S+ )?python -m pytest': 'it runs tests',
    r'python tests/run_notebook\.py': 'it changes the notebook; tests/test_notebook.py runs it',
    r'python src/evaluate\.py --model_name 124M --data_dir data --download': 'it fetches the files of every task',
    r'python src/inspect_model\.py .* --published': 'it fetches; tests/inspection/test_published.py has a server',
    r'python src/train\.py .*--workers': 'its batch is too small to be shared; tests/training/test_distribution.py',
    r'python src/train\.py "openwebtext': 'it takes days on eight cards',
    r'python src/detect\.py train --human texts/': 'it needs what benchmarks/detector_texts.py makes in ten minutes',
    r'python src/detect\.py train --download': 'it needs a network; tests/commands/test_detect.py has a server',
    r'(sbatch|kubectl) ': 'it needs a cluster; tests/test_clusters.py runs what it would start',
    r'(\.venv/bin/)?python benchmarks/': 'it takes minutes to hours, and some need other programs',
}
# The page whose commands run in one process, its Python too: each would load TensorFlow. The other pages have some of
# the same kind, which are among these.
TOGETHER = 'docs/inside.md'
ONE_OF_TOGETHER = re.compile(r'python src/inspect_model\.py ')
# Runs commands, as lists of words, and then a page's Python. A record is smaller, of which a layer has 1,024.
TOGETHER_SCRIPT = '''
import os, sys
from gpt2.commands.main import run_script
from gpt2.inspection import survey

survey.TOP = survey.RANDOM = survey.OF_A_QUANTILE = 1
for script, *arguments in {commands}:
    sys.argv = [script, *arguments]
    run_script(os.path.basename(script).removesuffix('.py'))
'''
COMMAND = re.compile(r'^ *(\$ )?(\w+=\S+ )?((\.venv/bin/)?python|pip|make|gpt2|docker|docker/verify|curl|git) .')


class Block(NamedTuple):
    """A fenced block: its language, its text, what is printed after it, whether it is a script of its own."""

    language: str
    text: str
    output: str | None
    alone: bool


def text_of(page):
    return (REPOSITORY / page).read_text(encoding='utf-8')


def blocks(page):
    fence = re.compile(
        r'(?P<alone><!-- a script of its own -->\n)?^```(?P<language>\w*)\n(?P<text>.*?)^```\n'
        r'(?=(\n```text\n(?P<output>.*?)^```$)?)',
        re.MULTILINE | re.DOTALL,
    )
    for found in fence.finditer(text_of(page)):
        yield Block(found['language'], found['text'], found['output'], bool(found['alone']))


def commands_of(block):
    """The commands of a block; one may go on over several lines, after a backslash or within quotes."""
    lines, found = [], []
    for line in block.text.splitlines():
        lines.append(line)
        try:
            whole = not line.endswith('\\') and shlex.split('\n'.join(lines), comments=True) is not None
        except ValueError:  # a quotation goes on
            continue
        if whole:
            command = '\n'.join(lines).strip()
            found += [command] if command and not command.startswith('#') else []
            lines = []
    assert not lines, block.text
    return found


def shown(page):
    """(command, the output that is shown for it or None) for each of a page."""
    for block in blocks(page):
        if block.language == 'sh':
            commands = commands_of(block)
            assert block.output is None or len(commands) == 1, block.text
            yield from ((command, block.output) for command in commands)


ALL_COMMANDS = [(page, command) for page in PAGES for command, _ in shown(page)]


def reason_not_to_run(command):
    return next((reason for pattern, reason in NOT_RUN.items() if re.match(pattern, command)), None)


def console_name(command):
    """By which name the console command has what this command runs, or None."""
    if found := re.match(r'gpt2 (\w+)', command):
        return found[1]
    scripts = {entry.script: name for name, entry in COMMANDS.items()}
    found = re.search(r'python (?:src/|-m src\.)?(\w+)', command)
    return scripts.get(found[1]) if found else None


def from_scratch(command):
    return not re.search('--(init_from|teacher) ', command)


def smaller(command):
    """The command with flags of SMALLER in place of those it has."""
    name = console_name(command)
    quick = {} if ' --choices ' in command else SMALLER.get(name, {})  # a choice has its own length
    flags = quick | (FROM_SCRATCH if name == 'train' and from_scratch(command) else {})
    for flag in flags:
        command = re.sub(rf' --{flag} \S+', '', command)
    program, redirection, rest = command.partition(' < ')
    return program + ''.join(f' --{flag} {value}' for flag, value in flags.items()) + redirection + rest


@pytest.fixture(scope='module')
def clone(tmp_path_factory):
    """A folder that looks like a clone, with the files that the examples name."""
    folder = tmp_path_factory.mktemp('docs') / 'clone'
    tools = folder.parent / 'tools'
    (folder / 'models' / '7M').mkdir(parents=True)
    tools.mkdir()
    for path in REPOSITORY.iterdir():
        if path.name != 'models' and not path.name.startswith('.'):
            (folder / path.name).symlink_to(path)
    for path in BUNDLED.iterdir():
        if '.tflite' not in path.name:
            (folder / 'models' / '7M' / path.name).symlink_to(path)
    for size in ('124M', '774M'):
        (folder / 'models' / size).symlink_to('7M')
    for name, arguments in [('python', ''), ('gpt2', '-m gpt2')]:
        (tools / name).write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {arguments} "$@"\n')
        (tools / name).chmod(0o755)
    write_examples(folder)
    return folder


def write_examples(folder):
    paragraphs = [line for line in text_of('tests/held_out.txt').splitlines() if line.strip()]
    for name in ('letters', 'stories', 'data'):
        (folder / name).mkdir()
    for name in ('letters', 'stories'):
        for number, paragraph in enumerate(paragraphs[:3], start=1):
            (folder / name / f'{number}.txt').write_text(paragraph)
    (folder / 'letter.txt').write_text(f'{paragraphs[0]}\n')
    (folder / 'crawl').mkdir()
    (folder / 'pages').mkdir()
    found = list(example_pages.pages(48))
    example_pages.write_warc(folder / 'crawl' / 'a.warc.gz', found)
    for page in found[:9]:
        (folder / 'pages' / f'{page.number}.html').write_text(page.markup, encoding='utf-8')
    (folder / 'prompts.txt').write_text('The king\nOnce upon a time\n')
    (folder / 'memory.txt').write_text('Ann is a queen.\n')
    (folder / 'choices.txt').write_text(' king\n queen\n old woman\n')
    (folder / 'sentences.txt').write_text('\n'.join(paragraphs[:3]))
    words = ' '.join(paragraphs).split()
    for name, step in (('people', 1), ('machine', 2)):
        texts = [json.dumps({'text': ' '.join(words[start : start + 40 : step])}) for start in range(0, 600, 40)]
        (folder / f'{name}.jsonl').write_text('\n'.join(texts))
    passages = [json.dumps({'text': 'The king was in the garden and the queen was there with the king'})] * 2
    (folder / 'data' / 'lambada_test.jsonl').write_text('\n'.join(passages))
    (folder / 'data' / 'wikitext2.test.txt').write_text(' = The king = \n \n The king was in the garden . \n')


def run_in(folder, *command):
    tools = folder.parent / 'tools'
    changes = {'PATH': f'{tools}{os.pathsep}{os.environ["PATH"]}', 'PYTHONPATH': str(REPOSITORY / 'src')}
    done = subprocess.run(
        command, cwd=folder, env=environment(**changes), input='The king\n', capture_output=True, encoding='utf-8',
        timeout=PATIENCE, check=False,
    )  # fmt: skip
    assert done.returncode == 0 and 'Traceback' not in done.stderr, (command, done.stderr)
    return done.stdout


def words_of(command):
    """The words of a command that a shell would take for nothing else."""
    command = command.replace('\\\n', ' ')
    taken_apart = shlex.shlex(command, posix=True, punctuation_chars=True)
    taken_apart.whitespace_split = True
    words = shlex.split(command)
    assert list(taken_apart) == words, command
    return words


def train_in(folder, command, monkeypatch):
    """Run a command of train.py in this process."""
    _, *words = words_of(command)
    with monkeypatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, 'argv', words)
        patch.setattr(progress, 'shown', False)
        runpy.run_path(words[0], run_name='__main__')


@pytest.fixture(scope='module')
def done():
    """Commands that were run already: a page may show what another has shown."""
    return set()


def marked(pages):
    return [pytest.param(page, marks=pytest.mark.slow) if page in SLOW else page for page in pages]


def together(page):
    """A script that runs all commands of a page in one process."""
    commands = [shlex.split(smaller(command).replace('\\\n', ' '))[1:] for command, output in shown(page)
                if reason_not_to_run(command) is None and output is None]  # fmt: skip
    return TOGETHER_SCRIPT.format(commands=commands)


@pytest.mark.parametrize('page', marked(PAGES))
def test_commands_and_python_run_as_they_are_shown(clone, done, page, monkeypatch):
    for command, output in shown(page):
        if page == TOGETHER or ONE_OF_TOGETHER.match(command):
            assert page == TOGETHER or (TOGETHER, command) in ALL_COMMANDS
            continue
        if reason_not_to_run(command) is not None or command in done:
            continue
        done.add(command)
        if command.startswith('python src/train.py '):
            train_in(clone, smaller(command), monkeypatch)
        else:
            printed = run_in(clone, 'bash', '-o', 'pipefail', '-c', smaller(command) if output is None else command)
            assert output is None or printed == output, command
    python = [block for block in blocks(page) if block.language == 'python']
    scripts = [block.text for block in python if block.alone]
    scripts.append('\n'.join(block.text for block in python if not block.alone))
    if page == TOGETHER:
        scripts[-1] = together(page) + scripts[-1]
    for number, script in enumerate(filter(None, scripts)):
        (clone / f'{number}.py').write_text(script, encoding='utf-8')
        run_in(clone, 'python', f'{number}.py')


@pytest.mark.parametrize('pattern', NOT_RUN)
def test_what_is_not_run_is_in_the_pages(pattern):
    assert any(re.match(pattern, command) for _, command in ALL_COMMANDS)


@pytest.mark.parametrize(('page', 'command'), ALL_COMMANDS)
def test_what_a_command_names_is_there(page, command):
    """Also of commands that are not run."""
    for file in re.findall(r'(?:python3? |^)([\w./]+\.py|docker/\w+)', command) + re.findall(r'-[rf] (\S+)', command):
        assert (REPOSITORY / file).exists(), file
    for target in re.findall(r'^make ([\w-]+)$', command):
        assert re.search(rf'^{target}:', text_of('Makefile'), re.MULTILINE)


@pytest.mark.parametrize('page', PAGES)
def test_no_command_hides_where_it_is_not_run(page):
    text = re.sub(r'^```sh\n.*?^```$', '', text_of(page), flags=re.MULTILINE | re.DOTALL)
    code = [block.text for block in blocks(page) if block.language not in ('sh', 'python')]
    indented = re.findall(r'^ {4}.*$', re.sub(r'^```.*?^```$', '', text, flags=re.MULTILINE | re.DOTALL), re.MULTILINE)
    lines = itertools.chain(indented, *(block.splitlines() for block in code))
    assert not [line for line in lines if COMMAND.match(line)]


def test_commands_are_taken_apart_and_made_small():
    block = Block('sh', "# first\npython a.py \\\n    --b 1\ncurl -d '{\n}' x\n", None, False)
    assert commands_of(block) == ['python a.py \\\n    --b 1', "curl -d '{\n}' x"]
    assert smaller('python src/train.py a --init_from 7M --steps 60 --window 9') == (
        'python src/train.py a --init_from 7M --steps 1 --warmup 0 --batch_size 1 --window 8'
    )
    assert smaller('gpt2 complete --prompt_file - < a') == 'gpt2 complete --prompt_file - --length 2 < a'
    assert words_of("python a.py 'b/:1->0' \\\n    --c 1") == ['python', 'a.py', 'b/:1->0', '--c', '1']
    with pytest.raises(AssertionError):
        words_of('python a.py b/:1->0')


# Links, names and tables


def slug(heading):
    """The anchor that GitHub gives a heading."""
    plain = re.sub(r'\[([^\]]*)\]\([^)]*\)', r'\1', heading).lower()
    return re.sub(r'[^\w\- ]', '', plain).replace(' ', '-')


def anchors(path):
    text = re.sub(r'^```.*?^```$', '', path.read_text(encoding='utf-8'), flags=re.MULTILINE | re.DOTALL)
    return {slug(heading) for heading in re.findall(r'^#+ (.*)$', text, re.MULTILINE)}


@pytest.mark.parametrize('page', LINKED)
def test_links_lead_somewhere(page):
    for target in re.findall(r'(?:\]\(|src(?:set)?=")([^)"\s]+)[)"]', text_of(page)):
        if re.match(r'\w+:', target):
            continue  # on the web
        name, _, anchor = target.partition('#')
        path = (REPOSITORY / page).parent / name if name else REPOSITORY / page
        assert path.exists(), target
        assert not anchor or anchor in anchors(path), target


@pytest.mark.parametrize('page', [page for page in PAGES if page != 'models/7M/README.md'])
def test_files_that_are_named_are_there(page):
    for name in re.findall(r'`((?:src|tests|docs|benchmarks|docker|examples)/[^`\s*<>]*)`', text_of(page)):
        assert (REPOSITORY / name).exists(), name


def flags_of(*functions):
    parameters = itertools.chain(*(inspect.signature(function).parameters.values() for function in functions))
    return {parameter.name for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY}


@pytest.mark.parametrize(
    ('page', 'heading', 'functions'),
    [
        ('docs/sampling.md', 'Flags', [interact_model, sample_model]),
        ('docs/formats.md', 'Other formats', [convert_model]),
        ('docs/training.md', 'Training', [train_model]),
        ('docs/data.md', 'Flags', [prepare_data]),
        ('docs/data.md', 'Overlap', [measure_overlap]),
        ('docs/scoring.md', 'Scoring a text', [score_files]),
        ('docs/scoring.md', 'Evaluation', [evaluate_model]),
        ('docs/detection.md', 'Looking at a text', [look_at]),
        ('docs/detection.md', 'Training a detector', [train_detector]),
        ('docs/detection.md', 'Asking it', [predict_texts]),
    ],
)
def test_tables_name_every_flag_and_no_other(page, heading, functions):
    section = re.search(rf'^#+ {heading}\n(.*?)(?=^##|\Z)', text_of(page), re.MULTILINE | re.DOTALL)[1]
    cells = re.findall(r'^\| (`--[^|]*) \|', section, re.MULTILINE)
    named = {name.removeprefix('no') if name == 'noend_of_text' else name
             for cell in cells for name in re.findall(r'`--(\w+)`', cell)}  # fmt: skip
    assert named == flags_of(*functions)


def test_every_page_of_docs_is_linked_from_the_readme():
    pages = {f'docs/{path.name}' for path in pathlib.Path(REPOSITORY, 'docs').glob('*.md')}
    assert pages <= set(re.findall(r'\]\(([^)#]+)', text_of('README.md')))
