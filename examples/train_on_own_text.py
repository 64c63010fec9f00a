"""Train a model on sentences of your own; it hears no sound while it learns.

    python examples/train_on_own_text.py SENTENCES.txt WORK [STEPS]

SENTENCES.txt has a caption a line ("Heavy rain on a tin roof."). The four steps are those of `mats embed-text`,
`mats build-memory` and `mats train`; stop when you like, the same command continues. With an LLM and a CLAP of your
own, name them in `LLM` and `ENCODER`, and leave the sizes below out: the defaults are those of the paper.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from mats_core import load_model
from pipelines import run_build_memory, run_embed_text, run_train
from pipelines.train.run import TrainProgress

LLM = ENCODER = "builtin"


def main(sentences: str, work: str, steps: int = 300) -> str:
    folder = Path(work)
    folder.mkdir(parents=True, exist_ok=True)
    lines = dict.fromkeys(line.strip() for line in Path(sentences).read_text(encoding="utf-8").splitlines())
    records = [{"caption": line, "instruction": "", "output": line, "task": "caption"} for line in lines if line]
    corpus = folder / "corpus.jsonl"
    corpus.write_text("".join(f"{json.dumps(record, ensure_ascii=False)}\n" for record in records), encoding="utf-8")

    print(f"{len(records)} sentences: embedding them")
    embeddings = run_embed_text(corpora=[str(corpus)], output=folder / "embeddings", encoder=ENCODER)
    memory = run_build_memory(embeddings=embeddings.output, output=folder / "memory")
    trained = run_train(
        output=folder / "trained",
        llm=LLM,
        encoder=ENCODER,
        embeddings=embeddings.output,
        memory=memory.output,
        data=[{"name": "own", "corpus": str(corpus)}],
        include=["encoder", "llm", "memory"],
        mapper={"kind": "mlp", "vectors": 12, "width": 256},
        validation=len(records) // 10 if len(records) < 640 else 64,
        training={"steps": steps, "batch_size": 16, "learning_rate": 0.004, "warmup_steps": steps // 20},
        progress=tell,
    )
    print(f"{trained.status} after {trained.step} steps: {trained.model}")
    return trained.model


def tell(at: TrainProgress) -> None:
    """Print what a validation on sentences that were held out came to."""
    if at.validated is not None:
        print(f"step {at.step} of {at.steps}: loss {at.validated['validation_loss']:.3f}")


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4):
        sys.exit(__doc__)
    model = load_model(main(sys.argv[1], sys.argv[2], *(int(steps) for steps in sys.argv[3:])))
    print(f"{model}\nAsk it: mats ask SOUND --model {sys.argv[2]}/trained/model")
