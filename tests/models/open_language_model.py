"""Opens a saved language model by the code beside its weights, in a process without this package; prints JSON."""

import json
import sys

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, pipeline

(folder,) = sys.argv[1:]
model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True)
tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
with torch.no_grad():
    logits = model(**tokenizer("the cat", return_tensors="pt")).logits
writer = pipeline("text-generation", model=folder, tokenizer=folder, trust_remote_code=True)
written = writer(["the cat", "a dog sees the"], max_new_tokens=4, do_sample=False)
found = {
    "class": f"{type(model).__module__}.{type(model).__name__}",
    "package": "hf_geo" in sys.modules,
    "tied": model.decoder.weight is model.embedding.weight,
    "logits": logits[0, -1].tolist(),
    "written": [texts[0]["generated_text"] for texts in written],
}
print(json.dumps(found))
