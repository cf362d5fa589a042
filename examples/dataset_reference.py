"""Dataset plus pretrained reference: what a run took in is told of, not copied.

Run it in a folder of its own: it writes data/ there.
"""

from pathlib import Path

import flightlog as rn

Path("data/train").mkdir(parents=True, exist_ok=True)
for number in range(3):
    Path(f"data/train/{number}.txt").write_text(f"sample {number}\n")

with rn.init(path="nlp/bert-finetune/base") as run:
    run.log_dataset("train", "./data/train", context="train")
    run.log_pretrained(
        "bert-base-uncased",
        path_or_uri="bert-base-uncased",
        source_type="huggingface",
    )

assets = rn.Api().run(run.path).assets
for asset in (*assets.datasets, *assets.pretrained):
    print(f"{asset.kind} {asset.name}: {asset.uri} {asset.fingerprint}")
