"""How the LLM writes: prompts as embeddings in, token ids out.

    generate    one call that answers a batch of prompts, row by row alike
    repetition  the rules against repetition while it writes
    settings    `DecodingSettings` (no torch)

Public: `generate.generate`, `DecodingSettings`. Rooms from `model` up may import it; it knows no tokenizer, no sound.
"""
