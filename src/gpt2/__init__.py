"""GPT-2 as OpenAI released it, as a library.

    import gpt2

    model = gpt2.load('124M')
    print(model.complete('Once upon a time', length=50, top_k=40, seed=1).text)
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gpt2.api import Model, load
    from gpt2.completion import Completion
    from gpt2.errors import Error, UsageError
    from gpt2.scoring.scores import Score, TokenScore

__version__ = '1.0.0'
__all__ = ['Completion', 'Error', 'Model', 'Score', 'TokenScore', 'UsageError', 'load']

PLACES = {
    'Model': 'api', 'load': 'api', 'Completion': 'completion', 'Error': 'errors', 'UsageError': 'errors',
    'Score': 'scoring.scores', 'TokenScore': 'scoring.scores',
}  # fmt: skip


def __getattr__(name: str) -> Any:
    """A public name, imported when it is first asked for: what needs none of them starts at once."""
    if name not in PLACES:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    return getattr(importlib.import_module(f'gpt2.{PLACES[name]}'), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
