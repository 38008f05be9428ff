"""Opens an exported network without this package, and writes the images of given latent variables."""

import json
import sys
from pathlib import Path

import torch
from transformers import AutoModel

folder = Path(sys.argv[1])
model = AutoModel.from_pretrained(folder / "model", trust_remote_code=True)
torch.save(model.generate(range(3), latents=torch.load(folder / "latents.pt")), folder / "images.pt")
print(json.dumps({"package": "hf_geo" in sys.modules}))
