"""Corpora on disk -> utterances -> batches. This package is code; no corpus lies here (keep those in ``corpora/``).

Read in this order: ``manifest`` (what an utterance is), ``source`` (any corpus -> train, dev and test; its kinds are
``common_voice``, ``folder`` and ``archive``, and ``splits`` holds out dev and test), ``dataset`` (utterance -> samples
and letters), ``samplers`` (which clips share a batch), ``collate`` (items -> ``quartznet.batch.Batch``).
"""
