"""Run a notebook and store what its cells give: `python tests/run_notebook.py examples/tour.ipynb`.

Cells are Python without magics, run in turn in the notebook's folder. Stored are what a cell prints and the value of
its last expression, as Jupyter would show them; execution counts and times are left out, so that a change shows alone.
"""

import ast
import contextlib
import io
import json
import os
import sys

SRC = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), 'src')


def main():
    sys.path.insert(0, SRC)
    os.environ['PYTHONPATH'] = SRC  # for programs that a cell starts
    folder, name = os.path.split(os.path.abspath(sys.argv[1]))
    os.chdir(folder)
    with open(name, encoding='utf-8') as file:
        notebook = json.load(file)
    namespace = {'__name__': '__main__'}
    for cell in notebook['cells']:
        if cell['cell_type'] == 'code':
            cell['outputs'] = outputs(''.join(cell['source']), namespace)
    with open(name, 'w', encoding='utf-8') as file:
        json.dump(notebook, file, ensure_ascii=False, indent=1)
        file.write('\n')


def outputs(source, namespace):
    """What a cell gives, in the notebook's format."""
    *statements, last = ast.parse(source).body
    if not isinstance(last, ast.Expr):
        statements, last = [*statements, last], None
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(ast.Module(statements, []), 'cell', 'exec'), namespace)
        value = eval(compile(ast.Expression(last.value), 'cell', 'eval'), namespace) if last else None
    found = []
    if printed.getvalue():
        found.append({'name': 'stdout', 'output_type': 'stream', 'text': lines(printed.getvalue())})
    if value is not None:
        data = {'text/plain': lines(repr(value))}
        if hasattr(value, '_repr_html_'):
            data = {'text/html': lines(value._repr_html_())} | data
        found.append({'data': data, 'execution_count': None, 'metadata': {}, 'output_type': 'execute_result'})
    return found


def lines(text):
    return text.splitlines(keepends=True)


if __name__ == '__main__':
    main()
