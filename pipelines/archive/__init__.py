"""Sounds → manifest, audio embeddings, answers.

    caption        `mats caption`: audio, or audio embeddings → answers
    embed_audio    `mats embed-audio`: audio → audio embeddings
    scan           `mats scan`: audio → manifest
    dry_run        `mats caption --dry-run`: what a run would take, from a measured sample
    run            what caption and embed-audio share: a Job, and run_rows, which brings OUTPUT to its end
    headers        entries of INPUT → manifest rows, from the headers of files
    work_list      the frozen list of what was asked, row by row, and its shards
    presence       whether the files of INPUT are still there
    by_file        an answer a file: its chunks are heard one after the other
    model_spec     what the model actors of a run must know
    decode_stage   the stages that a run begins with: a shard → rows with their sound, or with stored embeddings
    stages         a shard → rows with their sound, or with stored embeddings → answers, or audio embeddings

A uri passes headers, work_list and stages on its way to its answer. Public are run_caption,
run_embed_audio, run_scan and run_dry with their results, and for other pipelines Job and run_rows; jobs and
pipelines/evaluate import them.
"""
