"""The scoring function that suits an engine."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

from gpt2.engine import Engine
from gpt2.scoring import logits
from gpt2.scoring.scores import ScoreFunction

if TYPE_CHECKING:
    from gpt2 import sample


def fastest_score(engine: Engine, excluded: Sequence[int] = ()) -> ScoreFunction:
    """A function that scores a batch of rows; see log_probabilities.make_score. TensorFlow scores a batch's windows
    together, another engine one after another."""
    if engine.package != 'tensorflow':
        return logits.make_score(engine, excluded)
    from gpt2.scoring import log_probabilities

    generator = cast('sample.Generator', engine)
    return log_probabilities.make_score(generator.hparams, generator.params, excluded, tap=generator.tap)
