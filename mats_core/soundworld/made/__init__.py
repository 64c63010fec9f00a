"""What makes and measures the shipped model. MATS itself is trained by the jobs, as any other model.

- `build`: CLAP and LLM from scratch, and all measures of a model.
- `spectrograms`: what CLAP hears; `clap`: its pretraining; `last_stage`: CLAP taught on, for order, pitch and rate.
- `pretrain`: tokenizers, and the pretraining of the LLM.
- `text_training`: MATS trained on text in memory, as the ablation needs it many times over.
- `ablation`: no noise, noise, Santa, and the upper bound trained on audio.
- `held_out`: kinds of sound held out of all text, and learnt from sentences.
- `trust`: how far its confidence can be trusted, and what the best of several beams gains; `silence`: what silence does
  to answers.
- `measure`: what the numbers are; `card`: the model card and the table.

Public, to `jobs` alone: `build`, `card`, `held_out`, and of `ablation` `run_ablation`, `run_noise_grid` and its table.
"""
