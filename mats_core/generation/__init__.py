"""How the LLM writes: prompts as embeddings in, token ids out.

    beam_search  `BeamSearch`, the loop: requests in, answers out, slots refilled while it runs; on CPU and GPU
    beams        the state of all beams and one step of it, as transformers' beam search
    fits         which LLMs the loop is right for
    generate     transformers' own `generate`, for LLMs that the loop does not fit
    graphs       `beam_search` opens the loop, on a GPU with its steps as CUDA graphs; compiled norms and MLPs
    rules        against repetition and early ends
    settings     `DecodingSettings` (no torch)
    slots        how many answers a device has room for (no torch)
    tree_cache   keys and values, a row a prompt, a column a token of a beam
    writer       `Writer`, which answers prompts by the one or the other way; threads share its slots

Public: `Writer`, `Written`, `graphs.beam_search`, `BeamSearch`, `fits`, `choose_slots`, `DecodingSettings`. Rooms from
`model` up may import it; it knows no tokenizer, no sound.
"""
