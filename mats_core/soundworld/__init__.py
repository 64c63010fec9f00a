"""The embedded world: sounds synthesised from recipes; captions, labels and questions written from the same recipes.

- `kinds`: the kinds of sound and how each is synthesised.
- `recipe`: what is in a clip, drawn by seed; seeds are split by purpose.
- `synth`: recipes and scenes made audible.
- `language`: what is said of a clip, and what a text says of sounds.
- `corpus`: the text corpus that MATS is trained on.
- `archive`: a small, untidy archive of real files for the demo and for tests.
- `hearing`: whether an encoder's sounds and sentences belong together, tried on these sounds.
- `doubts`: questions that a model's card says it answers badly.
- `made`: what makes the shipped model. Nothing here imports it.

Public: all of it, to any layer above. The shipped files lie in `assets`. No torch here, except in `made` and `hearing`.
"""
