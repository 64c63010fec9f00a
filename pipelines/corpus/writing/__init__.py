"""Records of a clip: text that stands for its sound, and what is asked and answered about it.

records    `write_records`: a clip, its set and a seed → records; what may be said of a clip
captions   sentences about sounds and their order, places and voices; `music`: those about music and notes
questions  questions whose answers follow from labels and their times
patterns   the sentences, to fill
phrases    how a label is said in English, out of the tables in phrases/
timeline   what comes first, together, throughout and how often
llm_writer  an LLM as the writer, asked with instruction.txt; `checks`: what is wrong with what it writes
variety    how much texts vary: shares of patterns, distinct runs of three words
draws      choices that follow from a name alone

Imports `corpus.clips` and `corpus.definition`; `corpus` imports it.
"""
