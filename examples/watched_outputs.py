"""Training with code snapshot plus output watcher: checkpoints are archived.

Run it in a folder of its own: it writes checkpoints/ and reports/ there.
"""

import json
from pathlib import Path

import flightlog as rn

with rn.init(
    path="cv/resnet50/long-run",
    snapshot_code=True,
) as run:
    run.watch_outputs(
        output_dirs=["./checkpoints", "./reports"],
        patterns=["*.pt", "*.json"],
        interval_sec=15.0,
    )

    for folder in ("checkpoints", "reports"):
        Path(folder).mkdir(exist_ok=True)
    for epoch in range(3):
        loss = 1 / (epoch + 1)
        run.log({"loss": loss})
        Path(f"checkpoints/epoch-{epoch}.pt").write_bytes(b"weights %d" % epoch)
    Path("reports/summary.json").write_text(json.dumps({"loss": loss}))

for output in rn.Api().run(run.path).assets.outputs:
    print(f"{output.key}  {output.size} bytes  {output.mode}")
