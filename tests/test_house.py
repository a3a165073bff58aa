"""The library's imports: downward only, no wing into another, no circle, nothing heavy before it is needed."""

import ast
import graphlib
import subprocess
import sys

import pytest
from example_models import REPOSITORY
from running import environment

SRC = REPOSITORY / 'src'
# From the ground up; a module may import those of its own floor and of the floors below.
FLOORS = {'system': 0, 'core': 1, 'checkpoints': 2, 'wing': 3, 'api': 4, 'serving': 5, 'commands': 6}
WINGS = {'litert', 'training', 'scoring', 'evaluation', 'detection', 'preparation', 'inspection'}
# The only wings that know one another: a benchmark is made of scores, and a detector reads what scoring says of tokens.
DOORS = {('evaluation', 'scoring'), ('detection', 'scoring')}
# Rooms none of whose modules loads TensorFlow by being imported.
LIGHT = {'api', 'commands', 'serving', 'litert', 'training', 'evaluation', 'detection', 'preparation'}
HEAVY = {'gpt2.training.gradients'}  # but this one, which is imported as a train step is made
EVERYWHERE = {'gpt2.errors'}  # how things fail, the ground floor may say too


def room(module):
    """The part of the house that a module is in: a package's name, core or api."""
    parts = module.split('.')
    if module in ('gpt2', 'gpt2.api', 'gpt2.engines', 'gpt2.inside'):
        return 'api'
    if module == 'gpt2.__main__':
        return 'commands'
    return parts[1] if parts[1] in {*FLOORS, *WINGS} else 'core'


def floor(room):
    return FLOORS['wing' if room in WINGS else room]


def modules(root):
    """{module: its path} of the package gpt2 below root."""
    found = {}
    for path in root.rglob('gpt2/**/*.py'):
        parts = path.relative_to(root).with_suffix('').parts
        found['.'.join(parts[:-1] if parts[-1] == '__init__' else parts)] = path
    return found


def imports(module, tree, known):
    """Pairs of what a module imports, wherever in its text, and whether that is done as it is loaded."""
    later = {node for each in ast.walk(tree) if runs_later(each) for node in ast.walk(each)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f'{module} imports relatively'
            inner = [f'{node.module}.{alias.name}' for alias in node.names]
            names = [name if name in known else node.module for name in inner]
        else:
            continue
        yield from ((name, node not in later) for name in names)


def runs_later(node):
    return isinstance(node, ast.FunctionDef) or (isinstance(node, ast.If) and 'TYPE_CHECKING' in ast.unparse(node.test))


def faults(root):
    """What is wrong with the imports of the package gpt2 below root, in words."""
    known = modules(root)
    graph, loaded, found = {}, {}, []
    for module, path in known.items():
        tree = ast.parse(path.read_text(encoding='utf-8'))
        used = list(imports(module, tree, known))
        graph[module] = {name for name, _ in used if name in known and name != module}
        loaded[module] = {name for name, at_once in used if at_once} | {module.rpartition('.')[0]}
        found += [f'{module} imports {name}, {fault}' for name, _ in used if (fault := wrong_way(module, name))]
        found += [f'{module} touches sys.path' for node in ast.walk(tree) if is_sys_path(node)]
    doors = (module for module in known if room(module) in LIGHT and module not in HEAVY)
    return found + circles(graph) + [f'{door} loads tensorflow' for door in doors if loads(door, loaded)]


def is_sys_path(node):
    return isinstance(node, ast.Attribute) and ast.unparse(node) == 'sys.path'


def wrong_way(module, name):
    """Why module may not import name, or None."""
    if not name.startswith('gpt2') or name in EVERYWHERE:
        return None
    here, there = room(module), room(name)
    if here != there and {here, there} <= WINGS and (here, there) not in DOORS:
        return 'another wing'
    return 'which is above' if floor(there) > floor(here) else None


def loads(module, loaded, seen=()):
    """Whether loading a module loads TensorFlow, by a graph {module: all that loading it loads at once}."""
    if module.split('.')[0] == 'tensorflow':
        return True
    return module not in seen and any(loads(name, loaded, (*seen, module)) for name in loaded.get(module, ()))


def circles(graph):
    """The first circle of a graph {module: those it imports}, in words, in a list; none in an empty one."""
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return ['a circle: ' + ' imports '.join(reversed(error.args[1]))]
    return []


def test_the_imports_of_the_house():
    assert len(modules(SRC)) > 30
    assert faults(SRC) == []


@pytest.mark.parametrize(
    ('files', 'fault'),
    [
        ({'model.py': 'import gpt2.training'}, 'gpt2.model imports gpt2.training, which is above'),
        ({'system/x.py': 'from gpt2 import model'}, 'gpt2.system.x imports gpt2.model, which is above'),
        ({'system/x.py': 'def f():\n    from gpt2.hparams import H'}, 'gpt2.system.x imports gpt2.hparams, which'),
        ({'checkpoints/x.py': 'from gpt2 import load'}, 'gpt2.checkpoints.x imports gpt2, which is above'),
        ({'scoring/x.py': 'import gpt2.api'}, 'gpt2.scoring.x imports gpt2.api, which is above'),
        ({'api.py': 'from gpt2.commands import flags'}, 'gpt2.api imports gpt2.commands.flags, which is above'),
        ({'litert/x.py': 'from gpt2.scoring import x'}, 'gpt2.litert.x imports gpt2.scoring, another wing'),
        ({'scoring/x.py': 'from gpt2.evaluation import x'}, 'gpt2.scoring.x imports gpt2.evaluation, another wing'),
        ({'detection/x.py': 'from gpt2.training import x'}, 'gpt2.detection.x imports gpt2.training, another wing'),
        ({'training/x.py': 'class C:\n    def f(self):\n        import gpt2.litert'}, 'gpt2.litert, another wing'),
        ({'model.py': 'from gpt2 import sample'}, 'a circle: gpt2.model imports gpt2.sample imports gpt2.model'),
        ({'model.py': 'import gpt2.sample as s'}, 'a circle: gpt2.model imports gpt2.sample imports gpt2.model'),
        ({'model.py': 'def f():\n    import sys\n    sys.path.insert(0, "")'}, 'gpt2.model touches sys.path'),
        ({'api.py': 'import tensorflow as tf'}, 'gpt2.api loads tensorflow'),
        ({'api.py': 'from gpt2 import sample'}, 'gpt2.api loads tensorflow'),
        ({'__init__.py': 'from tensorflow.python import x'}, 'gpt2.commands.flags loads tensorflow'),
        ({'training/x.py': 'try:\n    from gpt2.sample import x\nfinally: 0'}, 'gpt2.training.x loads tensorflow'),
    ],
)
def test_a_house_that_is_wrong_is_found_out(tmp_path, files, fault):
    sound = {
        '__init__.py': '', 'errors.py': '', 'hparams.py': 'from gpt2.errors import E', 'api.py': '',
        'model.py': 'from gpt2.system.tensorflow import tf', 'sample.py': 'from gpt2 import model',
        'system/__init__.py': 'import gpt2.errors', 'system/tensorflow.py': 'import tensorflow as tf',
        'evaluation/__init__.py': 'from gpt2.scoring import x', 'training/__init__.py': '',
        'training/y.py': 'if TYPE_CHECKING:\n    from gpt2 import model\ndef f():\n    from gpt2 import model',
        'scoring/__init__.py': 'def f():\n    import tensorflow\n    from gpt2.system.tensorflow import tf',
        'commands/__init__.py': '', 'commands/flags.py': 'from gpt2 import __version__, api',
        '__main__.py': 'import gpt2',
    }  # fmt: skip
    build(tmp_path, sound)
    assert faults(tmp_path) == []
    build(tmp_path, files)
    assert any(fault in found for found in faults(tmp_path)), faults(tmp_path)


def build(root, files):
    for name, text in files.items():
        path = root / 'gpt2' / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.mark.parametrize('module', ['gpt2', 'gpt2.commands.main', 'gpt2.commands.flags', 'gpt2.commands.prepare_data'])
def test_nothing_heavy_is_loaded_with_the_door(module):
    heavy = ('tensorflow', 'ai_edge_litert', 'requests', 'matplotlib', 'tokenizers', 'datatrove')
    code = f'import sys, {module}; print(sorted({set(heavy)} & set(sys.modules)))'
    done = subprocess.run(
        [sys.executable, '-c', code], env=environment(PYTHONPATH=str(SRC)), capture_output=True, text=True, check=True
    )
    assert done.stdout == '[]\n'
