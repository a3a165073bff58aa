"""The flags by which other commands change what is inside a model."""

from gpt2.api import Model
from gpt2.errors import UsageError

ABLATION_HELP = """\
--ablate CHANGES      change neurons and heads of the model, on TensorFlow: h5.mlp.131,h9.head.6 makes these 0, as
                      does =zero; =mean and =patch take their mean or, position by position, themselves from
                      --ablate_from; =2.5 sets a value and *0.5 scales it (docs/inside.md)
--ablate_from TEXT    the text that =mean and =patch of --ablate take values from"""


def ablated(model: Model, ablate: str | None, ablate_from: str | None) -> Model:
    """A model as flags change it. Raises UsageError."""
    if ablate is None and ablate_from is not None:
        raise UsageError('--ablate_from means nothing without --ablate')
    return model if ablate is None else model.ablated(ablate, ablate_from)
