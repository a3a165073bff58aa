"""The notebook runs, and gives what is stored in it."""

import json
import shutil
import subprocess
import sys

import pytest
from example_models import HERE, REPOSITORY
from running import PATIENCE, environment

TOUR = REPOSITORY / 'examples' / 'tour.ipynb'
VARIES = 'varies'  # the tag of a cell whose output may depend on the machine, as all training does


def code_cells(path):
    return [cell for cell in json.loads(path.read_text(encoding='utf-8'))['cells'] if cell['cell_type'] == 'code']


@pytest.mark.slow
def test_the_tour_runs_and_gives_what_is_stored(tmp_path):
    copy = shutil.copytree(TOUR.parent, tmp_path / 'examples') / TOUR.name
    done = subprocess.run(
        [sys.executable, HERE / 'run_notebook.py', copy], env=environment(), capture_output=True, encoding='utf-8',
        timeout=PATIENCE, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for stored, now in zip(code_cells(TOUR), code_cells(copy), strict=True):
        if VARIES in stored['metadata'].get('tags', ()):
            assert bool(stored['outputs']) == bool(now['outputs']), ''.join(stored['source'])
        else:
            assert stored['outputs'] == now['outputs'], ''.join(stored['source'])


def test_the_tour_is_stored_as_it_is_run():
    """As tests/run_notebook.py leaves it: outputs in, counts out."""
    cells = code_cells(TOUR)
    assert all(cell['execution_count'] is None for cell in cells)
    assert any(VARIES in cell['metadata'].get('tags', ()) and cell['outputs'] for cell in cells)
    assert any(VARIES not in cell['metadata'].get('tags', ()) and cell['outputs'] for cell in cells)
