"""How far an answer can be trusted: what is told of it beside its words, and the chance that it is right.

    scores       log-probability, CLAP's view of the answer, and the signs that a calibration weighs
    calibration  `calibration.json` of a model directory: signs → confidence (numpy alone)
    fitting      judged answers → a calibration, with figures of held-out folds (scikit-learn)

Public: `score_answers`, `Calibration`, `read_calibration`, `fit_calibration`, `Judged`. Rooms from `model` up may
import it; it knows no LLM.
"""
