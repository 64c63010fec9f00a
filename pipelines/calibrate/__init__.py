"""Judged answers + a model → the model's `calibration.json`: what its confidence is worth. No Ray: a few hundred clips.

    judging  what was judged: an evaluation data set, predictions of `mats evaluate`, or a person's table
    run      asks the model again, fits, writes

Public: `run_calibrate`. jobs may import it.
"""
