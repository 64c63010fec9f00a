"""CLAP encoders: text and audio in one space.

    base          what every encoder has (`ClapEncoder`), padding, texts in batches of like length
    clap          `HfClapEncoder`: any `ClapModel` of transformers, LAION's and the embedded one
    msclap        `MsClapEncoder`: Microsoft CLAP 2023
    msclap_files  where Microsoft's weights and tokenizer lie (no torch)
    facts         dimension, sample rate, window, fingerprint before loading; the check of "another encoder" (no torch)
    load          `load_encoder`: the encoder of a URI

Public: `load_encoder`, `HfClapEncoder`, `ClapEncoder`, `facts`. Rooms from `model` up may import it; it knows storage,
devices and weights, not memories, models or settings of jobs.
"""
