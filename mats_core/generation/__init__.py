"""How the LLM writes: prompts as embeddings in, token ids out.

    beam_search  `BeamSearch`, the loop: requests in, answers out, slots refilled while it runs; on CPU and GPU
    beams        the state of all beams and one step of it, as transformers' beam search
    fits         which LLMs the loop is right for
    generate     one call that answers prompts: by the loop, or by transformers' own `generate` where it does not fit
    graphs       `beam_search` opens the loop, on a GPU with its steps as CUDA graphs; compiled norms and MLPs
    rules        against repetition and early ends
    settings     `DecodingSettings` (no torch)
    tree_cache   keys and values, a row a prompt, a column a token of a beam

Public: `generate.generate`, `graphs.beam_search`, `BeamSearch`, `Written`, `fits`, `DecodingSettings`. Rooms from
`model` up may import it; it knows no tokenizer, no sound.
"""
