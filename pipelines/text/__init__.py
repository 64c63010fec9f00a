"""Text corpora → caption embeddings → Santa's memory.

    embed_text        corpora → one Parquet row a distinct caption (`run_embed_text`)
    caption_buckets   what its workers do: read files, embed a bucket of captions
    build_memory      embeddings → the memory a model searches (`run_build_memory`)
    memory_shards     what its workers do: choose rows, fill a shard of the index
    memory_directory  the shards merged, and put in the place of an older memory
    noise             pairs of sound and caption → how much noise to train with (`run_noise`)

Jobs import `run_embed_text`, `run_build_memory` and `run_noise`; of the other rooms of pipelines only `adapt` does.
"""
