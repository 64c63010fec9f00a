"""Evaluation data sets + model → answers, metrics, a page, a history with a gate; and what changed between two runs.

    run        the whole evaluation: check, answers, scores, gate, page (`run_evaluate`)
    answers    what is asked of the model, by way of the archive's pipelines, and reading it back
    scores     answers → metrics, baselines, the gap between audio and text: what all of these share, as plain data
    suite      data sets that belong together, and tables of ours beside published figures
    records    predictions, metrics.json, rows of the history
    page       results → OUT/report.html
    history    the runs over time: accepted, rejected, pinned
    gate       a run beside the accepted and the pinned one: may it pass?
    differences  the figures of two evaluations, with the interval of each difference
    compare    two runs over the same sounds: which answers changed (`compare_answers`)
    datasets/  what is measured: definitions and readers

Public: `run_evaluate`, `compare_answers`, `History`, `gate`. Jobs import this room, no other room of pipelines does.
"""
