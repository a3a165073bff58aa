"""The evaluation tasks: each module renders the examples of one kind and names the paper's figure for it."""

from gpt2.evaluation.tasks import (
    cbt,
    coqa,
    lambada,
    language_modelling,
    question_answering,
    summarisation,
    translation,
    winograd,
)

MODULES = (lambada, cbt, language_modelling, coqa, summarisation, translation, winograd, question_answering)
TASKS = {task.name: task for module in MODULES for task in module.TASKS}
