"""Distillation (Sanh et al. 2019, section 3): a smaller model, the student, learns what a larger one, the teacher,
expects, not only which token comes. Its layers are some of the teacher's, as DistilGPT2's were.

Imports TensorFlow as it computes.
"""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from gpt2.checkpoints.source import Source
from gpt2.encoder import Encoder
from gpt2.errors import UsageError
from gpt2.hparams import HParams
from gpt2.training.settings import Settings
from gpt2.training.update import TotalLoss
from gpt2.training.update import features as final_features

LAYER = re.compile(r'(?<=^model/h)\d+(?=/)')


def layers(count: int, of: int) -> list[int]:
    """Which of so many layers a student of count layers begins with, as evenly as can be, the first and the last among
    them: of 12 for 6 those of DistilGPT2, 0, 2, 4, 7, 9, 11."""
    return np.linspace(0, of - 1, count).round().astype(int).tolist()


def student(teacher: Source, n_layer: int | None) -> Source:
    """The model that a student begins as: the teacher with n_layer of its layers, by default every second one. Raises
    UsageError."""
    of = teacher.hparams.n_layer
    count = (of + 1) // 2 if n_layer is None else n_layer
    if count > of:
        raise UsageError(f'--n_layer is {count}, and --teacher {teacher.path} has {of} layers; give at most as many')
    chosen = layers(count, of)

    def read(name: str) -> np.ndarray:
        return teacher.read(LAYER.sub(lambda layer: str(chosen[int(layer[0])]), name))

    return dataclasses.replace(teacher, hparams=dataclasses.replace(teacher.hparams, n_layer=count), read=read)


def check_teacher(teacher: Source, hparams: HParams, encoder: Encoder, flags: Mapping[str, Any]) -> None:
    """Raise UsageError for a teacher that a student of hparams and encoder cannot learn from."""
    if not any(flags[name] for name in ('alpha_ce', 'alpha_clm', 'alpha_cos')):
        raise UsageError('--alpha_ce, --alpha_clm and --alpha_cos of 0 leave nothing to learn; give one above 0')
    if not encoder.same_tokens(teacher.vocabulary):
        raise UsageError(
            f'--teacher {teacher.path} has another vocabulary than the model that is trained; give a teacher with the '
            'same tokens'
        )
    if flags['alpha_cos'] and teacher.hparams.n_embd != hparams.n_embd:
        raise UsageError(
            f'--teacher {teacher.path} has {teacher.hparams.n_embd} features, the model that is trained '
            f'{hparams.n_embd}; give --alpha_cos 0'
        )


def make_loss(teacher_hparams: HParams, teacher: dict, settings: Settings) -> TotalLoss:
    """A function like update.total_loss: losses summed over a batch's targets with its weights, a scalar,
    alpha_ce times the KL divergence of the student's probabilities from the teacher's, both softened by the
    temperature, times its square; alpha_clm times the next-token loss; alpha_cos times 1 less the cosine between the
    final features of both. teacher: its parameters, which are not trained."""
    from gpt2.system.tensorflow import tf
    from gpt2.training.gradients import divergence, next_token, vocabulary_loss

    def loss(
        hparams: HParams, params: dict, tokens: Any, weights: Any, starts: Any = None, *, dtype: str = 'float32',
        **how: Any,
    ) -> Any:  # fmt: skip
        theirs = final_features(teacher_hparams, teacher, tokens[:, :-1], starts, dtype=dtype)
        ours = final_features(hparams, params, tokens[:, :-1], starts, dtype=dtype, **how)
        of_teacher = divergence(tf.cast(theirs, dtype), teacher['model']['wte'], settings.temperature)
        of_text = next_token(tokens[:, 1:])

        def losses(logits: Any, part: slice) -> tuple[Any, Any]:
            pairs = zip(of_teacher(logits, part), of_text(logits, part))
            found, gradient = (settings.alpha_ce * one + settings.alpha_clm * other for one, other in pairs)
            return found, gradient

        found = vocabulary_loss(tf.cast(ours, dtype), params['model']['wte'], weights, losses)
        if settings.alpha_cos:
            found += settings.alpha_cos * tf.reduce_sum(weights * (1 - cosine(ours, theirs)))
        return found

    return loss


def cosine(x: Any, y: Any) -> Any:
    """[batch, n] between features [batch, n, n_embd]."""
    from gpt2.system.tensorflow import tf

    return tf.reduce_sum(tf.math.l2_normalize(x, axis=-1) * tf.math.l2_normalize(y, axis=-1), axis=-1)
