"""Opens a saved language model in a process of its own: FOLDER with|without, and prints what it found as JSON.

"with" imports this package first; "without" never does, and trusts the code that lies beside the weights.
"""

import json
import sys

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, pipeline

folder, package = sys.argv[1:]
if package == "with":
    import hf_geo.models  # noqa: F401 (its import is what is tried)

options = {} if package == "with" else {"trust_remote_code": True}
model = AutoModelForCausalLM.from_pretrained(folder, **options)
tokenizer = AutoTokenizer.from_pretrained(folder, **options)
prompt = tokenizer("the cat", return_tensors="pt")
with torch.no_grad():
    logits = model(**prompt).logits
writer = pipeline("text-generation", model=folder, tokenizer=folder, **options)
written = writer(["the cat", "a dog sees the"], max_new_tokens=4, do_sample=False)
found = {
    "class": f"{type(model).__module__}.{type(model).__name__}",
    "package": "hf_geo" in sys.modules,
    "tied": model.decoder.weight is model.embedding.weight,
    "logits": logits[0, -1].tolist(),
    "written": [texts[0]["generated_text"] for texts in written],
}
print(json.dumps(found))
