"""Ways across the gap between audio and text embeddings.

    bridges      Santa and four others behind one `Bridge`, and their settings (no torch until one is used)
    santa        `SantaMemory`: texts searched by cluster, mixed into an audio embedding
    faiss_index  the index inside a memory: clusters, shards, merging on disk
    extend       a memory with further captions
    captions     the texts inside a memory, read within bounds
    noise        noise, for training and keyed by memory row; how much of it pairs of sound and caption ask for

Public: `SantaMemory`, `Bridge`, `SantaSettings`, `BridgeSettings`, `KINDS`, `inject_noise`. Rooms from `model` up may
import it; it knows no model: embeddings go in and come out.
"""
