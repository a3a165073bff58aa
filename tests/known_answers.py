"""What others have published a model to say, and whether it says so here.

known_answers.json holds the released 124M's answers. A test suite of transformers has three of them; picoGPT
and three programs made after it have one, fastGPT has one. known_answers_7M.json holds the bundled
model's, made by make_known_answers.py.
"""

import json
import pathlib

import gpt2

HERE = pathlib.Path(__file__).parent
MORE = 4  # tokens beyond those of a text whose number of tokens is not known: it may be cut otherwise than text is


def read_answers(path, name):
    """The answers of the model so named.

    Each has `prompt`, sometimes `prompt_ids`, and `ids` or `text`, what follows when always the likeliest token is
    taken. `tokens`, where it is there, is the length of text and of white space at its end, which was not published.
    """
    return json.loads(pathlib.Path(path).read_text(encoding='utf-8'))[name]


def check(folder, answers, engine):
    """Where the model in folder, in float32, says something else than answers: a line each."""
    with gpt2.load(str(folder), engine=engine) as model:
        return [wrong for answer in answers for wrong in differences(model, answer)]


def differences(model, answer):
    prompt, ids, text = answer['prompt'], answer.get('ids'), answer.get('text')
    if answer.get('prompt_ids') not in (None, found := model.encode(prompt)):
        yield f'{prompt!r} is {found}, expected {answer["prompt_ids"]}'
    length = len(ids) if ids else answer.get('tokens') or len(model.encode(text)) + MORE
    said = model.complete(prompt, length=length, temperature=0)
    if ids and said.ids != ids:
        yield f'{prompt!r} goes on {said.ids}, expected {ids}'
    if text and (said.text.rstrip() if 'tokens' in answer else said.text[: len(text)]) != text:
        yield f'{prompt!r} goes on {said.text!r}, expected {text!r}'
