"""What can be seen and changed inside a model that is loaded: a part of api.Model. Imports no TensorFlow."""

import abc
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

import numpy as np

from gpt2.checkpoints.source import Source
from gpt2.checks import integer
from gpt2.encoder import Encoder
from gpt2.engine import Engine
from gpt2.engines import load_tensorflow
from gpt2.errors import Error, UsageError
from gpt2.hparams import HParams
from gpt2.inspection.changes import Change, parse, tap_of_changes
from gpt2.inspection.connections import Connections, connections
from gpt2.inspection.names import Seen, find, layer_of
from gpt2.scoring.windows import check_stride

if TYPE_CHECKING:
    from gpt2.inspection.activations import Activations, Lens
    from gpt2.inspection.contributions import Contributions
    from gpt2.sample import Generator


class Inside(abc.ABC):
    """The inside of a model. Only TensorFlow shows it, and is loaded beside another engine when it is first needed."""

    source: Source
    hparams: HParams
    encoder: Encoder
    chosen: tuple[str, str]
    prefix: str
    loading: threading.Lock
    loaded: Engine | None
    closed: bool
    tapped: 'Generator | None' = None

    @property
    @abc.abstractmethod
    def engine(self) -> Engine:
        """What computes."""

    @abc.abstractmethod
    def token_id(self, name: str, token: int | str) -> int:
        """The id of a token; name is that of what gave it."""

    @property
    def inside(self) -> 'Generator':
        """The engine that can be looked into: this model's own where that is TensorFlow's, else one beside it. Raises
        Error once the model is closed."""
        if self.chosen[0] == 'tf' or (self.loaded is not None and self.loaded.package == 'tensorflow'):
            return cast('Generator', self.engine)
        with self.loading:
            if self.closed:
                raise Error('the model is closed; load it again')
            if self.tapped is None:
                self.tapped = cast('Generator', load_tensorflow(self.source))
            return self.tapped

    def activations(
        self, text: str, names: str | Sequence[str], *, end_of_text: bool = False, stride: int | None = None
    ) -> 'Activations':
        """What goes on inside the model as it reads a text: float32 arrays by name, `found['h5.mlp.act']`.

        names: several, or a text with commas between them; docs/inside.md lists them. `h5.mlp.act` is [n, 4 n_embd] for
        n tokens; without its layer, `mlp.act` is that of every layer, [n_layer, n, 4 n_embd]. end_of_text: whether that
        token comes before the text. stride: as score() takes it; a token of a long text is seen in the first window
        that holds it. Raises UsageError.
        """
        from gpt2.inspection.activations import look

        seen, ids, stride = self.asked_for(text, names, end_of_text, stride)
        return look(self.inside, ids, seen, stride)

    def save_activations(
        self, path: str, text: str, names: str | Sequence[str], *, end_of_text: bool = False,
        stride: int | None = None,
    ) -> None:  # fmt: skip
        """Write what activations() returns to a file, .npz or .safetensors, with a window of it in memory at a time.
        `tokens` and `starts` are arrays beside the others. Raises UsageError, WriteError."""
        from gpt2.inspection.activations import look
        from gpt2.inspection.files import array_file, check_path

        check_path(path)
        seen, ids, stride = self.asked_for(text, names, end_of_text, stride)
        with array_file(path, {'text': text}) as new_array:
            look(self.inside, ids, seen, stride, new_array)

    def lens(self, text: str, *, likeliest: int = 1, stride: int | None = None) -> 'Lens':
        """The logit lens: what each layer would say next after each token, were it the last. likeliest: of how many
        tokens, at least 1. Raises UsageError."""
        likeliest = min(integer('likeliest', likeliest, 1), self.hparams.n_vocab)
        stride, ids = check_stride(f'{self.prefix}stride', stride, self.hparams.n_ctx), self.ids_inside(text)
        from gpt2.inspection.activations import lens

        return lens(self.inside, ids, likeliest, stride)

    def contributions(
        self, text: str, token: int | str, other: int | str | None = None, *, neurons: bool = False
    ) -> 'Contributions':
        """What each part of the model adds, directly, to the logit of a token after a text or, given another token, to
        the difference of their logits: `found.parts['h9.head.6']`; the sum of all is `found.logit`.

        token, other: an id, or a text that is one token. neurons: whether each neuron is a part, not each MLP. Of a
        text longer than n_ctx the end is read. Raises UsageError.
        """
        ids = self.ids_inside(text)[-self.hparams.n_ctx :]
        first = self.token_id(f'{self.prefix}token', token)
        second = None if other is None else self.token_id(f'{self.prefix}other', other)
        from gpt2.inspection.contributions import contributions

        return contributions(self.inside, ids, first, second, neurons)

    def connections(self, neuron: str) -> Connections:
        """How strongly a neuron, `h5.mlp.131`, is connected with tokens and with neurons of other layers, by weights
        alone. Raises UsageError."""
        layer, kind, index = layer_of(self.hparams, neuron)
        if kind != 'mlp':
            raise UsageError(f'{neuron} is a head, expected a neuron, as h5.mlp.131 is one')
        return connections(self.source, layer, index)

    def changes(self, changes: str, reference: str | None) -> list[Change]:
        """What ablated() was asked for, checked. Raises UsageError."""
        wanted = parse(self.hparams, changes)
        asking = [change for change in wanted if change.asks_for_reference]
        if asking and not reference:
            name = f'{self.prefix}ablate_from' if self.prefix else 'reference'
            raise UsageError(f'{asking[0].name}={asking[0].kind} is taken from another text; give {name}')
        if self.chosen[0] == 'litert' or self.chosen[1] != 'float32':
            raise UsageError(f'{self.prefix}ablate needs {self.prefix}engine tf, which computes in float32')
        return wanted

    def changed_engine(self, changes: Sequence[Change], reference: str | None) -> 'Generator':
        """The engine of this model with changes, which has the same weights in memory."""
        from gpt2 import sample

        def look(names: Sequence[str]) -> dict[str, np.ndarray]:
            return self.activations(reference or '', names).values

        inside = self.inside
        return sample.Generator(self.hparams, inside.params, tap_of_changes(self.hparams, changes, look, inside.tap))

    def asked_for(
        self, text: str, names: str | Sequence[str], end_of_text: bool, stride: int | None
    ) -> tuple[list[Seen], list[int], int]:
        """What activations() was asked for, checked. Raises UsageError."""
        seen = find(self.hparams, names)
        ids = [self.encoder.end_of_text] * end_of_text + self.ids_inside(text)
        return seen, ids, check_stride(f'{self.prefix}stride', stride, self.hparams.n_ctx)

    def ids_inside(self, text: str) -> list[int]:
        """Token ids of a text that is to be looked at. Raises UsageError for none."""
        if not isinstance(text, str) or not text:
            raise UsageError(f'the text is {text!r}, expected one of a character or more')
        return self.encoder.encode(text)
