"""From token ids, as they are drawn, to the text of a sample."""

import codecs

from gpt2.encoder import END_OF_TEXT


class Completion:
    """One sample: its ids, its text so far, and why it ended.

    finish_reason is None while it grows, then 'length', 'stop' (a stop text came) or
    'end_of_text'. ids are all that were drawn; text ends before the stop or end-of-text.
    """

    def __init__(self, encoder, number, stop=(), stop_at_end=False):
        self.number = number
        self.ids = []
        self.text = ''
        self.finish_reason = None
        self.encoder = encoder
        self.stop = stop
        self.end_id = encoder.encoder[END_OF_TEXT] if stop_at_end else None
        # A character may be cut between two tokens: its first bytes wait for the others.
        self.decoder = codecs.getincrementaldecoder('utf-8')(encoder.errors)
        self.released = 0

    def add(self, token):
        """Take the next id; one that comes after the sample has ended is passed over."""
        if self.finish_reason:
            return
        self.ids.append(int(token))
        if token == self.end_id:
            self.finish('end_of_text')
        else:
            self.extend(self.decoder.decode(self.encoder.decode_bytes([int(token)])))

    def extend(self, new_text):
        """Append new_text; end before the first stop text, should the whole now hold one."""
        longest = max(map(len, self.stop), default=0)
        start = max(0, len(self.text) - longest + 1)
        self.text += new_text
        found = [index for stop in self.stop if (index := self.text.find(stop, start)) >= 0]
        if found:
            self.text = self.text[: min(found)]
            self.finish_reason = 'stop'

    def finish(self, reason):
        """End the sample unless it has ended; bytes of a character that was cut become U+FFFD."""
        if not self.finish_reason:
            self.extend(self.decoder.decode(b'', final=True))
            self.finish_reason = self.finish_reason or reason

    def new_text(self):
        """Text that can be printed now and was not before: all but what may begin a stop text."""
        end = len(self.text)
        if not self.finish_reason:
            end -= max((overlap(self.text, stop) for stop in self.stop), default=0)
        text = self.text[self.released : end]
        self.released = max(self.released, end)
        return text


def overlap(text, stop):
    """Length of the longest end of text that is a beginning of stop, but not all of it."""
    return next((n for n in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:n])), 0)


def complete(steps, completions):
    """Feed steps, an iterator of one id a row, to the completions until all have ended.

    Yields after every step, so that a caller can print what is new. Stops asking for steps as
    soon as no row needs more.
    """
    for tokens in steps:
        for completion, token in zip(completions, tokens):
            completion.add(token)
        done = all(completion.finish_reason for completion in completions)
        if done:
            break
        yield
    for completion in completions:
        completion.finish('length')
    yield
