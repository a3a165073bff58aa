"""Whether a body is the JSON that is asked for, before anything is made of it; and what is wrong with it."""

import json
from typing import Any, NoReturn

from gpt2.serving.failures import Failure, cut
from gpt2.serving.schema import printable, shortened

DIGITS = 20  # of a whole number; every limit of a field has fewer


def check_body(body: bytes) -> None:
    """Raise Failure for a body that is no JSON object, or holds what JSON leaves open: a name twice, NaN."""
    try:
        found = json.loads(
            body.decode('utf-8-sig'), object_pairs_hook=fields, parse_int=whole_number, parse_constant=no_number
        )
    except UnicodeDecodeError as error:
        raise refused(f'the body is not UTF-8, at byte {error.start}') from None
    except RecursionError:
        raise refused('the body is nested too deeply') from None
    except json.JSONDecodeError as error:
        raise refused(f'the body is no JSON: {error.msg}, at character {error.pos}') from None
    if not isinstance(found, dict):
        raise refused('the body is no JSON object; send one with Content-Type: application/json')


def fields(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON. Raises Failure for a name that comes twice, of which another reader takes another value."""
    found = dict(pairs)
    for name in found:
        if (shown := printable(name)) != cut(name):
            message = f'{shortened(name)} is no field that is known here; /docs lists those that are'
            raise Failure(400, message, shown, 'invalid_request')
    if len(found) < len(pairs):
        left = set(found)
        for name, _ in pairs:
            if name not in left:
                raise refused(f'the body has the field {shortened(name)} twice; give it once')
            left.remove(name)
    return found


def whole_number(digits: str) -> int:
    if len(digits) > DIGITS:
        raise refused(f'the body has a whole number of {len(digits)} digits, the limit is {DIGITS}')
    return int(digits)


def no_number(name: str) -> NoReturn:
    raise refused(f'the body has {name}, which is no number of JSON')


def refused(message: str) -> Failure:
    return Failure(400, message, None, 'invalid_request')
