"""Export a checkpoint for the LiteRT engine."""

from typing import Any

from gpt2.checkpoints.folders import DEFAULT_MODELS_DIR, find_model
from gpt2.checkpoints.source import open_source
from gpt2.commands.flags import MODEL_NAME_HELP, MODELS_DIR_HELP, choice, reject_unknown, show_notices
from gpt2.litert.export import PRECISIONS, exported_file

HELP = f"""\
Export a checkpoint for the LiteRT engine, as models/<name>/litert-<precision>.tflite.

    python src/export_litert.py --model_name 124M --precision int8

The sampling scripts do so by themselves when --engine litert is first used. A file that is there and
belongs to the checkpoint is kept.

{MODEL_NAME_HELP}
--precision P         float32; int8: matrices as integers of 8 bits, one scale a row; or int4: of 4 bits, one scale for
                      32 values. Default: float32
{MODELS_DIR_HELP}
"""


def export_model(
    *extra: str, model_name: str | None = None, precision: Any = 'float32', models_dir: str = DEFAULT_MODELS_DIR,
    **unknown: Any,
) -> None:  # fmt: skip
    reject_unknown(extra, unknown)
    precision = choice('precision', precision, PRECISIONS)
    found = find_model(model_name, models_dir)
    show_notices(filter(None, [found.notice]))
    print(exported_file(open_source(found.path), precision))


export_model.__doc__ = HELP
