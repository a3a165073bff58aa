"""Event files, read back as TensorBoard reads them."""

from training_runs import run

from gpt2.system.tensorflow import tf
from gpt2.training.tensorboard import writer


def events(folder):
    """The events of a folder's files, one file after another."""
    files = sorted(str(path) for path in folder.iterdir())
    return [tf.compat.v1.Event.FromString(record) for record in tf.data.TFRecordDataset(files).as_numpy_iterator()]


def shown(folder):
    """{name: [(step, value)]}, of each step what TensorBoard shows after the marks of a new start."""
    found = {}
    for event in events(folder):
        if event.session_log.status == tf.compat.v1.SessionLog.START:
            found = {name: [pair for pair in pairs if pair[0] < event.step] for name, pairs in found.items()}
        for value in event.summary.value:
            text = value.metadata.plugin_data.plugin_name == 'text'
            content = tf.make_ndarray(value.tensor).item().decode() if text else value.simple_value
            found.setdefault(value.tag, []).append((event.step, content))
    return found


def test_a_run_that_goes_on_shows_every_step_once(base):
    how = {'every': 1, 'sample_every': 2, 'sample_prompt': 'The cat', 'tensorboard': str(base / 'board')}
    run(base, 'x', **how, init_from='base', steps=2)
    run(base, 'x', **how, steps=4)
    found = shown(base / 'board' / 'x')
    assert set(found) >= {'loss', 'held_out_loss', 'learning_rate', 'gradient_norm', 'sample'}
    for name in ('loss', 'held_out_loss', 'gradient_norm'):
        assert [step for step, _ in found[name]] == [1, 2, 3, 4] and all(value > 0 for _, value in found[name])
    assert [step for step, _ in found['sample']] == [2, 4] and found['sample'][0][1].startswith('The cat')
    assert events(base / 'board' / 'x')[0].file_version == 'brain.Event:2'


def test_what_came_after_the_last_save_is_shown_once(tmp_path):
    for first, steps in ((0, (1, 2, 3)), (1, (2, 3, 4))):  # the first was killed, its save being after step 1
        write = writer(str(tmp_path / 'x'), first)
        for step in steps:
            write(step, {'loss': first + step / 8})
    assert shown(tmp_path / 'x') == {'loss': [(1, 0.125), (2, 1.25), (3, 1.375), (4, 1.5)]}
