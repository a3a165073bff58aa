"""GPT-2 as OpenAI released it, as a library.

    import gpt2

    model = gpt2.load('124M')
    print(model.complete('Once upon a time', length=50, top_k=40, seed=1).text)
"""

__version__ = '1.0.0'  # before the imports: some of them ask for it

from gpt2.api import Model, load
from gpt2.completion import Completion
from gpt2.errors import Error, UsageError
from gpt2.scoring.scores import Score, TokenScore

__all__ = ['Completion', 'Error', 'Model', 'Score', 'TokenScore', 'UsageError', 'load']
