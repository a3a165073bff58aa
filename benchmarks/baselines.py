"""What our code is measured against: the straightforward ways, written for this comparison."""

import math

from gpt2 import encoder as our_encoder
from gpt2 import model
from gpt2.system.tensorflow import tf


class PlainEncoder:
    """Byte-pair encoding rescanned after every merge, with a cache of merged words."""

    def __init__(self, encoder):
        self.ids, self.ranks = encoder.encoder, encoder.bpe_ranks
        self.characters = our_encoder.bytes_to_unicode()
        self.cache = {}

    def merge(self, word):
        if word in self.cache:
            return self.cache[word]
        parts = list(word)
        while len(parts) > 1:
            pairs = our_encoder.get_pairs(parts)
            best = min(pairs, key=lambda pair: self.ranks.get(pair, math.inf))
            if best not in self.ranks:
                break
            merged, index = [], 0
            while index < len(parts):
                if index + 1 < len(parts) and (parts[index], parts[index + 1]) == best:
                    merged.append(parts[index] + parts[index + 1])
                    index += 2
                else:
                    merged.append(parts[index])
                    index += 1
            parts = merged
        self.cache[word] = ' '.join(parts)
        return self.cache[word]

    def encode(self, text):
        ids = []
        for pretoken in our_encoder.PRETOKEN.findall(text):
            word = ''.join(self.characters[byte] for byte in pretoken.encode('utf-8'))
            ids.extend(self.ids[token] for token in self.merge(word).split(' '))
        return ids


def concatenating_attention(x, p, n_head, past):
    """Attention that appends to past [2, batch, heads, m, features / heads] by concatenation."""
    q, k, v = (model.split_heads(part, n_head) for part in tf.split(model.linear(x, p['c_attn']), 3, axis=-1))
    k, v = tf.concat([past[0], k], axis=-2), tf.concat([past[1], v], axis=-2)
    n, m = tf.shape(q)[2], tf.shape(k)[2]
    scores = tf.matmul(q, k, transpose_b=True) / math.sqrt(q.shape[-1])
    weights = tf.nn.softmax(scores + model.attention_mask(n, m, m - n))
    return model.linear(model.merge_heads(tf.matmul(weights, v)), p['c_proj']), tf.stack([k, v])


def concatenating_forward(hparams, params, tokens, past):
    """Logits of the last position, and past [layers, 2, batch, heads, m, features / heads] grown."""
    p, m = params['model'], tf.shape(past)[4]
    x = tf.gather(p['wte'], tokens) + tf.gather(p['wpe'], m + tf.range(tf.shape(tokens)[1]))
    presents = []
    for layer in range(hparams.n_layer):
        block = p[f'h{layer}']
        y = model.norm(x, block['ln_1'])
        change, present = concatenating_attention(y, block['attn'], hparams.n_head, past[layer])
        presents.append(present)
        x += change
        x += model.mlp(model.norm(x, block['ln_2']), block['mlp'])
    return model.logits(params, model.norm(x, p['ln_f'])[:, -1]), tf.stack(presents)


def make_concatenating_sampler(hparams, params, top_k):
    """A graph function: tokens int32 [batch, n + length] after a prompt [batch, n], all in one loop."""
    features = hparams.n_embd // hparams.n_head

    def draw(logits):
        smallest = tf.nn.top_k(logits, top_k).values[:, -1:]
        return tf.random.categorical(tf.where(logits < smallest, -1e10, logits), 1, dtype=tf.int32)

    @tf.function(input_signature=[tf.TensorSpec([None, None], tf.int32), tf.TensorSpec([], tf.int32)])
    def sample(context, length):
        batch = tf.shape(context)[0]
        past = tf.zeros([hparams.n_layer, 2, batch, hparams.n_head, 0, features])
        logits, past = concatenating_forward(hparams, params, context, past)
        token = draw(logits)

        def body(past, token, output):
            logits, past = concatenating_forward(hparams, params, token, past)
            token = draw(logits)
            return past, token, tf.concat([output, token], axis=1)

        growing = tf.TensorShape([hparams.n_layer, 2, None, hparams.n_head, None, features])
        invariants = (growing, tf.TensorShape([None, 1]), tf.TensorShape([None, None]))
        start = (past, token, tf.concat([context, token], axis=1))
        return tf.while_loop(lambda *_: True, body, start, invariants, maximum_iterations=length - 1)[2]

    return sample
