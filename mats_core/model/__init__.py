"""The MATS model: a CLAP embedding becomes vectors in an LLM's prompt, and the LLM answers.

    hearing    sound → clips, as CLAP hears it; grouped as they are to be asked
    asking     clips → answers: what `mats ask`, the pipelines and Python share
    model      `MatsModel`: embedding → mapper → loss or text; `load_model`
    directory  the model directory: what is in it, where its parts are, writing one (no torch)
    places     where its parts may lie: inside, in the hub, or where the user said (no torch)
    facts      what its files tell of a model, and what is wrong with them (no torch)
    config     what `mats.json` holds (no torch)
    mapper     the network from an embedding to the LLM's vectors
    llm        the LLM with its tokenizer and adapter
    tokens     prompts and answers as token ids, with room for the vectors
    prompts    tasks, their wordings, the prompt template, cleaning up an answer (no torch)
    needs      how much memory a model takes, and whether a GPU has it (no torch)
    release    the authors' checkpoint → a model directory

Public: what `mats_core` exports, `facts`, `prompts`, `config`, `hearing.clips` and `asking.ask_clips` for pipelines.
`training`, `soundworld`, pipelines and jobs may import it.
"""
