"""Records of a clip: text that stands for its sound, and what is asked and answered about it.

Imports `corpus.clips` and `corpus.definition`; `corpus` imports it.
"""
